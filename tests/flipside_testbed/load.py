"""A strict load generator: run as a program, so that it measures and is not measured.

Keep-alive connections over raw sockets. A request that got no complete answer with a status of 2xx or 3xx has
failed, and so has one whose connection broke, whose body was cut short, or whose echo is not what was sent:
nothing is tried again, and nothing is left out. Latency counts from when the request was due, not from when a
busy connection got round to it, so that a stall shows in full.

It ends at SIGTERM or after `--seconds`, finishes what it has begun, and prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


class Failed(Exception):
    """A request without a good answer."""


@dataclass
class Tally:
    """What was seen."""

    latencies: list[float] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)
    releases: Counter[str] = field(default_factory=Counter)
    acknowledged: list[str] = field(default_factory=list)

    def report(self, seconds: float) -> dict[str, object]:
        """The figures as JSON."""
        ranked = sorted(self.latencies)

        def percentile(share: float) -> float:
            return round(ranked[min(len(ranked) - 1, int(len(ranked) * share))] * 1000, 1) if ranked else 0.0

        return {
            "v": 1,
            "requests": sum(self.kinds.values()),
            "failed": sum(self.failures.values()),
            "kinds": dict(self.kinds),
            "failures": dict(self.failures),
            "first_failures": self.first,
            "seconds": round(seconds, 2),
            "p50_ms": percentile(0.5),
            "p99_ms": percentile(0.99),
            "max_ms": percentile(1.0),
            "releases": dict(self.releases),
            "acknowledged": len(self.acknowledged),
        }


@dataclass
class Answer:
    """One complete answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One keep-alive connection, opened again only when the server announced that it closes it."""

    def __init__(self, host: str, port: int, name: str, deadline: float) -> None:
        self._host, self._port, self._name, self._deadline = host, port, name, deadline
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: bytes, kind: str) -> Answer:
        """One request and its whole answer."""
        try:
            return await asyncio.wait_for(self._ask(method, path, body, kind), self._deadline)
        except TimeoutError:
            self.close()
            raise Failed(f"no answer within {self._deadline:g} s") from None
        except (
            OSError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            ValueError,
            IndexError,
        ) as error:
            self.close()
            raise Failed(f"{type(error).__name__}: {error}"[:120]) from None

    async def _ask(self, method: str, path: str, body: bytes, kind: str) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._name}\r\nUser-Agent: flipside-load\r\n"
        if method == "POST":
            head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n" + body)
        await writer.drain()
        answer = await self._read(reader)
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    async def _read(self, reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ", 2)[1])
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        elif "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        elif status in (204, 304):
            body = b""
        else:
            body = await reader.read()
            headers["connection"] = "close"
        return Answer(status, headers, body)

    def close(self) -> None:
        """Forgets the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Load:
    """The connections, each with the same round of requests, begun at another place of it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._tally = Tally()
        self._stop = asyncio.Event()
        self._round = [("read", path) for path in args.get]
        self._round += [("write", path) for path in args.write] + [("echo", path) for path in args.echo]

    async def run(self) -> dict[str, object]:
        """Runs until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        if self._args.seconds:
            loop.call_later(self._args.seconds, self._stop.set)
        begun = time.monotonic()
        await asyncio.gather(*(self._client(number) for number in range(self._args.connections)))
        if self._args.acknowledged:
            Path(self._args.acknowledged).write_text("".join(f"{key}\n" for key in self._tally.acknowledged))
        return self._tally.report(time.monotonic() - begun)

    async def _client(self, number: int) -> None:
        args, tally = self._args, self._tally
        connection = Connection(args.address, args.port, args.host, args.deadline)
        pause = args.connections / args.rate
        due = time.monotonic() + pause * number / args.connections
        turn = number
        while not self._stop.is_set():
            if due > time.monotonic():
                try:
                    await asyncio.wait_for(self._stop.wait(), due - time.monotonic())
                    break
                except TimeoutError:
                    pass
            kind, path = self._round[turn % len(self._round)]
            turn += 1
            tally.kinds[kind] += 1
            try:
                await self._request(connection, kind, path, f"{number}-{turn}-{time.time_ns()}")
            except Failed as failed:
                tally.failures[str(failed)] += 1
                if len(tally.first) < 20:
                    tally.first.append(f"{time.time():.3f} {kind} {path}: {failed}")
                await asyncio.sleep(0.01)
            tally.latencies.append(time.monotonic() - due)
            due = max(due + pause, time.monotonic() - 1)
        connection.close()

    async def _request(self, connection: Connection, kind: str, path: str, token: str) -> None:
        if kind == "read":
            self._good(await connection.ask("GET", path, b"", ""))
        elif kind == "write":
            body = f"title=load&body={token}".encode()
            self._good(await connection.ask("POST", path, body, "application/x-www-form-urlencoded"))
            self._tally.acknowledged.append(token)
        else:
            body = (token.encode() * 4096)[: self._args.body_bytes]
            answer = self._good(await connection.ask("POST", path, body, "application/octet-stream"))
            if hashlib.sha256(body).hexdigest().encode() not in answer.body:
                raise Failed("the answer does not hold the digest of what was sent")

    def _good(self, answer: Answer) -> Answer:
        self._tally.releases[answer.headers.get("x-flipside-release", "")] += 1
        if not 200 <= answer.status < 400:
            raise Failed(f"status {answer.status}")
        return answer


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", required=True, help="the Host header")
    parser.add_argument("--get", action="append", default=[], metavar="PATH", help="read it")
    parser.add_argument("--write", action="append", default=[], metavar="PATH", help="POST a form to it")
    parser.add_argument(
        "--echo", action="append", default=[], metavar="PATH", help="POST a body, expect its sha256"
    )
    parser.add_argument("--body-bytes", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rate", type=float, default=150, help="requests a second over all connections")
    parser.add_argument("--deadline", type=float, default=30, help="seconds after which a request has failed")
    parser.add_argument("--seconds", type=float, default=0, help="0: until SIGTERM")
    parser.add_argument(
        "--acknowledged", default="", metavar="FILE", help="where the tokens of good writes go"
    )
    args = parser.parse_args(argv)
    if not (args.get or args.write or args.echo):
        parser.error("nothing to do: give --get, --write or --echo")
    return args


if __name__ == "__main__":
    print(json.dumps(asyncio.run(Load(parse()).run())))
