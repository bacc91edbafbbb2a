"""The event bus: salt-wire beside Salt's own consumer and a raw reader, on the same minion and events.

All three run one after the other, several times over, at the same offered rate. salt-wire is the crate's own
example in a release build; its CPU time counts from its start, that of the peers from their first event.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.rows import Row, row
from flipside_testbed import places, tools
from flipside_testbed.places import CHECKOUT, Ports
from flipside_testbed.platform import end_everything
from flipside_testbed.salted import Salted, clean_environment

ROUNDS = 5
RATE, COUNT = 1000, 3000
FAST, FAST_COUNT = 4000, 8000
PREFIX = "bench/"
SALT_WIRE, BY_SALT, BY_HAND = "salt-wire", "Salt's get_event", "a raw reader in Python"


@dataclass
class Run:
    """One consumer, one load."""

    us_per_event: float
    p50_ms: float
    received: int


def rows() -> list[Row]:
    """Both releases with a long life."""
    subject = build()
    return [one for series in ("3006", "3008") for one in of_series(series, subject)]


def build() -> Path:
    """The example of salt-wire, as a release."""
    argv = ["cargo", "build", "--release", "--locked", "--package", "salt-wire", "--example", "bus"]
    subprocess.run(argv, cwd=CHECKOUT, check=True)
    return CHECKOUT / "target/release/examples/bus"


def of_series(series: str, subject: Path) -> list[Row]:
    """All figures of one release."""
    root = places.testbed_root(f"bus{series}")
    end_everything(root)
    shutil.rmtree(root, ignore_errors=True)
    salted = Salted(root, tools.salt(series), Ports(root), ["web1"])
    salted.configure({}, {})
    try:
        salted.start()
        bench = Bench(salted, subject)
        slow = bench.rounds(RATE, COUNT)
        fast = bench.rounds(FAST, FAST_COUNT)
    finally:
        salted.stop()
    case = f"{series}, {RATE} events/s"
    cpu = {name: [run.us_per_event for run in runs] for name, runs in slow.items()}
    p50 = {name: [run.p50_ms for run in runs] for name, runs in slow.items()}
    got = {name: [100 * run.received / FAST_COUNT for run in runs] for name, runs in fast.items()}
    twentieth = round(statistics.median(cpu[BY_SALT]) / 20, 1)
    raw = round(statistics.median(p50[BY_HAND]), 3)
    return [
        row(case, "CPU an event", "us", cpu[SALT_WIRE], (BY_SALT, cpu[BY_SALT]), most=twentieth),
        row(case, "CPU an event", "us", cpu[SALT_WIRE], (BY_HAND, cpu[BY_HAND])),
        row(case, "fire to handler, p50", "ms", p50[SALT_WIRE], (BY_HAND, p50[BY_HAND]), most=raw),
        row(case, "fire to handler, p50", "ms", p50[SALT_WIRE], (BY_SALT, p50[BY_SALT])),
        row(f"{series}, {FAST} events/s", "received", "%", got[SALT_WIRE], (BY_SALT, got[BY_SALT])),
    ]


class Bench:
    """Consumers and loads on one minion."""

    def __init__(self, salted: Salted, subject: Path) -> None:
        self._config = str(salted.minion_config("web1"))
        python, peer = str(salted.programs / "python"), str(Path(__file__).with_name("bus_peer.py"))
        self._fire = [python, peer, "fire", self._config, PREFIX]
        self._consumers = {
            SALT_WIRE: [str(subject), self._config, "measure", PREFIX],
            BY_SALT: [python, peer, "salt", self._config, PREFIX],
            BY_HAND: [python, peer, "raw", self._config, PREFIX],
        }

    def rounds(self, rate: int, count: int) -> dict[str, list[Run]]:
        """Each consumer in turn, several times."""
        runs: dict[str, list[Run]] = {name: [] for name in self._consumers}
        for _ in range(ROUNDS):
            for name, argv in self._consumers.items():
                runs[name].append(self._run(argv, rate, count))
        return runs

    def _run(self, argv: list[str], rate: int, count: int) -> Run:
        env = clean_environment()
        consumer = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env)
        assert consumer.stdout
        if consumer.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{argv} did not connect")
        subprocess.run([*self._fire, str(rate), str(count)], check=True, env=env)
        said = json.loads(consumer.stdout.read())
        _, status, usage = os.wait4(consumer.pid, 0)
        consumer.returncode = os.waitstatus_to_exitcode(status)
        took = said["us"]
        cpu = said.get("cpu", usage.ru_utime + usage.ru_stime)
        return Run(1e6 * cpu / len(took), statistics.median(took) / 1000, len(took))
