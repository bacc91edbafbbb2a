"""What people do every day, on both series of Salt."""

from __future__ import annotations

import json
import uuid

import pytest

from flipside_testbed import web
from flipside_testbed.blog import Blog
from flipside_testbed.platform import ASSIGNED, Platform
from flipside_testbed.processes import wait_for

pytestmark = pytest.mark.both


def test_a_deploy_serves_both_apps(platform: Platform) -> None:
    for minion, apps in ASSIGNED.items():
        for app in apps:
            host = platform.hosts[minion]
            page = web.get(host, app)
            assert page.status == 200 and f"<h1>{app} 1.0</h1>" in page.text
            assert page.release == host.current(app)
            assert json.loads(web.get(host, app, "/environment/HOME/").text)["debug"] is False


def test_static_files_come_from_nginx_under_hashed_names(blog: Blog) -> None:
    path = web.stylesheet(web.get(blog.host, "blog"))
    assert path.startswith("/static/blog/site.") and path != "/static/blog/site.css"
    sheet = web.get(blog.host, "blog", path)
    assert sheet.status == 200 and "sans-serif" in sheet.text and not sheet.release
    assert "immutable" in sheet.headers["cache-control"]


def test_memcached_counts_for_every_worker(blog: Blog) -> None:
    def visits() -> int:
        return int(web.get(blog.host, "blog").text.split("Asked for ")[1].split(" ")[0])

    seen = [visits() for _ in range(8)]
    assert seen == list(range(seen[0], seen[0] + 8))


def test_an_upload_is_kept_and_served(blog: Blog) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhello\r\n--x--\r\n'
    answer = web.get(blog.host, "blog", "/upload/", body, "multipart/form-data; boundary=x")
    assert answer.status == 201, answer
    kept = json.loads(answer.text)
    served = web.get(blog.host, "blog", kept["url"])
    assert served.status == 200 and served.text == "hello" and not served.release


def test_upgrade_with_a_migration_and_rollback_lose_nothing(blog: Blog) -> None:
    v2 = blog.published("v2")
    with blog.load() as load:
        said = blog.deploy("v2")
    assert said["state"] == "deployed" and said["release"] == v2 and said["previous"] == blog.v1, said
    blog.serves(v2)
    blog.kept_all(load)
    assert set(load.figures["releases"]) == {blog.v1, v2}
    with blog.load() as load:
        said = blog.salt("rollback").app("blog")
    assert said["result"], said
    blog.serves(blog.v1)
    blog.kept_all(load)


def test_the_same_again_is_unchanged(blog: Blog) -> None:
    page = web.get(blog.host, "blog", "/healthz")
    answer = blog.salt("deploy", "tag=v1")
    assert answer.code == 0
    said = answer.app("blog")
    assert (said["result"], said["state"], said["release"]) == (True, "unchanged", blog.v1)
    planned = blog.salt("deploy", "tag=v1", "test=True").app("blog")
    assert planned["result"] and planned["state"] in ("planned", "unchanged")
    assert web.get(blog.host, "blog", "/healthz").text == page.text


def test_one_event_through_the_reactor_is_one_reload(blog: Blog) -> None:
    before = reloads(blog)
    blog.platform.salted.run("event.send", "flipside/do/reload/blog", json.dumps({"id": uuid.uuid4().hex}))
    wait_for("the reload", lambda: reloads(blog) > before, 60, every=0.2)
    # Whatever an answer of this reload triggered would come before the answer of another command.
    assert blog.salt("reload").app("blog")["result"]
    assert reloads(blog) == before + 2


def reloads(blog: Blog) -> int:
    history = json.loads(blog.host.cli("history", "blog", "--json").stdout)
    return sum(1 for entry in history["data"] if entry["verb"] == "reload" and entry["state"] == "ok")
