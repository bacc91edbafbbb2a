"""One host of a testbed: the agent of a minion with its own nginx, memcached and folders."""

from __future__ import annotations

import grp
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from flipside_testbed import tools, users
from flipside_testbed.places import CHECKOUT, Ports, is_root
from flipside_testbed.processes import Process, alive, end_sessions, stragglers, wait_for
from flipside_testbed.salted import clean_environment

WEB_GROUP = "www-data"


class Host:
    """The files and processes of a minion's host. Paths are short: some are of sockets."""

    def __init__(self, root: Path, name: str, ports: Ports, minion_config: Path) -> None:
        self.root, self.name = root, name
        self.home = root / name
        self.port, self._memcached_port = ports.free(), ports.free()
        self._minion_config = minion_config
        self.apps, self.state, self.run = self.home / "apps", self.home / "state", self.home / "run"
        self.log = root / "log" / name
        self.socket = self.run / "agent.sock"
        self.config = self.home / "agent.toml"
        self.nginx_home = self.home / "nginx"
        self.agent = Process(root / "pid" / f"agent-{name}.pid")
        self._memcached = Process(root / "pid" / f"memcached-{name}.pid")
        self._nginx = Process(root / "pid" / f"nginx-{name}.pid")
        # Everybody knows this identity: it is of the example repositories.
        self.backups = self.home / "backups"
        self.identity = CHECKOUT / "tests/backup_examples/identity.txt"
        # What agent.toml has besides.
        self.settings: dict[str, Any] = {}
        self.extra: dict[str, Any] = {
            "backup": {
                "repo": str(self.backups),
                "recipients": [self.identity.read_text().split("public key: ")[1].split()[0]],
                "identity_file": str(self.identity),
            }
        }

    @property
    def url(self) -> str:
        """Where its nginx listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def memcached(self) -> str:
        """Where its memcached listens."""
        return f"127.0.0.1:{self._memcached_port}"

    def pillar(self) -> dict[str, Any]:
        """`flipside:host` of this minion: everything is elsewhere than on a machine of its own."""
        agent = {"config": str(self.config), "manage": False, "minion_config": str(self._minion_config)}
        nginx = {
            "conf": str(self.nginx_home / "nginx.conf"),
            "sites": str(self.nginx_home / "sites"),
            "bin": tools.program("nginx"),
            "listen": f"127.0.0.1:{self.port}",
            "pid": str(self.nginx_home / "nginx.pid"),
            "service": False,
            "url": self.url,
            "access_log": str(self.log / "nginx-access.log"),
            "error_log": str(self.log / "nginx-error.log"),
            "temp": str(self.nginx_home / "temp"),
        }
        return {
            "socket": str(self.socket),
            "apps_dir": str(self.apps),
            "state_dir": str(self.state),
            "run_dir": str(self.run),
            "log_dir": str(self.log),
            "uv": str(tools.uv()),
            "users": is_root(),
            "port": self.port,
            "agent": agent,
            "nginx": nginx,
            "memcached": {"address": self.memcached, "service": False},
        }

    def prepare(self) -> None:
        """Makes the folders, the build user and the agent's configuration."""
        for folder in (self.apps, self.run, self.log, self.nginx_home / "sites", self.nginx_home / "temp"):
            folder.mkdir(parents=True, exist_ok=True)
        self.state.mkdir(mode=0o700, exist_ok=True)
        shutil.copy2("/etc/nginx/mime.types", self.nginx_home / "mime.types")
        if is_root():
            _build_user()
        self.configure()

    def configure(self) -> None:
        """Writes agent.toml."""
        top: dict[str, Any] = {
            "id": self.name,
            "apps_dir": str(self.apps),
            "state_dir": str(self.state),
            "run_dir": str(self.run),
            "log_dir": str(self.log),
            "socket": str(self.socket),
            "uv": str(tools.uv()),
            "python": tools.PYTHON,
            "nginx": self.url,
            "memcached": self.memcached,
        }
        if is_root():
            top |= {"build_user": users.BUILD_USER, "web_group": WEB_GROUP}
        top |= self.settings
        tables = {"salt": {"minion_config": str(self._minion_config)}} | self.extra
        # JSON's strings and numbers are TOML's too.
        lines = [f"{key} = {json.dumps(value)}" for key, value in top.items()]
        for name, table in tables.items():
            lines += ["", f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        self.config.write_text("\n".join(lines) + "\n")

    def start_memcached(self) -> None:
        """Starts memcached, as nobody when we are root."""
        user = ["-u", "nobody"] if is_root() else []
        argv = [
            tools.program("memcached"),
            "-l",
            "127.0.0.1",
            "-p",
            str(self._memcached_port),
            "-U",
            "0",
            "-m",
            "16",
            *user,
        ]
        self._memcached.start(argv, self.log / "memcached.log")

    def start_nginx(self) -> None:
        """Starts nginx on the configuration that Salt has written."""
        argv = [tools.program("nginx"), "-c", str(self.nginx_home / "nginx.conf"), "-g", "daemon off;"]
        self._nginx.start(argv, self.log / "nginx.out")
        wait_for(f"nginx of {self.name}", lambda: (self.nginx_home / "nginx.pid").exists(), 10)

    def start_agent(self, fault: str | None = None) -> None:
        """Starts the agent, and waits until it answers; with `fault` it only has to start."""
        env = clean_environment() | {"RUST_BACKTRACE": "1"}
        if fault:
            env["FLIPSIDE_FAULT"] = fault
        argv = [str(self.root / "bin/flipside-agent"), "--config", str(self.config)]
        pid = self.agent.start(argv, self.log / "agent.log", env=env)

        def ready() -> bool:
            if not alive(pid):
                raise RuntimeError(f"the agent of {self.name} ended:\n{tail(self.log / 'agent.log')}")
            return self.cli("ping", check=False).returncode == 0

        wait_for(f"the agent of {self.name}", ready, 30)

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The command line, against this host's agent."""
        argv = [*self.command(), *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, env=clean_environment(), check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)} gave {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def command(self) -> list[str]:
        """The command line with what it needs here."""
        return [str(self.root / "bin/flipside"), "--socket", str(self.socket)]

    def processes(self) -> list[Process]:
        """Those that end with the testbed, apart from the apps."""
        return [self.agent, self._nginx, self._memcached]

    def current(self, app: str) -> str | None:
        """The release that `current` names."""
        try:
            return Path(os.readlink(self.apps / app / "current")).name
        except FileNotFoundError:
            return None


def end_apps(root: Path) -> None:
    """Ends the apps of a testbed whose agents have ended: their holders outlive an agent on purpose."""
    end_sessions(stragglers(root), patience=8)


def tail(file: Path, lines: int = 20) -> str:
    """The last lines of a log."""
    return "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.exists() else ""


def _build_user() -> None:
    """The user that builds releases, where Salt does not manage it."""
    users.add(users.BUILD_USER)
    try:
        grp.getgrnam(WEB_GROUP)
    except KeyError:
        raise tools.Missing(f"no group {WEB_GROUP}: it comes with Debian's nginx") from None
