"""
Where things lie on this host: the settings of pillar's ``flipside:host`` over the defaults.

One place for the module, the states and the SLS files, so that a test or a demo of an ordinary user can move
everything. Each value ends in nginx's configuration or in agent.toml, so each has a strict form.
"""

import json
import re

from flipside_refused import Refused

DEFAULTS = {
    "socket": "/run/flipside/agent.sock",
    "apps_dir": "/srv/flipside/apps",
    "state_dir": "/var/lib/flipside",
    "run_dir": "/run/flipside",
    "log_dir": "/var/log/flipside",
    "uv": "/usr/local/bin/uv",
    "python": "/usr/bin/python3",
    "build_user": "flipside-build",
    "web_group": "www-data",
    "users": True,
    "scheme": "http",
    "port": 80,
    "agent": {
        "config": "/etc/flipside/agent.toml",
        "binary": "/usr/local/bin/flipside-agent",
        "manage": True,
        "source": "",
        "source_hash": "",
        "minion_config": "/etc/salt/minion",
        "settings": {},
    },
    "nginx": {
        "conf": "/etc/nginx/nginx.conf",
        "sites": "/etc/nginx/flipside.d",
        "bin": "/usr/sbin/nginx",
        "listen": 80,
        "pid": "/run/nginx.pid",
        "service": True,
        "url": "",
        "access_log": "/var/log/nginx/access.log",
        "error_log": "/var/log/nginx/error.log",
        "temp": "",
    },
    "memcached": {"address": "127.0.0.1:11211", "service": True, "memory": 64},
}
PATH = re.compile(r"/[A-Za-z0-9._@+/-]{1,400}")
NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
LISTEN = re.compile(r"(?:(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:]+\]):)?\d{1,5}")
URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,200}")
ADDRESS = re.compile(r"[A-Za-z0-9.\[\]:-]{1,200}:\d{1,5}")


def settings(given):
    """The host's settings; raises :class:`Refused` with every problem."""
    problems = []
    host = _merged(DEFAULTS, given or {}, "host", problems)
    if not problems:
        _check(host, problems)
    if problems:
        raise Refused(problems)
    listen = host["nginx"]["listen"]
    host["nginx"]["listens"] = [str(one) for one in (listen if isinstance(listen, list) else [listen])]
    if not host["nginx"]["url"]:
        first = host["nginx"]["listens"][0]
        host["nginx"]["url"] = "http://" + (first if ":" in first else f"127.0.0.1:{first}")
    return host


def _merged(defaults, given, where, problems):
    if not isinstance(given, dict):
        problems.append(f"{where}: must be a map")
        return dict(defaults)
    for key in given:
        if key not in defaults:
            problems.append(f"{where}.{str(key)[:80]}: is no setting of a host")
    merged = {}
    for key, default in defaults.items():
        value = given.get(key, default)
        if isinstance(default, dict) and key != "settings":
            merged[key] = _merged(default, given.get(key, {}), f"{where}.{key}", problems)
        else:
            merged[key] = dict(value) if isinstance(value, dict) else value
    return merged


def _check(host, problems):
    def must(section, key, pattern, what, optional=False):
        value = (host[section] if section else host)[key]
        if not (optional and value == "") and not (isinstance(value, str) and pattern.fullmatch(value)):
            problems.append(f"host.{section + '.' if section else ''}{key}: {str(value)[:80]!r} is no {what}")
        elif pattern is PATH and ".." in value.split("/"):
            problems.append(f"host.{section + '.' if section else ''}{key}: may hold no ..")

    for key in ("socket", "apps_dir", "state_dir", "run_dir", "log_dir", "uv", "python"):
        must("", key, PATH, "absolute path of plain characters")
    for key in ("build_user", "web_group"):
        must("", key, NAME, "name of a user or group", optional=True)
    for key in ("config", "binary", "minion_config"):
        must("agent", key, PATH, "absolute path of plain characters")
    for key in ("conf", "sites", "bin", "pid", "access_log", "error_log"):
        must("nginx", key, PATH, "absolute path of plain characters")
    must("nginx", "temp", PATH, "absolute path of plain characters", optional=True)
    must("nginx", "url", URL, "URL", optional=True)
    must("memcached", "address", ADDRESS, "host:port")
    listen = host["nginx"]["listen"]
    for one in listen if isinstance(listen, list) and listen else [listen]:
        if isinstance(one, bool) or not LISTEN.fullmatch(str(one)):
            problems.append(f"host.nginx.listen: {str(one)[:80]!r} is neither a port nor address:port")
    for section, key in (("", "users"), ("agent", "manage"), ("nginx", "service"), ("memcached", "service")):
        if not isinstance((host[section] if section else host)[key], bool):
            problems.append(f"host.{section + '.' if section else ''}{key}: must be true or false")
    if host["scheme"] not in ("http", "https"):
        problems.append("host.scheme: must be http or https")
    if not _whole(host["port"], 1, 65535):
        problems.append("host.port: must be a port number")
    if not _whole(host["memcached"]["memory"], 8, 1 << 20):
        problems.append("host.memcached.memory: must be megabytes, at least 8")


def _whole(value, least, most):
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def public_url(host, domain):
    """The URL under which users see ``domain`` on this host, without a slash at its end."""
    usual = {"http": 80, "https": 443}[host["scheme"]]
    # A host that says https and no port means the usual one.
    port = usual if host["port"] == 80 else host["port"]
    name = domain.removeprefix("*.")
    return f"{host['scheme']}://{name}" + ("" if port == usual else f":{port}")


def agent_toml(host, minion_id):
    """The text of agent.toml. JSON's strings, numbers and lists are TOML's too."""
    top = {
        "id": minion_id,
        **{
            key: host[key]
            for key in ("apps_dir", "state_dir", "run_dir", "log_dir", "socket", "uv", "python")
        },
        "nginx": host["nginx"]["url"],
        "memcached": host["memcached"]["address"],
    }
    if host["users"]:
        top.update(build_user=host["build_user"], web_group=host["web_group"])
    tables = {"salt": {"minion_config": host["agent"]["minion_config"]}}
    for key, value in host["agent"]["settings"].items():
        if isinstance(value, dict):
            tables[key] = {**tables.get(key, {}), **value}
        elif value is False:
            tables.pop(key, None)
        else:
            top[key] = value
    lines = ["# Written by Salt (flipside.agent)."]
    lines += [f"{_key(key)} = {_toml(value)}" for key, value in top.items()]
    for name, table in tables.items():
        lines += ["", f"[{_key(name)}]"]
        lines += [f"{_key(key)} = {_toml(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _key(key):
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", str(key)) else _toml(str(key))


def _toml(value):
    if value is None or isinstance(value, dict):
        raise Refused([f"host.agent.settings: {str(value)[:80]!r} has no place in agent.toml"])
    # TOML forbids a raw DEL, which JSON lets through.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
