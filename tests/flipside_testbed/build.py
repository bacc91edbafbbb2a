"""Builds the agent and the command line, and puts them where every user can run them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from flipside_testbed import tools
from flipside_testbed.places import CHECKOUT
from flipside_testbed.tools import Missing

PROGRAMS = ("flipside-agent", "flipside")


def environment() -> dict[str, str]:
    """What `flipside publish` needs to know here: the uv to build with, and the hosts' Python."""
    return {"FLIPSIDE_UV": str(tools.uv()), "FLIPSIDE_PYTHON": tools.PYTHON}


def binaries(into: Path, faults: bool = False, release: bool = False) -> None:
    """Builds, in the quick profile or as a release; with `faults` the agent obeys FLIPSIDE_FAULT."""
    # As the Rust tests are built: their dependencies have features that the programs' own lack.
    features = ["--tests", "--features", "flipside-agent/faults"] if faults else []
    profile = ["--release"] if release else []
    argv = [tools.cargo(), "build", "--workspace", "--bins", "--locked", *profile, *features]
    done = subprocess.run(argv, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Missing(f"{' '.join(argv)} failed:\n{done.stderr[-4000:]}")
    into.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        # Renamed into place: the old one may be running.
        aside = into / f".{name}.new"
        shutil.copy2(CHECKOUT / "target" / ("release" if release else "debug") / name, aside)
        aside.chmod(0o755)
        aside.rename(into / name)
