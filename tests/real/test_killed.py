"""The agent killed at each step of a deploy: finished or unwound when it starts again, and nothing is
lost."""

from __future__ import annotations

import json
import uuid

import pytest

from flipside_testbed import web
from flipside_testbed.blog import Blog
from flipside_testbed.processes import alive, wait_for

STEPS = ["venv", "mark", "preflight", "static", "migrate", "switch", "health", "after", "retire"]


@pytest.mark.parametrize("step", STEPS)
def test_a_deploy_cut_short_ends_one_way_or_the_other(blog: Blog, step: str) -> None:
    wanted = blog.published("v2")
    agent = blog.host.agent
    agent.stop()
    blog.host.start_agent(fault=f"{step}:hang")
    with blog.load() as load:
        asked = blog.in_background("deploy", "tag=v2")
        wait_for(f"the deploy at {step}", lambda: running(blog) == step, 90)
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


def running(blog: Blog) -> str | None:
    """The step that a deploy is in, as status says it."""
    done = blog.host.cli("status", "blog", "--json", check=False)
    if done.returncode != 0:
        return None
    return (json.loads(done.stdout)["data"]["apps"]["blog"].get("running") or {}).get("step")


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
