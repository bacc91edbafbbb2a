"""What pillar and command line can hold by mistake or by malice, and two apps beside each other."""

from __future__ import annotations

import http.client
import json

import pytest

from flipside_testbed import web
from flipside_testbed.blog import Blog
from flipside_testbed.platform import ASSIGNED, app_pillar
from flipside_testbed.processes import wait_for

HOSTILE = {
    "domains": ["blog.localhost;\n} server { listen 1"],
    "wsgi": "blog.wsgi:application\nsocket = /tmp/x",
    "settings": "blog.settings\nfoo",
    "databases": ["../../etc/passwd"],
    "static": {"url": "/static/;}\n", "root": "${STATIC_ROOT}"},
    "media": {"url": "/media/", "root": "/etc"},
    "health": {"path": "/ HTTP/1.1\r\nX: y"},
    "nginx": {"client_max_body_size": "1m; } server { listen 1; }"},
    "workers": 0,
    "threads": 1,
    "wokers": 2,
}


@pytest.mark.parametrize("option", sorted(HOSTILE))
def test_a_value_that_could_break_out_is_refused_by_name(blog: Blog, option: str) -> None:
    blog.pillar(**{option: HOSTILE[option]})
    answer = blog.salt("deploy", "tag=v1")
    said = answer.app("blog")
    assert answer.code != 0 and said["state"] == "refused", said
    assert f"options.{option}" in json.dumps(said["error"]), said
    blog.serves(blog.v1)


@pytest.mark.parametrize("argument", ["tag=1.10", "tag=true", "release=3", "tag=null_", "unknown=1"])
def test_what_yaml_made_of_an_argument_is_refused(blog: Blog, argument: str) -> None:
    answer = blog.salt("deploy", argument)
    assert answer.code != 0, answer.text
    name, _, value = argument.partition("=")
    assert name in answer.text and (value == "null_" or name != "tag" or value in answer.text), answer.text
    blog.serves(blog.v1)


def test_newlines_and_quotes_of_a_variable_arrive(blog: Blog) -> None:
    value = "two\nlines 'and' \"quotes\" # $$HOME \\ = `id` ;"
    pillar = app_pillar("blog")
    pillar["env"] = {"HARD": value}
    blog.platform.assign(ASSIGNED, blog.platform.apps | {"blog": pillar})
    said = blog.salt("env").app("blog")
    assert said["result"], said
    expected = web.digest(value.replace("$$", "$"))
    assert web.digest_of_variable(blog.host, "blog", "HARD") == expected


def test_one_domain_for_two_apps_is_refused(blog: Blog) -> None:
    apps = {app: app_pillar(app, domains=["same.localhost"]) for app in ("blog", "shop")}
    blog.platform.assign(ASSIGNED, apps)
    answer = blog.platform.salted.salt("web1", "flipside.deploy")
    assert answer.code != 0
    assert "same.localhost" in answer.text
    blog.serves(blog.v1)


def test_an_unknown_host_gets_no_app(blog: Blog) -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        web.get(blog.host, "nobody")


def test_apps_do_not_mix(blog: Blog) -> None:
    shop = web.get(blog.host, "shop")
    assert "<h1>shop 1.0</h1>" in shop.text and shop.release == blog.host.current("shop")
    said = blog.deploy("v2")
    assert said["result"], said
    assert web.get(blog.host, "shop").release == shop.release
    web.write(blog.host, "shop", "in-shop")
    assert "in-shop" in web.posts(blog.host, "shop") and "in-shop" not in web.posts(blog.host, "blog")


def test_a_minion_without_the_app_says_so_and_is_fine(blog: Blog) -> None:
    answer = blog.platform.salted.salt("web2", "flipside.deploy", "shop")
    said = answer.one()
    assert answer.code == 0 and said["result"] is True and said["apps"] == {} and said["comment"], said


def test_a_client_that_gives_up_cancels_nothing(blog: Blog) -> None:
    """`salt --async` leaves at once; the job's own return holds the real outcome."""
    v2 = blog.published("v2")
    done = blog.platform.salted.call_master(
        "salt", "--async", "web1", "flipside.deploy", "blog", "tag=v2", check=True
    )
    jid = done.stdout.split()[-1]
    said = looked_up(blog, jid)
    assert said["apps"]["blog"]["state"] == "deployed" and said["apps"]["blog"]["release"] == v2, said
    blog.serves(v2)


def looked_up(blog: Blog, jid: str) -> dict:
    def there() -> dict | None:
        text = blog.platform.salted.run("jobs.lookup_jid", jid, "--out=json")
        return json.loads(text[text.index("{") :]) if "web1" in text else None

    return wait_for("the job's return", there, 90, every=0.5)["web1"]
