"""The same app in a container: its whole life there, and the way in and out."""

from __future__ import annotations

import json
import time

import pytest

from flipside_testbed import tools, web
from flipside_testbed.blog import Blog
from flipside_testbed.engine import Docker
from flipside_testbed.platform import ASSIGNED, app_pillar

CANARY = "a-canary-that-must-not-be-seen"


@pytest.fixture
def engine() -> Docker:
    try:
        return tools.docker()
    except tools.Missing as missing:
        pytest.skip(str(missing))


def test_an_app_lives_in_containers_and_loses_nothing(blog: Blog, engine: Docker) -> None:
    run = blog.host.run / "blog"
    pillar = app_pillar("blog", runtime="docker") | {"env": {"CANARY": CANARY}, "memory": "512M"}
    blog.platform.assign(ASSIGNED, blog.platform.apps | {"blog": pillar})
    wanted = blog.published("v2")

    with blog.load() as load:
        said = blog.deploy("v1")
        assert said["state"] == "deployed", said
        [first] = engine.containers(run)
        hot = blog.deploy("v2")
        assert hot["state"] == "deployed", hot
        assert engine.containers(run) == [first], "a hot switch stays in its container"
        restarted = blog.salt("restart").app("blog")
        assert restarted["result"], restarted
        [second] = engine.containers(run)
        assert second != first
        bad = blog.deploy("bad-import")
        assert not bad["result"] and engine.containers(run) == [second], bad
    blog.serves(wanted)
    blog.kept_all(load)

    about = engine.inspect(second)
    assert CANARY not in json.dumps(about)
    assert CANARY in (blog.host.apps / "blog/env").read_text()
    host, labels = about["HostConfig"], about["Config"]["Labels"]
    assert host["Memory"] == 512 << 20 and host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"]
    assert labels["flipside.app"] == "blog" and labels["flipside.options"]
    assert not about["Config"]["User"].startswith(("0", "root"))

    # What is in the container is lost with it, what waits is not.
    with blog.load() as load:
        engine.kill(second)
        deadline = time.monotonic() + 60
        while engine.containers(run) in ([], [second]) and time.monotonic() < deadline:
            time.sleep(0.1)
        blog.settled()
    assert load.figures["failed"] <= 8, load.figures
    lost = set(load.acknowledged) - web.posts(blog.host, "blog")
    assert not lost, f"{len(lost)} acknowledged writes are gone"
