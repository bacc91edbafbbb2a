"""
What nginx is told of each app: the values of its vhost, and a hash of them.

The SLS file ``flipside.app`` renders the values and records the hash; the module compares the record with
the hash of today's pillar. Every value has a form that cannot leave its place in a configuration: no space,
quote, semicolon, brace or newline passes.
"""

import hashlib
import json
import re
from pathlib import Path

from flipside_refused import Refused

# Raised when the vhost's template changes its meaning, so that hosts render it again.
FORMAT = 1
NGINX = {
    "client_max_body_size": (re.compile(r"\d{1,6}[kmgKMG]?"), "20m"),
    "uwsgi_read_timeout": (re.compile(r"\d{1,5}s?"), None),
    "hsts": (re.compile(r"\d{1,10}"), None),
}
# Shows the maintenance page until it is taken away: for a product that starts with a known password.
CLOSED = "closed"
URL = re.compile(r"/(?:[A-Za-z0-9._~-]+/)*")
ROOT = re.compile(r"/[A-Za-z0-9._@+/-]{1,400}")
# A held switch lets requests wait while migrations run.
LONGEST_WAIT = 900


def values(spec, nginx, host):
    """The values of the vhost of ``spec``, with their hash under ``hash``."""
    problems = []
    home = f"{host['apps_dir']}/{spec['app']}"
    folders = {"STATIC_ROOT": f"{home}/static", "MEDIA_DIR": f"{home}/media", "DATA_DIR": f"{home}/data"}
    result = {
        "app": spec["app"],
        "domains": spec["domains"],
        "listen": host["nginx"]["listens"],
        "home": home,
        "run": f"{host['run_dir']}/{spec['app']}",
        "scheme": spec["public_url"].split(":", 1)[0],
        "port": _port(spec["public_url"]),
        "static": _location("static", spec.get("static_files"), folders, problems),
        "media": _location("media", spec.get("media"), folders, problems),
        "read_timeout": max(LONGEST_WAIT, int(spec.get("request_timeout", 60)) + 60),
    }
    for key, (pattern, default) in NGINX.items():
        value = nginx.get(key, default)
        if value is not None and (isinstance(value, bool) or not pattern.fullmatch(str(value))):
            problems.append(f"options.nginx.{key}: {str(value)[:80]!r} is no such value")
        result[key] = None if value is None else str(value)
    known = (*NGINX, CLOSED)
    problems += [f"options.nginx.{str(key)[:80]}: is no such setting" for key in nginx if key not in known]
    result[CLOSED] = nginx.get(CLOSED, False)
    if not isinstance(result[CLOSED], bool):
        problems.append("options.nginx.closed: must be true or false")
    if result["uwsgi_read_timeout"]:
        result["read_timeout"] = int(result["uwsgi_read_timeout"].rstrip("s"))
    if result["static"] and result["media"] and result["static"]["url"] == result["media"]["url"]:
        problems.append("options.media.url: is the same as options.static.url")
    if problems:
        raise Refused(problems, f"correct flipside:apps:{spec['app']} in pillar")
    result["traverse_data"] = any(
        place and place["root"].startswith(folders["DATA_DIR"] + "/")
        for place in (result["static"], result["media"])
    )
    # The record also stands for the app's user and folders, which the same SLS file makes.
    content = json.dumps([FORMAT, spec.get("user"), host["web_group"], result], sort_keys=True)
    result["hash"] = hashlib.sha256(content.encode()).hexdigest()[:16]
    return result


def _port(url):
    match = re.fullmatch(r"(https?)://[^/:]+(?::(\d{1,5}))?(?:/.*)?", url)
    if match is None:
        raise Refused([f"options.public_url: {url[:80]!r} is no URL"])
    return match[2] or {"http": "80", "https": "443"}[match[1]]


def _location(option, location, folders, problems):
    if location is None:
        return None
    url, root = location["url"], location["root"]
    if not isinstance(url, str) or not URL.fullmatch(url) or url == "/" or ".." in url.split("/"):
        problems.append(
            f"options.{option}.url: {str(url)[:80]!r} must start and end with a slash, as /static/"
        )
    if not isinstance(root, str):
        problems.append(f"options.{option}.root: must be text")
        return None
    for name, folder in folders.items():
        root = root.replace("${" + name + "}", folder)
    inside = any(root == folder or root.startswith(folder + "/") for folder in folders.values())
    if not ROOT.fullmatch(root) or ".." in root.split("/") or not inside:
        problems.append(
            f"options.{option}.root: must lie below ${{STATIC_ROOT}}, ${{MEDIA_DIR}} or ${{DATA_DIR}}"
        )
    elif root.rstrip("/") == folders["DATA_DIR"]:
        problems.append(f"options.{option}.root: the data folder holds the databases; name a folder below it")
    return {"url": url, "root": root.rstrip("/")}


def check_domains(claims):
    """Refuses one domain claimed by two apps. ``claims`` maps an app to its domains."""
    owner, problems = {}, []
    for app in sorted(claims):
        for domain in claims[app]:
            if owner.setdefault(domain, app) != app:
                problems.append(f"options.domains: {domain} is claimed by {owner[domain]} and by {app}")
    if problems:
        raise Refused(problems, "give the domain to one app in pillar")


def fingerprint(nginx):
    """A hash of all that nginx reads of ours."""
    digest = hashlib.sha256()
    for path in [Path(nginx["conf"]), *sorted(Path(nginx["sites"]).glob("[!.]*"))]:
        try:
            digest.update(f"{path}\0".encode() + path.read_bytes() + b"\0")
        except OSError as error:
            digest.update(str(error).encode())
    return digest.hexdigest()
