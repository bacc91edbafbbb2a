"""What Salt 3007 does in its own way: its bus, its loader, its returns. The rest is as elsewhere."""

from __future__ import annotations

import pytest

from flipside_testbed.blog import Blog
from flipside_testbed.minion_bus import MinionBus

pytestmark = pytest.mark.series("3007")


def test_a_deploy_by_salt(blog: Blog) -> None:
    said = blog.deploy("v2")
    assert said["result"] and said["state"] == "deployed", said
    blog.serves(blog.published("v2"))


def test_a_request_on_its_bus(blog: Blog) -> None:
    # Its subscribers get bare events, and its writers put a length before them.
    MinionBus(blog).reloads()
