"""The Docker engine, asked through its socket: what containers an app has, and what anybody who may ask is
told of them. And one of a test's own, which may be killed."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any

from flipside_testbed.processes import Process, alive, wait_for


class Docker:
    """The engine at a socket."""

    def __init__(self, path: Path) -> None:
        self.socket = path

    def ask(self, method: str, path: str, what: dict[str, Any] | None = None) -> bytes:
        """What the engine answers; a refusal is an error."""
        connection = http.client.HTTPConnection("docker", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(60)
            connection.sock.connect(str(self.socket))
            body = None if what is None else json.dumps(what)
            connection.request(method, path, body, {"Content-Type": "application/json"} if what else {})
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path} gave {answer.status}: {said.decode(errors='replace')}")
        return said

    def containers(self, run: Path) -> list[str]:
        """The containers of the app whose folder of sockets this is."""
        filters = urllib.parse.quote(json.dumps({"label": [f"flipside.run={run}"]}))
        return [one["Id"] for one in json.loads(self.ask("GET", f"/containers/json?filters={filters}"))]

    def inspect(self, container: str) -> dict[str, Any]:
        """What `docker inspect` shows."""
        return json.loads(self.ask("GET", f"/containers/{container}/json"))

    def kill(self, container: str) -> None:
        """`docker kill`."""
        self.ask("POST", f"/containers/{container}/kill")


class OwnEngine(Docker):
    """An engine below `root`, with a bridge of its own: it has nothing to do with the machine's."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "engine/sock")
        self._home = root / "engine"
        self._process = Process(root / "pid/dockerd.pid")
        digest = hashlib.sha256(str(root).encode()).digest()
        self._bridge, self._net = f"fs{digest.hex()[:8]}", f"10.{200 + digest[0] % 50}.{digest[1]}.1/24"

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        self._home.mkdir(parents=True, exist_ok=True)
        (self._home / "daemon.json").write_text("{}")
        if not Path("/sys/class/net", self._bridge).exists():
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("address", "add", self._net, "dev", self._bridge)
        folders = {"data-root": "data", "exec-root": "exec", "pidfile": "pid", "config-file": "daemon.json"}
        argv = ["dockerd", f"--host=unix://{self.socket}", f"--bridge={self._bridge}", "--iptables=false"]
        argv += ["--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--userland-proxy=false"]
        argv += [f"--{flag}={self._home / name}" for flag, name in folders.items()]
        (self._home / "pid").unlink(missing_ok=True)
        self._process.start(argv, self._home / "log")
        wait_for("the engine", self._answers, 60)

    def _answers(self) -> bool:
        try:
            return self.ask("GET", "/_ping") == b"OK"
        except (OSError, http.client.HTTPException):
            return False

    def kill_it(self) -> None:
        """Kills it as `kill -9` does; its containers go on."""
        containerd = int((self._home / "exec/containerd/containerd.pid").read_text())
        self._process.kill()
        # It goes with its engine, and the next one would take it for its own.
        wait_for("the end of containerd", lambda: not alive(containerd), 10)

    def remove(self) -> None:
        """Ends it and all that is its own."""
        self._process.stop(10)
        # Those of containers that it was killed under stay.
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if Path(place := line.split()[1]).is_relative_to(self._home):
                subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
        _ip("link", "delete", self._bridge)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
