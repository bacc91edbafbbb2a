"""The reactor's file: which events become a reload, and of what."""

from __future__ import annotations

import json

import pytest
from masterless import Salt


def rendered(salt: Salt, tag: str, data: dict) -> dict:
    """What the reactor makes of an event."""
    arguments = [f"tag={json.dumps(tag)}", f"data={json.dumps(data)}"]
    code, states = salt.call("slsutil.renderer", "salt://reactor/reload.sls", *arguments)
    assert code == 0, states
    return states or {}


def test_a_request_becomes_one_event_with_its_id(salt: Salt) -> None:
    inner = {"id": "request-1"}
    sent = {"id": "web9", "cmd": "_minion_event", "data": inner, "_stamp": "2026-01-01T00:00:00"}
    [[state]] = [list(rendered(salt, "flipside/do/reload/blog", sent).values())]
    [call] = state.items()
    assert call[0] == "local.event.fire"
    told = {key: value for part in call[1] for key, value in part.items()}
    assert told["tgt"] == "web1", "the target is the configuration's, never the event's"
    assert told["args"] == [{"data": {"id": "request-1"}}, {"tag": "flipside/do/reload/blog"}]


def test_one_fired_on_the_master_has_its_time_as_id(salt: Salt) -> None:
    states = rendered(salt, "flipside/do/reload/blog", {"_stamp": "2026-01-01T00:00:00.000001"})
    assert "2026-01-01T00:00:00.000001" in json.dumps(states)


@pytest.mark.parametrize(
    "tag",
    [
        "flipside/do/reload/shop",
        "flipside/do/reload/blog/x",
        "flipside/do/reload/",
        "flipside/do/reload/blog\n- tgt: '*'",
        "flipside/on/reload/blog/done",
    ],
)
def test_what_is_not_on_the_list_becomes_nothing(salt: Salt, tag: str) -> None:
    assert rendered(salt, tag, {"_stamp": "x"}) == {}


def test_a_hostile_id_stays_a_value(salt: Salt) -> None:
    nasty = "x\"}}\n    - tgt: '*' {{ salt.cmd.run('id') }}" + "y" * 500
    [state] = rendered(salt, "flipside/do/reload/blog", {"data": {"id": nasty}}).values()
    told = {key: value for part in state["local.event.fire"] for key, value in part.items()}
    assert told["tgt"] == "web1" and told["args"][0]["data"]["id"].startswith('x"}}\n    - tgt')
    assert len(told["args"][0]["data"]["id"]) == 100
