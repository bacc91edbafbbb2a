"""The testbed itself: what it ends, what it claims, and the releases that it makes."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from flipside_testbed import processes, releases, tools
from flipside_testbed.places import Ports
from flipside_testbed.processes import NotSo, Process, alive
from flipside_testbed.report import Report, claim

pytestmark = pytest.mark.quick

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
IGNORE = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
STUBBORN = [sys.executable, "-c", IGNORE]


def test_a_process_is_started_found_and_ended(tmp_path: Path) -> None:
    process = Process(tmp_path / "a.pid")
    pid = process.start(SLEEPER, tmp_path / "log")
    assert process.pid() == pid == int(process.pid_file.read_text())
    assert os.getsid(pid) == pid
    with pytest.raises(NotSo):
        process.start(SLEEPER, tmp_path / "log")
    process.stop()
    assert process.pid() is None and not alive(pid) and not process.pid_file.exists()


def test_one_that_ignores_term_is_killed(tmp_path: Path) -> None:
    process = Process(tmp_path / "a.pid")
    pid = process.start(STUBBORN, tmp_path / "log")
    processes.wait_for("its handler", lambda: (tmp_path / "log").read_text(errors="replace") or None, 10)
    process.stop(patience=0.2)
    assert not alive(pid)


def test_a_number_that_belongs_to_somebody_else_is_left_alone(tmp_path: Path) -> None:
    other = Process(tmp_path / "other.pid")
    pid = other.start(SLEEPER, tmp_path / "log")
    mine = Process(tmp_path / "mine.pid")
    mine.pid_file.write_text(f"{pid}\n")
    mine.pid_file.with_suffix(".started").write_text("12345\n")
    mine.stop()
    assert alive(pid)
    other.stop()


def test_a_report_goes_on_after_a_failure_and_remembers_it(tmp_path: Path) -> None:
    report = Report(tmp_path / "report.json")
    with report.step("first"):
        claim(True, "never said")
    assert report.ok
    with report.step("second"):
        claim(False, "what did not hold")
    with report.step("third") as step:
        figures = {"requests": 5, "failed": 1, "p50_ms": 1.0, "p99_ms": 2.0, "failures": {"status 502": 1}}
        step.loaded(figures)
    with report.step("fourth"):
        pass
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["ok"] is False and not report.ok
    assert [step["ok"] for step in written["steps"]] == [True, False, False, True]
    assert written["steps"][2]["requests"] == 5 and written["steps"][2]["failed"] == 1


def test_an_empty_report_claims_nothing(tmp_path: Path) -> None:
    assert not Report(tmp_path / "report.json").ok


@pytest.mark.parametrize("kind", sorted(releases.KINDS))
def test_every_release_is_a_project_of_its_own(tmp_path: Path, kind: str) -> None:
    project = releases.project("shop", kind, tmp_path / "project")
    version = releases.KINDS[kind][0]
    assert f'version = "{version}"' in (project / "pyproject.toml").read_text()
    for file in project.rglob("*"):
        assert "blog" not in file.name
        if file.suffix == ".py":
            text = file.read_text()
            assert "blog" not in text
            compile(text, str(file), "exec")


def test_ports_are_free_and_differ(tmp_path: Path) -> None:
    ports = Ports(tmp_path)
    assert len({ports.free() for _ in range(5)}) == 5


def test_waiting_gives_up(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(NotSo, match="a miracle"):
        processes.wait_for("a miracle", lambda: False, seconds=0.1)
    assert time.monotonic() - begun < 5


def test_an_old_rust_is_named_with_the_one_that_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(tools.Missing, match="there is no cargo"):
        tools.cargo()
    old = tmp_path / "cargo"
    old.write_text("#!/bin/sh\necho cargo 1.65.0\n")
    old.chmod(0o755)
    with pytest.raises(tools.Missing, match=r"Rust 1\.\d+\.\d+ or newer is needed, and .* is cargo 1\.65\.0"):
        tools.cargo()
    old.write_text("#!/bin/sh\necho 'cargo 2.0.0-nightly (abc 2031-01-01)'\n")
    assert tools.cargo() == str(old)
