"""
A client of the agent's local API: frames of a big-endian u32 length and one msgpack map.

It knows nothing of Salt, so that it can be tested without it. A command is owned by the agent: this side
may lose its connection at any time and ask again with the same id, which joins the command that runs.
"""

import errno
import os
import socket
import struct
import time

import msgpack

VERSION = 1
MAX_FRAME = 4 << 20
CONNECT_SECONDS = 5.0
# How long an agent that went away in the middle of a command may take to come back.
RETURN_SECONDS = 30.0
MAX_LINES = 10_000


class NoAgent(Exception):
    """Nobody answers on the socket."""


class BadAnswer(Exception):
    """What came back is no answer of this contract."""


class _Broken(Exception):
    """The connection ended before the outcome came."""


def ask(path, command, who, seconds, on_progress=None):
    """
    The outcome of ``command`` as a map, waiting at most ``seconds`` for it.

    ``who`` holds ``via``, ``user`` and ``id``. Lines of output come back under ``lines``, if there were any.
    """
    request = {"v": VERSION, "who": who, "command": command}
    try:
        payload = msgpack.packb(request, use_bin_type=True)
    except (TypeError, ValueError) as error:
        raise BadAnswer(f"the request holds what cannot be sent: {error}") from error
    if len(payload) > MAX_FRAME:
        raise BadAnswer(f"the request is {len(payload)} bytes; the agent takes at most {MAX_FRAME}")
    deadline = time.monotonic() + seconds
    heard = []
    lost_at = None
    while True:
        before = len(heard)
        try:
            return _once(path, payload, deadline, heard, on_progress)
        except _Broken as error:
            problem = error
            if lost_at is None or len(heard) > before:
                lost_at = time.monotonic()
        except NoAgent as error:
            if lost_at is None:
                raise
            problem = error
        now = time.monotonic()
        if now >= deadline or now - lost_at > RETURN_SECONDS:
            raise NoAgent(str(problem)) from problem
        time.sleep(0.2)


def _once(path, payload, deadline, heard, on_progress):
    lines = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        _connect(connection, path)
        try:
            connection.sendall(struct.pack(">I", len(payload)) + payload)
        except OSError as error:
            raise _Broken(f"the agent closed the connection: {error}") from error
        while True:
            reply = _receive(connection, deadline)
            heard.append(None)
            kind = reply.pop("reply", None)
            if kind == "outcome":
                return _outcome(reply, lines)
            if kind != "progress":
                raise BadAnswer(f"the agent sent a reply of an unknown kind: {str(kind)[:80]}")
            if reply.get("event") == "output" and len(lines) < MAX_LINES:
                lines.append([str(reply.get("step", "")), str(reply.get("message", ""))])
            if on_progress is not None:
                on_progress(reply)


def _outcome(outcome, lines):
    if not isinstance(outcome.get("result"), bool) or not isinstance(outcome.get("state"), str):
        raise BadAnswer("the agent's outcome holds neither result nor state")
    if lines:
        outcome["lines"] = lines
    return outcome


def _connect(connection, path):
    connection.settimeout(CONNECT_SECONDS)
    try:
        # The kernel takes some 107 bytes for the path of a socket; a longer one goes through its folder.
        if len(os.fsencode(path)) > 100:
            folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
            try:
                connection.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
            finally:
                os.close(folder)
        else:
            connection.connect(path)
    except OSError as error:
        if error.errno == errno.EACCES:
            raise NoAgent(
                f"{path} may not be opened by this user: run the minion as root or as its owner"
            ) from error
        raise NoAgent(f"nobody answers on {path}: {error.strerror or error}") from error


def _receive(connection, deadline):
    (length,) = struct.unpack(">I", _exactly(connection, 4, deadline))
    if length > MAX_FRAME:
        raise BadAnswer(f"the agent sent a frame of {length} bytes; the most is {MAX_FRAME}")
    try:
        reply = msgpack.unpackb(_exactly(connection, length, deadline), raw=False)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise BadAnswer(f"the agent's reply is no msgpack: {error}") from error
    if not isinstance(reply, dict):
        raise BadAnswer("the agent's reply is no map")
    return reply


def _exactly(connection, count, deadline):
    parts = []
    while count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise BadAnswer(
                "no outcome within the time; the command goes on, ask flipside.history how it ended"
            )
        connection.settimeout(left)
        try:
            part = connection.recv(min(count, 1 << 16))
        except TimeoutError:
            continue
        except OSError as error:
            raise _Broken(f"the connection to the agent broke: {error}") from error
        if not part:
            raise _Broken("the agent closed the connection before the outcome")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
