"""A masterless minion of real Salt, and the settings of a host of an ordinary user."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from flipside_testbed import places, tools

ROOT = places.CHECKOUT
TEMPLATE = ROOT / "salt" / "flipside" / "templates" / "python-django-sqlite"


class Salt:
    """A masterless minion: its configuration, its pillar and its package store below one folder."""

    def __init__(self, folder: Path, series: str) -> None:
        self.folder = folder
        self._warm = _Warm(tools.salt(series) / "python")
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
            # What a master's configuration gives the reactor's file.
            "flipside_reload": {"blog": "web1"},
            "log_level_logfile": "warning",
        }
        (folder / "etc" / "minion").write_text(json.dumps(config))

    def pillar(self, flipside: object) -> None:
        """Gives the minion this pillar."""
        (self.pillar_root / "top.sls").write_text(json.dumps({"base": {"*": ["all"]}}))
        (self.pillar_root / "all.sls").write_text("#!json\n" + json.dumps({"flipside": flipside}))

    def call(self, function: str, *arguments: str, out: str | None = "json") -> tuple[int, object]:
        """The return code and the answer of ``salt-call --local``; without ``out`` what it prints itself."""
        argv = ["salt-call", "--local", "-c", str(self.folder / "etc"), "--retcode-passthrough", "--no-color"]
        argv += [f"--out={out}"] if out else []
        stdout, stderr = self.folder / "stdout", self.folder / "stderr"
        request = {"argv": [*argv, "--log-level=error", function, *arguments]}
        code = self._warm.ask({**request, "stdout": str(stdout), "stderr": str(stderr)})
        said = stdout.read_text()
        if out is None:
            return code, said
        try:
            return code, json.loads(said)["local"]
        except (ValueError, KeyError):
            return code, said + stderr.read_text()

    def stop(self) -> None:
        """Ends the process that answers calls."""
        self._warm.stop()


class _Warm:
    """A process with Salt imported, that forks for each call."""

    def __init__(self, python: Path) -> None:
        script = Path(__file__).with_name("warm_call.py")
        # -P: no folder of ours on its path, for `salt` must be Salt.
        self.process = subprocess.Popen(
            [python, "-P", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, request: dict[str, object]) -> int:
        self.process.stdin.write(json.dumps(request) + "\n")
        return int(self.process.stdout.readline())

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)


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
