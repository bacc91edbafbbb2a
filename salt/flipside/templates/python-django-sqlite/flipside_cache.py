"""
memcached for projects that bring no client of their own: an untouched one shall have the host's cache too.

Django's own base class does the work; this is the small client under it. It speaks the text protocol, stores
values as pymemcache does (a project that adds that later finds them), and takes a memcached that is away for
one that is empty: the site gets slower, not broken.
"""

import os
import pickle
import socket
import time

from django.core.cache.backends.memcached import BaseMemcachedCache

TIMEOUT = 1.0
# After a failure nobody waits for the same server again at once.
PAUSE = 1.0
LOST = object()
PICKLED, NUMBER, TEXT = 1, 2, 16


class NotThere(Exception):
    """A key that cannot be counted up, because it is not there."""


class Complaint(Exception):
    """memcached does not take a request."""


class Client:
    """One connection, opened when needed; not for several threads at once (Django has a cache a thread)."""

    def __init__(self, servers, **_options):
        host, _, port = servers[0].rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._stream, self._pid, self._dead_until = None, None, 0.0

    def get(self, key, default=None):
        return self.get_multi([key]).get(key, default)

    def get_multi(self, keys):
        names = {key.encode(): key for key in keys}
        found = {}

        def read(stream):
            while (line := _line(stream)) != b"END":
                _, name, flags, length = line.split(b" ")
                found[name] = (stream.read(int(length) + 2)[:-2], int(flags))

        if names:
            self._talk(b"get " + b" ".join(names) + b"\r\n", read)
        values = {names[name]: _loaded(*found[name]) for name in names if name in found}
        return {key: value for key, value in values.items() if value is not LOST}

    def set(self, key, value, timeout=0):
        return self._store(b"set", key, value, timeout)

    def add(self, key, value, timeout=0):
        return self._store(b"add", key, value, timeout)

    def set_multi(self, values, timeout=0):
        return [key for key, value in values.items() if not self.set(key, value, timeout)]

    def delete(self, key):
        return self._talk(b"delete %s\r\n" % key.encode(), _line) == b"DELETED"

    def delete_multi(self, keys):
        for key in keys:
            self.delete(key)

    def touch(self, key, timeout=0):
        return self._talk(b"touch %s %d\r\n" % (key.encode(), timeout), _line) == b"TOUCHED"

    def incr(self, key, delta=1):
        return self._count(b"incr", key, delta)

    def decr(self, key, delta=1):
        return self._count(b"decr", key, delta)

    def flush_all(self):
        return self._talk(b"flush_all\r\n", _line) == b"OK"

    def disconnect_all(self):
        """Kept: Django calls this after every request."""

    def _store(self, verb, key, value, timeout):
        data, flags = _dumped(value)
        head = b"%s %s %d %d %d\r\n" % (verb, key.encode(), flags, timeout, len(data))
        return self._talk(head + data + b"\r\n", _line) == b"STORED"

    def _count(self, verb, key, delta):
        answer = self._talk(b"%s %s %d\r\n" % (verb, key.encode(), delta), _line)
        if answer is None or not answer.isdigit():
            raise NotThere(key)
        return int(answer)

    def _talk(self, request, read):
        """What ``read`` makes of the answer; ``None`` when memcached is away."""
        if time.monotonic() < self._dead_until:
            return None
        for again in (True, False):
            fresh = self._stream is None or self._pid != os.getpid()
            try:
                if fresh:
                    self._open()
                self._stream.write(request)
                self._stream.flush()
                return read(self._stream)
            except Complaint:
                # What else it may say to this request must not be taken for the answer to the next.
                self._stream = None
                return None
            except (OSError, ValueError, EOFError):
                self._stream = None
                # A connection from before may have been closed by a restart meanwhile.
                if fresh or not again:
                    self._dead_until = time.monotonic() + PAUSE
                    return None
            except BaseException:
                self._stream = None
                raise
        return None

    def _open(self):
        connection = socket.create_connection(self._address, TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream, self._pid = connection.makefile("rwb"), os.getpid()


def _line(stream):
    line = stream.readline(2048)
    if not line.endswith(b"\r\n"):
        raise EOFError
    if line.startswith((b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR")):
        raise Complaint
    return line[:-2]


def _dumped(value):
    if isinstance(value, bytes):
        return value, 0
    if isinstance(value, str):
        return value.encode(), TEXT
    if type(value) is int:
        return b"%d" % value, NUMBER
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL), PICKLED


def _loaded(value, flags):
    if flags & PICKLED:
        try:
            return pickle.loads(value)
        except Exception:
            # Of a class that this release no longer has.
            return LOST
    if flags & NUMBER:
        return int(value)
    return value.decode() if flags & TEXT else value


class MemcachedCache(BaseMemcachedCache):
    """Django's cache on the client above."""

    def __init__(self, server, params):
        import flipside_cache

        super().__init__(server, params, library=flipside_cache, value_not_found_exception=NotThere)
