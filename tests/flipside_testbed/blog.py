"""The example app on one host, as tests see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from flipside_testbed import web
from flipside_testbed.host import Host
from flipside_testbed.platform import ASSIGNED, Platform, app_pillar
from flipside_testbed.processes import wait_for
from flipside_testbed.salted import Answer
from flipside_testbed.traffic import EVERYTHING, Traffic, traffic


class Blog:
    """The app of most tests, on the host that most tests use."""

    def __init__(self, platform: Platform, host: Host, keep: Path) -> None:
        self.platform, self.host, self._keep = platform, host, keep
        self.v1 = self.published("v1")

    def published(self, kind: str) -> str:
        """The release of a kind, published when it is first asked for."""
        known = self.platform.published
        if kind not in known:
            known[kind] = self.platform.publish("blog", kind)
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

    def restart_agent(self, fault: str | None = None) -> None:
        """Another agent, with the configuration of now."""
        self.host.agent.stop()
        self.host.configure()
        self.host.start_agent(fault)

    @contextmanager
    def faulty(self, fault: str) -> Iterator[Callable[[], bool]]:
        """An agent with a fault while a block runs; gives what says whether it was met."""
        log = self.host.log / "agent.log"
        begun = log.stat().st_size
        self.restart_agent(fault)
        try:
            yield lambda: b"FaultInjected" in log.read_bytes()[begun:]
        finally:
            self.restart_agent()

    def pillar(self, **options: object) -> None:
        """Other options in pillar."""
        self.platform.assign(ASSIGNED, self.platform.apps | {"blog": app_pillar("blog", **options)})

    def load(self, requests: tuple[str, ...] = EVERYTHING) -> AbstractContextManager[Traffic]:
        """Load while a block runs."""
        return traffic(self.host.port, "blog.localhost", self._keep / "load", requests)

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
