"""Requests by event and what the master hears, through real minions of both framings."""

from __future__ import annotations

import json
import shlex
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from threading import Thread
from typing import Any

import pytest

from flipside_testbed.blog import Blog
from flipside_testbed.processes import wait_for
from flipside_testbed.salted import clean_environment

pytestmark = pytest.mark.both


class Ear:
    """Somebody at the master who hears the answers of one request."""

    def __init__(self, blog: Blog, lines: Iterator[str]) -> None:
        self._blog, self._lines = blog, lines

    def ask(self, verb: str, **more: Any) -> str:
        """Fires a request on web1's bus; its id."""
        number = uuid.uuid4().hex
        data = json.dumps({"id": number, **more})
        answer = self._blog.platform.salted.salt("web1", "event.fire", data, f"flipside/do/{verb}/blog")
        assert answer.one() is True, answer.text
        return number

    def end(self, number: str) -> tuple[list[str], dict[str, Any]]:
        """The tags of a request's answers, and the data of the last."""
        tags: list[str] = []
        for line in self._lines:
            tag, _, text = line.partition("\t")
            data = json.loads(text) if text.startswith("{") else {}
            if data.get("id") == number:
                tags.append(tag.removeprefix("flipside/on/"))
                if tag.endswith(("/done", "/failed")):
                    return tags, data
        raise AssertionError(f"the master heard no end, only {tags}")

    def health(self) -> dict[str, Any]:
        """The next word on the app's health."""
        for line in self._lines:
            tag, _, text = line.partition("\t")
            if tag == "flipside/on/health/blog":
                return json.loads(text)
        raise AssertionError("the master heard nothing of the app's health")


@pytest.fixture
def ear(blog: Blog) -> Iterator[Ear]:
    """Listens on the master's bus."""
    with listener(blog) as lines:
        yield Ear(blog, lines)


@contextmanager
def listener(blog: Blog) -> Iterator[Iterator[str]]:
    """What `salt-run state.event` prints, from the moment on that it is known to listen."""
    salted = blog.platform.salted
    argv = [*shlex.split(salted.command("salt-run")), "state.event", "flipside/*"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=clean_environment())
    lines: Queue[str] = Queue()
    reader = Thread(target=lambda: [lines.put(line) for line in process.stdout or ()], daemon=True)
    reader.start()
    try:
        # It does not say when it is ready: an event is fired until it is heard.
        mark = f"flipside/ready/{uuid.uuid4().hex}"

        def ready() -> bool:
            salted.run("event.send", mark)
            return not lines.empty()

        wait_for("a listener on the master's bus", ready, 60)
        yield iter(lambda: lines.get(timeout=60), "")
    finally:
        process.kill()
        process.wait()


def test_a_reload_by_event_is_told_from_beginning_to_end(ear: Ear) -> None:
    tags, data = ear.end(ear.ask("reload"))
    assert tags[-1] == "reload/blog/done", (tags, data)
    assert (data["minion"], data["via"], data["state"], data["error"]) == ("web1", "event", "ok", None)


def test_a_repeated_id_runs_once(ear: Ear, blog: Blog) -> None:
    def reloads() -> int:
        history = json.loads(blog.host.cli("history", "blog", "--json").stdout)
        return sum(1 for entry in history["data"] if entry["verb"] == "reload")

    number = ear.ask("reload")
    ear.end(number)
    before = reloads()
    again = blog.platform.salted.salt(
        "web1", "event.fire", json.dumps({"id": number}), "flipside/do/reload/blog"
    )
    assert again.one() is True
    _, data = ear.end(number)
    assert data["result"] and reloads() == before


def test_a_deploy_is_not_taken_from_events(ear: Ear) -> None:
    tags, data = ear.end(ear.ask("deploy", tag="v2"))
    assert tags == ["deploy/blog/failed"]
    assert data["error"]["code"] == "gate" and "local.flipside.deploy" in data["error"]["hint"]


def test_a_worker_that_does_not_stay_is_told_and_so_is_its_end(ear: Ear, blog: Blog) -> None:
    blog.pillar(background={"queue": {"command": ["python3", "-c", "raise SystemExit(3)"]}})
    assert blog.deploy("v1")["result"]
    said = ear.health()
    assert (said["ok"], said["minion"], said["app"]) == (False, "web1", "blog"), said
    assert any("queue" in problem for problem in said["problems"]), said
    blog.pillar()
    assert blog.deploy("v1")["result"]
    said = ear.health()
    assert (said["ok"], said["problems"]) == (True, []), said
