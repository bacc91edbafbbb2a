"""Every way in which a release can be bad: the old one goes on serving, and no request is lost."""

from __future__ import annotations

import json
import shutil

import pytest

from flipside_testbed import web
from flipside_testbed.blog import Blog
from flipside_testbed.traffic import WITHOUT_HEALTH

# What is wrong with it, and a word that the one who asked must read.
BAD = {
    "bad-import": "a_module_that_nobody_declared",
    "exit": "3",
    "hang": "",
    "bad-health": "nobody was served by it",
    "bad-health-served": "answered 500",
    "exit-served": "",
    "hang-served": "",
}


@pytest.mark.parametrize("kind", sorted(BAD))
def test_the_old_release_goes_on_serving(blog: Blog, kind: str) -> None:
    blog.published(kind)
    blog.pillar(start_timeout=8)
    with blog.load(requests=WITHOUT_HEALTH) as load:
        answer = blog.salt("deploy", f"tag={kind}")
    said = answer.app("blog")
    assert answer.code != 0
    assert said["result"] is False and said["state"] in ("refused", "rolled_back"), said
    assert BAD[kind] in json.dumps(said["error"]), said
    blog.serves(blog.v1)
    blog.kept_all(load)
    assert set(load.figures["releases"]) <= {blog.v1, "", bad_but_served(blog, kind)}


def bad_but_served(blog: Blog, kind: str) -> str:
    """Only a release that starts can have answered anything."""
    return blog.published(kind) if kind == "bad-health-served" else ""


def test_a_traceback_names_file_and_line(blog: Blog) -> None:
    said = blog.deploy("bad-import")
    log = "\n".join(said["error"]["log"])
    assert 'views.py", line' in log and "ModuleNotFoundError" in log, said


def test_a_slow_import_takes_its_time(blog: Blog) -> None:
    release = blog.published("slow")
    with blog.load() as load:
        said = blog.deploy("slow")
    assert said["state"] == "deployed", said
    blog.serves(release)
    blog.kept_all(load)


def test_a_file_that_is_not_what_the_manifest_says_is_refused(blog: Blog) -> None:
    release = blog.published("v2b")
    wheel = next((blog.platform.store / "blog" / release / "wheels").glob("blog-*.whl"))
    good = wheel.read_bytes()
    wheel.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        said = blog.deploy("v2b")
    finally:
        wheel.write_bytes(good)
        for cached in blog.platform.root.glob(f"*/salt/cache/files/flipside/blog/{release}"):
            shutil.rmtree(cached)
    assert said["result"] is False and said["state"] in ("refused", "rolled_back", "failed"), said
    assert "sha256" in json.dumps(said["error"]) or "manifest" in json.dumps(said["error"]), said
    assert not (blog.host.apps / "blog/releases" / release).exists()
    blog.serves(blog.v1)
    assert web.get(blog.host, "blog").status == 200
