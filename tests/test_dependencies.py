"""What others wrote and we build on: its licences, its known faults, its versions. All without a network."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from advisories import SNAPSHOT, affects, locked, matches

from flipside_testbed import tools
from flipside_testbed.places import CHECKOUT

pytestmark = pytest.mark.quick

# Those that let a program under Apache-2.0 be given on with what it is built of.
ALLOWED = {"Apache-2.0", "MIT", "MIT-0", "ISC", "0BSD", "Zlib", "Unlicense", "Unicode-3.0", "CC0-1.0"}
ALLOWED |= {"BSD-2-Clause", "BSD-3-Clause", "BlueOak-1.0.0", "Apache-2.0 WITH LLVM-exception"}
# Advisories about what we do not do, each with the reason.
HARMLESS = {
    # A restore with somebody's RSA key of ssh is a command of theirs, and answers nobody over a network.
    "RUSTSEC-2023-0071": "the time that rsa takes to decrypt tells of the key",
}


def allowed(expression: str) -> bool:
    """Whether an SPDX expression leaves us a choice that is allowed; strict where it mixes AND and OR."""
    # A slash is the old way to write OR.
    parts = re.sub(r"\s*/\s*", " OR ", expression).split(" AND ")
    return all(any(one in ALLOWED for one in part.strip("() ").split(" OR ")) for part in parts)


def test_every_crate_has_a_licence_that_is_allowed() -> None:
    argv = ["cargo", "metadata", "--format-version=1", "--locked", "--offline"]
    argv += ["--filter-platform=x86_64-unknown-linux-gnu"]
    done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    crates = {one["name"]: one["license"] or "" for one in json.loads(done.stdout)["packages"]}
    assert len(crates) > 100
    assert not {name: licence for name, licence in crates.items() if not allowed(licence)}


@pytest.mark.parametrize("bad", ["GPL-3.0-only", "", "MIT AND GPL-2.0-only", "Proprietary OR AGPL-3.0"])
def test_other_licences_are_refused(bad: str) -> None:
    assert not allowed(bad)
    assert allowed("(MIT OR GPL-2.0-only) AND Unicode-3.0") and allowed("MIT/Apache-2.0")


def test_no_crate_has_a_known_fault() -> None:
    known = json.loads(SNAPSHOT.read_text())
    crates = locked()
    hit = [
        f"{one['id']}: {one['crate']} {version}"
        for one in known["advisories"]
        for version in crates.get(one["crate"], [])
        if affects(one, version) and one["id"] not in HARMLESS
    ]
    assert not hit, f"{hit}: update them, or say in HARMLESS why they do no harm"
    new = sorted(set(crates) - set(known["crates"]))
    assert len(new) < 40, f"much was added since {known['day']}; read tests/advisories.py: {new}"
    print(f"advisories of {known['day']}; nothing is known of what came since: {', '.join(new) or 'nothing'}")


@pytest.mark.parametrize(
    ("version", "requirement", "met"),
    [
        ("0.23.5", ">= 0.23.5", True),
        ("0.22.9", ">= 0.22.4, < 0.23.0", True),
        ("0.23.0", ">= 0.22.4, < 0.23.0", False),
        ("1.9.0", "^1.0.5", True),
        ("2.0.0", "^1.0.5", False),
        ("0.3.9", "^0.3.1", True),
        ("0.4.0", "^0.3.1", False),
        ("1.2.9", "~1.2.3", True),
        ("1.3.0", "~1.2.3", False),
        ("0.1.4", "=0.1.4", True),
        ("2.0.0-rc.1", ">= 2.0.0", False),
        ("2.0.0-rc.1", "< 2.0.0", True),
    ],
)
def test_requirements_are_read_as_cargo_reads_them(version: str, requirement: str, met: bool) -> None:
    assert matches(version, requirement) is met


@pytest.mark.parametrize(
    "manifest", sorted((CHECKOUT / "agent").rglob("Cargo.toml")), ids=lambda path: path.parent.name
)
def test_a_crate_uses_what_it_depends_on(manifest: Path) -> None:
    said = tomllib.loads(manifest.read_text())
    folders = [manifest.parent / name for name in ("src", "tests", "examples")]
    text = "\n".join(path.read_text() for folder in folders for path in folder.rglob("*.rs"))
    wanted = [*said.get("dependencies", {}), *said.get("dev-dependencies", {})]
    assert [name for name in wanted if not re.search(rf"\b{name.replace('-', '_')}\b", text)] == []


def test_what_comes_from_pypi_is_pinned() -> None:
    pinned = [tools.UV, *tools.PIP, *tools.PYTEST, *tools.RUFF, *tools.SALT.values()]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+==\d[\w.]*", one) for one in pinned), pinned
