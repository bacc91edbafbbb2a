"""The peers of the bus bench, run by Salt's own Python: `bus_peer.py MODE CONFIG PREFIX [RATE COUNT]`.

`fire` writes COUNT events at RATE a second, and then the last one. `salt` takes them as Salt's own programs
do, `raw` as the least that Python can do: both say `ready`, and at the end how long each event took and their
CPU time.
"""

from __future__ import annotations

import hashlib
import json
import resource
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import salt.config
import salt.utils.event

PAD = "x" * 180
SLICE = 0.005


def connect(opts: dict[str, Any], end: str) -> socket.socket:
    """One of the two sockets of the minion's bus."""
    name = hashlib.new(opts["hash_type"], opts["id"].encode()).hexdigest()[:10]
    to = socket.socket(socket.AF_UNIX)
    to.connect(str(Path(opts["sock_dir"]) / f"minion_event_{name}_{end}.ipc"))
    return to


def fire(opts: dict[str, Any], prefix: str, rate: int, count: int) -> None:
    """Writes events, evenly."""
    pull = connect(opts, "pull")

    def write(tag: str, data: dict[str, Any]) -> None:
        body = tag.encode() + b"\n\n" + msgpack.packb(data)
        frame = msgpack.packb({"head": {}, "body": body})
        # Both releases that are measured take a length first.
        pull.sendall(len(frame).to_bytes(4, "big") + frame)

    begun, fired = time.monotonic(), 0
    while fired < count:
        due = min(count, int((time.monotonic() - begun) * rate) + 1)
        for number in range(fired, due):
            write(prefix + "event", {"n": number, "t": time.time_ns(), "pad": PAD, "_stamp": "now"})
        fired = due
        time.sleep(SLICE)
    # A slow consumer is still at it; it has a moment before the end.
    write(prefix + "end", {"_stamp": "now"})


def by_salt(opts: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Events as Salt's own consumer gives them."""
    with salt.utils.event.get_event("minion", opts=opts, listen=True) as bus:
        bus.connect_pub()
        print("ready", flush=True)
        while True:
            event = bus.get_event(wait=1, tag=prefix, full=True)
            if event is not None:
                yield event["tag"], event["data"]


def by_hand(opts: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Events as read from the socket, in either framing."""
    publish, wanted = connect(opts, "pub"), prefix.encode()
    print("ready", flush=True)
    for frame in frames(publish):
        body = frame["body"]
        if body.startswith(wanted):
            tag, _, data = body.partition(b"\n\n")
            yield tag.decode(), msgpack.unpackb(data)


def frames(publish: socket.socket) -> Iterator[dict[str, Any]]:
    """The maps in the stream."""
    chunk = publish.recv(65536)
    if chunk[0] >= 0x80:
        unpacker = msgpack.Unpacker()
        while True:
            unpacker.feed(chunk)
            yield from unpacker
            chunk = publish.recv(65536)
    buffer = chunk
    while True:
        while len(buffer) > 4 and len(buffer) >= (end := 4 + int.from_bytes(buffer[:4], "big")):
            yield msgpack.unpackb(buffer[4:end])
            buffer = buffer[end:]
        buffer += publish.recv(65536)


def measure(events: Iterator[tuple[str, dict[str, Any]]], last: str) -> dict[str, Any]:
    """How long each event took, until the last one."""
    took: list[int] = []
    before = None
    for tag, data in events:
        if before is None:
            before = resource.getrusage(resource.RUSAGE_SELF)
        if tag == last:
            break
        took.append((time.time_ns() - data["t"]) // 1000)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"us": took, "cpu": cpu}


def main() -> None:
    """One mode."""
    mode, config, prefix, *numbers = sys.argv[1:]
    opts = salt.config.minion_config(config)
    if mode == "fire":
        fire(opts, prefix, int(numbers[0]), int(numbers[1]))
    else:
        events = by_salt(opts, prefix) if mode == "salt" else by_hand(opts, prefix)
        print(json.dumps(measure(events, prefix + "end")))


if __name__ == "__main__":
    main()
