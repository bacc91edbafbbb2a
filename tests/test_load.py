"""The load generator counts every kind of bad answer, or "0 failed" would mean nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from flipside_testbed import load

pytestmark = pytest.mark.quick

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def measured(answers: Callable[[int], bytes | None], *requests: str) -> dict:
    """The figures after a short load on a server that answers request N with `answers(N)`; None: hang up."""

    async def run() -> dict:
        count = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            try:
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                    if "content-length: " in head:
                        await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
                    count += 1
                    answer = answers(count)
                    if answer is None:
                        break
                    writer.write(answer)
                    if b"Content-Length: 999" in answer:
                        break
            except asyncio.IncompleteReadError:
                pass
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        wanted = [
            "--port",
            str(port),
            "--host",
            "x",
            "--connections",
            "2",
            "--rate",
            "100",
            "--deadline",
            "1",
        ]
        figures = await load.Load(load.parse([*wanted, "--seconds", "0.3", *requests])).run()
        server.close()
        return figures

    return asyncio.run(run())


def test_good_answers_count_as_good() -> None:
    figures = measured(lambda _: OK, "--get", "/", "--write", "/w")
    assert figures["requests"] >= 10
    assert figures["failed"] == 0
    assert figures["acknowledged"] == figures["kinds"]["write"] > 0
    assert 0 <= figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]


@pytest.mark.parametrize(
    "bad",
    [
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\ncut short",
        b"nonsense\r\n\r\n",
        None,
    ],
)
def test_each_bad_answer_is_one_failure(bad: bytes | None) -> None:
    figures = measured(lambda number: bad if number == 5 else OK, "--get", "/")
    assert figures["failed"] == 1, figures


def test_silence_is_a_failure() -> None:
    figures = measured(lambda number: b"" if number == 5 else OK, "--get", "/")
    assert figures["failures"] == {"no answer within 1 s": 1}


def test_an_echo_that_differs_is_a_failure() -> None:
    figures = measured(lambda _: OK, "--echo", "/e")
    assert figures["failed"] == figures["requests"] > 0


def test_chunked_and_unbounded_bodies_are_read_whole() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    figures = measured(lambda _: chunked, "--get", "/")
    assert figures["failed"] == 0


def test_nothing_to_ask_for_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load.parse(["--port", "1", "--host", "x"])
    assert "nothing to do" in capsys.readouterr().err
