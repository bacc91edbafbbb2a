"""One platform for all tests of a Salt series: it takes ten seconds to start, and nobody needs a fresh one.

Every test that takes `blog` finds it deployed at v1 with the usual pillar, and whatever it did is undone
after it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from flipside_testbed import places, web
from flipside_testbed.host import Host
from flipside_testbed.platform import ASSIGNED, Platform, app_pillar, end_everything
from flipside_testbed.processes import wait_for
from flipside_testbed.salted import Answer
from flipside_testbed.traffic import Traffic, traffic


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests marked `both` run on both series; pytest groups them so that each platform starts once."""
    if "platform" in metafunc.fixturenames:
        both = metafunc.definition.get_closest_marker("both")
        series = ["3006", "3008"] if both else ["3006"]
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
    end_everything(root)
    shutil.rmtree(root, ignore_errors=True)
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


class Blog:
    """The app of most tests, on the host that most tests use."""

    def __init__(self, platform: Platform, host: Host, keep: Path) -> None:
        self.platform, self.host, self._keep = platform, host, keep
        self.v1 = self.published("v1")

    def published(self, kind: str) -> str:
        """The release of a kind, published when it is first asked for."""
        tag = self.platform.store / "blog/tags.json"
        known = self.platform.published
        if kind not in known:
            known[kind] = self.platform.publish("blog", kind)
        assert tag.exists()
        return known[kind]

    def salt(self, function: str, *arguments: str, options: tuple[str, ...] = ()) -> Answer:
        """`salt web1 flipside.FUNCTION blog ...`."""
        return self.platform.salted.salt(
            self.host.name, f"flipside.{function}", "blog", *arguments, options=options
        )

    def deploy(self, kind: str, *arguments: str) -> dict:
        """Deploys a kind; what became of it."""
        self.published(kind)
        return self.salt("deploy", f"tag={kind}", *arguments).app("blog")

    def in_background(self, function: str, *arguments: str) -> Future[Answer]:
        """The same as `salt`, while the test goes on."""
        pool = ThreadPoolExecutor(1)
        future = pool.submit(self.salt, function, *arguments)
        pool.shutdown(wait=False)
        return future

    def pillar(self, **options: object) -> None:
        """Other options in pillar."""
        self.platform.assign(ASSIGNED, self.platform.apps | {"blog": app_pillar("blog", **options)})

    def load(self, name: str = "load") -> object:
        """Load while a block runs."""
        return traffic(self.host.port, "blog.localhost", self._keep / name)

    def serves(self, release: str) -> None:
        """Every sign says that this release is the one that runs."""
        assert self.host.current("blog") == release
        assert web.versions(self.host, "blog") == {release}

    def settled(self, seconds: float = 60) -> str:
        """The release that link and workers agree on, once they do and no command is under way."""

        def agreed() -> str | None:
            current = self.host.current("blog")
            return current if web.versions(self.host, "blog") == {current} else None

        return wait_for("one release in link and workers", agreed, seconds, every=0.2)

    def kept_all(self, load: Traffic) -> None:
        """No request failed, and every acknowledged write is there."""
        figures = load.figures
        assert figures["requests"] > 50, figures
        assert figures["failed"] == 0, figures
        lost = set(load.acknowledged) - web.posts(self.host, "blog")
        assert not lost, f"{len(lost)} acknowledged writes are gone"


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
