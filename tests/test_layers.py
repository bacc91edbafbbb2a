"""The rules of ARCHITECTURE.md that a compiler does not see: who may name whom, and how long a file gets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flipside_testbed.places import CHECKOUT

pytestmark = pytest.mark.quick

AGENT = CHECKOUT / "agent/src"
# Adapters: the only places of the agent that name the crate. A path ending in / is a folder.
ADAPTERS = {
    "bollard": ("runtime/docker", "main.rs", "boot"),
    "aws_": ("watch/sinks/", "tls", "backup", "main.rs", "boot"),
    "rusqlite": ("db/", "sqlite", "backup", "steps/mark"),
}


def rust(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.rs"))


def code(path: Path) -> str:
    """The text of a Rust file without its comments and its unit tests."""
    text = path.read_text().split("#[cfg(test)]\nmod tests {")[0]
    return re.sub(r"//[^\n]*", "", text)


def offenders(paths: list[Path], pattern: str) -> list[str]:
    return [str(path.relative_to(CHECKOUT)) for path in paths if re.search(pattern, code(path))]


@pytest.mark.parametrize("crate", ["salt-wire", "backup"])
def test_a_crate_that_others_could_use_knows_nothing_of_flipside(crate: str) -> None:
    own = "flipside_backup" if crate == "backup" else "salt_wire"
    names = rf"\b(?!{own})(flipside_\w+|salt_wire)\b"
    assert offenders(rust(CHECKOUT / "agent" / crate / "src"), names) == []
    manifest = (CHECKOUT / "agent" / crate / "Cargo.toml").read_text()
    dependencies = manifest.partition("[dependencies]")[2]
    assert not re.search(r"^(flipside|salt-wire)", dependencies, re.MULTILINE)


def test_the_domain_has_no_io_and_no_async() -> None:
    files = rust(AGENT / "app")
    assert files
    assert (
        offenders(files, r"\btokio\b|\bstd::fs\b|\bstd::process\b|\bstd::net\b|\basync fn\b|\brmp_serde\b")
        == []
    )


@pytest.mark.parametrize("crate", sorted(ADAPTERS))
def test_only_adapters_name_what_they_adapt(crate: str) -> None:
    allowed = ADAPTERS[crate]
    found = offenders(rust(AGENT), rf"\b{crate}")
    assert [
        path for path in found if not any(part in path.removeprefix("agent/src/") for part in allowed)
    ] == []


def test_salt_has_no_package_that_shadows_salts_own() -> None:
    assert list((CHECKOUT / "salt").rglob("__init__.py")) == []


def sources() -> list[Path]:
    tops = ("agent", "salt", "master-plugin", "tests", "vagrant")
    found = [path for top in tops for end in ("*.rs", "*.py") for path in (CHECKOUT / top).rglob(end)]
    return sorted(path for path in found if "target" not in path.parts and ".demo" not in path.parts)


def test_no_file_is_too_long_to_read() -> None:
    longer = {str(path.relative_to(CHECKOUT)): count for path in sources() if (count := lines(path)) > 500}
    # The API's spec is a table of options with their rules and tests.
    longer.pop("agent/api/src/spec.rs", None)
    assert longer == {}


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_no_shell_is_started() -> None:
    programs = [path for path in rust(CHECKOUT / "agent") if "tests" not in path.parts]
    assert offenders(programs, r'"(/bin/)?(ba)?sh"') == []
    python = [path for path in sources() if path.suffix == ".py" and path != Path(__file__)]
    assert [
        str(path) for path in python if re.search(r"shell\s*=\s*True|os\.system|os\.popen", path.read_text())
    ] == []


def documents() -> list[Path]:
    return sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")])


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_documents_name_only_files_that_exist(document: Path) -> None:
    text = document.read_text()
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (document.parent / link).exists()]
    tops = "agent|salt|tests|docs|master-plugin|pillar-examples|vagrant"
    for name in re.findall(rf"`((?:{tops})/[A-Za-z0-9_./-]+)`", text):
        if not any((CHECKOUT / f"{name}{end}").exists() for end in ("", ".rs", ".py")):
            missing.append(name)
    assert missing == []
