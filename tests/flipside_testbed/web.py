"""Asks an app through nginx, as a browser would."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
from dataclasses import dataclass
from urllib.parse import urlencode

from flipside_testbed.host import Host


@dataclass(frozen=True)
class Page:
    """One answer."""

    status: int
    release: str
    text: str
    headers: dict[str, str]


def get(host: Host, app: str, path: str = "/", body: bytes | None = None, kind: str = "") -> Page:
    """GET, or POST when there is a body."""
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=30)
    try:
        headers = {"Host": f"{app}.localhost"} | ({"Content-Type": kind} if kind else {})
        connection.request("GET" if body is None else "POST", path, body=body, headers=headers)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        text = answer.read().decode(errors="replace")
        return Page(answer.status, found.get("x-flipside-release", ""), text, found)
    finally:
        connection.close()


def versions(host: Host, app: str, times: int = 12) -> set[str]:
    """The releases that answer, asked often enough to meet each worker."""
    return {get(host, app, "/healthz").release for _ in range(times)}


def stylesheet(page: Page) -> str:
    """The path of the page's stylesheet."""
    found = re.search(r'href="([^"]+\.css)"', page.text)
    return found[1] if found else ""


def write(host: Host, app: str, body: str) -> None:
    """Stores a post; returns when the app has said that it is stored."""
    form = urlencode({"title": "a post", "body": body}).encode()
    page = get(host, app, "/posts/", form, "application/x-www-form-urlencoded")
    if page.status != 201:
        raise RuntimeError(f"a write gave {page}")


def posts(host: Host, app: str) -> set[str]:
    """The bodies of all posts that are stored."""
    return set(get(host, app, "/posts/bodies/").text.split())


def digest_of_variable(host: Host, app: str, name: str) -> str | None:
    """What the app says of a variable of its environment."""
    return json.loads(get(host, app, f"/environment/{name}/").text)["sha256"]


def digest(value: str) -> str:
    """The same of a value that we know."""
    return hashlib.sha256(value.encode()).hexdigest()
