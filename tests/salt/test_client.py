"""The client of the local API: frames, lost connections, answers that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

WHO = {"via": "salt", "user": "ann", "id": "20260101"}


def test_it_asks_and_gets_the_outcome(own: Callable, agent: Callable, tmp_path: Path) -> None:
    client = own("flipside_client")
    heard = agent(lines={"logs": [["stdout", "one"], ["stderr", "two"]]})
    steps: list[dict] = []
    outcome = client.ask(
        str(tmp_path / "run/agent.sock"), {"verb": "logs", "app": "blog"}, WHO, 10, steps.append
    )
    assert outcome["result"] is True and outcome["lines"] == [["stdout", "one"], ["stderr", "two"]]
    assert [step["message"] for step in steps] == ["one", "two"]
    assert heard.heard() == [{"v": 1, "who": WHO, "command": {"verb": "logs", "app": "blog"}}]


def test_a_broken_connection_asks_again_with_the_same_id(
    own: Callable, agent: Callable, tmp_path: Path
) -> None:
    heard = agent(breaks=2)
    path = str(tmp_path / "run/agent.sock")
    assert own("flipside_client").ask(path, {"verb": "reload", "app": "blog"}, WHO, 10)["result"]
    assert [request["who"]["id"] for request in heard.heard()] == ["20260101"] * 3


def test_an_agent_that_always_closes_is_given_up(
    own: Callable, agent: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = own("flipside_client")
    monkeypatch.setattr(client, "RETURN_SECONDS", 0.5)
    agent(breaks=1000)
    with pytest.raises(client.NoAgent, match="closed the connection"):
        client.ask(str(tmp_path / "run/agent.sock"), {"verb": "reload", "app": "blog"}, WHO, 10)


def test_nobody_there_is_told_at_once(own: Callable, tmp_path: Path) -> None:
    client = own("flipside_client")
    with pytest.raises(client.NoAgent, match="nobody answers on"):
        client.ask(str(tmp_path / "none.sock"), {"verb": "ping"}, WHO, 10)


def test_a_path_too_long_for_a_socket_works(own: Callable, agent: Callable, tmp_path: Path) -> None:
    agent()
    deep = tmp_path / ("d" * 90)
    deep.symlink_to(tmp_path / "run")
    assert len(str(deep / "agent.sock")) > 107
    assert own("flipside_client").ask(str(deep / "agent.sock"), {"verb": "ping"}, WHO, 10)["result"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("ffffffff00", "a frame of 4294967295 bytes"),
        ("0000000190", "no map"),
        ("00000001c1", "no msgpack"),
        ("0000000180", "unknown kind"),
        ("0000000f81a57265706c79a76f7574636f6d65", "neither result nor state"),
    ],
)
def test_what_is_no_answer_is_refused(
    own: Callable, agent: Callable, tmp_path: Path, answer: str, words: str
) -> None:
    client = own("flipside_client")
    agent(raw={"ping": answer})
    with pytest.raises(client.BadAnswer, match=words):
        client.ask(str(tmp_path / "run/agent.sock"), {"verb": "ping"}, WHO, 10)


def test_a_request_that_cannot_be_packed_is_an_error_of_ours(own: Callable, tmp_path: Path) -> None:
    client = own("flipside_client")
    for odd in (object(), "\udcff"):
        with pytest.raises(client.BadAnswer, match="cannot be sent"):
            client.ask(str(tmp_path / "none.sock"), {"verb": "x", "odd": odd}, WHO, 1)


def test_a_request_over_the_cap_is_not_sent(own: Callable, tmp_path: Path) -> None:
    client = own("flipside_client")
    with pytest.raises(client.BadAnswer, match="at most 4194304"):
        client.ask(str(tmp_path / "none.sock"), {"verb": "x", "env": "x" * (4 << 20)}, WHO, 1)
