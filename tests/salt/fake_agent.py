"""A process that speaks the agent's local API: what it answers is told, what it heard is written down."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import msgpack


class FakeAgent:
    """The process, from the side of a test."""

    def __init__(self, path: Path, behaviour: dict[str, object]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.heard_file = path.with_suffix(".heard")
        self.process = subprocess.Popen([sys.executable, __file__, str(path), json.dumps(behaviour)])
        deadline = time.monotonic() + 10
        while not path.exists():
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)

    def heard(self) -> list[dict]:
        """The requests, in order."""
        if not self.heard_file.exists():
            return []
        return [json.loads(line) for line in self.heard_file.read_text().splitlines()]

    def commands(self, verb: str) -> list[dict]:
        """The commands of one verb."""
        return [request["command"] for request in self.heard() if request["command"]["verb"] == verb]

    def stop(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.wait()


def outcome(**fields: object) -> dict[str, object]:
    """An outcome as the agent sends it."""
    plain = {
        "release": None,
        "previous": None,
        "id": None,
        "steps": [],
        "comment": "",
        "error": None,
        "data": None,
    }
    return {"reply": "outcome", "v": 1, "result": True, "state": "ok", "ms": 3, **plain, **fields}


def _frame(message: object) -> bytes:
    payload = msgpack.packb(message)
    return struct.pack(">I", len(payload)) + payload


def _serve(path: Path, behaviour: dict) -> None:
    breaks = behaviour.get("breaks", 0)
    with socket.socket(socket.AF_UNIX) as listener:
        # Under its name only once it listens.
        unready = path.with_suffix(".unready")
        listener.bind(str(unready))
        listener.listen()
        unready.rename(path)
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as stream:
                length = stream.read(4)
                if len(length) < 4:
                    continue
                request = msgpack.unpackb(stream.read(struct.unpack(">I", length)[0]))
                package = request["command"].get("package")
                if package:
                    request["files"] = sorted(file.name for file in Path(package["dir"]).rglob("*.*"))
                with path.with_suffix(".heard").open("a") as file:
                    file.write(json.dumps(request, default=repr) + "\n")
                verb = request["command"]["verb"]
                if breaks and verb in ("deploy", "reload"):
                    breaks -= 1
                    continue
                if verb in behaviour.get("raw", {}):
                    connection.sendall(bytes.fromhex(behaviour["raw"][verb]))
                    continue
                for step, line in behaviour.get("lines", {}).get(verb, []):
                    connection.sendall(
                        _frame(
                            {"reply": "progress", "step": step, "event": "output", "message": line, "ms": 0}
                        )
                    )
                app = (request["command"].get("spec") or request["command"]).get("app")
                answers = behaviour.get("answers", {})
                connection.sendall(_frame(outcome(**answers.get(f"{verb}:{app}", answers.get(verb, {})))))


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), json.loads(sys.argv[2]))
