"""
An app's options: which there are, of which type, and what is wrong with one, by its name in pillar.

The agent judges every value again. What is told here is told in pillar's own words, before anything is sent.
"""

import re

# The option's name in pillar, to its types in YAML.
OPTIONS = {
    "domains": (list,),
    "public_url": (str,),
    "wsgi": (str,),
    "settings": (str,),
    "workers": (int,),
    "threads": (int,),
    "request_timeout": (int,),
    "start_timeout": (int,),
    "databases": (list,),
    "static": (dict, bool),
    "media": (dict, bool),
    "health": (dict,),
    "switch": (str,),
    "maintenance_after": (int,),
    "hooks": (dict,),
    "background": (dict,),
    "schedule": (dict,),
    "nginx": (dict,),
    "release_header": (bool,),
    "settings_overlay": (bool,),
    "backup": (bool,),
}
WORDS = {list: "a list", dict: "a map", bool: "true or false", int: "a whole number", str: "text"}
MERGED = ("health", "hooks", "nginx", "static", "media")
HOOKS = ("prepare", "check", "static", "migrate", "once", "after")
NUMBERS = {
    "workers": (1, 256),
    "threads": (2, 256),
    "request_timeout": (0, 86_400),
    "start_timeout": (1, 86_400),
    "maintenance_after": (0, 86_400),
}
# Parts of an option that is a map: their types.
PARTS = {
    "health": {"path": (str,), "status": (int, type(None)), "contains": (str, type(None)), "timeout": (int,)},
    "background": {"command": (list,), "count": (int,)},
    "schedule": {"command": (list,), "cron": (str,)},
}
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


def merged(given, defaults, problems):
    """The template's default options with the pillar's over them, each of its type."""
    if not isinstance(given, dict):
        problems.append("options: must be a map")
        return dict(defaults)
    result = dict(defaults)
    for key, value in given.items():
        if key not in OPTIONS:
            known = ", ".join(sorted(OPTIONS))
            problems.append(f"options.{str(key)[:80]}: the template knows no such option; it knows {known}")
            continue
        if value is None:
            # Nothing written after the colon is nothing said.
            continue
        kinds = OPTIONS[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            problems.append(f"options.{key}: must be {' or '.join(WORDS[kind] for kind in kinds)}")
        elif key in MERGED and isinstance(value, dict) and isinstance(defaults.get(key), dict):
            result[key] = {**defaults[key], **value}
        elif not (value is True and key in ("static", "media")):
            result[key] = value
    _deeper(result, problems)
    return result


def _deeper(options, problems):
    """What the type of an option does not tell."""
    for key, (least, most) in NUMBERS.items():
        if _is(options.get(key), (int,)) and not least <= options[key] <= most:
            problems.append(f"options.{key}: must be between {least} and {most}")
    if options.get("switch") not in (None, "auto", "hot", "cold", "held"):
        problems.append("options.switch: must be auto, hot, cold or held")
    for pattern in options.get("databases") or []:
        if not isinstance(pattern, str):
            problems.append(f"options.databases: {str(pattern)[:80]!r} must be quoted text")
    _parts("health", "options.health", options.get("health"), problems)
    for kind in ("background", "schedule"):
        for name, one in (options.get(kind) or {}).items():
            where = f"options.{kind}.{str(name)[:80]}"
            if not isinstance(name, str) or not NAME.fullmatch(name):
                problems.append(f"{where}: needs a name like an app's")
            _parts(kind, where, one, problems)
            if isinstance(one, dict) and not _is_command(one.get("command")):
                problems.append(f"{where}.command: must be a list of arguments, each of them quoted text")
            if isinstance(one, dict) and kind == "schedule" and "cron" not in one:
                problems.append(f"{where}.cron: is missing")
    _hooks(options.get("hooks") or {}, problems)


def _parts(kind, where, given, problems):
    if given is None:
        return
    if not isinstance(given, dict):
        problems.append(f"{where}: must be a map")
        return
    for key, value in given.items():
        if key not in PARTS[kind]:
            problems.append(
                f"{where}.{str(key)[:80]}: is no part of it; the parts are {', '.join(PARTS[kind])}"
            )
        elif not _is(value, PARTS[kind][key]):
            words = " or ".join(WORDS.get(one, "nothing") for one in PARTS[kind][key])
            problems.append(f"{where}.{key}: must be {words}")
        elif isinstance(value, int) and not 0 <= value <= 86_400:
            problems.append(f"{where}.{key}: {value} is out of range")


def _is(value, kinds):
    return isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)


def _is_command(command):
    return isinstance(command, list) and bool(command) and all(isinstance(part, str) for part in command)


def _hooks(given, problems):
    for key, value in given.items():
        where = f"options.hooks.{str(key)[:80]}"
        if key not in HOOKS:
            problems.append(f"{where}: is no hook; the hooks are {', '.join(HOOKS)}")
        elif value is not None and not isinstance(value, list):
            problems.append(f"{where}: must be a list of argument lists")
        else:
            for hook in value or []:
                _hook(where, hook, problems)


def _hook(where, hook, problems):
    command = hook.get("command") if isinstance(hook, dict) else hook
    if not _is_command(command):
        problems.append(f"{where}: each hook is a list of arguments, each of them quoted text")
    elif isinstance(hook, dict):
        if set(hook) - {"command", "timeout"}:
            problems.append(f"{where}: a hook has a command and a timeout, nothing else")
        if not _is(hook.get("timeout", 1), (int,)) or not 0 < hook.get("timeout", 1) <= 86_400:
            problems.append(f"{where}: timeout must be seconds")
