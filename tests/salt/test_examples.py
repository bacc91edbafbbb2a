"""Every example of pillar-examples/ renders into every formula, in real Salt; so do the formulas' files."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from masterless import ROOT, Salt

EXAMPLES = sorted(path.stem for path in (ROOT / "pillar-examples").glob("*.sls") if path.stem != "top")
FORMULAS = ("nginx", "memcached", "rsyslog", "logrotate", "flipside.agent", "flipside.app")


def give(salt: Salt, *files: str) -> None:
    """Gives the minion these examples as its pillar."""
    for file in files:
        shutil.copy(ROOT / "pillar-examples" / f"{file}.sls", salt.pillar_root)
    (salt.pillar_root / "top.sls").write_text(json.dumps({"base": {"*": list(files)}}))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_renders(salt: Salt, example: str) -> None:
    # Secrets are merged with the file that names the app.
    give(salt, *(["one-app"] if example == "secrets" else []), example)
    code, states = salt.call("state.show_sls", ",".join(FORMULAS))
    assert code == 0 and isinstance(states, dict), states
    refused = [name for name in states if name.startswith("flipside-refused")]
    assert not refused, states[refused[0]]
    code, layout = salt.call("flipside.layout")
    assert code == 0 and layout["apps"] and not layout["refused"]


def test_a_second_app_of_the_same_domain_renders_nothing(salt: Salt) -> None:
    give(salt, "one-app", "moved-app")
    assert salt.call("state.show_sls", "flipside.app")[0] == 0
    twin = {"twin": {"template": "python-django-sqlite", "options": {"domains": ["blog.example.org"]}}}
    pillar = json.dumps({"flipside": {"apps": twin}})
    _, said = salt.call("state.show_sls", "flipside.app", f"pillar={pillar}")
    assert "claimed by blog and by twin" in json.dumps(said)


def test_the_tokens_stay_out_of_what_may_be_shown(salt: Salt) -> None:
    give(salt, "central-logs")
    for call in (["flipside.layout"], ["state.show_sls", ",".join(FORMULAS)]):
        code, said = salt.call(*call)
        assert code == 0 and "00000000-0000" not in json.dumps(said)


def test_the_files_of_logs_are_what_their_programs_read(
    salt: Salt, tmp_path: Path, program: Callable
) -> None:
    host = {
        "log_dir": str(tmp_path / "log"),
        "logrotate": {"conf": str(tmp_path / "logrotate.conf"), "package": False},
        "rsyslog": {
            "conf": str(tmp_path / "rsyslog.conf"),
            "central": str(tmp_path / "central"),
            "spool": str(tmp_path / "spool"),
            "service": False,
            "listen": "127.0.0.1:25514",
            "server": "127.0.0.1:9",
        },
    }
    apps = {"blog": {"template": "python-django-sqlite", "options": {"domains": ["blog.example.org"]}}}
    salt.pillar({"host": host, "apps": apps})
    code, states = salt.call("state.apply", "rsyslog,logrotate")
    assert code == 0, states
    log = tmp_path / "log" / "blog.log"
    log.parent.mkdir()
    log.write_text("a line\n" * 1000)
    rotate = [program("logrotate", "logrotate"), "-f", "-s", tmp_path / "state", tmp_path / "logrotate.conf"]
    done = subprocess.run(rotate, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert log.read_text() == "" and (tmp_path / "log" / "blog.log.1").read_text().count("\n") == 1000
    # As Debian's own rsyslog.conf does before it includes ours.
    main = tmp_path / "main.conf"
    main.write_text(f'global(workDirectory="{tmp_path}")\ninclude(file="{tmp_path}/rsyslog.conf")\n')
    check = [program("rsyslogd", "rsyslog"), "-N1", "-f", main]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    logs_arrive(main, log, tmp_path / "central", program("rsyslogd", "rsyslog"))
    conf = (tmp_path / "rsyslog.conf").read_text()
    assert 'File="' + str(log) in conf and "secpath-replace" in conf and "logentries" not in conf
    code, states = salt.call("state.apply", "rsyslog,logrotate")
    assert all(not state["changes"] for state in states.values())


def logs_arrive(conf: Path, log: Path, central: Path, rsyslogd: str) -> None:
    """The app's lines and those of other hosts end in files of their own, and nowhere else."""
    server = subprocess.Popen([rsyslogd, "-n", "-f", conf, "-i", conf.with_suffix(".pid")])
    try:
        with log.open("a") as file:
            file.write("a line of the app\n")
        until(lambda: any("a line of the app" in file.read_text() for file in central.glob("*/blog.log")))
        with socket.create_connection(("127.0.0.1", 25514), 5) as sender:
            sender.sendall(b"<13>1 2026-01-01T00:00:00Z ../../../up ../../../name - - - hostile line\n")
            sender.sendall(b"<13>1 2026-01-01T00:00:00Z web2 app - - - a line from elsewhere\n")
        until(lambda: (central / "web2/app.log").exists())
        found = [file for file in central.rglob("*") if file.is_file() and "hostile" in file.read_text()]
        assert len(found) == 1, "inside the folder"
        assert not (central.parent / "up").exists()
    finally:
        server.terminate()
        server.wait(10)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_host_that_is_not_ours_to_furnish_is_left_alone(salt: Salt, host: dict) -> None:
    salt.pillar({"host": host})
    code, states = salt.call("state.show_sls", "memcached,rsyslog,logrotate,flipside.agent")
    assert code == 0
    kinds = {kind for state in states.values() for kind in state if not kind.startswith("__")}
    assert kinds == {"test"}


def test_logentries_is_spoken_to_over_tls(salt: Salt, tmp_path: Path) -> None:
    token = "0123abcd-0000-0000-0000-0123456789ab"
    rsyslog = {"conf": str(tmp_path / "r.conf"), "central": str(tmp_path / "c"), "spool": str(tmp_path / "s")}
    rsyslog |= {"service": False, "logentries": {"token": token}}
    salt.pillar({"host": {"rsyslog": rsyslog}})
    code, states = salt.call("state.apply", "rsyslog")
    assert code == 0 and token not in json.dumps(states), "no diff of a file that holds a token"
    conf = (tmp_path / "r.conf").read_text()
    assert f'string="{token} ' in conf and 'streamDriverAuthMode="x509/name"' in conf
    assert oct((tmp_path / "r.conf").stat().st_mode)[-3:] == "640"


def test_the_agent_sls_writes_its_configuration(salt: Salt, host: dict, tmp_path: Path) -> None:
    # As an ordinary user's, so that no user of this machine is made.
    host["agent"]["manage"] = True
    salt.pillar({"host": host})
    code, states = salt.call("state.apply", "flipside.agent")
    assert Path(host["agent"]["config"]).read_text().startswith("# Written by Salt"), states
    assert oct(Path(host["agent"]["config"]).stat().st_mode)[-3:] == "640"


def test_salt_chooses_it_by_itself(salt: Salt) -> None:
    salt.pillar({})
    code, text = salt.call("flipside.deploy", out=None)
    assert (
        code == 0 and text == "local  ok\n  no agent is installed on this host: flipside.agent installs it\n"
    )
