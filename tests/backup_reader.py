"""Restores a backup, written from docs/backup-format.md alone: it shares no code with Flipside.

    python backup_reader.py REPO --identity FILE [--chain ID] [--host-key HEX] [--position N] -o FILE
    python backup_reader.py REPO --identity FILE --media SET [--list ID] -o FOLDER

Needs pyrage, pynacl, zstandard and blake3 from PyPI. Exit code 1 and one line on stderr when anything is not
as the document says; then nothing is written.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import zstandard
from blake3 import blake3
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as decrypt
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.signing import VerifyKey
from pyrage import DecryptError, ssh, x25519
from pyrage import decrypt as age_decrypt

SNAPSHOT = 3
HEADER = struct.Struct(">8sB3xI16sQQIIQ32s24s")
NAME = re.compile(r"L([0-3])/([0-9a-f]{16})-([0-9a-f]{16})")
PART = 4 << 20


class Refused(Exception):
    """Something is not what the document says; the text names it."""


def need(condition: object, what: str) -> None:
    """Refuses unless the condition holds."""
    if not condition:
        raise Refused(what)


@dataclass(frozen=True)
class Header:
    """The clear head of an object."""

    magic: bytes
    level: int
    epoch: int
    chain: bytes
    start: int
    end: int
    part: int
    parts: int
    time: int
    prev: bytes
    nonce: bytes


class Keys:
    """The epochs' keys of one chain or one set, below `root`."""

    def __init__(self, root: Path, identities: list, host_key: str | None) -> None:
        self.root, self.id = root, bytes.fromhex(root.name)
        self.identities, self.host_key = identities, host_key
        self.keys: dict[int, bytes] = {}

    def read(self, name: str) -> bytes:
        """An object's bytes."""
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            raise Refused(f"{name} is missing") from None

    def signed(self, name: str) -> dict:
        """What the host signed; all must be signed by one host."""
        outer = json.loads(self.read(name))
        self.host_key = self.host_key or outer["key"]
        need(outer["key"] == self.host_key, f"{name} is signed by another host")
        try:
            VerifyKey(bytes.fromhex(outer["key"])).verify(outer["body"].encode(), bytes.fromhex(outer["sig"]))
        except BadSignatureError:
            raise Refused(f"the signature of {name} is wrong") from None
        return json.loads(outer["body"])

    def key(self, epoch: int) -> bytes:
        """The key of an epoch, if it is the one that the host signed for."""
        if epoch not in self.keys:
            name = f"epoch/{epoch:08x}"
            try:
                inner = json.loads(age_decrypt(self.read(f"{name}.age"), self.identities))
            except DecryptError as error:
                raise Refused(f"{name}.age cannot be decrypted: {error}") from None
            sealed, said = bytes.fromhex(inner["key"]), self.signed(f"{name}.sig")
            text = b"flipside-backup epoch key 1" + self.id + struct.pack(">I", epoch) + sealed
            need(
                (inner["v"], inner["chain"], inner["epoch"]) == (1, self.root.name, epoch),
                f"{name}.age belongs elsewhere",
            )
            need(
                (said["v"], said["kind"], said["chain"], said["epoch"])
                == (1, "epoch", self.root.name, epoch),
                f"{name}.sig belongs elsewhere",
            )
            need(
                said["commitment"] == blake3(text).hexdigest(),
                f"{name}.age holds another key than was signed",
            )
            self.keys[epoch] = sealed
        return self.keys[epoch]

    def open(self, name: str, level: int, start: int, end: int, part: int) -> tuple[Header, bytes, bytes]:
        """Header, content and all bytes of a part."""
        raw = self.read(name)
        need(len(raw) >= HEADER.size + 16, f"{name} is cut")
        header = Header(*HEADER.unpack_from(raw))
        need(header.magic == b"FLIPBK01" and raw[9:12] == bytes(3), f"{name} is no object")
        place = (header.chain, header.level, header.start, header.end, header.part)
        need(place == (self.id, level, start, end, part), f"{name} belongs elsewhere")
        try:
            body = decrypt(raw[HEADER.size :], raw[: HEADER.size], header.nonce, self.key(header.epoch))
        except CryptoError:
            raise Refused(f"{name} was altered") from None
        return header, body, raw


class Image:
    """A database in memory, and its pages' hashes."""

    def __init__(self) -> None:
        self.page_size = 0
        self.pages: dict[int, bytes] = {}
        self.hashes: dict[int, int] = {}
        self.count = 0

    def state(self) -> int:
        """The sum of the pages' hashes."""
        return sum(self.hashes.values()) % 2**128

    def put(self, number: int, page: bytes) -> None:
        """Sets a page."""
        self.pages[number] = page
        self.hashes[number] = int.from_bytes(blake3(struct.pack(">I", number) + page).digest()[:16], "big")

    def cut(self, count: int) -> None:
        """Drops the pages beyond the count."""
        self.count = count
        for number in [number for number in self.pages if number > count]:
            del self.pages[number], self.hashes[number]

    def bytes(self) -> bytes:
        """The file."""
        zeros = bytes(self.page_size)
        return b"".join(self.pages.get(number, zeros) for number in range(1, self.count + 1))


def apply(image: Image, name: str, body: bytes, blocks_at: int) -> None:
    """The blocks of one part."""
    size = image.page_size
    (blocks,) = struct.unpack_from(">I", body, blocks_at)
    at = blocks_at + 4
    for _ in range(blocks):
        n, whole = body[at], struct.unpack_from(">H", body, at + 1)[0]
        numbers = struct.unpack_from(f">{n}I", body, at + 3)
        (length,) = struct.unpack_from(">I", body, at + 3 + 4 * n)
        frame = body[at + 7 + 4 * n :][:length]
        at += 7 + 4 * n + length
        old = b"".join(image.pages[p] for i, p in enumerate(numbers) if not whole & 1 << i)
        raw = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if old else None
        plain = zstandard.ZstdDecompressor(dict_data=raw).decompress(frame, max_output_size=n * size)
        need(len(plain) == n * size, f"{name}: a block has the wrong size")
        for i, number in enumerate(numbers):
            need(1 <= number <= image.count, f"{name}: page {number} is none of the database's")
            image.put(number, plain[i * size : (i + 1) * size])
    need(at == len(body), f"{name}: something follows the last block")


def play(keys: Keys, image: Image, step: tuple[int, int, int]) -> Image:
    """The database after one object."""
    level, start, end = step
    name = f"L{level}/{start:016x}-{end:016x}"
    header, body, _ = keys.open(name, level, start, end, 0)
    if level != SNAPSHOT:
        for before in keys.root.glob(f"L{level}/*-{start:016x}"):
            need(blake3(before.read_bytes()).digest() == header.prev, f"{name} does not follow {before.name}")
    kind, size, count, base, state, parts = struct.unpack_from(">BII16s16sI", body)
    need(parts == header.parts - 1, f"{name}: the number of its parts is not the number of their hashes")
    if kind == 1:
        image = Image()
        image.page_size = size
    else:
        need(size == image.page_size, f"{name} has another page size")
        need(int.from_bytes(base, "big") == image.state(), f"{name} starts from another state")
    image.cut(count)
    hashes = [body[45 + 32 * i :][:32] for i in range(parts)]
    apply(image, name, body, 45 + 32 * parts)
    for part in range(1, header.parts):
        piece = f"{name}.{part:04x}"
        _, body, raw = keys.open(piece, level, start, end, part)
        need(blake3(raw).digest() == hashes[part - 1], f"{piece} is not the part that was written")
        same = struct.unpack_from(">BII16s", body) == (kind, size, count, base)
        need(same, f"{piece} belongs elsewhere")
        apply(image, piece, body, 45)
    need(image.state() == int.from_bytes(state, "big"), f"{name} leads to another state")
    return image


def objects(root: Path) -> list[tuple[int, int, int]]:
    """All complete objects: level, from, to."""
    names = (NAME.fullmatch(path.relative_to(root).as_posix()) for path in root.glob("L*/*"))
    return [(int(m[1]), int(m[2], 16), int(m[3], 16)) for m in names if m]


def way(all_objects: list[tuple[int, int, int]], target: int) -> list[tuple[int, int, int]]:
    """The shortest way from a snapshot to a position."""
    best: dict[int, list[tuple[int, int, int]]] = {}
    for step in sorted(all_objects, key=lambda step: (step[2], -step[0])):
        level, start, end = step
        before = [] if level == SNAPSHOT else best.get(start)
        if before is not None and (end not in best or len(before) < len(best[end]) - 1):
            best[end] = [*before, step]
    need(target in best, f"nothing in the store leads to position {target}")
    return best[target]


def restore(keys: Keys, position: int | None, time: int | None) -> tuple[int, bytes]:
    """The position, and the database there."""
    found = objects(keys.root)
    need(found, "there is nothing in this chain")
    if time is not None:
        head = lambda o: Header(*HEADER.unpack_from(keys.read(f"L{o[0]}/{o[1]:016x}-{o[2]:016x}")))  # noqa: E731
        ends = [end for level, start, end in found if head((level, start, end)).time <= time]
        need(ends, "the backup begins later")
        position = max(ends)
    target = max(end for _, _, end in found) if position is None else position
    image = Image()
    for step in way(found, target):
        image = play(keys, image, step)
    return target, image.bytes()


def unseal(keys: Keys, kind: str, level: int, ident: str, part: int) -> tuple[Header, bytes]:
    """A part of a blob or of a list."""
    name = f"{kind}/{ident}" + (f".{part:04x}" if part else "")
    header, body, _ = keys.open(name, level, int(ident[:16], 16), int(ident[16:], 16), part)
    if body[0] == 1:
        return header, zstandard.ZstdDecompressor().decompress(body[1:], max_output_size=PART)
    need(body[0] == 0, f"{name} is packed in an unknown way")
    return header, body[1:]


def unescape(text: str) -> bytes:
    """A path's bytes."""
    pieces = re.split(rb"%([0-9a-f]{2})", text.encode())
    return b"".join(bytes.fromhex(p.decode()) if i % 2 else p for i, p in enumerate(pieces))


def restore_media(keys: Keys, ident: str | None, into: Path) -> int:
    """Writes the files of a list (the last one) into a new folder; how many."""
    lists = sorted(path.name for path in keys.root.glob("list/*") if "." not in path.name)
    need(lists, "there is no list in this set")
    ident = ident or lists[-1]
    header, text = unseal(keys, "list", 17, ident, 0)
    text += b"".join(unseal(keys, "list", 17, ident, part)[1] for part in range(1, header.parts))
    said = json.loads(text)
    need(
        (said["v"], said["set"], said["time_ms"]) == (1, keys.root.name, int(ident[:16], 16)),
        "the list belongs elsewhere",
    )

    def place(text: str) -> Path:
        path = unescape(text)
        need(not {b"", b".", b".."} & set(path.split(b"/")), f"{text} leaves the folder")
        return into / os.fsdecode(path)

    into.mkdir()
    for folder in said["folders"]:
        place(folder["path"]).mkdir()
    for file in said["files"]:
        parts = (unseal(keys, "blob", 16, file["blob"], part) for part in range(file["parts"]))
        content = b"".join(plain for header, plain in parts if header.epoch == file["epoch"])
        need(blake3(content).hexdigest() == file["hash"], f"{file['path']} has another content")
        path = place(file["path"])
        path.write_bytes(content)
        path.chmod(file["mode"])
        os.utime(path, ns=(file["mtime_ns"], file["mtime_ns"]))
    for link in said["links"]:
        place(link["path"]).symlink_to(os.fsdecode(unescape(link["target"])))
    for folder in reversed(said["folders"]):
        place(folder["path"]).chmod(folder["mode"])
    return len(said["files"])


def identities(path: Path) -> list:
    """What an identity file holds."""
    text = path.read_text()
    lines = [line for line in text.splitlines() if line.startswith("AGE-SECRET-KEY-1")]
    return [x25519.Identity.from_str(line) for line in lines] or [ssh.Identity.from_buffer(text.encode())]


def main() -> int:
    """Restores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repo", type=Path)
    parser.add_argument("--identity", type=Path, required=True)
    parser.add_argument("--chain", help="needed when the store holds several")
    parser.add_argument("--host-key")
    parser.add_argument("--position", type=int)
    parser.add_argument("--time", type=int, metavar="MS")
    parser.add_argument("--media", metavar="SET")
    parser.add_argument("--list")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    try:
        if args.media:
            keys = Keys(args.repo / "media" / args.media, identities(args.identity), args.host_key)
            print(f"{restore_media(keys, args.list, args.output)} files")
            return 0
        chains = [path.name for path in args.repo.iterdir() if re.fullmatch("[0-9a-f]{32}", path.name)]
        need(args.chain or len(chains) == 1, f"say --chain: there are {', '.join(sorted(chains)) or 'none'}")
        keys = Keys(args.repo / (args.chain or chains[0]), identities(args.identity), args.host_key)
        position, database = restore(keys, args.position, args.time)
        args.output.write_bytes(database)
        print(f"position {position}, {len(database)} bytes")
        return 0
    except Refused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
