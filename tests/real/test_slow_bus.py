"""Subscribers of the minion's bus that do not keep up: another one, and the agent itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from flipside_testbed.blog import Blog
from flipside_testbed.minion_bus import MinionBus

# As the return of a job, which passes over the same bus: 20 MB, where the kernel holds less than one.
OTHERS = "salt/job/20260101000000000000/ret/web1"
FLOOD = {"count": 10_000, "data": {"return": "x" * 2000}}


def test_a_stuck_neighbour_keeps_nobody_from_the_bus(blog: Blog) -> None:
    bus = MinionBus(blog)
    with bus.stuck_subscriber():
        bus.write(OTHERS, **FLOOD)
        bus.reloads()


def test_an_agent_that_stands_still_holds_up_no_minion_and_catches_up(blog: Blog) -> None:
    bus, pid = MinionBus(blog), blog.host.agent.pid()
    assert pid is not None
    before = _resident(pid)
    os.kill(pid, signal.SIGSTOP)
    try:
        bus.write(OTHERS, **FLOOD)
        answer = blog.platform.salted.salt("web1", "test.ping")
        assert answer.one() is True, "the minion serves its master meanwhile"
    finally:
        os.kill(pid, signal.SIGCONT)
    bus.reloads()
    grown = _resident(pid) - before
    assert grown < 12 << 20, f"the agent took {grown >> 20} MB more"


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
