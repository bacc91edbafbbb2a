"""
From an app's pillar and its template to the spec that the agent obeys.

Pure: values in, values out. Unknown keys are refused by name, and a value that YAML turned into something
else than text is refused with the quoting that keeps it text. The agent checks the spec again; what is
checked here is what Salt itself renders (the vhost) and what only the pillar's spelling can tell.
"""

import hashlib
import re

import flipside_options
from flipside_host import public_url
from flipside_refused import Refused

APP = re.compile(r"[a-z][a-z0-9-]{0,30}")
TEMPLATE = re.compile(r"[a-z][a-z0-9-]{0,60}")
RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,99}-[0-9a-f]{12}")
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
APP_KEYS = ("template", "tag", "runtime", "memory", "options", "env", "files")
LOCATION_KEYS = ("url", "root", "package", "path")
PLAIN = ("wsgi", "settings", "workers", "threads", "request_timeout", "start_timeout", "databases", "health")
PLAIN += ("switch", "maintenance_after", "background", "schedule", "release_header", "backup")


def text(name, value, problems):
    """``value`` if it is text; else a problem that shows how to quote it."""
    if isinstance(value, str):
        return value
    kind = "nothing" if value is None else type(value).__name__
    shown = str(value).lower()[:40] if isinstance(value, bool | int | float) else "…"
    problems.append(
        f"{name}: YAML made {kind} of it; quote it: {name}=\"'{shown}'\" on the command line, "
        f'"{shown}" in pillar, as you mean it (1.10 and 1.1 are one number)'
    )
    return None


def memory(value, problems):
    """``512M`` in bytes."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,12})([KMGT]?)", str(value)) if not isinstance(value, bool) else None
    if match is None:
        problems.append(f"memory: {str(value)[:80]!r} is no amount: write 512M or 2G")
        return None
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2]]


def location(option, value, problems):
    """A location for the agent, or ``None`` where nginx serves nothing."""
    if not isinstance(value, dict):
        return None
    for key in value:
        if key not in LOCATION_KEYS:
            problems.append(f"options.{option}.{str(key)[:80]}: is no part of a location")
    url, root = value.get("url"), value.get("root")
    for key in ("url", "root"):
        if not isinstance(value.get(key), str):
            problems.append(f"options.{option}.{key}: must be text")
    result = {"url": url, "root": root}
    if value.get("package") is not None:
        parts = [part for part in (value["package"], value.get("path")) if part is not None]
        if not all(isinstance(part, str) and re.fullmatch(r"[A-Za-z0-9._/-]{1,200}", part) for part in parts):
            problems.append(
                f"options.{option}.package: must be a package's name, and path a folder inside it"
            )
        elif any(piece in ("", ".", "..") for part in parts for piece in part.strip("/").split("/")):
            problems.append(f"options.{option}.path: must stay inside the package")
        else:
            result["package"] = "/".join(part.strip("/") for part in parts)
    elif value.get("path") is not None:
        problems.append(f"options.{option}.path: needs package beside it")
    return result


def environment(given, problems):
    """The environment, each value text; an empty value of YAML stays set and empty."""
    if not isinstance(given, dict):
        problems.append("env: must be a map of names and values")
        return {}
    result = {}
    for name, value in given.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,199}", name):
            problems.append(f"env: {str(name)[:80]!r} is no name of a variable")
        elif value is None:
            result[name] = ""
        elif isinstance(value, str):
            result[name] = value
        else:
            # The value itself may be a secret, so it is not shown.
            problems.append(f'env.{name}: YAML made {type(value).__name__} of it; quote it: {name}: "…"')
    return result


def files(given, problems):
    """The app's configuration files, each a text under a plain name."""
    if not isinstance(given, dict):
        problems.append("files: must be a map of names and texts")
        return {}
    for name, content in given.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
            problems.append(f"files: {str(name)[:80]!r} is no plain name of a file")
        elif not isinstance(content, str):
            problems.append(f"files.{name}: must be text")
    return dict(given)


def resolve(name, pillar, template, host):
    """
    The spec of app ``name``, without ``vhost``; and its options for nginx.

    ``template`` holds ``options``, ``overlay`` (file name to text) and ``overlay_settings``.
    """
    problems = []
    if not isinstance(pillar, dict):
        raise Refused([f"apps.{name}: must be a map"])
    problems += [f"{str(key)[:80]}: is no key of an app" for key in pillar if key not in APP_KEYS]
    options = flipside_options.merged(pillar.get("options") or {}, template.get("options") or {}, problems)
    domains = [d.lower() if isinstance(d, str) else d for d in options.get("domains") or []]
    if not domains:
        problems.append("options.domains: needs at least one domain")
    problems += [f"options.domains: {str(d)[:80]!r} is no domain name" for d in domains if not is_domain(d)]
    spec = {
        "app": name,
        "template": pillar.get("template"),
        "runtime": pillar.get("runtime", "process"),
        "user": system_user(name) if host["users"] else None,
        "memory": memory(pillar.get("memory"), problems),
        "domains": list(dict.fromkeys(d for d in domains if is_domain(d))),
        "hooks": {key: value for key, value in (options.get("hooks") or {}).items() if value is not None},
        "static_files": location("static", options.get("static"), problems),
        "media": location("media", options.get("media"), problems),
        "overlay": dict(template.get("overlay") or {}),
        "env": environment(pillar.get("env") or {}, problems),
        "files": files(pillar.get("files") or {}, problems) or None,
        **{key: options[key] for key in PLAIN if options.get(key) is not None},
    }
    if options.get("settings_overlay", True) and template.get("overlay_settings"):
        spec["overlay_settings"] = template["overlay_settings"]
    if spec["runtime"] not in ("process", "docker"):
        problems.append("runtime: must be process or docker")
    if problems:
        raise Refused(problems, f"correct flipside:apps:{name} in pillar")
    spec["public_url"] = options.get("public_url", public_url(host, spec["domains"][0])).rstrip("/")
    return {key: value for key, value in spec.items() if value is not None}, options.get("nginx") or {}


def system_user(name):
    """The app's user: ``app-<name>``, shortened without a clash to the 32 characters that Linux allows."""
    user = f"app-{name}"
    if len(user) <= 32:
        return user
    return f"{user[:23]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def is_domain(domain):
    """Whether ``domain`` is a name that can stand in a vhost, as the agent judges it too."""
    if not isinstance(domain, str) or len(domain) > 253:
        return False
    name = domain.removeprefix("*.")
    label = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
    return re.fullmatch(rf"{label}(?:\.{label})*", name) is not None
