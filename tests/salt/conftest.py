"""Fixtures of Salt's part: real Salt, masterless, in a folder of its own, and an agent to talk to."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flipside_testbed import places, tools

sys.path.insert(0, str(Path(__file__).parent))

from fake_agent import FakeAgent  # noqa: E402

ROOT = places.CHECKOUT
SALT_PARTS = [ROOT / "salt" / "_utils", ROOT / "salt" / "flipside" / "templates" / "python-django-sqlite"]


class Salt:
    """A masterless minion: its configuration, its pillar and its package store below one folder."""

    def __init__(self, folder: Path, series: str) -> None:
        self.folder = folder
        self.bin = tools.salt(series)
        self.pillar_root = folder / "pillar"
        self.store = folder / "store"
        for path in (self.pillar_root, self.store, folder / "etc"):
            path.mkdir()
        config = {
            "id": "web1",
            "root_dir": str(folder / "root"),
            "file_client": "local",
            "file_roots": {"base": [str(ROOT / "salt")], "flipside": [str(self.store)]},
            "pillar_roots": {"base": [str(self.pillar_root)]},
            "enable_fqdns_grains": False,
            "grains_cache": True,
            "log_level_logfile": "warning",
        }
        (folder / "etc" / "minion").write_text(json.dumps(config))

    def pillar(self, flipside: object) -> None:
        """Gives the minion this pillar."""
        (self.pillar_root / "top.sls").write_text(json.dumps({"base": {"*": ["all"]}}))
        (self.pillar_root / "all.sls").write_text("#!json\n" + json.dumps({"flipside": flipside}))

    def call(self, function: str, *arguments: str) -> tuple[int, object]:
        """The return code and the answer of ``salt-call --local``."""
        command = [
            self.bin / "salt-call",
            "--local",
            "-c",
            self.folder / "etc",
            "--out=json",
            "--retcode-passthrough",
        ]
        ended = subprocess.run(
            [*command, "--log-level=error", function, *arguments], capture_output=True, text=True, timeout=120
        )
        try:
            return ended.returncode, json.loads(ended.stdout)["local"]
        except (ValueError, KeyError):
            return ended.returncode, ended.stdout + ended.stderr


@pytest.fixture(params=["3006", pytest.param("3008", marks=pytest.mark.both)], scope="module")
def salt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Salt:
    """A minion with Flipside's modules, synced by Salt itself."""
    minion = Salt(tmp_path_factory.mktemp("salt"), request.param)
    minion.pillar({})
    code, synced = minion.call("saltutil.sync_all")
    assert code == 0, synced
    return minion


@pytest.fixture
def host(tmp_path: Path) -> dict[str, object]:
    """Host settings of an ordinary user, all below one folder."""
    return host_settings(tmp_path)


def host_settings(folder: Path) -> dict[str, object]:
    """The same, for a folder of the caller's."""
    return {
        "socket": f"{folder}/run/agent.sock",
        "apps_dir": f"{folder}/apps",
        "state_dir": f"{folder}/state",
        "run_dir": f"{folder}/run",
        "log_dir": f"{folder}/log",
        "users": False,
        "port": 25080,
        "agent": {"config": f"{folder}/agent.toml", "binary": f"{folder}/flipside-agent", "manage": False},
        "nginx": {
            "conf": f"{folder}/nginx/nginx.conf",
            "sites": f"{folder}/nginx/sites",
            "listen": "127.0.0.1:25080",
            "pid": f"{folder}/nginx/nginx.pid",
            "temp": f"{folder}/nginx/temp",
            "access_log": f"{folder}/nginx/access.log",
            "error_log": f"{folder}/nginx/error.log",
            "service": False,
        },
        "memcached": {"address": "127.0.0.1:25211", "service": False},
    }


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
    for folder in SALT_PARTS:
        monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module
