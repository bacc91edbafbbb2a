"""The agent killed in the middle of what it does: finished or unwound when it starts again, and nothing is
lost. `make walk` kills at every moment of every step of every way, and at random times."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from flipside_testbed import web
from flipside_testbed.blog import Blog
from flipside_testbed.processes import alive, wait_for
from flipside_testbed.walk import MOMENTS, Walk

# The ways that together have every step, each with those that none before it has.
WAYS = ["hot", "held", "with-data", "first"]


@pytest.mark.timeout(1800)
def test_a_kill_at_any_step_ends_one_way_or_the_other(blog: Blog, tmp_path: Path) -> None:
    walk = Walk(blog, tmp_path)
    ways, walked = walk.ways(), []
    for way in (ways[name] for name in WAYS):
        walk.prepare(way)
        for step in [step for step in walk.steps(way) if step not in walked]:
            walk.prepare(way)
            walk.kill_at(way, step, MOMENTS[len(walked) % 3])
            walked.append(step)
    assert set(walked) == set(walk.every_step())


@pytest.mark.parametrize("step", ["venv", "switch"])
def test_whoever_asked_through_salt_is_told_how_it_ended(blog: Blog, step: str) -> None:
    kind = "v2b"
    wanted = blog.published(kind)
    agent, log = blog.host.agent, blog.host.log / "agent.log"
    agent.stop()
    begun = log.stat().st_size
    blog.host.start_agent(fault=f"{step}:hang")
    with blog.load() as load:
        asked = blog.in_background("deploy", f"tag={kind}")
        wait_for(f"the deploy at {step}", lambda: b"FaultInjected" in log.read_bytes()[begun:], 90)
        agent.kill()
        blog.host.start_agent()
        said = asked.result().app("blog")
        settled = blog.settled()
    assert settled in (blog.v1, wanted)
    assert said["result"] == (settled == wanted), said
    blog.kept_all(load)
    releases = json.loads(blog.host.cli("releases", "blog", "--json").stdout)["data"]
    assert [one["release"] for one in releases if one["current"]] == [settled]
    assert web.get(blog.host, "blog").release == settled


def test_apps_outlive_the_agent_and_are_adopted(blog: Blog) -> None:
    before = workers(blog)
    with blog.load() as load:
        blog.host.agent.kill()
        blog.host.start_agent()
        assert workers(blog) == before
        said = blog.salt("status").app("blog")
    assert said["result"] and said["release"] == blog.v1, said
    blog.kept_all(load)


def test_a_restarted_minion_loses_nothing_and_is_heard_again(blog: Blog) -> None:
    salted = blog.platform.salted
    with blog.load() as load:
        salted.process("web1").stop(patience=2)
        salted.start_minion("web1")
        salted.wait_for_minions()
        said = blog.salt("reload").app("blog")
    assert said["result"], said
    blog.kept_all(load)
    salted.run("event.send", "flipside/do/reload/blog", json.dumps({"id": uuid.uuid4().hex}))
    wait_for("a reload by event", lambda: via(blog) == "event", 60, every=0.5)


def via(blog: Blog) -> str:
    return json.loads(blog.host.cli("history", "blog", "--json").stdout)["data"][0]["who"]["via"]


def workers(blog: Blog) -> list[int]:
    status = json.loads(blog.host.cli("status", "blog", "--json").stdout)
    pids = sorted(worker["pid"] for worker in status["data"]["apps"]["blog"]["workers"])
    assert pids and all(alive(pid) for pid in pids)
    return pids
