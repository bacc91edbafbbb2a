"""A whole platform on one machine: a Salt master, two minions, and an agent, nginx and memcached for each."""

from __future__ import annotations

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flipside_testbed import build, tools, users
from flipside_testbed.host import Host, end_apps
from flipside_testbed.places import Ports, is_root
from flipside_testbed.processes import Process, stop_all, stragglers
from flipside_testbed.releases import project
from flipside_testbed.salted import Salted, clean_environment, own_files

MINIONS = ("web1", "web2")
# What the example's apps are in pillar, and on which minions.
ASSIGNED = {"web1": ("blog", "shop"), "web2": ("blog",)}
# Events that a reactor answers, and the apps that they may be about, each with its host.
REACTOR = {
    "reactor": [{"flipside/do/reload/*": ["salt://reactor/reload.sls"]}],
    "flipside_reload": {"blog": "web1", "shop": "web1"},
}


def app_pillar(app: str, *, runtime: str = "process", **options: Any) -> dict[str, Any]:
    """The pillar of one of the example's apps."""
    domains = [f"{app}.localhost"] + (["127.0.0.1", "localhost"] if app == "blog" else [])
    defaults = {
        "domains": domains,
        "health": {"path": "/healthz", "status": 200, "contains": "ok", "timeout": 5},
        "release_header": True,
    }
    pillar = {"template": "python-django-sqlite", "tag": "latest", "options": defaults | options, "env": {}}
    return pillar | {"runtime": runtime}


class Platform:
    """All of it below one folder."""

    def __init__(self, root: Path, series: str = "3006", runtime: str = "process") -> None:
        self.root, self.runtime = root, runtime
        ports = Ports(root)
        self.salted = Salted(root, tools.salt(series), ports, list(MINIONS))
        self.hosts = {name: Host(root, name, ports, self.salted.minion_config(name)) for name in MINIONS}
        self.apps: dict[str, dict[str, Any]] = {}
        self.assigned: dict[str, tuple[str, ...]] = {}
        self.published: dict[str, str] = {}

    @property
    def store(self) -> Path:
        """The package store."""
        return self.salted.store

    def up(self, faults: bool = False, release: bool = False) -> None:
        """Everything but apps; what is built obeys faults, or is a release build."""
        users.remember(self.root)
        build.binaries(self.root / "bin", faults, release)
        for host in self.hosts.values():
            host.prepare()
            host.start_memcached()
        own_files(self.salted.files)
        self.salted.configure(REACTOR, {})
        self.write_pillar()
        # The agents install uWSGI for themselves while Salt starts.
        with ThreadPoolExecutor() as pool:
            started: list[Any] = [pool.submit(host.start_agent) for host in self.hosts.values()]
            self.salted.start()
            outputter = pool.submit(self.salted.run, "saltutil.sync_output")
            self._must(self.salted.salt("*", "saltutil.sync_all"))
            self._must(self.salted.salt("*", "state.apply", "nginx"))
            for host in self.hosts.values():
                host.start_nginx()
            for one in (*started, outputter):
                one.result()

    def _must(self, answer: Any) -> None:
        if answer.code != 0 or set(answer.returns) != set(MINIONS):
            raise RuntimeError(answer.text[-6000:])

    def down(self) -> None:
        """Ends all that was started, and removes all that was made."""
        remove_everything(self.root)

    def stop(self) -> None:
        """Ends all that was started."""
        end_everything(self.root)

    def assign(self, assigned: dict[str, tuple[str, ...]], apps: dict[str, dict[str, Any]]) -> None:
        """Says in pillar which apps there are, and where."""
        self.assigned, self.apps = assigned, apps
        users.remember(self.root)
        if is_root():
            for app in set.intersection(*(set(assigned.get(name, ())) for name in MINIONS)):
                # Both minions would add it to this one machine at once, and useradd is not made for that.
                users.add(f"app-{app}")
        self.write_pillar()

    def write_pillar(self) -> None:
        """Writes the pillar anew: a file for each host and for each app."""
        top = {name: [f"host-{name}", *self.assigned.get(name, ())] for name in MINIONS}
        files: dict[str, Any] = {"top.sls": {"base": top}}
        for name, host in self.hosts.items():
            files[f"host-{name}.sls"] = {"flipside": {"host": host.pillar()}}
        for app, pillar in self.apps.items():
            files[f"{app}.sls"] = {"flipside": {"apps": {app: pillar}}}
        self.salted.write_pillar(files)

    def publish(self, app: str, kind: str) -> str:
        """Publishes one of the example's releases; its kind is a tag of it, and the first is the latest."""
        folder = project(app, kind, self.root / "projects" / f"{app}-{kind}")
        return self.publish_folder(folder, *([kind, "latest"] if kind == "v1" else [kind]))

    def publish_folder(self, folder: Path, *tags: str, version: str | None = None) -> str:
        """Publishes a project folder, under its own version or another; the release's id."""
        return publish(self.root / "bin/flipside", folder, self.store, *tags, version=version)


def publish(flipside: Path, folder: Path, store: Path, *tags: str, version: str | None = None) -> str:
    """Publishes a project folder into a store; the release's id."""
    argv = [str(flipside), "publish", str(folder), "--store", str(store)]
    env = clean_environment() | build.environment()
    argv += ["--json", *(f"--tag={tag}" for tag in tags), *([f"--version={version}"] if version else [])]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} gave {done.returncode}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])["release"]


def end_everything(root: Path) -> None:
    """Ends what runs of the testbed at `root`, whoever started it."""
    recorded = [Process(file) for file in sorted((root / "pid").glob("*.pid"))]
    # Agents first: a living agent would start again what is ended under it.
    stop_all([process for process in recorded if process.pid_file.name.startswith("agent-")], patience=3)
    end_apps(root)
    # Salt takes its time to end, and nothing of it is kept.
    stop_all(recorded, patience=0.3)
    left = stragglers(root)
    if left:
        raise RuntimeError(f"still running: {left}")


def remove_everything(root: Path) -> None:
    """Ends what runs of the testbed at `root`, and removes its users and files."""
    end_everything(root)
    users.remove_new(root)
    shutil.rmtree(root, ignore_errors=True)
