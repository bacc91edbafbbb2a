"""Rows of a benchmark: a subject and a peer measured in the same run, and whether a goal holds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Row:
    """One figure. `holds` is None where there is no goal."""

    case: str
    subject: str
    value: float
    unit: str
    n: int
    spread: float | None = None
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    goal: str | None = None
    holds: bool | None = None


def row(
    case: str,
    subject: str,
    unit: str,
    values: Sequence[float],
    peer: tuple[str, Sequence[float]] | None = None,
    most: float | None = None,
) -> Row:
    """The median of `values` beside the median of a peer's; `most` is the goal."""
    value = statistics.median(values)
    made = Row(case, subject, round(value, 3), unit, len(values))
    if len(values) > 1:
        made.spread = round(max(values) - min(values), 3)
    if peer:
        made.peer, made.peer_value = peer[0], round(statistics.median(peer[1]), 3)
        made.ratio = round(value / made.peer_value, 3) if made.peer_value else None
    if most is not None:
        made.goal, made.holds = f"at most {most:g}", value <= most
    return made


def show(rows: list[Row]) -> str:
    """The rows as a table for people."""
    heads = ["case", "subject", "value", "unit", "n", "spread", "peer", "peer value", "ratio", "goal", ""]
    lines = [heads]
    for one in rows:
        verdict = {True: "holds", False: "DOES NOT HOLD", None: ""}[one.holds]
        cells = [one.case, one.subject, one.value, one.unit, one.n, one.spread, one.peer, one.peer_value]
        lines.append(["" if cell is None else str(cell) for cell in (*cells, one.ratio, one.goal, verdict)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )


def keep(name: str, rows: list[Row], folder: Path) -> None:
    """Writes `<folder>/<name>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(
        json.dumps({"v": 1, "rows": [asdict(one) for one in rows]}, indent=1) + "\n"
    )
