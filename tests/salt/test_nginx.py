"""What flipside.app and the nginx formula write, under a real nginx: rendered by Salt, served, attacked."""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from masterless import Salt, host_settings

from flipside_testbed import tools

STRANGER = "127.0.0.2"


class Site:
    """A host's nginx, with two apps behind it."""

    def __init__(self, salt: Salt, folder: Path) -> None:
        self.salt, self.folder = salt, folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.host = host_settings(folder)
        self.host["nginx"] |= {"listen": [f"127.0.0.1:{self.port}", f"{STRANGER}:{self.port}"]}
        self.host["nginx"]["bin"] = tools.program("nginx")
        template = {"template": "python-django-sqlite"}
        self.apps = {
            "blog": {**template, "options": {"domains": ["blog.example.org", "*.blog.example.org"]}},
            "shop": {
                **template,
                "options": {
                    "domains": ["shop.example.org"],
                    "public_url": "https://shop.example.org",
                    "static": False,
                    "media": {"root": "${DATA_DIR}/uploads"},
                    "nginx": {"client_max_body_size": "1k", "hsts": 600},
                },
            },
        }
        self.processes: list[subprocess.Popen] = []

    def apply(self, *arguments: str) -> dict[str, dict]:
        """Applies flipside.app."""
        self.salt.pillar({"host": self.host, "apps": self.apps})
        _, states = self.salt.call("state.apply", "flipside.app", *arguments)
        assert isinstance(states, dict), states
        return states

    def start(self) -> None:
        """Starts the apps and nginx."""
        conf = self.host["nginx"]["conf"]
        for app in ("blog", "shop"):
            server = [
                sys.executable,
                Path(__file__).with_name("fake_uwsgi.py"),
                self.folder / f"run/{app}/app.sock",
            ]
            process = subprocess.Popen(server, stdout=subprocess.PIPE, text=True)
            self.processes.append(process)
            assert process.stdout.readline() == "ready\n"
        nginx = subprocess.Popen([tools.program("nginx"), "-c", conf, "-g", "daemon off;"])
        self.processes.insert(0, nginx)
        self.until(lambda: self.get("/")[0] == 200)

    def until(self, condition) -> None:
        deadline = time.monotonic() + 15
        while True:
            try:
                if condition():
                    return
            except OSError:
                pass
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def get(
        self,
        path: str,
        host: str = "blog.example.org",
        source: str = "127.0.0.1",
        body: bytes | None = None,
        **headers: str,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request."""
        connection = http.client.HTTPConnection(source, self.port, timeout=10, source_address=(source, 0))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST" if body else "GET", path, body, {"Host": host, **named})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.headers, content

    def told(self, path: str = "/", **more) -> dict[str, str]:
        """What the app was told of a request."""
        return json.loads(self.get(path, **more)[2])

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(10)


@pytest.fixture(scope="module")
def site(salt: Salt) -> Iterator[Site]:
    # Not below pytest's own folder: nginx's workers are another user's, who could not enter it.
    folder = Path(tempfile.mkdtemp(prefix="salt-", dir="/var/tmp"))
    folder.chmod(0o755)
    one = Site(salt, folder)
    try:
        states = one.apply()
        assert all(state["result"] for state in states.values()), states
        one.start()
        yield one
    finally:
        one.stop()
        shutil.rmtree(folder)


def test_the_second_time_changes_nothing(site: Site) -> None:
    site.apply()
    again = site.apply()
    assert all(state["result"] is True and not state["changes"] for state in again.values()), again
    tested = site.apply("test=True")
    assert all(state["result"] is True for state in tested.values()), tested


def test_so_does_the_second_highstate(site: Site) -> None:
    site.apply()
    for mode in ((), (), ("test=True",)):
        code, states = site.salt.call("state.highstate", *mode)
        assert code == 0 and isinstance(states, dict), states
        bad = [state for state in states.values() if state["result"] is not True]
        assert not bad, bad
    changed = [state for state in states.values() if state["changes"]]
    assert not changed, changed


def test_the_folders_have_their_modes(site: Site) -> None:
    modes = {path: oct((site.folder / path).stat().st_mode)[-3:] for path in ("apps/blog", "run/blog")}
    assert set(modes.values()) == {"755"}
    of = {
        name: oct((site.folder / f"apps/blog/{name}").stat().st_mode)[-3:]
        for name in ("data", "media", "home")
    }
    assert of == {"data": "750", "media": "755", "home": "750"}
    # nginx walks through to the uploads, and lists nothing.
    assert oct((site.folder / "apps/shop/data").stat().st_mode)[-3:] == "751"


def test_a_host_that_is_no_apps_gets_none(site: Site) -> None:
    for host in ("evil.example.org", "127.0.0.1", "example.org", "x.shop.example.org"):
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            site.get("/", host=host)
    assert site.told(host="www.blog.example.org")["HTTP_HOST"] == "www.blog.example.org"


def test_what_a_client_claims_is_not_believed(site: Site) -> None:
    forged = {
        "X_Forwarded_Proto": "https",
        "X_Forwarded_For": "6.6.6.6",
        "X_Forwarded_Host": "evil.example.org",
        "X_Forwarded_Port": "1",
        "X_Real_IP": "6.6.6.6",
        "Forwarded": "for=6.6.6.6",
        "Proxy": "http://6.6.6.6",
    }
    told = site.told(source=STRANGER, **forged)
    assert told["HTTP_X_FORWARDED_PROTO"] == told["UWSGI_SCHEME"] == "http"
    assert told["HTTP_X_FORWARDED_FOR"] == told["HTTP_X_REAL_IP"] == told["REMOTE_ADDR"] == STRANGER
    assert told["HTTP_X_FORWARDED_HOST"] == "blog.example.org"
    assert "6.6.6.6" not in json.dumps(told)
    assert site.told(source=STRANGER, host="shop.example.org")["HTTP_X_FORWARDED_PROTO"] == "https"


def test_this_machine_may_say_what_a_proxy_would(site: Site) -> None:
    assert site.told(X_Forwarded_Proto="https")["HTTP_X_FORWARDED_PROTO"] == "https"
    assert site.told(X_Forwarded_Proto="gopher")["HTTP_X_FORWARDED_PROTO"] == "http"


def test_bodies_pass_and_have_a_limit(site: Site) -> None:
    assert site.told(body=b"x" * 5000)["body"] == "x" * 5000
    assert site.get("/", host="shop.example.org", body=b"x" * 5000)[0] == 413


def test_static_files_come_from_disk(site: Site) -> None:
    static = site.folder / "apps/blog/static"
    (static / "plain.css").write_text("a{}")
    (static / "app.0123456789ab.css").write_text("b{}")
    (static / "twin.js").write_text("")
    (static / "twin.js.gz").write_bytes(gzip.compress(b"let x = 1\n"))
    status, headers, body = site.get("/static/plain.css")
    assert (status, body, headers["Content-Type"]) == (200, b"a{}", "text/css")
    assert "immutable" not in headers["Cache-Control"]
    assert "immutable" in site.get("/static/app.0123456789ab.css")[1]["Cache-Control"]
    status, headers, body = site.get("/static/twin.js", Accept_Encoding="gzip")
    assert headers["Content-Encoding"] == "gzip" and gzip.decompress(body) == b"let x = 1\n"
    assert site.get("/static/none.css")[0] == 404
    assert "/static/" in site.told("/static/x.css", host="shop.example.org")["PATH_INFO"], "the app serves it"


def test_databases_hidden_files_and_links_are_not_served(site: Site) -> None:
    media = site.folder / "apps/blog/media"
    secrets = {"db.sqlite3": 404, "db.sqlite3-wal": 404, "x.db": 404, ".env": 404, ".git/config": 404}
    (media / ".git").mkdir(exist_ok=True)
    for name, status in secrets.items():
        (media / name).write_text("secret")
        assert site.get(f"/media/{name}")[0] == status, name
    (media / "link.txt").unlink(missing_ok=True)
    (media / "link.txt").symlink_to("/etc/passwd")
    assert site.get("/media/link.txt")[0] == 403
    (media / "ok.txt").write_text("fine")
    status, headers, body = site.get("/media/ok.txt")
    assert (status, body, headers["X-Content-Type-Options"]) == (200, b"fine", "nosniff")
    assert site.get("/media../data/")[0] == 200, "no such prefix: the app's"
    assert site.get("/media/../data/db.sqlite3")[0] == 200, "normalised to /data/...: the app's"


def test_uploads_below_the_data_folder(site: Site) -> None:
    uploads = site.folder / "apps/shop/data/uploads"
    uploads.mkdir(exist_ok=True)
    (uploads / "a.txt").write_text("up")
    (site.folder / "apps/shop/data/db.sqlite3").write_text("secret")
    assert site.get("/media/a.txt", host="shop.example.org")[2] == b"up"
    assert b"secret" not in site.get("/media/../db.sqlite3", host="shop.example.org")[2]
    assert site.get("/", host="shop.example.org")[1]["Strict-Transport-Security"] == "max-age=600"


def test_maintenance_closes_the_site_but_for_the_health_check(site: Site) -> None:
    assert site.get("/busy")[0] == 503 and b"PATH_INFO" in site.get("/busy")[2], (
        "an app's own 503 is the app's"
    )
    file = site.folder / "run/blog/maintenance"
    file.touch()
    try:
        status, headers, body = site.get("/")
        assert status == 503 and headers["Retry-After"] == "30" and b"Back soon" in body
        assert site.get("/static/plain.css")[0] == 503
        assert site.get("/", X_Flipside_Health="1")[0] == 200
        assert site.get("/", User_Agent="flipside-health")[0] == 200
        assert site.get("/", source=STRANGER, User_Agent="flipside-health")[0] == 503
        assert site.get("/", source=STRANGER, X_Flipside_Health="1")[0] == 503
        assert "HTTP_X_FLIPSIDE_HEALTH" not in site.told(X_Flipside_Health="1")
        assert site.get("/", host="shop.example.org")[0] == 200
    finally:
        file.unlink()
    assert site.get("/")[0] == 200


def test_pillar_can_keep_a_site_closed(site: Site) -> None:
    site.apps["blog"]["options"]["nginx"] = {"closed": True}
    try:
        site.apply()
        site.until(lambda: site.get("/")[0] == 503)
        assert site.get("/", X_Flipside_Health="1")[0] == 200
    finally:
        del site.apps["blog"]["options"]["nginx"]
    site.apply()
    site.until(lambda: site.get("/")[0] == 200)


def test_a_changed_option_reaches_nginx_and_the_record(site: Site) -> None:
    record = site.folder / "apps/blog/vhost"
    before = record.read_text()
    site.apps["blog"]["options"]["domains"].append("new.example.org")
    states = site.apply()
    assert all(state["result"] for state in states.values())
    assert record.read_text() != before
    site.until(lambda: site.get("/", host="new.example.org")[0] == 200)


def test_a_hostile_app_harms_no_other(site: Site) -> None:
    site.apps["evil"] = {
        "template": "python-django-sqlite",
        "options": {"domains": ["x.org;}\nserver{listen 1;"]},
    }
    try:
        states = site.apply()
        failed = [state for state in states.values() if not state["result"]]
        assert len(failed) == 1 and "is no domain name" in failed[0]["comment"]
        assert not list((site.folder / "nginx/sites").glob("evil*"))
        assert site.get("/")[0] == 200
    finally:
        del site.apps["evil"]


def test_a_configuration_that_nginx_refuses_is_not_taken(site: Site) -> None:
    broken = site.folder / "nginx/sites/zz.conf"
    broken.write_text("nonsense\n")
    record = site.folder / "apps/blog/vhost"
    site.apps["blog"]["options"]["domains"].append("late.example.org")
    try:
        states = site.apply()
        failed = [state["comment"] for state in states.values() if state["result"] is False]
        assert any("nginx refuses its configuration" in comment for comment in failed)
        before = record.read_text()
        assert site.get("/")[0] == 200
    finally:
        broken.unlink()
    assert all(state["result"] for state in site.apply().values())
    assert record.read_text() != before, "only what nginx took is recorded"
    site.until(lambda: site.get("/", host="late.example.org")[0] == 200)


def test_an_app_that_left_loses_its_vhost(site: Site) -> None:
    shop = site.apps.pop("shop")
    site.salt.pillar({"host": site.host, "apps": site.apps, "absent": ["shop"]})
    code, states = site.salt.call("state.apply", "flipside.app")
    assert code == 0, states
    assert not (site.folder / "nginx/sites/shop.conf").exists()
    site.apps["shop"] = shop
