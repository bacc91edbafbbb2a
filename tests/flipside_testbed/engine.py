"""The Docker engine, asked through its socket: what containers an app has, and what anybody who may ask is
told of them."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.parse
from pathlib import Path
from typing import Any


class Docker:
    """The engine at a socket."""

    def __init__(self, path: Path) -> None:
        self.socket = path

    def ask(self, method: str, path: str) -> bytes:
        """What the engine answers; a refusal is an error."""
        connection = http.client.HTTPConnection("docker", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(60)
            connection.sock.connect(str(self.socket))
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path} gave {answer.status}: {body.decode(errors='replace')}")
        return body

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
