"""`make bench [NAME=...]`: every bench_NAME.py here, each with a `rows()` that measures."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from bench.rows import keep, show
from flipside_testbed import tools
from flipside_testbed.places import CHECKOUT


def main() -> int:
    """Runs the one that is named, or all."""
    names = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    wanted = sys.argv[1:] or names
    unknown = [name for name in wanted if name not in names]
    if unknown:
        print(f"no bench {', '.join(unknown)}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    try:
        tools.debian_packages()
        for name in wanted:
            rows = importlib.import_module(f"bench.bench_{name}").rows()
            keep(name, rows, CHECKOUT / "target/bench")
            print(f"\n{name}\n{show(rows)}", flush=True)
    except tools.Missing as missing:
        print(missing, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
