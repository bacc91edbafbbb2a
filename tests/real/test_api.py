"""Hostile and unlucky clients of the local API: each gets an answer or a closed door; others are served."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgpack
import pytest

from flipside_testbed.blog import Blog

PING = {"v": 1, "who": {"via": "test", "user": "test"}, "command": {"verb": "ping"}}


def connect(blog: Blog) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(20)
    connection.connect(str(blog.host.socket))
    return connection


def frame(message: object) -> bytes:
    payload = msgpack.packb(message)
    return struct.pack(">I", len(payload)) + payload


def answer(connection: socket.socket) -> dict | None:
    """One frame from the agent; None when it has closed."""
    try:
        head = exactly(connection, 4)
        return msgpack.unpackb(exactly(connection, struct.unpack(">I", head)[0])) if head else None
    except ConnectionResetError:
        return None


def exactly(connection: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        part = connection.recv(count - len(got))
        if not part:
            return b""
        got += part
    return got


@pytest.fixture
def alive_after(blog: Blog) -> Iterator[Blog]:
    """Whatever one client did, the next one is served."""
    yield blog
    with connect(blog) as connection:
        connection.sendall(frame(PING))
        said = answer(connection)
    assert said and said["result"] is True, said


def test_a_giant_frame_is_refused_without_being_read(alive_after: Blog) -> None:
    with connect(alive_after) as connection:
        connection.sendall(struct.pack(">I", 0xFFFFFFFF) + b"x" * 1000)
        said = answer(connection)
    assert said is None or said["result"] is False


def test_a_truncated_frame_is_no_request(alive_after: Blog) -> None:
    with connect(alive_after) as connection:
        connection.sendall(frame(PING)[:-3])
        connection.shutdown(socket.SHUT_WR)
        said = answer(connection)
    assert said is None or said["result"] is False


def test_a_slow_client_holds_up_nobody(alive_after: Blog) -> None:
    with connect(alive_after) as slow:
        for byte in frame(PING)[:10]:
            slow.sendall(bytes([byte]))
            begun = time.monotonic()
            with connect(alive_after) as quick:
                quick.sendall(frame(PING))
                assert answer(quick)["result"] is True
            assert time.monotonic() - begun < 5
        slow.sendall(frame(PING)[10:])
        assert answer(slow)["result"] is True


@pytest.mark.parametrize(
    "message",
    [
        {**PING, "v": 99},
        {**PING, "command": {"verb": "format_disk"}},
        {**PING, "command": {"verb": "reload", "app": "../../etc"}},
        {**PING, "command": {"verb": "reload", "app": "blog\nshop"}},
        ["no", "map"],
        "text",
    ],
    ids=["version", "verb", "path", "newline", "list", "text"],
)
def test_what_makes_no_sense_is_said_so(alive_after: Blog, message: object) -> None:
    with connect(alive_after) as connection:
        connection.sendall(frame(message))
        said = answer(connection)
    assert said and said["result"] is False and said["error"]["message"], said


def test_many_clients_that_say_nothing_keep_nobody_out(alive_after: Blog) -> None:
    silent = [connect(alive_after) for _ in range(20)]
    try:
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(lambda _: alive_after.host.cli("ping", check=False).returncode, range(8)))
        assert done == [0] * 8
    finally:
        for connection in silent:
            connection.close()
