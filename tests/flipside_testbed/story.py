"""What `make demo` shows, step by step. Each step claims something and measures it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flipside_testbed import web
from flipside_testbed.host import Host
from flipside_testbed.platform import ASSIGNED, MINIONS, Platform, app_pillar
from flipside_testbed.processes import wait_for
from flipside_testbed.report import Report, Step, claim
from flipside_testbed.salted import Answer
from flipside_testbed.traffic import EVERYTHING, WITHOUT_HEALTH, Traffic, traffic

# Seconds after which a commit is in the store: the agents' default for a folder.
RPO = 1.0


class Story:
    """The platform and what is known of it so far."""

    def __init__(self, platform: Platform, report: Report, keep: Path) -> None:
        self.platform, self.report, self._keep = platform, report, keep
        self.salt = platform.salted.salt
        self._releases: dict[tuple[str, str], Future[str]] = {}

    def release(self, app: str, kind: str) -> str:
        """The id of a release that was published in the background."""
        return self._releases[app, kind].result()

    @property
    def first(self) -> Host:
        """The host with both apps."""
        return self.platform.hosts[MINIONS[0]]

    def tell(self) -> None:
        """All of it, in order."""
        for step in (self._set_up, self._publish, self._first_deploy):
            self._one(step)
            if not self.report.ok:
                return  # Nothing that follows could hold.
        for step in (
            self._upgrade,
            self._rollback,
            self._import_error,
            self._bad_health,
            self._killed,
            self._event,
            self._unchanged,
            self._status,
            self._restore,
        ):
            self._one(step)

    def _one(self, step: Callable[[Step], None]) -> None:
        with self.report.step(step.__doc__.strip().rstrip(".")) as current:
            step(current)

    def _set_up(self, step: Step) -> None:
        """a Salt master, two minions, an agent, nginx and memcached for each."""
        self.platform.up()
        step.say(f"below {self.platform.root}")

    def _publish(self, step: Step) -> None:
        """flipside publish: two apps, good and bad releases."""
        pool = ThreadPoolExecutor(2)
        for app, kind in (("blog", "v1"), ("shop", "v1")):
            self._releases[app, kind] = pool.submit(self.platform.publish, app, kind)
        for kind in ("v2", "bad-import", "bad-health", "v2b"):
            self._releases["blog", kind] = pool.submit(self.platform.publish, "blog", kind)
        pool.shutdown(wait=False)
        step.say(" and ".join(self.release(app, "v1") for app in ("blog", "shop")))

    def _first_deploy(self, step: Step) -> None:
        """salt '*' flipside.deploy: every app that pillar assigns."""
        runtime = self.platform.runtime
        apps = {app: app_pillar(app, runtime=runtime) for app in ("blog", "shop")}
        self.platform.assign(ASSIGNED, apps)
        answer = self.salt("*", "flipside.deploy")
        for minion, apps in ASSIGNED.items():
            for app in apps:
                became(answer, app, minion, "deployed", self.release(app, "v1"))
                page = web.get(self.platform.hosts[minion], app)
                claim(page.status == 200 and f"{app} 1.0" in page.text, f"{app} on {minion}: {page}")
                sheet = web.get(self.platform.hosts[minion], app, web.stylesheet(page))
                claim(sheet.status == 200 and not sheet.release, f"static file of {app}: {sheet}")
        step.say(slowest(answer, "blog"))

    def _under_load(self, step: Step, name: str, requests: tuple[str, ...] = EVERYTHING) -> Any:
        return traffic(self.first.port, "blog.localhost", self._keep / name, requests)

    def _kept_all(self, step: Step, load: Traffic) -> None:
        step.loaded(load.figures)
        lost = set(load.acknowledged) - web.posts(self.first, "blog")
        claim(not lost, f"{len(lost)} acknowledged writes are gone")
        step.say(f"{len(load.acknowledged)} acknowledged writes, none lost")

    def _upgrade(self, step: Step) -> None:
        """upgrade with a schema migration, under load."""
        wanted = self.release("blog", "v2")
        with self._under_load(step, "upgrade") as load:
            answer = self.salt("*", "flipside.deploy", "blog", "tag=v2")
        for minion in MINIONS:
            became(answer, "blog", minion, "deployed", wanted)
            claim(
                web.versions(self.platform.hosts[minion], "blog") == {wanted},
                f"{minion} serves another release",
            )
        self._kept_all(step, load)
        step.say(slowest(answer, "blog"))

    def _rollback(self, step: Step) -> None:
        """rollback, under load."""
        wanted = self.release("blog", "v1")
        with self._under_load(step, "rollback") as load:
            answer = self.salt("*", "flipside.rollback", "blog")
        for minion in MINIONS:
            claim(answer.app("blog", minion)["result"], answer.text)
            claim(
                web.versions(self.platform.hosts[minion], "blog") == {wanted},
                f"{minion} serves another release",
            )
        self._kept_all(step, load)

    def _import_error(self, step: Step) -> None:
        """a release with an import error is refused before anything changes."""
        app = self._refused(step, "bad-import")
        log = "\n".join(app["error"]["log"])
        claim("a_module_that_nobody_declared" in log and "views.py" in log, f"no traceback in {app}")
        step.say(app["error"]["message"])
        step.say("\n".join(app["error"]["log"][-3:]))

    def _bad_health(self, step: Step) -> None:
        """a release that starts and is not healthy is rolled back."""
        app = self._refused(step, "bad-health")
        claim(app["state"] == "rolled_back" and app["error"]["code"] == "health", str(app))
        step.say(app["error"]["message"])

    def _refused(self, step: Step, kind: str) -> dict[str, Any]:
        before = self.first.current("blog")
        # A sick health page is the app's own answer, and no request that was lost.
        with self._under_load(step, kind, WITHOUT_HEALTH) as load:
            answer = self.salt(MINIONS[0], "flipside.deploy", "blog", f"tag={kind}")
        app = answer.app("blog")
        claim(not app["result"] and answer.code != 0, f"{kind} was deployed: {answer.text}")
        claim(self.first.current("blog") == before, f"current is {self.first.current('blog')}, was {before}")
        claim(web.versions(self.first, "blog") == {before}, "another release answers")
        self._kept_all(step, load)
        return app

    def _killed(self, step: Step) -> None:
        """kill -9 of the agent in the middle of a deploy, under load."""
        before, wanted = self.first.current("blog"), self.release("blog", "v2b")
        built = self.first.apps / "blog/releases" / wanted
        with self._under_load(step, "killed") as load:
            asked = self._in_background(MINIONS[0], "flipside.deploy", "blog", "tag=v2b")
            wait_for("the new release's folder", built.exists, 60, every=0.01)
            self.first.agent.kill()
            step.say("killed when the release was built; started again")
            self.first.start_agent()
            answer = asked.result()
            settled = wait_for("one release in every worker", lambda: self._settled(), 60)
        claim(settled in (before, wanted), f"settled on {settled}")
        self._kept_all(step, load)
        app = answer.app("blog")
        step.say(f"the terminal that asked was told: {app['state']}; every worker serves {settled}")
        claim(app["result"] == (settled == wanted), str(app))

    def _settled(self) -> str | None:
        """The release that link and workers agree on, once they do and nothing is under way."""
        current = self.first.current("blog")
        return current if web.versions(self.first, "blog") == {current} and not self._busy() else None

    def _busy(self) -> bool:
        status = json.loads(self.first.cli("status", "blog", "--json").stdout)
        return '"running"' in json.dumps(status.get("data", {}).get("command", ""))

    def _in_background(self, target: str, *arguments: str) -> Future[Answer]:
        pool = ThreadPoolExecutor(1)  # Not in a `with`: that would wait for the end.
        future = pool.submit(self.salt, target, *arguments)
        pool.shutdown(wait=False)
        return future

    def _event(self, step: Step) -> None:
        """an event on the master's bus, through the reactor: exactly one reload."""
        before = self._reloads()
        self.platform.salted.run("event.send", "flipside/do/reload/blog", json.dumps({"id": "demo"}))
        wait_for("the reload in the history", lambda: self._reloads() > before, 60, every=0.2)
        # Whatever an answer might have triggered would be there before this one's own answer.
        self.salt("*", "flipside.ping")
        claim(self._reloads() == before + 1, f"{self._reloads() - before} reloads")
        step.say("1 event, 1 reload")

    def _reloads(self) -> int:
        history = json.loads(self.first.cli("history", "blog", "--json").stdout)
        return json.dumps(history).count('"reload"')

    def _unchanged(self, step: Step) -> None:
        """the same deploy once more changes nothing."""
        release = self.first.current("blog")
        answer = self.salt(MINIONS[0], "flipside.deploy", "blog", f"release={release}")
        became(answer, "blog", MINIONS[0], "unchanged", release)

    def _status(self, step: Step) -> None:
        """salt '*' flipside.status."""
        done = self.platform.salted.call_master("salt", "*", "flipside.status")
        claim("blog" in done.stdout, done.stdout)
        step.say(done.stdout.rstrip())

    def _restore(self, step: Step) -> None:
        """kill -9 of the agent, the database deleted, restored through salt."""
        host, written = self.first, []

        def write(seconds: float) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                body = uuid.uuid4().hex
                web.write(host, "blog", body)
                written.append((time.time(), body))

        claim(self.salt(MINIONS[0], "flipside.backup", "blog").app("blog")["result"], "no first backup")
        write(1)
        host.agent.kill()
        write(2)
        deleted = time.time()
        for file in (host.apps / "blog/data").glob("db.sqlite3*"):
            file.unlink()
        host.start_agent()
        instant = datetime.fromtimestamp(deleted, UTC).isoformat()
        answer = self.salt(MINIONS[0], "flipside.restore", "blog", f"timestamp={instant}")
        claim(answer.app("blog")["result"], answer.text)
        there = web.posts(host, "blog")
        lost = [at for at, body in written if body not in there]
        late = [at for at in lost if at < deleted - RPO]
        claim(not late, f"{len(late)} of {len(written)} acknowledged writes older than {RPO} s are gone")
        older = sum(at < deleted - RPO for at, _ in written)
        step.say(
            f"{len(written)} acknowledged writes until the deletion, {older} of them older than the RPO of"
            f" {RPO} s: none of those lost; younger and lost: {len(lost)}"
        )


def became(answer: Answer, app: str, minion: str, state: str, release: str | None) -> None:
    """Claims what became of an app on a minion."""
    said = answer.app(app, minion)
    claim(said["result"] and said["state"] == state and said["release"] == release, f"{minion}: {said}")


def slowest(answer: Answer, app: str) -> str:
    """The steps of the slowest minion, with their times."""
    said = max((apps["apps"][app] for apps in answer.returns.values()), key=lambda one: one["ms"])
    steps = ", ".join(f"{step['name']} {step['ms']}" for step in said["steps"])
    return f"{app} took {said['ms']} ms on the slowest minion: {steps}"
