"""The agent killed in the middle of what it does, and what must hold afterwards.

A way is something that the agent does in steps: a deploy, a rollback, another environment. Its steps are
what the program itself says they are. Wherever the agent is killed, the next one ends what was begun, one
way or the other: every sign names one release, no request was lost, and every write that was acknowledged
is there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flipside_testbed import web
from flipside_testbed.blog import Blog
from flipside_testbed.processes import alive, every_process, wait_for
from flipside_testbed.salted import clean_environment
from flipside_testbed.tools import PYTHON
from flipside_testbed.traffic import EVERYTHING, Traffic, traffic

MOMENTS = ("before", "during", "after")
TRUE = [["true"]]
# As the app's user: root would leave files beside the database that the app cannot write.
LOOK = """
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=30)
fine = db.execute("PRAGMA integrity_check").fetchone()[0]
print(json.dumps([fine, [row[0] for row in db.execute("SELECT body FROM blog_post")]]))
"""


@dataclass(frozen=True)
class Way:
    """Something that the agent does in steps, from one release to another."""

    name: str
    argv: tuple[str, ...]
    source: str | None
    target: str
    fresh: bool = False
    options: dict[str, Any] = field(default_factory=dict)


class Walk:
    """One app whose agent is killed again and again."""

    def __init__(self, blog: Blog, keep: Path) -> None:
        self.blog, self.host = blog, blog.host
        self._keep = keep
        self._specs = keep / "specs"
        self._specs.mkdir(parents=True, exist_ok=True)
        self.v1, self.v2 = blog.published("v1"), blog.published("v2")
        self.log = blog.host.log / "agent.log"
        self.database = blog.host.apps / "blog/data/db.sqlite3"
        self._usual = self._stored_spec()

    def ways(self) -> dict[str, Way]:
        """All that is walked."""
        hooks = {"prepare": TRUE, "check": TRUE, "after": TRUE}
        deploys = {
            "hot": Way("hot", (), self.v1, self.v2, True, {"switch": "hot", "hooks": hooks}),
            "cold": Way("cold", ("--cold",), self.v1, self.v2, False, {}),
            "held": Way("held", (), self.v1, self.v2, False, {"switch": "held", "hooks": hooks}),
            "first": Way("first", (), None, self.v1, True, {"hooks": hooks | {"once": TRUE}}),
        }
        for name, way in deploys.items():
            spec = self._spec(name, way.options)
            argv = ("deploy", "blog", "--release", way.target, "--spec", spec, *way.argv)
            deploys[name] = Way(name, argv, way.source, way.target, way.fresh)
        back = ("rollback", "blog", self.v1)
        return deploys | {
            "rollback": Way("rollback", back, self.v2, self.v1),
            "with-data": Way("with-data", (*back, "--with-data", "--yes"), self.v2, self.v1),
            "env": Way("env", ("env", "apply", "blog", "--file", "-"), self.v1, self.v1),
        }

    def _stored_spec(self) -> dict[str, Any]:
        with sqlite3.connect(self.host.state / "agent.db") as db:
            return json.loads(db.execute("SELECT spec FROM apps WHERE app = 'blog'").fetchone()[0])

    def _spec(self, name: str, options: dict[str, Any]) -> str:
        file = self._specs / f"{name}.json"
        hooks = self._usual["hooks"] | options.get("hooks", {})
        file.write_text(json.dumps(self._usual | options | {"hooks": hooks}))
        return str(file)

    # What is brought about before a kill.

    def prepare(self, way: Way) -> None:
        """Brings the app to where the way begins; the agent runs."""
        if way.source is None:
            self._cli("remove", "blog")
        elif self.host.current("blog") != way.source or way.name == "with-data":
            # The mark that a rollback with data goes back to is that of the deploy before it.
            self._back_to(self.v1)
            if way.source != self.v1:
                self._back_to(way.source)
        else:
            self._back_to(way.source)
        if way.fresh:
            self.forget(way.target)
        if way.name == "first":
            self._forget_once()

    def forget(self, release: str) -> None:
        """Has the release fetched and built anew when it is deployed next."""
        shutil.rmtree(self.host.apps / "blog/releases" / release, ignore_errors=True)

    def _back_to(self, release: str) -> None:
        self._cli("deploy", "blog", "--release", release, "--spec", self._spec("usual", {}))

    def _forget_once(self) -> None:
        self.host.agent.kill()
        with sqlite3.connect(self.host.state / "agent.db") as db:
            db.execute("DELETE FROM kept WHERE name = 'once'")
        self.host.start_agent()

    def _cli(self, *arguments: str, check: bool = True) -> dict[str, Any]:
        done = self.host.cli(*arguments, "--json", "--store", str(self.blog.platform.store), check=check)
        return json.loads(done.stdout.strip().splitlines()[-1])

    def steps(self, way: Way) -> list[str]:
        """The steps of a way, from the program itself."""
        if way.argv[0] == "deploy":
            plan = ("plan", *way.argv[1:], "--steps", "--store", str(self.blog.platform.store))
            return self.host.cli(*plan).stdout.split()
        if way.argv[0] == "rollback":
            return [step["name"] for step in self._cli(*way.argv, "--dry-run")["steps"]]
        process = self.begin(way)
        out, _ = process.communicate(timeout=120)
        return [step["name"] for step in json.loads(out.strip().splitlines()[-1])["steps"]]

    def every_step(self) -> list[str]:
        """All steps that there are, as the agent says where it is asked for one that is not."""
        argv = [str(self.host.root / "bin/flipside-agent"), "--config", str(self.host.config)]
        env = clean_environment() | {"FLIPSIDE_FAULT": "no-such-step:fail"}
        said = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=30, check=False)
        return said.stderr.rpartition("steps: ")[2].strip().strip('"').split()

    def begin(self, way: Way) -> subprocess.Popen[str]:
        """Asks for it, as an operator would."""
        argv = [*self.host.command(), *way.argv, "--json"]
        argv += ["--store", str(self.blog.platform.store)] if way.argv[0] == "deploy" else []
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=clean_environment(),
        )  # fmt: skip
        process.stdin.write(json.dumps({"TURN": str(time.time_ns())}))
        process.stdin.close()
        process.stdin = None
        return process

    # A kill, and what must hold after it.

    def kill_at(self, way: Way, step: str, moment: str, again: str = "", pause: float = 0) -> str:
        """Kills the agent there and starts it again; with `again` that one dies at this fault, too.

        Returns the release that the app has settled on.
        """
        before = self.host.current("blog")
        with self.faulty(f"{step}:hang:{moment}") as injected, self.load(way) as load:
            asked = self.begin(way)
            wait_for(f"{way.name} at {step} {moment}", lambda: injected(asked), 120)
            self.host.agent.kill()
            asked.communicate(timeout=60)
            time.sleep(pause)
            if again:
                self._die_again(again)
            self.host.start_agent()
            settled = self.ended(way, before)
        self.holds(way, settled, load)
        return settled

    def kill_after(self, way: Way, seconds: float, again: float | None, pause: float) -> str:
        """Kills the agent so long after the way was begun, and the next one so long after its start.

        Returns the release that the app has settled on.
        """
        before, known = self.host.current("blog"), self.last()["id"]
        with self.load(way) as load:
            asked = self.begin(way)
            time.sleep(seconds)
            self.host.agent.kill()
            asked.communicate(timeout=60)
            time.sleep(pause)
            if again is not None:
                self._start_unseen()
                time.sleep(again)
                self.host.agent.kill()
            self.host.start_agent()
            settled = self.ended(way, before, known)
        self.holds(way, settled, load)
        return settled

    def _start_unseen(self, fault: str = "") -> int:
        env = clean_environment() | ({"FLIPSIDE_FAULT": fault} if fault else {})
        argv = [str(self.host.root / "bin/flipside-agent"), "--config", str(self.host.config)]
        return self.host.agent.start(argv, self.log, env=env)

    @contextmanager
    def faulty(self, fault: str) -> Iterator[Callable[[subprocess.Popen[str]], bool]]:
        """An agent with a fault; gives what tells whether it was met. It leaves a sound one behind."""
        self.host.agent.kill()
        begun = self.log.stat().st_size
        self.host.start_agent(fault=fault)
        faulty = self.host.agent.pid()

        def injected(asked: subprocess.Popen[str]) -> bool:
            if b"FaultInjected" in self.log.read_bytes()[begun:]:
                return True
            if asked.poll() is not None:
                raise AssertionError(f"it never got there: {asked.communicate()[0]}")
            return False

        try:
            yield injected
        finally:
            if self.host.agent.pid() in (faulty, None):
                self.host.agent.kill()
                self.host.start_agent()

    def _die_again(self, fault: str) -> None:
        begun = self.log.stat().st_size
        pid = self._start_unseen(fault)

        def died_or_ended() -> bool:
            # What was switched is finished, and never comes to its undo.
            return not alive(pid) or b"DeploymentEnded" in self.log.read_bytes()[begun:]

        wait_for(f"the agent to die at {fault}", died_or_ended, 120)
        self.host.agent.kill()
        self.host.agent.forget()

    def harm_at(self, way: Way, step: str, victim: str) -> str:
        """Kills another process than the agent in the middle of a step: a worker, uWSGI's master, the holder
        or the follower. The deploy ends by itself, and the app is served again; what the victim had in hand
        is lost, but nothing that was acknowledged.

        Returns the release that the app has settled on.
        """
        before = self.host.current("blog")
        with self.faulty(f"{step}:pause:during") as injected, self.load(way) as load:
            asked = self.begin(way)
            wait_for(f"{way.name} at {step}", lambda: injected(asked), 120)
            os.kill(self._pid_of(victim), signal.SIGKILL)
            os.kill(self.host.agent.pid() or 0, signal.SIGUSR1)
            out, _ = asked.communicate(timeout=300)
            said = json.loads(out.strip().splitlines()[-1])
            assert said["state"] in ("deployed", "rolled_back"), said
            settled = way.target if said["state"] == "deployed" else (before or "")
            wait_for(f"all of {settled} to serve", lambda: self._serves(settled), 90, every=0.2)
        self.holds(way, settled, load, harmed=True)
        return settled

    def _serves(self, release: str) -> bool:
        workers = self._cli("status", "blog")["data"]["apps"]["blog"]["workers"]
        return len(workers) == 2 and all(one["accepting"] and one["release"] == release for one in workers)

    def _pid_of(self, victim: str) -> int:
        everyone = {stat.pid: stat for stat in every_process()}
        if victim == "follower":
            ours = f"{self.host.root}/bin/flipside-agent\0follow\0--app\0blog"
            names = {pid: Path(f"/proc/{pid}/cmdline") for pid in everyone}
            return next(
                pid for pid, file in names.items() if file.exists() and file.read_text().startswith(ours)
            )
        worker = self._cli("status", "blog")["data"]["apps"]["blog"]["workers"][0]["pid"]
        master = everyone[worker].parent
        return {"worker": worker, "master": master, "holder": everyone[master].parent}[victim]

    def fill_at(self, way: Way, step: str, folder: Path) -> str:
        """Has the file system of `folder` full from the beginning of a step to the end of the way.

        Returns the release that the app has settled on, which it did while the disk was full.
        """
        before = self.host.current("blog")
        with self.faulty(f"{step}:pause:before") as injected, self.load(way, ("--get", "/healthz")) as load:
            asked = self.begin(way)
            wait_for(f"{way.name} at {step}", lambda: injected(asked), 120)
            with full(folder):
                os.kill(self.host.agent.pid() or 0, signal.SIGUSR1)
                out, _ = asked.communicate(timeout=180)
                said = json.loads(out.strip().splitlines()[-1])
                assert said["state"] in ("deployed", "rolled_back"), said
                if said["state"] == "rolled_back":
                    text = json.dumps(said["error"]).lower()
                    clear = ("no space left", "is full", "make room", "mb free")
                    assert any(words in text for words in clear), said["error"]
                settled = way.target if said["state"] == "deployed" else (before or "")
                assert web.versions(self.host, "blog") == {settled}
        # What could not be put on record is, by the next agent.
        assert self._cli("reload", "blog", "--wait", "120")["release"] == settled
        history = self._cli("history", "blog", "-n", "2")["data"]
        assert [entry["state"] for entry in history] == ["ok", said["state"]], history
        self.holds(way, settled, load)
        return settled

    @contextmanager
    def load(self, way: Way, requests: tuple[str, ...] = EVERYTHING) -> Iterator[Traffic]:
        """Reads, writes and uploads while a block runs; none where the app is not there yet."""
        if way.source is None:
            yield Traffic()
            return
        with traffic(self.host.port, "blog.localhost", self._keep / "load", requests, rate=40) as load:
            time.sleep(0.7)  # It is under way before anything else is.
            yield load
            time.sleep(0.3)

    def last(self) -> dict[str, Any]:
        """The newest entry of the app's history."""
        return self._cli("history", "blog", "-n", "1")["data"][0]

    def ended(self, way: Way, before: str | None, known: str = "") -> str:
        """Waits until nothing is under way; the release that it has ended with. `known` is the last entry of
        history from before: where there is no other, nothing was begun."""

        def over() -> dict[str, Any] | None:
            last = self.last()
            lock = self._cli("lock", "status", "blog", check=False)
            idle = not lock["result"] or lock["data"]["lock"] is None
            return last if last["state"] != "running" and idle else None

        last = wait_for(f"the end of {way.name}", over, 180, every=0.1)
        if last["id"] == known:
            return before or ""
        assert last["state"] in ("deployed", "rolled_back"), last
        return way.target if last["state"] == "deployed" else (before or "")

    def holds(self, way: Way, settled: str, load: Traffic, harmed: bool = False) -> None:
        """Every sign names that release, no request failed unless its server was killed, and every
        acknowledged write is there."""
        assert (self.host.current("blog") or "") == settled
        said = self._cli("releases", "blog", check=False)
        if not settled:
            assert not said["result"], said
            return
        assert [one["release"] for one in said["data"] if one["current"]] == [settled], said
        workers = self._cli("status", "blog")["data"]["apps"]["blog"]["workers"]
        assert len(workers) == 2 and {worker["release"] for worker in workers} == {settled}, workers
        assert web.versions(self.host, "blog") == {settled}
        fine, posts = self.look(self.database)
        assert fine == "ok", fine
        if not load.figures:
            return
        assert load.figures["requests"] > 5 and (harmed or load.figures["failed"] == 0), load.figures
        kept = set(posts)
        if (
            way.name == "with-data"
        ):  # What was written before the databases were put back is kept beside them.
            for file in self.database.parent.glob("db.sqlite3.replaced-*"):
                if not file.name.endswith(("-wal", "-shm", "-journal", ".part")):
                    kept |= set(self.look(file)[1])
        lost = set(load.acknowledged) - kept
        assert not lost, (
            f"{len(lost)} of {len(load.acknowledged)} acknowledged writes are gone: {sorted(lost)[:5]}"
        )

    def look(self, database: Path) -> tuple[str, list[str]]:
        """What SQLite says of a database, and its posts."""
        owner = database.stat()
        done = subprocess.run(
            [PYTHON, "-c", LOOK, str(database)], capture_output=True, text=True, check=True, cwd="/",
            user=owner.st_uid, group=owner.st_gid, env={"PATH": "/usr/bin"},
        )  # fmt: skip
        fine, posts = json.loads(done.stdout)
        return fine, posts


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Takes all room of a file system while a block runs."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as out:
            for size in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while out.write(bytes(size)):
                        pass
        yield
    finally:
        filler.unlink(missing_ok=True)
