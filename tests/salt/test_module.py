"""The execution module and the states in real Salt, against an agent that answers as it is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from masterless import Salt

WHEEL = "blog-1.0-py3-none-any.whl"


def publish(salt: Salt, app: str = "blog", version: str = "1.0") -> str:
    """Puts a release where a package store has it."""
    manifest = json.dumps(
        {"v": 1, "app": app, "version": version, "files": [{"name": WHEEL, "size": 5}]}
    ).encode()
    release = f"{version}-{hashlib.sha256(manifest).hexdigest()[:12]}"
    folder = salt.store / app / release
    (folder / "wheels").mkdir(parents=True, exist_ok=True)
    (folder / "wheels" / WHEEL).write_bytes(b"wheel")
    (folder / "manifest.json").write_bytes(manifest)
    (salt.store / app / "tags.json").write_text(json.dumps({"v": 1, "tags": {"latest": release}}))
    return release


def app(domain: str = "blog.example.org", **more: object) -> dict:
    return {"template": "python-django-sqlite", "options": {"domains": [domain]}, **more}


@pytest.fixture
def minion(salt: Salt, host: dict) -> Salt:
    """With one app, and the mark of an installed agent."""
    Path(host["agent"]["config"]).write_text("# installed\n")
    salt.pillar({"host": host, "apps": {"blog": app(env={"A": "x", "EMPTY": None})}})
    return salt


def test_a_deploy_sends_what_pillar_and_template_say(minion: Salt, agent: Callable, host: dict) -> None:
    release = publish(minion)
    heard = agent(
        answers={"deploy": {"state": "deployed", "release": release, "previous": "0.9-0123456789ab"}}
    )
    code, said = minion.call("flipside.deploy", "blog")
    assert code == 0, said
    assert said["v"] == 1 and said["result"] is True
    entry = said["apps"]["blog"]
    assert (entry["state"], entry["release"], entry["error"]) == ("deployed", release, None)
    assert set(entry) >= {"result", "state", "release", "previous", "id", "ms", "steps", "error"}
    [deploy] = heard.commands("deploy")
    assert deploy["package"]["release"] == release
    [files] = [request["files"] for request in heard.heard() if "files" in request]
    assert files == [WHEEL, "manifest.json"]
    assert not (Path(deploy["package"]["dir"]) / "wheels").exists(), "what is installed is not kept twice"
    assert deploy["wait"] == 900 and deploy["test"] is False
    spec = deploy["spec"]
    assert spec["env"] == {"A": "x", "EMPTY": ""} and spec["overlay_settings"] == "flipside_settings"
    assert "import flipside_fill" in spec["overlay"]["flipside_settings.py"]
    assert spec["hooks"]["migrate"] == [["python", "-m", "flipside_migrate"]]
    # The vhost was made, and the record says of which options.
    assert spec["vhost"] == (Path(host["apps_dir"]) / "blog/vhost").read_text().strip()
    assert "server_name blog.example.org;" in (Path(host["nginx"]["sites"]) / "blog.conf").read_text()
    who = heard.heard()[0]["who"]
    assert who["via"] == "salt" and who["id"]

    code, said = minion.call("flipside.deploy")
    assert code == 0 and "comment" not in said["apps"]["blog"], "the vhost was already so"


def test_one_failure_does_not_stop_the_rest(minion: Salt, agent: Callable, host: dict) -> None:
    release = publish(minion)
    publish(minion, "shop")
    apps = {
        "shop": app("shop.example.org"),
        "blog": app(),
        "lost": app("lost.example.org"),
        "bad": app(tag=1.1),
    }
    apps["bad"]["options"]["domains"] = ["bad.example.org"]
    minion.pillar({"host": host, "apps": apps})
    error = {"code": "hook", "message": "migrate failed", "hint": "look", "log": ["Traceback", "boom"]}
    heard = agent(
        answers={
            "deploy:blog": {"result": False, "state": "rolled_back", "error": error},
            "deploy:shop": {"state": "deployed", "release": release},
        }
    )
    code, said = minion.call("flipside.deploy")
    assert code == 1 and said["result"] is False
    assert {name: entry["state"] for name, entry in said["apps"].items()} == {
        "bad": "refused",
        "blog": "rolled_back",
        "lost": "refused",
        "shop": "deployed",
    }
    assert said["apps"]["blog"]["error"] == error
    assert "nothing is published of lost" in said["apps"]["lost"]["error"]["message"]
    assert "YAML made float of it; quote it: tag=\"'1.1'\"" in said["apps"]["bad"]["error"]["message"]
    assert [deploy["spec"]["app"] for deploy in heard.commands("deploy")] == ["blog", "shop"]


def test_a_plan_changes_nothing(minion: Salt, agent: Callable, host: dict) -> None:
    publish(minion)
    heard = agent(answers={"deploy": {"state": "planned"}})
    code, said = minion.call("flipside.plan", "blog")
    assert code == 0 and said["apps"]["blog"]["state"] == "planned"
    assert "flipside.app would be applied" in said["apps"]["blog"]["comment"]
    assert heard.commands("deploy")[0]["test"] is True
    assert not Path(host["apps_dir"]).exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["blog", "tag=1.10"], "quote it: tag="),
        (["blog", "release=7"], "quote it: release="),
        (["blog", "release=../x"], "is no release id"),
        (["blog", "tag=../x"], "is no tag"),
        (["blog", "tag=stable"], "blog has no tag 'stable'"),
        (["blog", "tga=latest"], "deploy takes no argument 'tga'"),
        (["blog", "wait=soon"], "wait: must be a whole number"),
        (["../etc"], "is no app's name"),
        (["7"], "quote it: app="),
        (["blog", "tag=yes"], "quote it: tag=\"'true'\""),
    ],
)
def test_arguments_that_make_no_sense(
    minion: Salt, agent: Callable, arguments: list[str], words: str
) -> None:
    publish(minion)
    heard = agent()
    code, said = minion.call("flipside.deploy", *arguments)
    assert code == 1 and said["result"] is False and words in said["comment"]
    assert not heard.commands("deploy")


def test_hosts_with_nothing_to_do_are_well(salt: Salt, agent: Callable, host: dict) -> None:
    salt.pillar({"host": host, "apps": {"blog": app()}})
    code, said = salt.call("flipside.deploy")
    assert code == 0 and said["apps"] == {} and "no agent is installed" in said["comment"]
    agent()
    code, said = salt.call("flipside.deploy", "other")
    assert code == 0 and said["apps"] == {} and "assigns no app other" in said["comment"]
    salt.pillar({"host": host})
    code, said = salt.call("flipside.deploy")
    assert code == 0 and said["apps"] == {} and "assigns no app" in said["comment"]


def test_an_agent_that_is_down_is_told(minion: Salt) -> None:
    publish(minion)
    for function in ("deploy", "status", "reload"):
        code, said = minion.call(f"flipside.{function}")
        assert code == 1 and said["result"] is False
        error = said["apps"]["blog"]["error"]
        assert error["code"] == "no_agent" and "start it" in error["hint"]
    code, said = minion.call("flipside.ping")
    assert code == 1 and "does not answer" in said["comment"]


def test_a_domain_of_two_apps_is_refused(minion: Salt, agent: Callable, host: dict) -> None:
    publish(minion)
    heard = agent()
    minion.pillar({"host": host, "apps": {"blog": app(), "shop": app("BLOG.example.org")}})
    code, said = minion.call("flipside.deploy", "blog")
    assert code == 1 and "blog.example.org is claimed by blog and by shop" in said["comment"]
    assert not heard.commands("deploy")
    code, said = minion.call("state.show_sls", "flipside.app")
    assert "blog.example.org is claimed by blog and by shop" in json.dumps(said)


def test_a_release_that_is_installed_is_not_fetched_again(minion: Salt, agent: Callable) -> None:
    release = publish(minion)
    (minion.store / "blog" / release / "wheels" / WHEEL).unlink()
    installed = {"data": [{"release": release, "current": False}]}
    heard = agent(answers={"releases": installed, "deploy": {"state": "deployed", "release": release}})
    assert minion.call("flipside.deploy", "blog", f"release={release}")[0] == 0
    assert heard.commands("deploy")[0]["package"]["release"] == release


def test_a_wheel_that_is_not_in_the_store(minion: Salt, agent: Callable) -> None:
    release = publish(minion)
    (minion.store / "blog" / release / "wheels" / WHEEL).unlink()
    agent()
    code, said = minion.call("flipside.deploy", "blog")
    assert code == 1 and f"lacks blog/{release}/wheels/{WHEEL}" in said["comment"]


def test_a_job_that_lost_the_agent_joins_its_command(minion: Salt, agent: Callable) -> None:
    release = publish(minion)
    heard = agent(breaks=1, answers={"deploy": {"state": "deployed", "release": release}})
    assert minion.call("flipside.deploy", "blog")[0] == 0
    ids = [request["who"]["id"] for request in heard.heard() if request["command"]["verb"] == "deploy"]
    assert len(ids) == 2 and len(set(ids)) == 1


def test_the_plan_of_a_host_without_the_apps_user(minion: Salt, agent: Callable, host: dict) -> None:
    minion.pillar({"host": {**host, "users": True}, "apps": {"nobody-yet": app()}})
    publish(minion, "nobody-yet")
    heard = agent(answers={"deploy": {"state": "planned"}})
    assert minion.call("flipside.plan")[0] == 0
    assert heard.commands("deploy")[0]["spec"]["user"] == "nobody"


def test_the_other_verbs(minion: Salt, agent: Callable, host: dict) -> None:
    status = {"host": {"id": "web1"}, "apps": {"blog": {"release": "1.0-0123456789ab", "state": "running"}}}
    heard = agent(
        lines={"logs": [["stdout", "a"], ["stdout", "b"]], "run": [["stdout", "out"], ["stderr", "err"]]},
        answers={"run": {"data": {"code": 3}}, "status": {"data": status}, "ping": {"comment": "here"}},
    )
    code, said = minion.call("flipside.run", "blog", "django-admin", "check")
    assert code == 3 and said["apps"]["blog"]["stdout"] == "out" and said["apps"]["blog"]["stderr"] == "err"
    minion.call("flipside.run", "blog", '["echo", "a=b"]')
    assert [run["command"] for run in heard.commands("run")] == [["django-admin", "check"], ["echo", "a=b"]]
    code, said = minion.call("flipside.logs", "blog", "lines=2", "grep=x")
    assert code == 0 and said["apps"]["blog"]["lines"] == ["a", "b"]
    assert heard.commands("logs")[0]["lines"] == 2 and heard.commands("logs")[0]["grep"] == "x"
    code, said = minion.call("flipside.status")
    assert code == 0 and said["host"] == {"id": "web1"} and said["apps"]["blog"]["data"]["state"] == "running"
    assert minion.call("flipside.maintenance", "blog", "on")[0] == 0
    assert minion.call("flipside.maintenance", "blog", "off")[0] == 0
    assert [maintenance["on"] for maintenance in heard.commands("maintenance")] == [True, False]
    code, said = minion.call("flipside.env", "blog")
    assert code == 0 and heard.commands("env")[0]["env"] == {"A": "x", "EMPTY": ""}
    assert not (Path(host["apps_dir"]) / "blog").exists()
    minion.pillar({"host": host, "apps": {"blog": app(files={"a.ini": "x = 1"})}})
    code, said = minion.call("flipside.env", "blog")
    assert code == 0 and heard.commands("env")[1]["files"] == {"a.ini": "x = 1"}
    for verb in (
        "reload",
        "restart",
        "stop",
        "start",
        "rollback",
        "backup",
        "backups",
        "backup_check",
        "restore",
    ):
        code, said = minion.call(f"flipside.{verb}", "blog")
        assert code == 0 and said["apps"]["blog"]["result"] and len(heard.commands(verb)) == 1
    assert minion.call("flipside.ping")[1]["comment"] == "here"
    assert minion.call("flipside.version")[1]["contract"] == 1


def test_an_app_of_neither_pillar_nor_agent_is_no_failure(minion: Salt, agent: Callable) -> None:
    error = {"code": "not_found", "message": "no app old", "hint": "", "log": []}
    agent(answers={"reload": {"result": False, "state": "refused", "error": error}})
    code, said = minion.call("flipside.reload", "old")
    assert code == 0 and said["apps"] == {} and "no app old" in said["comment"]
    assert minion.call("flipside.reload", "blog")[0] == 1


def test_the_state_tells_the_truth_in_test_mode(minion: Salt, agent: Callable) -> None:
    release = publish(minion)
    steps = [{"name": "fetch", "ok": True, "ms": 0}, {"name": "switch", "ok": True, "ms": 0}]
    heard = agent(answers={"deploy": {"state": "planned", "release": release, "steps": steps}})
    code, ran = minion.call("state.single", "flipside.deployed", "blog", "test=True")
    [state] = ran.values()
    assert state["result"] is None and state["changes"]["plan"] == ["fetch", "switch"]
    assert all(deploy["test"] for deploy in heard.commands("deploy"))


def test_the_state_of_an_app_that_is_so(minion: Salt, agent: Callable) -> None:
    release = publish(minion)
    heard = agent(answers={"deploy": {"state": "unchanged", "release": release}})
    for mode in ("test=True", "test=False"):
        _, ran = minion.call("state.single", "flipside.deployed", "blog", mode)
        [state] = ran.values()
        assert state["result"] is True and state["changes"] == {} and release in state["comment"]
    assert all(deploy["test"] for deploy in heard.commands("deploy")), "a plan was enough"


def test_the_state_removed(minion: Salt, agent: Callable) -> None:
    there = {"host": {}, "apps": {"old": {"release": "1.0-0123456789ab"}}}
    heard = agent(answers={"status:old": {"data": there}})
    _, ran = minion.call("state.single", "flipside.removed", "old", "test=True")
    assert next(iter(ran.values()))["result"] is None and not heard.commands("remove")
    _, ran = minion.call("state.single", "flipside.removed", "old")
    assert next(iter(ran.values()))["changes"] == {"old": "removed"} and len(heard.commands("remove")) == 1
    _, ran = minion.call("state.single", "flipside.removed", "gone")
    assert next(iter(ran.values()))["result"] is True
