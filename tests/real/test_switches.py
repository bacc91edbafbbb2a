"""Hot, cold and held, and the plain verbs: none loses a request; and two who ask at once."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal

import pytest

from flipside_testbed.blog import Blog
from flipside_testbed.processes import wait_for


@pytest.mark.parametrize("switch", ["hot", "cold", "held"])
def test_every_way_of_switching_loses_nothing(blog: Blog, switch: str) -> None:
    wanted = blog.published("v2")
    blog.pillar(switch=switch)
    with blog.load() as load:
        said = blog.deploy("v2")
    assert said["state"] == "deployed", said
    blog.serves(wanted)
    blog.kept_all(load)


@pytest.mark.parametrize("verb", ["reload", "restart"])
def test_restarts_lose_nothing(blog: Blog, verb: str) -> None:
    with blog.load() as load:
        said = blog.salt(verb).app("blog")
    assert said["result"], said
    blog.serves(blog.v1)
    blog.kept_all(load)


def test_more_workers_need_a_cold_switch_and_lose_nothing(blog: Blog) -> None:
    blog.pillar(workers=3)
    with blog.load() as load:
        said = blog.deploy("v1")
    assert said["result"] and said["state"] == "deployed", said
    blog.kept_all(load)


def test_two_operators_at_once_and_who_they_were(blog: Blog) -> None:
    with blog.faulty("env:pause:before") as reached:
        first = blog.in_background("deploy", "tag=v2")
        wait_for("the first deploy", reached, 60)
        busy = blog.salt("deploy", "tag=v1", "wait=0")
        waiting = blog.in_background("reload")
        os.kill(blog.host.agent.pid() or 0, signal.SIGUSR1)
        assert first.result().app("blog")["state"] == "deployed"
        assert waiting.result().app("blog")["result"]
    said = busy.app("blog")
    assert busy.code != 0 and said["state"] == "busy" and said["error"]["code"] == "busy", said
    reload, deploy = json.loads(blog.host.cli("history", "blog", "-n", "2", "--json").stdout)["data"]
    assert (reload["verb"], deploy["verb"], deploy["state"]) == ("reload", "deploy", "deployed")
    who = deploy["who"]
    user = pwd.getpwuid(os.geteuid()).pw_name
    assert (who["via"], who["user"], who["uid"]) == ("salt", user, os.geteuid())
    assert re.fullmatch(r"\d{20}", who["id"]), "Salt's job id"
    assert f"deploy of {user} by salt, {who['id']}, since 20" in said["error"]["message"], said
    assert who["id"] in blog.host.cli("history", "blog").stdout
