"""The agent killed at each step of a deploy: finished or unwound when it starts again, and nothing is
lost."""

from __future__ import annotations

import json
import uuid

import pytest

from flipside_testbed import web
from flipside_testbed.blog import Blog
from flipside_testbed.processes import alive, wait_for

STEPS = [
    "fetch",
    "env",
    "venv",
    "mark",
    "preflight",
    "schema",
    "static",
    "migrate",
    "switch",
    "health",
    "retire",
]
# Taken only where there are such hooks, on the first deploy, or behind a held listener.
SOMETIMES = {"prepare", "once", "after", "hold"}


@pytest.mark.parametrize("step", STEPS)
def test_a_deploy_cut_short_ends_one_way_or_the_other(blog: Blog, step: str) -> None:
    # What is installed is neither fetched nor built again; v2b never gets that far.
    kind = "v2b" if step in ("fetch", "venv") else "v2"
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


def test_every_step_is_walked(blog: Blog) -> None:
    blog.published("v2")
    store = ("--store", str(blog.platform.store))
    done = blog.host.cli("plan", "blog", "--tag", "v2", "--steps", *store)
    assert set(STEPS) - set(done.stdout.split()) <= {"venv", "fetch"}  # v2 may be installed already
    assert set(done.stdout.split()) - set(STEPS) - SOMETIMES == set()


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
