"""An app's databases in the store and back, as people ask for it."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime

from flipside_testbed import web
from flipside_testbed.blog import Blog
from flipside_testbed.processes import wait_for


def write(blog: Blog) -> str:
    body = uuid.uuid4().hex
    web.write(blog.host, "blog", body)
    return body


def test_a_deleted_database_is_restored_to_an_instant(blog: Blog) -> None:
    kept = write(blog)
    said = blog.salt("backup").app("blog")
    assert said["result"] and said["data"][0]["database"] == "db.sqlite3", said
    instant = datetime.now(UTC).isoformat()
    gone = write(blog)
    assert blog.salt("backup").app("blog")["result"]
    before = web.posts(blog.host, "blog")

    listed = blog.salt("backups").app("blog")
    assert listed["result"] and listed["data"][0]["position"], listed
    checked = blog.salt("backup_check").app("blog")
    assert checked["result"] and all(row["restored"] for row in checked["data"]), checked

    for file in (blog.host.apps / "blog/data").glob("db.sqlite3*"):
        file.unlink()
    with blog.load(("--echo", "/echo/")) as load:
        said = blog.salt("restore", f"timestamp={instant}").app("blog")
    assert said["result"], said
    assert load.figures["failed"] == 0, load.figures
    assert web.posts(blog.host, "blog") == before - {gone} and kept in before


def test_an_event_is_a_backup_and_status_says_how_it_stands(blog: Blog) -> None:
    body = write(blog)
    request = json.dumps({"id": uuid.uuid4().hex})
    blog.platform.salted.salt("web1", "event.fire", request, "flipside/do/backup/blog")

    def stored() -> bool:
        apps = blog.salt("status").returns["web1"]["apps"]
        about = apps["blog"]["data"]["backup"]["db.sqlite3"]
        assert not about["error"], about
        return about["position"] and about["lag_seconds"] == 0 and about["verified_seconds"] is not None

    wait_for("a verified backup", stored, 60)
    assert body in web.posts(blog.host, "blog")
