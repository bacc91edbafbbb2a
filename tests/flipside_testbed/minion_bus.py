"""A minion's event bus, by hand: what others on the same machine may do to it."""

from __future__ import annotations

import json
import socket
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack

from flipside_testbed.blog import Blog
from flipside_testbed.processes import wait_for


class MinionBus:
    """The bus of the minion beside the app's host. Every Salt here takes events with a length before them."""

    def __init__(self, blog: Blog) -> None:
        self._blog = blog
        minion = blog.platform.salted.minion_config(blog.host.name).parents[1]
        (self._pull,) = minion.rglob("minion_event_*_pull.ipc")

    def write(self, tag: str, data: dict[str, Any], count: int = 1) -> None:
        """Fires the same event so many times, as fast as the minion takes them."""
        body = tag.encode() + b"\n\n" + msgpack.packb(data)
        frame = msgpack.packb({"head": {}, "body": body})
        with socket.socket(socket.AF_UNIX) as to:
            to.settimeout(60)
            to.connect(str(self._pull))
            for _ in range(count):
                to.sendall(struct.pack(">I", len(frame)) + frame)

    @contextmanager
    def stuck_subscriber(self) -> Iterator[None]:
        """Somebody who listens and never reads."""
        with socket.socket(socket.AF_UNIX) as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect(str(self._pull).replace("_pull.ipc", "_pub.ipc"))
            yield

    def reloads(self, seconds: float = 60) -> None:
        """The agent hears a request for a reload on this bus, and does it."""
        before = self._reloads()
        self.write("flipside/do/reload/blog", {"id": uuid.uuid4().hex})
        wait_for("a reload by event", lambda: self._reloads() == before + 1, seconds, 0.3)

    def _reloads(self) -> int:
        history = json.loads(self._blog.host.cli("history", "blog", "--json").stdout)["data"]
        return sum(1 for one in history if one["verb"] == "reload" and one["state"] == "ok")
