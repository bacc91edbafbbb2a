"""The one shape of every answer, for one app and for many."""

VERSION = 1


def entry(outcome):
    """What the answer says of one app, from the agent's outcome."""
    said = {
        "result": outcome["result"],
        "state": outcome["state"],
        "release": outcome.get("release"),
        "previous": outcome.get("previous"),
        "id": outcome.get("id"),
        "ms": outcome.get("ms", 0),
        "steps": outcome.get("steps") or [],
        "error": outcome.get("error"),
    }
    for key in ("comment", "data"):
        if outcome.get(key) not in (None, ""):
            said[key] = outcome[key]
    return said


def bad(state, code, message, hint=""):
    """The entry of an app that could not even be asked for."""
    error = {"code": code, "message": message, "hint": hint, "log": []}
    return entry({"result": False, "state": state, "error": error})


def no_agent(error, hint):
    """The entry of an app whose agent does not answer."""
    return bad("failed", "no_agent", f"the agent does not answer: {error}", hint)


def refused(refusal):
    """The entry of an app whose pillar or arguments are refused."""
    return bad("refused", "spec", "; ".join(refusal.problems), refusal.hint)


def whole(apps, comment="", **more):
    """The answer of a call."""
    result = all(said["result"] for said in apps.values())
    if not comment and not result:
        comment = "; ".join(
            f"{name}: {(said['error'] or {}).get('message', said['state'])}"
            for name, said in sorted(apps.items())
            if not said["result"]
        )
    return {"v": VERSION, "result": result, "comment": comment, "apps": apps, **more}


def nothing(comment):
    """The answer of a host that has nothing to do with what was asked."""
    return whole({}, comment)


def never(comment):
    """The answer to a call that makes no sense."""
    return {**whole({}, comment), "result": False}
