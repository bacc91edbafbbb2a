"""Requests lost in deploys and restarts, beside a plain restart of uWSGI; and the weight of the agent."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from bench.rows import Row, row
from flipside_testbed import places, web
from flipside_testbed.host import Host
from flipside_testbed.platform import ASSIGNED, Platform, app_pillar, remove_everything
from flipside_testbed.processes import Process, wait_for
from flipside_testbed.salted import clean_environment
from flipside_testbed.traffic import traffic

DEPLOYS = RESTARTS = 20
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
        platform.up()
        platform.publish("shop", "v1")
        for kind in ("v1", "v2"):
            platform.publish("blog", kind)
        host = platform.hosts["web1"]
        said = platform.salted.salt("web1", "flipside.deploy")
        if said.code:
            raise RuntimeError(said.text)
        return [*lost(platform, host), *weight(host)]
    finally:
        platform.down()


def lost(platform: Platform, host: Host) -> list[Row]:
    """Requests that failed, in all, and how long a hot deploy takes."""
    keep, took, switched = platform.root / "load", [], []
    with traffic(host.port, "blog.localhost", keep / "rest", EVERYTHING) as rest:
        time.sleep(10)
    with traffic(host.port, "blog.localhost", keep / "hot", EVERYTHING) as hot:
        for number in range(DEPLOYS):
            answer = platform.salted.salt("web1", "flipside.deploy", "blog", f"tag=v{2 - number % 2}")
            said = answer.app("blog")
            if said["state"] != "deployed":
                raise RuntimeError(answer.text)
            took.append(said["ms"] / 1000)
            steps = {step["name"]: step["ms"] / 1000 for step in said["steps"]}
            switched.append(sum(steps.values()) - steps.get("venv", 0))
    with traffic(host.port, "blog.localhost", keep / "cold", EVERYTHING) as cold:
        for _ in range(RESTARTS):
            host.cli("restart", "blog")
    plain = plain_restarts(host, keep / "plain")
    peer = (f"{PLAIN} plain restarts of uWSGI", [plain])
    lost_cold = cold.figures["failed"]
    p99 = ("the same load at rest, p99", [rest.figures["p99_ms"]])
    return [
        row(f"{DEPLOYS} hot deploys", "requests failed", "requests", [hot.figures["failed"]], peer, most=0),
        row(f"{RESTARTS} cold restarts", "requests failed", "requests", [lost_cold], peer, most=0),
        row("hot deploys", "p99 of all requests meanwhile", "ms", [hot.figures["p99_ms"]], p99),
        row("cold restarts", "p99 of all requests meanwhile", "ms", [cold.figures["p99_ms"]], p99),
        row("hot deploy", "the whole, as the agent counts it", "s", took),
        row("hot deploy", "all but building the venv", "s", switched, most=5),
    ]


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


def weight(host: Host) -> list[Row]:
    """The agent at rest with two apps."""
    pid = host.agent.pid()
    status = Path(f"/proc/{pid}/status").read_text()
    memory = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024
    ticks = os.sysconf("SC_CLK_TCK")

    def used() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / ticks

    begun, before = time.monotonic(), used()
    time.sleep(60)
    share = 100 * (used() - before) / (time.monotonic() - begun)
    return [
        row("agent at rest, two apps", "resident memory (a debug build)", "MB", [memory], most=10),
        row("agent at rest, two apps", "CPU of one core over a minute", "%", [share], most=0.1),
    ]
