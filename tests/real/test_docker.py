"""The same app in a container: its whole life there, and the way in and out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator

import pytest

from flipside_testbed import places, tools, web
from flipside_testbed.blog import Blog
from flipside_testbed.engine import Docker, OwnEngine
from flipside_testbed.platform import ASSIGNED, app_pillar
from flipside_testbed.processes import alive, every_process, wait_for

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

    # Killed in the middle of a deploy: what is in the container is lost with it, what waits is not.
    with blog.faulty("switch:pause:during") as reached, blog.load() as load:
        asked = blog.in_background("deploy", "tag=v1")
        wait_for("the switch", reached, 60)
        engine.kill(second)
        os.kill(blog.host.agent.pid() or 0, signal.SIGUSR1)
        said = asked.result().app("blog")
        assert said["state"] == "deployed", said
        assert blog.settled() == blog.v1
    assert load.figures["failed"] <= 8, load.figures
    lost = set(load.acknowledged) - web.posts(blog.host, "blog")
    assert not lost, f"{len(lost)} acknowledged writes are gone"


@pytest.fixture
def own_engine(blog: Blog) -> Iterator[OwnEngine]:
    """The agent with an engine that this test may kill."""
    if shutil.which("dockerd") is None or not places.is_root():
        pytest.skip("no Docker engine can be started here: it needs root and apt-get install docker.io")
    engine, host = OwnEngine(blog.platform.root), blog.host
    try:
        engine.start()
        host.settings["docker_socket"] = str(engine.socket)
        blog.restart_agent()
        yield engine
    finally:
        # Back to a process while its engine is there.
        blog.pillar()
        blog.deploy("v1")
        host.settings.clear()
        blog.restart_agent()
        engine.remove()


def test_the_engine_goes_and_comes_back_and_no_request_is_lost(blog: Blog, own_engine: OwnEngine) -> None:
    run = blog.host.run / "blog"
    blog.platform.assign(ASSIGNED, blog.platform.apps | {"blog": app_pillar("blog", runtime="docker")})
    wanted = blog.published("v2")
    said = blog.deploy("v1")
    assert said["state"] == "deployed", said
    [first] = own_engine.containers(run)
    with blog.load() as load:
        own_engine.kill_it()
        # The container runs on; what needs the engine is refused and changes nothing.
        for refused in (blog.deploy("v2"), blog.salt("restart").app("blog")):
            is_away(refused)
        blog.serves(blog.v1)
        # It ends: requests wait.
        master = master_of(blog)
        os.kill(master, signal.SIGTERM)
        wait_for("the end of the container", lambda: not alive(master), 30)
        begun = time.monotonic()
        is_away(blog.salt("reload").app("blog"))
        assert time.monotonic() - begun < 10
        about = status(blog)
        assert "no Docker engine answers" in about["problem"], about
        own_engine.start()
        assert wait_for("another container", lambda: own_engine.containers(run), 60) != [first]
        said = blog.deploy("v2")
        assert said["state"] == "deployed", said
    blog.serves(wanted)
    blog.kept_all(load)


def is_away(said: dict) -> None:
    """It says that the engine is away, and what to do."""
    error = said["error"]
    assert not said["result"] and error["code"] == "host", said
    assert "no Docker engine answers" in error["message"] and "start docker" in error["hint"], error


def status(blog: Blog) -> dict:
    """What the agent says of the app."""
    return json.loads(blog.host.cli("status", "blog", "--json").stdout)["data"]["apps"]["blog"]


def master_of(blog: Blog) -> int:
    """The first process of the app's container."""
    worker = status(blog)["workers"][0]["pid"]
    return next(stat.parent for stat in every_process() if stat.pid == worker)
