"""Fixtures of Salt's part: real Salt, masterless, in a folder of its own, and an agent to talk to."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flipside_testbed import places

sys.path.insert(0, str(Path(__file__).parent))

from fake_agent import FakeAgent  # noqa: E402
from masterless import ROOT, TEMPLATE, Salt, host_settings  # noqa: E402


@pytest.fixture(params=["3006", pytest.param("3008", marks=pytest.mark.both)], scope="module")
def salt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Salt]:
    """A minion with Flipside's modules, synced by Salt itself."""
    minion = Salt(tmp_path_factory.mktemp("salt"), request.param)
    minion.pillar({})
    code, synced = minion.call("saltutil.sync_all")
    assert code == 0, synced
    yield minion
    minion.stop()


@pytest.fixture
def host(tmp_path: Path) -> dict[str, object]:
    """Host settings of an ordinary user, all below one folder."""
    return host_settings(tmp_path)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Callable[..., FakeAgent]]:
    """Starts a process that speaks the agent's API as it is told to."""
    started: list[FakeAgent] = []

    def start(**behaviour: object) -> FakeAgent:
        one = FakeAgent(tmp_path / "run" / "agent.sock", behaviour)
        started.append(one)
        return one

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """Imports one of our modules by its name, as Salt's loader or the app would, with neither."""
    for folder in (ROOT / "salt" / "_utils", TEMPLATE):
        monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module


@pytest.fixture
def program() -> Callable[[str, str], str]:
    """The path of a program; as root it is installed where it is missing."""

    def find(name: str, package: str) -> str:
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        if shutil.which(name, path=path) is None and places.is_root():
            install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", package]
            subprocess.run(install, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, check=True)
        found = shutil.which(name, path=path)
        assert found, f"{name} is not installed; as root: apt-get install {package}"
        return found

    return find
