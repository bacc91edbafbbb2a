"""
Where things lie on this host: the settings of pillar's ``flipside:host`` over the defaults.

One place for the module, the states and the SLS files, so that a test or a demo of an ordinary user can move
everything. Each value ends in nginx's configuration or in agent.toml, so each has a strict form.
"""

import functools
import ipaddress
import json
import re

from flipside_refused import Refused

CA = "/etc/ssl/certs/ca-certificates.crt"
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
        "uv_source": "",
        "uv_source_hash": "",
        "minion_config": "/etc/salt/minion",
        "settings": {},
    },
    "backup": {},
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
        "trusted": [],
    },
    "memcached": {"address": "127.0.0.1:11211", "service": True, "memory": 64},
    # `manage` follows nginx.service where pillar says nothing: on a machine that is not ours to furnish (a
    # demo of an ordinary user) no file of the machine is touched.
    "logrotate": {
        "manage": None,
        "conf": "/etc/logrotate.d/flipside",
        "keep": 14,
        "maxsize": "50M",
        "package": True,
    },
    "rsyslog": {
        "manage": None,
        "conf": "/etc/rsyslog.d/30-flipside.conf",
        "service": True,
        "central": "/var/log/flipside-central",
        "spool": "/var/spool/rsyslog",
        "listen": "",
        "server": "",
        "logentries": {"token": "", "host": "data.logentries.com", "port": 443, "ca": CA},
    },
}
PATH = re.compile(r"/[A-Za-z0-9._@+/-]{1,400}")
NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
LISTEN = re.compile(r"(?:(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:]+\]):)?\d{1,5}")
URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,200}")
NAME_OF_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
TOKEN = re.compile(r"[0-9a-fA-F-]{16,64}")
SOURCE = re.compile(r"(?:salt|https)://[A-Za-z0-9._~:/?=%+-]{1,500}")
HASH = re.compile(r"(?:sha256=)?[0-9a-f]{64}")
SIZE = re.compile(r"\d{1,6}[kMG]?")
ADDRESS = re.compile(r"[A-Za-z0-9.\[\]:-]{1,200}:\d{1,5}")


def settings(given):
    """The host's settings; raises :class:`Refused` with every problem."""
    problems = []
    host = _merged(DEFAULTS, given or {}, "host", problems)
    if not problems:
        _check(host, problems)
    if problems:
        raise Refused(problems)
    for section in ("logrotate", "rsyslog"):
        if host[section]["manage"] is None:
            host[section]["manage"] = host["nginx"]["service"]
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
        if isinstance(default, dict) and key not in ("settings", "backup"):
            merged[key] = _merged(default, given.get(key, {}), f"{where}.{key}", problems)
        else:
            merged[key] = dict(value) if isinstance(value, dict) else value
    return merged


# What each text must look like: its section (none: the top), the keys, the form, whether "" will do.
FORMS = (
    ((), ("socket", "apps_dir", "state_dir", "run_dir", "log_dir", "uv", "python"), PATH, False),
    ((), ("build_user", "web_group"), NAME, True),
    (("agent",), ("config", "binary", "minion_config"), PATH, False),
    (("agent",), ("source", "uv_source"), SOURCE, True),
    (("agent",), ("source_hash", "uv_source_hash"), HASH, True),
    (("nginx",), ("conf", "sites", "bin", "pid", "access_log", "error_log"), PATH, False),
    (("nginx",), ("temp",), PATH, True),
    (("nginx",), ("url",), URL, True),
    (("memcached",), ("address",), ADDRESS, False),
    (("logrotate",), ("conf",), PATH, False),
    (("logrotate",), ("maxsize",), SIZE, False),
    (("rsyslog",), ("conf", "central", "spool"), PATH, False),
    (("rsyslog",), ("listen", "server"), ADDRESS, True),
    (("rsyslog", "logentries"), ("token",), TOKEN, True),
    (("rsyslog", "logentries"), ("host",), NAME_OF_HOST, False),
    (("rsyslog", "logentries"), ("ca",), PATH, False),
)
FORM_NAMES = {
    PATH: "absolute path of plain characters",
    NAME: "name of a user or group",
    URL: "URL",
    SIZE: "size",
}
FORM_NAMES |= {SOURCE: "salt:// or https:// address", HASH: "SHA-256"}
FORM_NAMES |= {ADDRESS: "host:port", TOKEN: "token", NAME_OF_HOST: "name of a host"}
SWITCHES = (("users",), ("agent", "manage"), ("nginx", "service"), ("memcached", "service"))
SWITCHES += (("logrotate", "manage"), ("logrotate", "package"), ("rsyslog", "manage"), ("rsyslog", "service"))
NUMBERS = ((("port",), 1, 65535), (("memcached", "memory"), 8, 1 << 20), (("logrotate", "keep"), 1, 10_000))
NUMBERS += ((("rsyslog", "logentries", "port"), 1, 65535),)


def _check(host, problems):
    def at(*keys):
        return functools.reduce(lambda section, key: section[key], keys, host)

    for section, keys, form, optional in FORMS:
        for key in keys:
            value, name = at(*section, key), ".".join(("host", *section, key))
            if optional and value == "":
                continue
            if not isinstance(value, str) or not form.fullmatch(value):
                problems.append(f"{name}: {str(value)[:80]!r} is no {FORM_NAMES[form]}")
            elif form is PATH and ".." in value.split("/"):
                problems.append(f"{name}: may hold no ..")
    for keys in SWITCHES:
        if not isinstance(at(*keys), bool) and not (keys[-1] == "manage" and at(*keys) is None):
            problems.append(f"{'.'.join(('host', *keys))}: must be true or false")
    for keys, least, most in NUMBERS:
        if not _whole(at(*keys), least, most):
            problems.append(f"{'.'.join(('host', *keys))}: must be a number from {least} to {most}")
    listen = host["nginx"]["listen"]
    for one in listen if isinstance(listen, list) and listen else [listen]:
        if isinstance(one, bool) or not LISTEN.fullmatch(str(one)):
            problems.append(f"host.nginx.listen: {str(one)[:80]!r} is neither a port nor address:port")
    for one in host["nginx"]["trusted"] if isinstance(host["nginx"]["trusted"], list) else [None]:
        try:
            ipaddress.ip_network(one)
        except ValueError:
            problems.append(f"host.nginx.trusted: {str(one)[:80]!r} is no address or network of a proxy")
    if host["scheme"] not in ("http", "https"):
        problems.append("host.scheme: must be http or https")


def _whole(value, least, most):
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def public_url(host, domain):
    """The URL under which users see ``domain`` on this host, without a slash at its end."""
    usual = {"http": 80, "https": 443}[host["scheme"]]
    # A host that says https and no port means the usual one.
    port = usual if host["port"] == 80 else host["port"]
    name = domain.removeprefix("*.")
    return f"{host['scheme']}://{name}" + ("" if port == usual else f":{port}")


def agent_toml(host, minion_id, app_units=False):
    """
    The text of agent.toml. JSON's strings, numbers and lists are TOML's too.

    ``app_units``: whether flipside.agent installs the unit of apps.
    """
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
    if app_units:
        top["app_units"] = True
    tables = {"salt": {"minion_config": host["agent"]["minion_config"]}}
    if host["backup"]:
        tables["backup"] = dict(host["backup"])
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
