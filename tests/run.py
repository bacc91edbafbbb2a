"""Runs pytest in its venv; arguments go through. What `make test` calls."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flipside_testbed import tools


def main() -> None:
    """Becomes pytest."""
    try:
        tools.debian_packages()
        python = str(tools.pytest())
    except tools.Missing as missing:
        sys.exit(str(missing))
    tests = Path(__file__).parent
    os.chdir(tests)
    # Two processes, of which `-n 0` makes one: a debugger or `-s` wants that.
    os.execv(python, [python, "-m", "pytest", "-c", str(tests / "pytest.ini"), "-n", "2", *sys.argv[1:]])


if __name__ == "__main__":
    main()
