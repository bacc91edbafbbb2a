"""Processes that outlive whoever started them, and that are ended by nobody else.

Each is a session of its own. Its pid file holds the number and nothing else, for scripts; beside it lies the
start time from /proc, so that a number which the kernel gave to somebody else in the meantime is never
signalled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class NotSo(RuntimeError):
    """A condition that did not come about in time."""


def wait_for(what: str, condition: Callable[[], T], seconds: float = 30, every: float = 0.05) -> T:
    """What `condition` gives once it is true; `NotSo` when that takes too long."""
    end = time.monotonic() + seconds
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > end:
            raise NotSo(f"not within {seconds:g} s: {what}")
        time.sleep(every)


@dataclass(frozen=True)
class Process:
    """One of them, known by its pid file."""

    pid_file: Path

    @property
    def _stamp(self) -> Path:
        return self.pid_file.with_suffix(".started")

    def start(self, argv: list[str], log: Path, env: Mapping[str, str] | None = None) -> int:
        """Starts it, detached; what it prints is appended to `log`."""
        if self.pid() is not None:
            raise NotSo(f"{argv[0]} runs already ({self.pid_file})")
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=env,
                start_new_session=True,
                cwd="/",
            )
        self._stamp.write_text(f"{started(child.pid)}\n")
        self.pid_file.write_text(f"{child.pid}\n")
        child.returncode = 0  # It is not waited for here: `alive` reaps it.
        return child.pid

    def pid(self) -> int | None:
        """Its number while it lives."""
        try:
            pid, stamp = int(self.pid_file.read_text()), self._stamp.read_text().strip()
        except (FileNotFoundError, ValueError):
            return None
        return pid if alive(pid) and started(pid) == stamp else None

    def kill(self) -> None:
        """Kills it as `kill -9` does, it alone; returns when it is gone."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            wait_for(f"end of {pid}", lambda: not alive(pid), seconds=10, every=0.01)

    def forget(self) -> None:
        """Removes the pid file of one that has ended."""
        self.pid_file.unlink(missing_ok=True)
        self._stamp.unlink(missing_ok=True)

    def stop(self, patience: float = 5) -> None:
        """Ends it and its session: TERM, then KILL."""
        stop_all([self], patience)


def end_sessions(leaders: list[int], patience: float) -> None:
    """TERM to each leader's group and, after `patience` seconds, KILL to all that is left of their
    sessions."""

    def left() -> list[int]:
        return [pid for leader in leaders for pid in members(leader)]

    for leader in leaders:
        _signal_group(leader, signal.SIGTERM)
    try:
        wait_for(f"end of the sessions {leaders}", lambda: not left(), patience)
    except NotSo:
        for pid in left():
            _signal(pid, signal.SIGKILL)
        wait_for(f"end of the sessions {leaders}", lambda: not left(), 10)


def stop_all(processes: list[Process], patience: float = 3) -> None:
    """Ends several at once."""
    end_sessions([pid for process in processes if (pid := process.pid()) is not None], patience)
    for process in processes:
        process.forget()


def members(session: int) -> list[int]:
    """The living processes of a session."""
    return [stat.pid for stat in every_process() if stat.session == session and alive(stat.pid)]


def alive(pid: int) -> bool:
    """Whether it runs. A dead child of ours is reaped on the way; another's dead child counts as dead, but
    not while threads of it are left, for they hold its files and locks."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        stat = _stat(pid)
        return stat is not None and (stat.state not in "ZX" or _threads(pid) > 1)


def _threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except FileNotFoundError:
        return 0


def started(pid: int) -> str | None:
    """When it started, in the kernel's ticks since boot: with the pid, the identity of a process."""
    stat = _stat(pid)
    return stat.started if stat else None


def _numbers(pid: int) -> list[str]:
    """Its number in each PID namespace that it is in, from ours to a container's."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])


@dataclass(frozen=True)
class Stat:
    """Of /proc/<pid>/stat what is used here."""

    pid: int
    name: str
    state: str
    parent: int
    session: int
    started: str


def every_process() -> Iterator[Stat]:
    """All that runs on this machine."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            stat = _stat(int(entry.name))
            if stat is not None:
                yield stat


def _stat(pid: int) -> Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name is in parentheses and may hold anything, so count from the last one.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Stat(pid, head.partition("(")[2], fields[0], int(fields[1]), int(fields[3]), fields[19])


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _signal_group(leader: int, number: int) -> None:
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        pass


def stragglers(root: Path) -> list[int]:
    """Sessions of `root` that no pid file of ours names: a holder leads its own, with its program below
    `root`; workers that outlived their holder name `root` in their arguments, and their session has no
    leader, or is a container's."""
    found = set()
    for stat in every_process():
        try:
            program = Path(os.readlink(f"/proc/{stat.pid}/exe").removesuffix(" (deleted)"))
            arguments = Path(f"/proc/{stat.pid}/cmdline").read_text(errors="replace")
            contained = len(_numbers(stat.pid)) > 1
        except OSError:
            continue
        leads = stat.session == stat.pid and program.is_relative_to(root)
        left = f"{root}/" in arguments and (contained or not alive(stat.session))
        if leads or left:
            found.add(stat.session)
    return sorted(found)
