"""Requests lost in deploys, restarts and rollbacks in each runtime, beside plain restarts behind one nginx.

`TIMES=100` says how often; a rollback is done a fifth as often as the rest.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from bench.rows import Row, row
from flipside_testbed import places, tools, web
from flipside_testbed.engine import Docker
from flipside_testbed.host import Host
from flipside_testbed.platform import ASSIGNED, Platform, app_pillar, remove_everything
from flipside_testbed.processes import Process, wait_for
from flipside_testbed.salted import clean_environment
from flipside_testbed.traffic import traffic

TIMES = int(os.environ.get("TIMES", "20"))
PLAIN = 3
PLAIN_APP = """def application(env, start):
    start('200 OK', [('Content-Length', '2')])
    return [b'ok']
"""
CONNECTIONS = ("--connections", "64")
EVERYTHING = ("--get", "/", "--write", "/posts/", "--echo", "/echo/", *CONNECTIONS)


def rows() -> list[Row]:
    """All figures, on one platform."""
    root = places.testbed_root("bench")
    remove_everything(root)
    platform = Platform(root)
    try:
        platform.assign(ASSIGNED, {app: app_pillar(app) for app in ("blog", "shop")})
        platform.up(release=True)
        platform.publish("shop", "v1")
        for kind in ("v1", "v2"):
            platform.publish("blog", kind)
        host = platform.hosts["web1"]
        deploy(platform)
        plain = Plain(host)
        found = lost(platform, "process", "plain restarts of uWSGI", plain.process())
        try:
            engine = tools.docker()
        except tools.Missing as missing:
            print(f"no figures of the runtime docker: {missing}", flush=True)
            return found
        platform.assign(ASSIGNED, platform.apps | {"blog": app_pillar("blog", runtime="docker")})
        deploy(platform)
        try:
            return found + lost(platform, "docker", "docker stop + docker start", plain.container(engine))
        finally:
            plain.end()
    finally:
        platform.down()


def deploy(platform: Platform, *arguments: str) -> dict[str, Any]:
    """Deploys on web1; what became of blog."""
    answer = platform.salted.salt("web1", "flipside.deploy", *arguments)
    if answer.code:
        raise RuntimeError(answer.text)
    return answer.app("blog")


def lost(platform: Platform, runtime: str, peer: str, plain: Callable[[], None]) -> list[Row]:
    """Requests that failed in one runtime, how slow the others were, and how long each change took."""
    host, keep = platform.hosts["web1"], platform.root / "load"
    switched: list[float] = []
    rests: list[float] = []

    def deployed(number: int) -> float:
        said = deploy(platform, "blog", f"tag=v{2 - number % 2}")
        if said["state"] != "deployed":
            raise RuntimeError(str(said))
        steps = {step["name"]: step["ms"] / 1000 for step in said["steps"]}
        switched.append(steps["switch"])
        rests.append(sum(steps.values()) - steps.get("venv", 0))
        return said["ms"] / 1000

    def asked(verb: str) -> Callable[[int], float]:
        return lambda _: timed(lambda: host.cli(verb, "blog"))

    def under_load(name: str, times: int, change: Callable[[int], float]) -> tuple[list[float], Any]:
        with traffic(host.port, "blog.localhost", keep / name, EVERYTHING) as load:
            took = [change(number) for number in range(times)]
        return took, load.figures

    with traffic(host.port, "blog.localhost", keep / "rest", EVERYTHING) as rest:
        time.sleep(10)
    p99 = ("the same load at rest, p99", [rest.figures["p99_ms"]])
    changes = [
        ("hot deploys", TIMES, deployed),
        ("cold restarts", TIMES, asked("restart")),
        ("rollbacks", max(1, TIMES // 5), asked("rollback")),
    ]
    measured = [(name, times, *under_load(name, times, change)) for name, times, change in changes]
    with traffic(host.port, "plain.localhost", keep / "plain", ("--get", "/", *CONNECTIONS)) as load:
        outages = [timed(plain) for _ in range(PLAIN)]
    failed = (f"{PLAIN} {peer}", [load.figures["failed"]])
    found: list[Row] = []
    for name, times, took, figures in measured:
        case = f"{runtime}: {name}"
        found += [
            row(f"{runtime}: {times} {name}", "requests failed", "requests", [figures["failed"]], failed, 0),
            row(case, f"p99 of {figures['requests']} requests meanwhile", "ms", [figures["p99_ms"]], p99),
            row(case, "one, from the order to the end", "s", took),
        ]
    case = f"{runtime}: hot deploys"
    return [
        *found,
        row(case, "flip of the link until every worker serves", "s", switched, (f"one of {peer}", outages)),
        row(case, "all steps but the venv's", "s", rests, most=5),
    ]


def timed(change: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.monotonic()
    change()
    return time.monotonic() - begun


class Plain:
    """The least app behind the same nginx, which is simply ended and started again."""

    def __init__(self, host: Host) -> None:
        self._host, self._home = host, host.home / "plain"
        self._home.mkdir()
        self._home.chmod(0o777)
        self._remove: Callable[[], object] = lambda: None
        site, conf = host.nginx_home / "sites/plain.conf", host.nginx_home / "sites/uwsgi_params"
        place = f"location / {{ include {conf}; uwsgi_pass unix:{self._home}/sock; }}"
        site.write_text(f"server {{ listen 127.0.0.1:{host.port}; server_name plain.localhost; {place} }}\n")
        (self._home / "app.py").write_text(PLAIN_APP)
        os.kill(int((host.nginx_home / "nginx.pid").read_text()), 1)
        self._python = next(host.state.glob("uwsgi/*/bin/python3"))

    def _argv(self) -> list[str]:
        argv = [str(self._python), "-I", str(self._python.with_name("uwsgi")), "--master", "--die-on-term"]
        argv += ["--socket", str(self._home / "sock"), "--chmod-socket=666", "--processes=2", "--threads=2"]
        return [*argv, "--wsgi-file", str(self._home / "app.py")]

    def _serves(self) -> None:
        def serves() -> bool:
            with suppress(OSError):  # Until nginx has read its new site, it hangs up.
                return web.get(self._host, "plain").status == 200
            return False

        wait_for("the plain app", serves, 20)

    def process(self) -> Callable[[], None]:
        """Starts it as a process; what ends it and starts it again."""
        process = Process(self._host.root / "pid/plain.pid")

        def again() -> None:
            process.stop()
            process.start(self._argv(), self._home / "log", env=clean_environment())
            self._serves()

        again()
        return again

    def container(self, engine: Docker) -> Callable[[], None]:
        """Starts it in a container of the apps' own image; what stops that and starts it again."""
        Process(self._host.root / "pid/plain.pid").stop()
        [app] = engine.containers(self._host.run / "blog")
        uwsgi = self._host.state / "uwsgi"
        limits = {"Binds": [f"{self._home}:{self._home}", f"{uwsgi}:{uwsgi}:ro"], "NetworkMode": "none"}
        body = {"Image": engine.inspect(app)["Image"], "Entrypoint": self._argv(), "HostConfig": limits}
        made = json.loads(engine.ask("POST", "/containers/create", body))["Id"]
        self._remove = lambda: engine.ask("DELETE", f"/containers/{made}?force=1")
        engine.ask("POST", f"/containers/{made}/start")
        self._serves()

        def again() -> None:
            engine.ask("POST", f"/containers/{made}/stop?t=10")
            engine.ask("POST", f"/containers/{made}/start")
            self._serves()

        return again

    def end(self) -> None:
        """Removes the container, where there is one."""
        self._remove()
