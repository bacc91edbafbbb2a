"""What a run claims and measured: printed as it goes, and kept in report.json."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


class Untrue(AssertionError):
    """A claim that did not hold."""


def claim(holds: object, what: str) -> None:
    """Goes on when it holds."""
    if not holds:
        raise Untrue(what)


@dataclass
class Step:
    """One step, with the load that ran meanwhile if one did."""

    name: str
    ok: bool = False
    seconds: float = 0.0
    requests: int = 0
    failed: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    notes: list[str] = field(default_factory=list)

    def say(self, note: str) -> None:
        """Something measured, for people."""
        self.notes.append(note)

    def loaded(self, load: dict[str, Any]) -> None:
        """Takes over what the load generator counted."""
        for name in ("requests", "failed", "p50_ms", "p99_ms"):
            setattr(self, name, load[name])
        claim(self.requests > 0, "the load generator asked for nothing")
        claim(self.failed == 0, f"{self.failed} of {self.requests} requests failed: {load['failures']}")


class Report:
    """The steps so far."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._steps: list[Step] = []
        self._begun = time.monotonic()

    @property
    def ok(self) -> bool:
        """Whether all that was claimed held."""
        return bool(self._steps) and all(step.ok for step in self._steps)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Runs a step; one that fails is said and remembered, and the next one begins."""
        step, begun = Step(name), time.monotonic()
        try:
            yield step
            step.ok = True
        except Exception as error:  # noqa: BLE001 - whatever it was, it is part of the report
            step.say(f"{type(error).__name__}: {error}")
        finally:
            step.seconds = round(time.monotonic() - begun, 2)
            self._steps.append(step)
            self._print(step)
            self._write()

    def _print(self, step: Step) -> None:
        load = (
            f"  {step.requests} requests, {step.failed} failed, p99 {step.p99_ms:g} ms"
            if step.requests
            else ""
        )
        mark = "ok  " if step.ok else "FAIL"
        print(
            f"{time.monotonic() - self._begun:6.1f} s  {mark}  {step.name} ({step.seconds:g} s){load}",
            flush=True,
        )
        for note in step.notes:
            print("".join(f"                {line}\n" for line in note.splitlines()), end="", flush=True)

    def _write(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        content = {"v": 1, "ok": self.ok, "steps": [asdict(step) for step in self._steps]}
        aside = self._file.with_suffix(".new")
        aside.write_text(json.dumps(content, indent=1) + "\n")
        aside.rename(self._file)
