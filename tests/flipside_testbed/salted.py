"""A private Salt: one master and its minions as plain processes of the user who asks, all under one
folder."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flipside_testbed.places import CHECKOUT, Ports
from flipside_testbed.processes import Process, stop_all, wait_for

# Both wait for a busy machine; nobody is asked to answer sooner.
_SLOW = {"timeout": 60, "gather_job_timeout": 60}


class SaltFailed(RuntimeError):
    """The CLI printed something that is no answer."""


@dataclass(frozen=True)
class Answer:
    """What one `salt` said: each minion's return, and the exit code."""

    returns: dict[str, Any]
    code: int
    text: str

    def one(self) -> Any:
        """The return of the only minion."""
        if len(self.returns) != 1:
            raise SaltFailed(f"expected one return, got {self.text}")
        return next(iter(self.returns.values()))

    def app(self, name: str, minion: str | None = None) -> dict[str, Any]:
        """What became of an app on a minion."""
        found = self.returns.get(minion) if minion else self.one()
        try:
            return found["apps"][name]
        except (KeyError, TypeError):
            raise SaltFailed(f"no word on {name} in {self.text}") from None


class Salted:
    """The master, its minions, and the commands to speak to them."""

    def __init__(self, root: Path, programs: Path, ports: Ports, minions: list[str]) -> None:
        self.root, self.programs, self.minions = root, programs, minions
        self.pillar, self.files, self.store = root / "pillar", root / "files", root / "store"
        self._publish, self._return = ports.free(), ports.free()
        self._user = pwd.getpwuid(os.geteuid()).pw_name
        self._master = root / "master"

    def configure(self, master: dict[str, Any], minions: dict[str, dict[str, Any]]) -> None:
        """Writes the configurations; `master` and `minions` add to what every testbed has."""
        for folder in (self.pillar, self.files, self.store):
            folder.mkdir(parents=True, exist_ok=True)
        self._write(
            self._master,
            "master",
            {
                "interface": "127.0.0.1",
                "publish_port": self._publish,
                "ret_port": self._return,
                "auto_accept": True,
                "worker_threads": 3,
                "file_roots": {"base": [str(self.files)], "flipside": [str(self.store)]},
                "pillar_roots": {"base": [str(self.pillar)]},
                **_SLOW,
                **master,
            },
        )
        for name in self.minions:
            self._write(
                self._minion(name),
                "minion",
                {
                    "id": name,
                    "master": "127.0.0.1",
                    "master_port": self._return,
                    "publish_port": self._publish,
                    "enable_fqdns_grains": False,
                    "enable_gpu_grains": False,
                    "grains_refresh_every": 0,
                    "acceptance_wait_time": 1,
                    "random_startup_delay": 0,
                    "auth_timeout": 20,
                    **minions.get(name, {}),
                },
            )

    def _minion(self, name: str) -> Path:
        return self.root / name / "salt"

    def _write(self, home: Path, kind: str, extra: dict[str, Any]) -> None:
        common = {
            "user": self._user,
            # Salt moves what lies elsewhere below it.
            "root_dir": str(self.root),
            "pki_dir": str(home / "pki"),
            "cachedir": str(home / "cache"),
            "sock_dir": str(home / "sock"),
            "log_file": str(self.logs / f"salt-{home.parent.name if kind == 'minion' else 'master'}.log"),
            "pidfile": str(home / "salt.pid"),
            "log_level_logfile": "info",
        }
        config = home / "conf"
        config.mkdir(parents=True, exist_ok=True)
        # A value in JSON is one in YAML too, and needs no library.
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in (common | extra).items()]
        (config / kind).write_text("".join(lines))

    @property
    def logs(self) -> Path:
        """Where Salt's logs are."""
        return self.root / "log"

    def minion_config(self, name: str) -> Path:
        """The minion's configuration file."""
        return self._minion(name) / "conf/minion"

    def process(self, name: str) -> Process:
        """The process of the master or of a minion."""
        return Process(self.root / "pid" / f"salt-{name}.pid")

    def start(self) -> None:
        """Starts all; returns when every minion answers a ping."""
        self.start_master()
        for name in self.minions:
            self.start_minion(name)
        self.wait_for_minions()

    def start_master(self) -> None:
        """Starts the master."""
        self._start("master", "salt-master", self._master / "conf")

    def start_minion(self, name: str) -> None:
        """Starts one minion, without waiting for it."""
        # A minion that was killed leaves a claim behind, and 3006 takes it for that of a living one.
        for claim in self._minion(name).rglob("process_responsibility_*"):
            claim.unlink()
        self._start(name, "salt-minion", self._minion(name) / "conf")

    def _start(self, name: str, program: str, config: Path) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        argv = [str(self.programs / program), "-c", str(config), "-l", "quiet"]
        self.process(name).start(argv, self.logs / f"salt-{name}.out", env=clean_environment())

    def wait_for_minions(self, seconds: float = 90) -> None:
        """Waits until each minion answers."""
        keys = [self._master / "pki/minions" / name for name in self.minions]
        wait_for("the minions' keys", lambda: all(key.exists() for key in keys), seconds)

        def answered() -> bool:
            # One that was not there yet when it was asked is asked again soon.
            soon = ("timeout=4", "gather_job_timeout=4", "--out=json")
            answer = self.call_master("salt-run", "manage.up", *soon, check=False, seconds=60)
            return all(f'"{name}"' in answer.stdout for name in self.minions)

        wait_for("an answer of every minion", answered, seconds)

    def stop(self) -> None:
        """Ends all."""
        stop_all([self.process(name) for name in [*self.minions, "master"]], patience=2)

    def salt(self, target: str, function: str, *arguments: str, options: tuple[str, ...] = ()) -> Answer:
        """`salt TARGET FUNCTION ARGUMENTS`, read as JSON. Not with `--static`: that loses the exit code."""
        done = self.call_master("salt", "--out=json", *options, target, function, *arguments, check=False)
        return Answer(_objects(done.stdout), done.returncode, done.stdout + done.stderr)

    def run(self, function: str, *arguments: str) -> str:
        """`salt-run`, as it prints."""
        return self.call_master("salt-run", function, *arguments).stdout

    def call_master(
        self, program: str, *arguments: str, check: bool = True, seconds: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One of the master's programs; killed after so many seconds, if any."""
        argv = [str(self.programs / program), "-c", str(self._master / "conf"), *arguments]
        env = clean_environment()
        done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False, timeout=seconds)
        if check and done.returncode != 0:
            raise SaltFailed(f"{shlex.join(argv)} gave {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def command(self, program: str, minion: str | None = None) -> str:
        """One of Salt's programs with its `-c DIR`, to be typed in a shell."""
        config = (self._minion(minion) if minion else self._master) / "conf"
        return shlex.join([str(self.programs / program), "-c", str(config)])

    def write_pillar(self, files: dict[str, Any]) -> None:
        """Replaces the pillar's files; the text of each may be a structure."""
        self.pillar.mkdir(parents=True, exist_ok=True)
        for old in self.pillar.glob("*.sls"):
            if old.name not in files:
                old.unlink()
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content, indent=1)
            aside = self.pillar / f".{name}.new"
            aside.write_text(text + "\n")
            aside.rename(self.pillar / name)


def _objects(text: str) -> dict[str, Any]:
    """The objects that a text holds one after the other, as one."""
    found: dict[str, Any] = {}
    start = text.find("{")
    while start >= 0:
        try:
            one, end = json.JSONDecoder().raw_decode(text, start)
        except json.JSONDecodeError:
            raise SaltFailed(f"not understood: {text}") from None
        found |= one
        start = text.find("{", end)
    return found


def clean_environment() -> dict[str, str]:
    """The caller's environment without what would change the meaning of a test."""
    dropped = ("PYTHON", "FLIPSIDE_", "DJANGO_", "SALT_", "VIRTUAL_ENV", "MAKE", "MFLAGS")
    return {key: value for key, value in os.environ.items() if not key.startswith(dropped)}


def own_files(into: Path) -> None:
    """Copies salt/ to where this master serves it, so that trying things out leaves the checkout clean."""
    shutil.copytree(CHECKOUT / "salt", into, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
