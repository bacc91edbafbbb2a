"""Bytes and times of a database's backup, beside restic and borg on the same file in the same run; and what
following costs an app that writes. `DB=FILE` measures on a copy of any database with a table that has rowids;
`MIB=1024` makes a larger one than 100 MiB. The peers are release builds; `RELEASE=1` makes ours one too, in
some minutes."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.rows import Row, row
from flipside_testbed import build, places, tools

PROGRAMS = {"restic": "restic", "borg": "borgbackup"}
ROUNDS = 3
WRITING = 3.0
# How an app writes: SQLite's `synchronous`, and commits a second (0: as many as it can).
PACES = {"FULL": 0, "NORMAL": 300}
RELEASE = bool(os.environ.get("RELEASE"))
BUILD = "" if RELEASE else " (ours a debug build)"


@dataclass
class Figures:
    """What one subject needed, by case: seconds, seconds of CPU, and bytes."""

    seconds: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)


def rows() -> list[Row]:
    """All figures."""
    install()
    with tempfile.TemporaryDirectory(prefix="flipside-bench-", dir="/var/tmp") as name:
        root = Path(name)
        built(root / "bin")
        database = root / "app.db"
        table = make(database)
        copy = root / "copy.db"
        copied(database, copy)
        peers = {"restic": Restic(root, copy), "borg": Borg(root, copy)}
        ours = Ours(root, database)
        figures = {name: Figures() for name in ["flipside", *peers]}
        for name, peer in {**peers, "flipside": ours}.items():
            measured(figures[name], "full", peer, peer.store)
        with ours.watching():
            for case, share in {"100 rows": None, "1 % of the rows": 0.01}.items():
                before = ours.position()
                change(database, table, share)
                measured(figures["flipside"], case, ours, lambda seen=before: ours.stored_after(seen))
                copied(database, copy)
                for name, peer in peers.items():
                    measured(figures[name], case, peer, peer.store)
        for name, peer in {**peers, "flipside": ours}.items():
            out = root / f"restored-{name}"
            measured(figures[name], "restore", peer, lambda peer=peer, out=out: peer.restore(out))
            same(database, peer.file_in(out), table)
        return [*compared(figures), *loss(ours, root, database)]


def compared(figures: dict[str, Figures]) -> Iterator[Row]:
    """Ours beside each peer."""
    ours = figures.pop("flipside")
    for case in ours.seconds:
        for name, peer in figures.items():
            if case != "restore":
                theirs = peer.stored[case]
                yield row(case, "bytes", "bytes", [ours.stored[case]], (name, [theirs]), most=theirs)
            if case in ("full", "restore"):
                yield row(case, f"time{BUILD}", "s", [ours.seconds[case]], (name, [peer.seconds[case]]))
                theirs = peer.cpu[case]
                yield row(case, f"CPU{BUILD}", "s", [ours.cpu[case]], (name, [theirs]), most=theirs)
            else:
                theirs = peer.seconds[case]
                yield row(
                    case, "time until stored; the RPO is 1 s", "s", [ours.seconds[case]], (name, [theirs])
                )


def measured(figures: Figures, case: str, subject: Subject, act: Callable[[], object]) -> None:
    """Times `act` and counts what the store grew by."""
    before, began, used = size_of(subject.repo), time.monotonic(), cpu()
    act()
    figures.seconds[case] = time.monotonic() - began
    figures.cpu[case] = cpu() - used
    figures.stored[case] = size_of(subject.repo) - before


def cpu() -> float:
    """The seconds of CPU of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Subject:
    """What stores and restores one file."""

    def __init__(self, root: Path, database: Path) -> None:
        self.root, self.database = root, database
        self.repo = root / f"repo-{type(self).__name__}"
        self.env = os.environ | {
            "RESTIC_PASSWORD": "x",
            "RESTIC_CACHE_DIR": str(root / "restic-cache"),
            "BORG_PASSPHRASE": "x",
            "BORG_BASE_DIR": str(root / "borg-base"),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }

    def run(self, *argv: object, cwd: Path | None = None) -> str:
        """Runs a program that must succeed."""
        words = [str(word) for word in argv]
        done = subprocess.run(words, env=self.env, cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")
        return done.stdout

    def store(self) -> None:
        """Stores the file as it is."""
        raise NotImplementedError

    def restore(self, out: Path) -> None:
        """Restores the newest state below `out`."""
        raise NotImplementedError

    def file_in(self, out: Path) -> Path:
        """Where that put the database."""
        return out / self.database.relative_to("/")


class Restic(Subject):
    """restic, which encrypts and deduplicates chunks."""

    def store(self) -> None:
        """A snapshot of the file."""
        if not self.repo.exists():
            self.run("restic", "-q", "-r", self.repo, "init")
        self.run("restic", "-q", "-r", self.repo, "backup", self.database)

    def restore(self, out: Path) -> None:
        """The last snapshot."""
        self.run("restic", "-q", "-r", self.repo, "restore", "latest", "--target", out)


class Borg(Subject):
    """borg, likewise."""

    def store(self) -> None:
        """An archive of the file."""
        if not self.repo.exists():
            self.run("borg", "init", "-e", "repokey-blake2", self.repo)
        self.run("borg", "create", f"{self.repo}::{time.monotonic_ns()}", self.database)

    def restore(self, out: Path) -> None:
        """The last archive."""
        out.mkdir()
        last = self.run("borg", "list", "--last", "1", "--short", self.repo).strip()
        self.run("borg", "extract", f"{self.repo}::{last}", cwd=out)


class Ours(Subject):
    """flipside backup."""

    def __init__(self, root: Path, database: Path) -> None:
        super().__init__(root, database)
        self.flipside = root / "bin/flipside"
        self.where = ["--repo", self.repo, "--state", root / "state"]
        identity = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
        (root / "identity").write_text(identity)
        self.recipient = identity.split("# public key: ")[1].split()[0]
        self.safe = 0

    def store(self) -> None:
        """A full backup."""
        self.run(self.flipside, "backup", "init", *self.where, "--recipient", self.recipient)
        self.run(self.flipside, "backup", "run", *self.where, self.database)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A follower meanwhile."""
        argv = [self.flipside, "--json", "backup", "watch", *self.where, "--rpo", "1", self.database]
        words = [str(word) for word in argv]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, env=self.env, text=True)
        try:
            self.status = self.next_status()
            yield
        finally:
            self.process.terminate()
            self.process.communicate(timeout=60)

    def next_status(self) -> dict:
        """The follower's next line."""
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the follower ended")
        return json.loads(line)

    def position(self) -> int:
        """What the store has."""
        return self.status["safe"]

    def stored_after(self, position: int) -> None:
        """Waits until a later position is stored."""
        while self.status["safe"] <= position:
            self.status = self.next_status()

    def restore(self, out: Path) -> None:
        """The newest state."""
        out.mkdir()
        words = ["--identity", self.root / "identity", "-o", out / "app.db"]
        self.run(self.flipside, "backup", "restore", *self.where, *words)

    def file_in(self, out: Path) -> Path:
        """The restored file."""
        return out / "app.db"


def loss(ours: Ours, root: Path, database: Path) -> list[Row]:
    """Rows a second that an app writes, alone and followed, in turn."""
    scratch = root / "written.db"
    with closing(sqlite3.connect(scratch)) as app:
        app.execute("PRAGMA journal_mode=wal")
        app.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT)")
    ours.database, ours.repo = scratch, root / "repo-written"
    ours.where = ["--repo", ours.repo, "--state", root / "state"]
    ours.store()
    found = []
    for mode, pace in PACES.items():
        alone, followed = [], []
        for _ in range(ROUNDS):
            alone.append(rate(scratch, mode, pace))
            with ours.watching():
                followed.append(rate(scratch, mode, pace))
        lost = [100 * (1 - with_it / without) for with_it, without in zip(followed, alone, strict=True)]
        case = f"commits, synchronous={mode}, " + (f"{pace:g} a second" if pace else "as fast as it can")
        found.append(row(case, f"rate while followed{BUILD}", "commits/s", followed, ("alone", alone)))
        found.append(row(case, "rate lost to the follower", "%", lost, most=5))
    return found


def rate(path: Path, mode: str, pace: float) -> float:
    """Commits a second, of at most `pace`."""
    text, count, began = "x" * 200, 0, time.monotonic()
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as app:
        app.execute(f"PRAGMA synchronous={mode}")
        while (now := time.monotonic()) < began + WRITING:
            if pace and count > (now - began) * pace:
                time.sleep(0.0005)
                continue
            app.execute("INSERT INTO t(x) VALUES (?)", (text,))
            count += 1
    return count / WRITING


def built(into: Path) -> None:
    """The command line, in its place."""
    if not RELEASE:
        build.binaries(into)
        return
    argv = ["cargo", "build", "--release", "--workspace", "--bins", "--locked"]
    subprocess.run(argv, cwd=places.CHECKOUT, check=True, stderr=subprocess.DEVNULL)
    into.mkdir()
    shutil.copy2(places.CHECKOUT / "target/release/flipside", into / "flipside")


def make(path: Path) -> str:
    """The database that is measured on; returns the table to change."""
    if given := os.environ.get("DB"):
        with closing(sqlite3.connect(given)) as source, closing(sqlite3.connect(path)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=wal")
            names = [name for (name,) in copy.execute("SELECT name FROM sqlite_schema WHERE type='table'")]
            tables = [name for name in names if not name.startswith("sqlite_")]
            return max(tables, key=lambda name: copy.execute(f'SELECT count(*) FROM "{name}"').fetchone())
    chance = random.Random(1)
    wanted = int(os.environ.get("MIB", "100")) << 20
    with closing(sqlite3.connect(path)) as app:
        app.execute("PRAGMA journal_mode=wal")
        app.execute("CREATE TABLE post(id INTEGER PRIMARY KEY, author INT, at REAL, body TEXT)")
        app.execute("CREATE INDEX post_author ON post(author)")
        while app.execute("PRAGMA page_count").fetchone()[0] * 4096 < wanted:
            posts = ((chance.randrange(5000), time.time(), chance.randbytes(300).hex()) for _ in range(5000))
            app.executemany("INSERT INTO post(author, at, body) VALUES (?, ?, ?)", posts)
            app.commit()
        app.execute("PRAGMA wal_checkpoint(truncate)")
    return "post"


def change(path: Path, table: str, share: float | None) -> None:
    """Updates 100 rows, or a share of all, here and there."""
    with closing(sqlite3.connect(path, timeout=30)) as app:
        last = app.execute(f'SELECT max(rowid) FROM "{table}"').fetchone()[0]
        column = app.execute(f'SELECT name FROM pragma_table_info("{table}") ORDER BY pk, cid').fetchone()[0]
        chosen = random.Random(2).sample(
            range(1, last + 1), min(last, 100 if share is None else int(last * share))
        )
        # Every row is written again with something else in one column.
        sql = f'UPDATE "{table}" SET "{column}" = random() % 5000 WHERE rowid = ?'
        app.executemany(sql, ((number,) for number in chosen))
        app.commit()


def same(database: Path, restored: Path, table: str) -> None:
    """The restored database holds what the live one does."""
    sql = f'SELECT rowid, * FROM "{table}" ORDER BY rowid'
    with closing(sqlite3.connect(database)) as live, closing(sqlite3.connect(restored)) as copy:
        pairs = zip(live.execute(sql), copy.execute(sql), strict=True)
        if any(one != other for one, other in pairs):
            raise RuntimeError(f"{restored} is not what was stored")


def copied(database: Path, copy: Path) -> None:
    """A consistent copy, which the peers need and which costs them no time here: they know no log."""
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def install() -> None:
    """The peers and age's own key generator, from Debian."""
    wanted = [
        package for program, package in {**PROGRAMS, "age-keygen": "age"}.items() if not shutil.which(program)
    ]
    if not wanted:
        return
    argv = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *wanted]
    if os.geteuid() != 0:
        raise tools.Missing(f"not installed; as root: {' '.join(argv)}")
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL)
