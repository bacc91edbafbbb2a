"""A host with systemd: each app is a unit of its own, sandboxed and limited, and nothing that happens to the
agent or to the minion costs a request. All of it is as Salt's states make it, on a machine of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flipside_testbed import build, node, places, tools
from flipside_testbed.node import Node
from flipside_testbed.platform import app_pillar, publish
from flipside_testbed.processes import wait_for
from flipside_testbed.releases import project
from flipside_testbed.traffic import traffic

pytestmark = pytest.mark.xdist_group("node")

UNIT, AGENT = "flipside-app@blog.service", "flipside-agent.service"
MEMORY = 300 << 20
SECRET = "canary-of-the-unit"
MINION_UNIT = """[Service]
ExecStart={salt}/salt-minion -c /etc/salt -l quiet
KillMode=process
"""


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The programs and a store with the app, where the node sees them."""
    why = node.missing()
    if why:
        pytest.skip(why)
    folder = places.testbed_root("node")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    build.binaries(folder / "bin", faults=True)
    publish(folder / "bin/flipside", project("blog", "v1", folder / "blog"), folder / "store", "latest")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def host(bed: Path) -> Iterator[Node]:
    """A node with the app, deployed by Salt with no master."""
    salt = tools.salt("3006")
    try:
        one = Node(f"flipside-{bed.name}", places.Ports(bed).free(), [bed])
    except (RuntimeError, subprocess.CalledProcessError) as error:
        pytest.skip(f"the engine here cannot run a node: {error}")
    try:
        one.copy(bed / "bin/flipside-agent", "/usr/local/bin/flipside-agent")
        one.write("/etc/salt/minion", _minion(bed))
        one.write("/srv/pillar/top.sls", {"base": {"*": ["all"]}})
        one.write("/srv/pillar/all.sls", _pillar())
        one.write("/etc/systemd/system/salt-minion.service", MINION_UNIT.format(salt=salt))
        one.run("systemctl", "daemon-reload")
        one.run("systemctl", "start", "--no-block", "salt-minion")
        _call(one, "saltutil.sync_all")
        _call(one, "state.apply", "flipside.agent,flipside.app")
        said = _call(one, "flipside.deploy", "blog")
        assert said["apps"]["blog"]["state"] == "deployed", said
        yield one
    finally:
        one.remove()


def _minion(bed: Path) -> dict:
    roots = {"base": [str(places.CHECKOUT / "salt")], "flipside": [str(bed / "store")]}
    local = {"file_client": "local", "master_type": "disable", "enable_fqdns_grains": False}
    return {"id": "web1", "file_roots": roots, "pillar_roots": {"base": ["/srv/pillar"]}, **local}


def _pillar() -> dict:
    app = app_pillar("blog") | {"memory": MEMORY, "env": {"API_KEY": SECRET}}
    # The machine reaches no index.
    (wheel,) = tools.wheels("pyuwsgi==2.0.30").iterdir()
    settings = {"uwsgi": f"pyuwsgi @ file://{wheel}"}
    host = {"uv": str(tools.uv()), "agent": {"settings": settings}}
    return {"flipside": {"host": host, "apps": {"blog": app}}}


def _call(host: Node, *arguments: str) -> dict:
    argv = [str(tools.salt("3006") / "salt-call"), "--local", "--out=json", "--log-level=error"]
    said = host.run(*argv, "--retcode-passthrough", *arguments)
    return json.loads(said[said.index("{") :])["local"]


def _agent(host: Node) -> int:
    return int(host.unit(AGENT, "MainPID")["MainPID"])


def _answers(host: Node, before: int) -> bool:
    """Whether another agent than `before` is there, and answers."""
    said = host.run("/opt/flipside", "--json", "ping", check=False)
    return _agent(host) not in (0, before) and '"result":true' in said


def test_an_app_is_a_unit_of_its_own(host: Node) -> None:
    limits = ("MemoryMax", "TasksMax", "TasksCurrent", "NoNewPrivileges")
    shown = host.unit(UNIT, "ActiveState", *limits)
    assert shown["ActiveState"] == "active" and shown["MemoryMax"] == str(MEMORY), shown
    assert (shown["TasksMax"], shown["NoNewPrivileges"]) == ("1024", "yes"), shown
    assert int(shown["TasksCurrent"]) > 3, "the workers are in the unit"
    assert SECRET not in host.run("systemctl", "show", UNIT, AGENT)
    blog = _call(host, "flipside.status", "blog")["apps"]["blog"]["data"]
    assert blog["memory_enforced"] is True and blog["state"] == "running", blog


def test_nothing_that_happens_to_agent_or_minion_costs_a_request(
    host: Node, bed: Path, tmp_path: Path
) -> None:
    holder = host.unit(UNIT, "MainPID")["MainPID"]
    host.copy(bed / "bin/flipside", "/opt/flipside")
    ups = {
        "restart": lambda: host.run("systemctl", "restart", AGENT),
        "kill": lambda: host.run("kill", "-9", str(_agent(host))),
        "upgrade": lambda: _upgrade(host, bed),
    }
    with traffic(host.port, "blog.localhost", tmp_path / "load") as load:
        for happens in ups.values():
            before = _agent(host)
            happens()
            wait_for("the next agent", lambda before=before: _answers(host, before), 30, 0.2)
        host.run("systemctl", "restart", "salt-minion")
    assert load.figures["failed"] == 0 and load.figures["requests"] > 100, load.figures
    assert host.unit(UNIT, "MainPID")["MainPID"] == holder


def _upgrade(host: Node, bed: Path) -> None:
    host.copy(bed / "bin/flipside-agent", "/usr/local/bin/flipside-agent")
    host.run("systemctl", "restart", AGENT)
