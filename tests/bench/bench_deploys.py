"""Requests lost in deploys, restarts and rollbacks, beside plain restarts of uWSGI behind the same nginx.

`TIMES=100` says how often; a rollback is done a fifth as often as the rest.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.rows import Row, row
from flipside_testbed import places, web
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
        said = platform.salted.salt("web1", "flipside.deploy")
        if said.code:
            raise RuntimeError(said.text)
        return lost(platform, platform.hosts["web1"])
    finally:
        platform.down()


def lost(platform: Platform, host: Host) -> list[Row]:
    """Requests that failed, how slow the others were, and how long each change took."""
    keep = platform.root / "load"
    switched: list[float] = []
    rests: list[float] = []

    def deploy(number: int) -> float:
        answer = platform.salted.salt("web1", "flipside.deploy", "blog", f"tag=v{2 - number % 2}")
        said = answer.app("blog")
        if said["state"] != "deployed":
            raise RuntimeError(answer.text)
        steps = {step["name"]: step["ms"] / 1000 for step in said["steps"]}
        switched.append(steps["switch"])
        rests.append(sum(steps.values()) - steps.get("venv", 0))
        return said["ms"] / 1000

    def asked(verb: str) -> Callable[[int], float]:
        def ask(_: int) -> float:
            begun = time.monotonic()
            host.cli(verb, "blog")
            return time.monotonic() - begun

        return ask

    def under_load(name: str, times: int, change: Callable[[int], float]) -> tuple[list[float], Any]:
        with traffic(host.port, "blog.localhost", keep / name, EVERYTHING) as load:
            took = [change(number) for number in range(times)]
        return took, load.figures

    with traffic(host.port, "blog.localhost", keep / "rest", EVERYTHING) as rest:
        time.sleep(10)
    p99 = ("the same load at rest, p99", [rest.figures["p99_ms"]])
    changes = [
        ("hot deploys", TIMES, deploy),
        ("cold restarts", TIMES, asked("restart")),
        ("rollbacks", max(1, TIMES // 5), asked("rollback")),
    ]
    measured = [(name, times, *under_load(name, times, change)) for name, times, change in changes]
    plain = (f"{PLAIN} plain restarts of uWSGI", [plain_restarts(host, keep / "plain")])
    found: list[Row] = []
    for name, times, took, figures in measured:
        found += [
            row(f"{times} {name}", "requests failed", "requests", [figures["failed"]], plain, most=0),
            row(name, f"p99 of {figures['requests']} requests meanwhile", "ms", [figures["p99_ms"]], p99),
            row(name, "one, from the order to the end", "s", took),
        ]
    found += [
        row("hot deploys", "flip of the link until every worker serves", "s", switched),
        row("hot deploys", "all steps but the venv's", "s", rests, most=5),
    ]
    return found


def plain_restarts(host: Host, keep: Path) -> float:
    """Requests that fail when uWSGI is simply ended and started again, behind the same nginx."""
    home = host.home / "plain"
    home.mkdir()
    home.chmod(0o777)
    site = host.nginx_home / "sites/plain.conf"
    place = f"location / {{ include {host.nginx_home}/sites/uwsgi_params; uwsgi_pass unix:{home}/sock; }}"
    site.write_text(f"server {{ listen 127.0.0.1:{host.port}; server_name plain.localhost; {place} }}\n")
    (home / "app.py").write_text(PLAIN_APP)
    os.kill(int((host.nginx_home / "nginx.pid").read_text()), 1)
    uwsgi = next(path for path in host.state.glob("uwsgi/*/bin/*") if re.fullmatch(r"py?uwsgi", path.name))
    argv = [str(uwsgi), "--socket", str(home / "sock"), "--chmod-socket=666", "--master", "--processes=2"]
    argv += ["--threads=2", "--die-on-term", "--wsgi-file", str(home / "app.py")]
    process = Process(host.root / "pid/plain.pid")
    process.start(argv, home / "log", env=clean_environment())
    wait_for("plain uWSGI", lambda: web.get(host, "plain").status == 200, 20)
    with traffic(host.port, "plain.localhost", keep, ("--get", "/", *CONNECTIONS)) as load:
        for _ in range(PLAIN):
            process.stop()
            process.start(argv, home / "log", env=clean_environment())
            wait_for("plain uWSGI", lambda: web.get(host, "plain").status == 200, 20)
    process.stop()
    return load.figures["failed"]
