"""Known faults of the crates in Cargo.lock, without a network.

`advisories.json` holds what a copy of RustSec's advisory database said of these crates on the day that it
names. With a clone of https://github.com/rustsec/advisory-db, `PYTHONPATH=tests python3 tests/advisories.py
CLONE` writes it anew. Of a crate that was added since nothing is known, and the test says so.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from flipside_testbed.places import CHECKOUT

SNAPSHOT = Path(__file__).with_name("advisories.json")
VERSION = re.compile(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?")
# RustSec's word for what is no fault, such as a crate that has no maintainer any more.
NOTICE = "informational"


def locked() -> dict[str, list[str]]:
    """The versions of each crate of the registry in Cargo.lock."""
    crates: dict[str, list[str]] = {}
    for package in tomllib.loads((CHECKOUT / "Cargo.lock").read_text())["package"]:
        if "source" in package:
            crates.setdefault(package["name"], []).append(package["version"])
    return crates


def matches(version: str, requirement: str) -> bool:
    """Whether a version meets a requirement such as `>= 1.2, < 2`, as Cargo reads it."""
    have = _parts(version)
    # A pre-release comes before its release, and only `<` can tell.
    early = "-" in version.split("+")[0]
    return all(_meets(have, early, part.strip()) for part in requirement.split(","))


def _meets(have: tuple[int, ...], early: bool, comparator: str) -> bool:
    sign, text = re.fullmatch(r"([<>=^~]*)\s*(\S+)", comparator).groups()
    want, given = _parts(text), text.split("-")[0].count(".") + 1
    order = (have > want) - (have < want) or (-1 if early and "-" not in text else 0)
    if sign in (">", ">=", "<", "<="):
        return {">": order > 0, ">=": order >= 0, "<": order < 0, "<=": order <= 0}[sign]
    if sign == "=":
        return have[:given] == want[:given]
    # ^ and ~: the first number that counts stays.
    kept = min(given, 2) if sign == "~" else next((at + 1 for at, one in enumerate(want) if one), given)
    return order >= 0 and have[:kept] == want[:kept]


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part or 0) for part in VERSION.match(version).groups())


def affects(advisory: dict, version: str) -> bool:
    """Whether an advisory is about this version."""
    fine = advisory["patched"] + advisory["unaffected"]
    return not any(matches(version, requirement) for requirement in fine)


def read(database: Path) -> dict:
    """What the database says of our crates."""
    asked = ["git", "-C", str(database), "log", "-1", "--format=%cs"]
    day = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    found = []
    for crate in sorted(locked()):
        for path in sorted((database / "crates" / crate).glob("RUSTSEC-*.md")):
            text = tomllib.loads(path.read_text().split("```toml\n", 1)[1].split("\n```", 1)[0])
            about, versions = text["advisory"], text.get("versions", {})
            if "withdrawn" not in about and NOTICE not in about:
                ranges = {key: versions.get(key, []) for key in ("patched", "unaffected")}
                found.append({"id": about["id"], "crate": crate, **ranges})
    return {"day": day, "crates": sorted(locked()), "advisories": found}


if __name__ == "__main__":
    said = read(Path(sys.argv[1]))
    rows = ",\n  ".join(json.dumps(one) for one in said["advisories"])
    names = json.dumps(said["crates"])
    SNAPSHOT.write_text(f'{{"day": "{said["day"]}",\n "crates": {names},\n "advisories": [\n  {rows}\n ]}}\n')
