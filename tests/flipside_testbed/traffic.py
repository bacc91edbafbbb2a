"""Starts the load generator beside a step, and reads what it counted."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flipside_testbed import load
from flipside_testbed.tools import PYTHON

WITHOUT_HEALTH = ("--get", "/", "--write", "/posts/", "--echo", "/echo/")
EVERYTHING = ("--get", "/healthz", *WITHOUT_HEALTH)


@dataclass
class Traffic:
    """One run of the generator; the figures are there once it has ended."""

    figures: dict[str, Any] = field(default_factory=dict)
    acknowledged: list[str] = field(default_factory=list)


@contextmanager
def traffic(
    port: int, host: str, keep: Path, requests: tuple[str, ...] = EVERYTHING, rate: float = 120
) -> Iterator[Traffic]:
    """Load on one app while the block runs. What the generator printed is kept in `keep`.json."""
    tokens = keep.with_suffix(".acknowledged")
    keep.parent.mkdir(parents=True, exist_ok=True)
    argv = [PYTHON, load.__file__, "--port", str(port), "--host", host, "--rate", str(rate), *requests]
    traffic = Traffic()
    with keep.with_suffix(".json").open("w+") as out:
        process = subprocess.Popen([*argv, "--acknowledged", str(tokens)], stdout=out, start_new_session=True)
        try:
            yield traffic
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            finally:
                process.kill()
        out.seek(0)
        traffic.figures = json.load(out)
    traffic.acknowledged = tokens.read_text().split()
