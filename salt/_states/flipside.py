"""
States of Flipside's apps. They ask the agent only: the vhost, users and folders are ``flipside.app``'s.

With ``test=True`` they show the agent's own plan.
"""

__virtualname__ = "flipside"


def __virtual__():
    if "flipside.deploy" in __salt__:
        return __virtualname__
    return False, "the flipside execution module is not loaded: run saltutil.sync_all"


def deployed(name, tag=None, release=None, wait=900, cold=False, allow=None):
    """
    The app ``name`` runs the release that pillar's tag, ``tag`` or ``release`` names, with pillar's options.

    .. code-block:: yaml

        blog:
          flipside.deployed:
            - require:
              - sls: flipside.app
    """
    ret = {"name": name, "result": None, "changes": {}, "comment": ""}
    wanted = {"tag": tag, "release": release, "cold": cold, "allow": allow}
    planned = __salt__["flipside.plan"](name, **wanted)
    said = planned["apps"].get(name)
    if not planned["result"] or said is None:
        return {**ret, "result": planned["result"], "comment": _comment(planned, said)}
    if said["state"] == "unchanged":
        return {**ret, "result": True, "comment": f"{name} runs {said['release']}"}
    if __opts__["test"]:
        ret["changes"] = {"plan": [step["name"] for step in said["steps"]]}
        ret["changes"]["release"] = {"old": said["previous"], "new": said["release"]}
        waiting = ((said.get("data") or {}).get("migrations") or {}).get("pending") or []
        if waiting:
            ret["changes"]["migrations"] = [f"{one['app']}.{one['name']}" for one in waiting]
        return {**ret, "comment": f"{name} would be deployed"}
    ended = __salt__["flipside.deploy"](name, wait=wait, **wanted)
    said = ended["apps"].get(name)
    ret["result"] = ended["result"]
    if said and said["state"] == "deployed":
        ret["changes"] = {"release": {"old": said["previous"], "new": said["release"]}}
    return {**ret, "comment": _comment(ended, said)}


def removed(name, wait=900):
    """The app ``name`` does not run and is forgotten; its data folder and its backups stay."""
    ret = {"name": name, "result": None, "changes": {}, "comment": ""}
    seen = __salt__["flipside.status"](name)
    if not seen["result"]:
        return {**ret, "result": False, "comment": _comment(seen, seen["apps"].get(name))}
    said = seen["apps"].get(name)
    if said is None or "data" not in said:
        return {**ret, "result": True, "comment": f"{name} is not on this host"}
    if __opts__["test"]:
        return {**ret, "changes": {name: "removed"}, "comment": f"{name} would be stopped and forgotten"}
    ended = __salt__["flipside.remove"](name, wait=wait)
    if ended["result"]:
        ret["changes"] = {name: "removed"}
    return {**ret, "result": ended["result"], "comment": _comment(ended, ended["apps"].get(name))}


def nginx_reloaded(name):
    """nginx has taken its configuration of now, which was checked before."""
    said = __salt__["flipside.nginx_reload"](test=__opts__["test"])
    changes = {"nginx": "reloaded"} if said["changed"] else {}
    return {"name": name, "result": said["result"], "changes": changes, "comment": said["comment"]}


def _comment(whole, said):
    error = (said or {}).get("error") or {}
    parts = [error.get("message"), error.get("hint"), *(error.get("log") or [])] if error else []
    return "\n".join(part for part in parts if part) or (said or {}).get("comment") or whole["comment"]
