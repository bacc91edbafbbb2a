"""Hot, cold and held, and the plain verbs: none loses a request."""

from __future__ import annotations

import pytest

from flipside_testbed.blog import Blog


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
