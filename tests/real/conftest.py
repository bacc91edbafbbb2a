"""One platform for all tests of a Salt series: it takes ten seconds to start, and nobody needs a fresh one.

Every test that takes `blog` finds it deployed at v1 with the usual pillar, and whatever it did is undone
after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flipside_testbed import places
from flipside_testbed.blog import Blog
from flipside_testbed.platform import ASSIGNED, Platform, app_pillar, remove_everything


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests marked `both` run on both long-lived series, those of one `series` on it alone; pytest groups
    them so that each platform starts once."""
    if "platform" in metafunc.fixturenames:
        both = metafunc.definition.get_closest_marker("both")
        named = metafunc.definition.get_closest_marker("series")
        series = list(named.args) if named else ["3006", "3008"] if both else ["3006"]
        metafunc.parametrize("platform", series, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lies here is real."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """A master, two minions, and their hosts, with both apps deployed everywhere they belong."""
    root = places.testbed_root(f"t{request.param}")
    remove_everything(root)
    platform = Platform(root, request.param)
    platform.assign(ASSIGNED, {app: app_pillar(app) for app in ("blog", "shop")})
    try:
        platform.up(faults=True)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda app: platform.publish(app, "v1"), ("blog", "shop")))
        answer = platform.salted.salt("*", "flipside.deploy")
        assert answer.code == 0, answer.text
        yield platform
    finally:
        if request.session.testsfailed:
            platform.stop()  # its logs stay
        else:
            platform.down()


@pytest.fixture
def blog(platform: Platform, tmp_path: Path) -> Iterator[Blog]:
    """blog at v1 with the usual pillar, before and after."""
    blog = Blog(platform, platform.hosts["web1"], tmp_path)
    yield blog
    platform.assign(ASSIGNED, {app: app_pillar(app) for app in ("blog", "shop")})
    if platform.hosts["web1"].cli("ping", check=False).returncode != 0:
        platform.hosts["web1"].agent.stop()
        platform.hosts["web1"].start_agent()
    said = blog.deploy("v1")
    assert said["result"], said
    blog.serves(blog.v1)
