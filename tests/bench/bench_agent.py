"""The weight of the agent, in a release build."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from bench.rows import Row, row
from flipside_testbed import places
from flipside_testbed.host import Host
from flipside_testbed.platform import ASSIGNED, Platform, app_pillar, remove_everything


def rows() -> list[Row]:
    """All figures, on one platform."""
    root = places.testbed_root("bench")
    remove_everything(root)
    platform = Platform(root)
    try:
        platform.assign(ASSIGNED, {app: app_pillar(app) for app in ("blog", "shop")})
        platform.up(release=True)
        for app in ("blog", "shop"):
            platform.publish(app, "v1")
        said = platform.salted.salt("web1", "flipside.deploy")
        if said.code:
            raise RuntimeError(said.text)
        return weight(platform.hosts["web1"])
    finally:
        platform.down()


def weight(host: Host) -> list[Row]:
    """The agent at rest with two apps, whose databases it has followed."""
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
    size = (host.root / "bin/flipside-agent").stat().st_size / 1e6
    return [
        row("agent", "the program, stripped", "MB", [size], most=10),
        row("agent at rest, two apps", "resident memory", "MB", [memory], most=10),
        row("agent at rest, two apps", "CPU of one core over a minute", "%", [share], most=0.1),
    ]
