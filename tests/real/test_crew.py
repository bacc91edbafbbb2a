"""Background workers: with the release that is current, whatever becomes of agents and deploys."""

from __future__ import annotations

import json

from flipside_testbed.blog import Blog
from flipside_testbed.processes import alive, wait_for

WORKER = "import os, time; print('at work', os.environ['FLIPSIDE_RELEASE'], flush=True); time.sleep(3600)"


def test_background_workers_outlive_the_agent_and_follow_the_release(blog: Blog) -> None:
    blog.pillar(background={"queue": {"command": ["python3", "-c", WORKER]}})
    said = blog.deploy("v1")
    assert said["state"] == "deployed", said
    first = worker(blog, blog.v1)
    blog.host.agent.kill()
    blog.host.start_agent()
    assert worker(blog, blog.v1) == first, "adopted as it is"
    said = blog.deploy("v2")
    assert said["state"] == "deployed", said
    assert not alive(first)
    second = worker(blog, blog.published("v2"))
    said = blog.deploy("exit-served")
    assert said["state"] == "rolled_back", said
    assert not alive(second)
    third = worker(blog, blog.published("v2"))
    screen = blog.host.cli("status", "blog").stdout
    assert "queue.1" in screen and str(third) in screen, screen
    log = blog.host.cli("logs", "blog", "-n", "200", "--grep", "[queue.1]").stdout
    assert log.count(f"at work {blog.published('v2')}") == 2, log
    blog.pillar()
    assert blog.deploy("v2")["state"] == "deployed"
    assert not alive(third)


def worker(blog: Blog, release: str) -> int:
    """The process of the worker, once it runs for `release`."""

    def running() -> int | None:
        status = json.loads(blog.host.cli("status", "blog", "--json").stdout)
        [post] = status["data"]["apps"]["blog"]["background"]
        assert post["release"] == release, post
        return post["pid"]

    return wait_for("a background worker", running, 30, every=0.2)
