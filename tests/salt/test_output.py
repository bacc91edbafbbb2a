"""The outputter: what a person sees of a deploy, a failure, the status; nothing steers the terminal."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
from masterless import ROOT

pytestmark = pytest.mark.quick


@pytest.fixture
def screen() -> ModuleType:
    spec = importlib.util.spec_from_file_location("outputter", ROOT / "salt/_output/flipside.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entry(**more: object) -> dict:
    plain = {
        "result": True,
        "state": "ok",
        "release": None,
        "previous": None,
        "id": None,
        "ms": 0,
        "steps": [],
    }
    return {**plain, "error": None, **more}


def whole(apps: dict, **more: object) -> dict:
    return {
        "v": 1,
        "result": all(one["result"] for one in apps.values()),
        "comment": "",
        "apps": apps,
        **more,
    }


def test_a_deploy(screen: ModuleType) -> None:
    steps = [
        {"name": "fetch", "ok": True, "ms": 12, "message": ""},
        {"name": "migrate", "ok": True, "ms": 3400, "message": "2 migrations"},
    ]
    blog = entry(state="deployed", release="1.1-bbb", previous="1.0-aaa", ms=4200, steps=steps)
    assert screen.output({"web1": whole({"blog": blog})}).splitlines() == [
        "web1  ok",
        "  blog  deployed  1.1-bbb (was 1.0-aaa)  4.2 s",
        "    ✓ fetch      12 ms",
        "    ✓ migrate    3.4 s  2 migrations",
    ]


def test_a_plan_says_what_would_be_done(screen: ModuleType) -> None:
    steps = [{"name": "fetch", "ok": True, "ms": 0, "message": "5 wheels"}]
    data = {"kind": "hot", "reasons": ["another release"], "steps": ["fetch"]}
    blog = entry(state="planned", release="1.1-bbb", steps=steps, data=data)
    assert screen.output({"web1": whole({"blog": blog})}).splitlines()[1:] == [
        "  blog  planned  1.1-bbb",
        "    · fetch           5 wheels",
        "    kind: hot",
        "    another release",
    ]


def test_a_plan_marks_what_is_not_harmless(screen: ModuleType) -> None:
    losing = {"kind": "RemoveField", "subject": "Post.x\n", "destructive": True}
    adding = {"kind": "AddField", "subject": "Post.y", "destructive": False}
    must = {**adding, "subject": "Post.z", "breaking": True}
    waiting = {"database": "default", "app": "blog", "name": "0002_x", "operations": [losing, adding, must]}
    data = {"kind": "hot", "migrations": {"pending": [waiting], "unknown": []}}
    blog = entry(state="planned", data=data)
    assert screen.output({"web1": whole({"blog": blog})}).splitlines()[2:] == [
        "    kind: hot",
        "    migrations that wait:",
        "      blog.0002_x (default)",
        "        ! RemoveField Post.x\N{REPLACEMENT CHARACTER}  destructive",
        "        · AddField Post.y",
        "        ! AddField Post.z  held",
    ]


def test_a_failure_shows_the_log_then_why_then_what_to_do(screen: ModuleType) -> None:
    error = {
        "code": "preflight",
        "message": "the app does not start",
        "hint": "see models.py",
        "log": ["Trace", "boom"],
    }
    steps = [{"name": "preflight", "ok": False, "ms": 900, "message": ""}]
    shop = entry(result=False, state="rolled_back", steps=steps, error=error)
    assert screen.output(
        {"web1": whole({"shop": shop}, comment="shop: the app does not start")}
    ).splitlines() == [
        "web1  FAILED",
        "  shop  rolled_back",
        "    ✗ preflight   900 ms",
        "    | Trace",
        "    | boom",
        "    error: the app does not start [preflight]",
        "    hint: see models.py",
    ]


def test_the_status(screen: ModuleType) -> None:
    workers = [{"busy": True, "rss": 50 << 20}, {"busy": False, "rss": 50 << 20}]
    data = {"release": "1.1-bbb", "state": "running", "workers": workers, "problem": None, "db": 1 << 30}
    down = {"release": "2.0-ccc", "state": "down", "workers": [], "problem": "nobody listens"}
    apps = {"blog": entry(data=data), "shop": entry(data=down), "new": entry(comment="not deployed yet")}
    host = {"id": "web1", "agent": "0.1.0", "up_seconds": 7300}
    assert screen.output({"web1": whole(apps, host=host)}).splitlines() == [
        "web1  ok  agent 0.1.0  up 2h",
        "  ! shop: nobody listens",
        "  APP   STATE             RELEASE  WORKERS   RSS   DB",
        "  blog  running           1.1-bbb  1/2 busy  100M  1.0G",
        "  new   not deployed yet  -        -         -     -",
        "  shop  down              2.0-ccc  0/0 busy  0B    -",
    ]


def test_what_runs_beside_the_web_workers(screen: ModuleType) -> None:
    queue = {"name": "queue", "number": 1, "pid": 7, "release": "2-b", "restarts": 0, "ended": None}
    last = {"at": "2026-11-28T03:10:00Z", "ms": 1500, "code": 3, "problem": "ended with code 3"}
    nightly = {"name": "nightly", "cron": "10 3 * * *", "running": None, "last": last}
    data = {
        "state": "running",
        "background": [queue],
        "schedule": [nightly],
        "problems": ["schedule nightly ended"],
    }
    text = screen.output({"web1": whole({"blog": entry(data=data)}, host={"id": "web1"})})
    assert "  ! blog: schedule nightly ended" in text, text
    rows = [line.split() for line in text.splitlines()]
    assert ["APP", "BACKGROUND", "RELEASE", "RESTARTS", "PID"] in rows, text
    assert ["blog", "queue.1", "2-b", "0", "7"] in rows, text
    assert "code 3  1.5 s" in text, text


def test_the_status_of_backups(screen: ModuleType) -> None:
    def shown(**about: object) -> str:
        data = {"state": "running", "backup": {"db": {"lag_seconds": 3, "verified_seconds": None} | about}}
        return screen.output({"web1": {"result": True, "host": {}, "apps": {"blog": {"data": data}}}})

    assert "lag 3s" in shown() and "verified" not in shown()
    assert "lag 3s, verified 2h ago" in shown(verified_seconds=7200)
    failing = shown(lag_seconds=None, error="the store\nis away")
    assert (
        "FAILING" in failing and "! blog: backup of db: the store\N{REPLACEMENT CHARACTER}is away" in failing
    )


def test_tables_and_lines(screen: ModuleType) -> None:
    ann = {"user": "ann", "via": "salt"}
    rows = [{"release": "1.1-bbb", "current": True, "who": ann}, {"release": "1.0-aaa", "current": False}]
    text = screen.output({"web1": whole({"blog": entry(data=rows)})})
    assert text.splitlines()[2:] == [
        "    CURRENT  RELEASE  WHO",
        "    *        1.1-bbb  ann by salt",
        "             1.0-aaa  -",
    ]
    text = screen.output(
        {"web1": whole({"blog": entry(lines=["a", "b"], stdout="out\nmore", data={"code": 0})})}
    )
    assert text.splitlines()[2:] == ["    out", "    more", "    a", "    b"]


def test_nothing_steers_the_terminal(screen: ModuleType) -> None:
    nasty = "\x1b]0;owned\x07\x9b31m\r\x00"
    error = {"code": nasty, "message": nasty, "hint": nasty, "log": [nasty]}
    steps = [{"name": nasty, "ok": True, "ms": 1, "message": nasty}]
    blog = entry(state=nasty, release=nasty, comment=nasty, lines=[nasty], stdout=nasty, data={nasty: nasty})
    apps = {
        nasty: {**blog, "steps": steps, "error": error},
        "b": entry(data={"problem": nasty, "state": nasty}),
    }
    for said in (whole(apps), whole(apps, host={"health": nasty, nasty: nasty}), nasty):
        text = screen.output({nasty: said})
        assert not [c for c in text if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160]


@pytest.mark.parametrize("said", ["Minion did not return", False, None, [], {"apps": 3}, {}])
def test_what_is_no_answer_of_ours_is_shown_as_it_is(screen: ModuleType, said: object) -> None:
    assert screen.output({"web1": said}).startswith("web1:")
