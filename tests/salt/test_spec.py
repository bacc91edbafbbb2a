"""Pillar to spec, and to the values of a vhost: what is refused, and in which words."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from masterless import ROOT

pytestmark = pytest.mark.quick

TEMPLATE = {
    "options": {
        "workers": 2,
        "databases": ["db.sqlite3"],
        "static": {"url": "/static/", "root": "${STATIC_ROOT}"},
        "media": {"url": "/media/", "root": "${MEDIA_DIR}"},
        "health": {"path": "/", "timeout": 30},
        "hooks": {"check": [["django-admin", "check"]], "migrate": [["django-admin", "migrate"]]},
        "nginx": {"client_max_body_size": "20m"},
    },
    "overlay": {"flipside_settings.py": "x = 1\n"},
    "overlay_settings": "flipside_settings",
}


@pytest.fixture
def resolve(own: Callable, host: dict) -> Callable:
    def call(app: dict, **settings: object) -> tuple[dict, dict]:
        known = own("flipside_host").settings({**host, **settings})
        pillar = {"template": "python-django-sqlite", **app}
        spec, nginx = own("flipside_spec").resolve("blog", pillar, TEMPLATE, known)
        return spec, own("flipside_vhost").values(spec, nginx, known)

    return call


def refused(own: Callable, resolve: Callable, app: dict) -> str:
    with pytest.raises(own("flipside_refused").Refused) as caught:
        resolve(app)
    return str(caught.value)


def options(**given: object) -> dict:
    return {"options": {"domains": ["blog.example.org"], **given}}


def test_the_least_pillar_makes_a_whole_spec(resolve: Callable) -> None:
    spec, vhost = resolve(options())
    assert spec["domains"] == ["blog.example.org"] and spec["public_url"] == "http://blog.example.org:25080"
    assert spec["overlay_settings"] == "flipside_settings" and "user" not in spec
    assert vhost["static"]["root"].endswith("/apps/blog/static") and vhost["read_timeout"] == 900


def test_a_spec_holds_only_what_the_contract_names(resolve: Callable) -> None:
    schema = json.loads((ROOT / "agent/api/schema.json").read_text())
    known = schema["request"]["$defs"]["AppSpec"]["properties"]
    every = options(wsgi="a:b", settings="a.b", threads=3, request_timeout=5, start_timeout=5, switch="held")
    every["options"] |= {"background": {"q": {"command": ["x"]}}, "release_header": True, "backup": False}
    every["options"] |= {"maintenance_after": 9}
    every["options"] |= {"schedule": {"n": {"command": ["x"], "cron": "* * * * *"}}}
    spec, _ = resolve({**every, "files": {"a": "b"}, "memory": "512M", "runtime": "docker"}, users=True)
    assert set(spec) <= set(known)
    assert set(known) - set(spec) == {"vhost"}


def test_options_of_pillar_lie_over_the_templates(resolve: Callable) -> None:
    given = options(
        wsgi=None, health={"path": "/up"}, hooks={"migrate": [], "after": [["x"]]}, static=False, media=True
    )
    spec, vhost = resolve(given)
    assert spec["health"] == {"path": "/up", "timeout": 30}
    assert spec["hooks"] == {"check": [["django-admin", "check"]], "migrate": [], "after": [["x"]]}
    assert "static_files" not in spec and vhost["static"] is None and vhost["media"] is not None


def test_a_folder_in_a_package(resolve: Callable) -> None:
    spec, _ = resolve(options(static={"package": "board", "path": "static/dist"}))
    assert spec["static_files"] == {
        "url": "/static/",
        "root": "${STATIC_ROOT}",
        "package": "board/static/dist",
    }


def test_https_and_ports(resolve: Callable) -> None:
    assert resolve(options(), scheme="https", port=80)[0]["public_url"] == "https://blog.example.org"
    assert resolve(options(), scheme="https", port=8443)[0]["public_url"] == "https://blog.example.org:8443"
    assert resolve(options(), port=80)[0]["public_url"] == "http://blog.example.org"
    assert resolve(options(public_url="https://x.example.org/"))[0]["public_url"] == "https://x.example.org"


@pytest.mark.parametrize(
    ("text", "amount"), [("512M", 512 << 20), ("2G", 2 << 30), (4096, 4096), ("1K", 1024)]
)
def test_memory(resolve: Callable, text: object, amount: int) -> None:
    assert resolve({**options(), "memory": text})[0]["memory"] == amount


def test_an_empty_value_stays_set(resolve: Callable) -> None:
    env = {"EMPTY": "", "BARE": None, "ODD": "a 'b' \"c\" $ # = \n d"}
    assert resolve({**options(), "env": env})[0]["env"] == {**env, "BARE": ""}


def test_configuration_files_are_the_agents_to_write(resolve: Callable) -> None:
    env = {"A": "${FILES_DIR}/a"}
    spec, vhost = resolve({**options(), "env": env, "files": {"a": "text"}})
    assert (spec["env"], spec["files"]) == (env, {"a": "text"})
    assert resolve({**options(), "files": {"a": "other"}})[1] == vhost


def test_long_names_get_users_of_their_own(own: Callable) -> None:
    names = ["a" * 30, "a" * 31, "b", "a" * 28]
    users = [own("flipside_spec").system_user(name) for name in names]
    assert len(set(users)) == 4 and all(len(user) <= 32 for user in users)


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (options(wokers=3), "options.wokers: the template knows no such option"),
        ({**options(), "tags": "x"}, "tags: is no key of an app"),
        (options(workers="2"), "options.workers: must be a whole number"),
        (options(workers=True), "options.workers"),
        (options(hooks={"migrat": []}), "options.hooks.migrat"),
        (options(hooks={"migrate": ["django-admin migrate"]}), "each hook is a list of arguments"),
        (options(hooks={"migrate": [["sleep", 3]]}), "each of them quoted text"),
        (options(hooks={"migrate": [{"command": ["x"], "timeout": "long"}]}), "timeout must be seconds"),
        (
            options(hooks={"migrate": [{"command": ["x"], "tiemout": 5}]}),
            "a command and a timeout, nothing else",
        ),
        (options(hooks={"migrate": [[]]}), "each hook is a list of arguments"),
        (options(threads=1), "options.threads: must be between 2 and 256"),
        (options(workers=99999999999), "options.workers: must be between 1 and 256"),
        (options(switch="soft"), "options.switch: must be auto, hot, cold or held"),
        (options(databases=[5]), "options.databases: '5' must be quoted text"),
        (options(health={"path": 5}), "options.health.path: must be text"),
        (options(health={"pth": "/"}), "options.health.pth: is no part of it"),
        (options(health={"status": 99999999}), "options.health.status: 99999999 is out of range"),
        (options(background={"q": ["x"]}), "options.background.q: must be a map"),
        (options(background={"q": {"command": "x"}}), "options.background.q.command: must be a list"),
        (options(background={"Q": {"command": ["x"]}}), "options.background.Q: needs a name"),
        (options(schedule={"n": {"command": ["x"]}}), "options.schedule.n.cron: is missing"),
        (options(static={"rot": "x"}), "options.static.rot"),
        (options(static={"root": "/etc"}), "options.static.root: must lie below"),
        (options(static={"root": "${DATA_DIR}"}), "the data folder holds the databases"),
        (options(static={"root": "${DATA_DIR}/../../x"}), "options.static.root"),
        (options(static={"url": "/s/;}\nserver {"}), "options.static.url"),
        (options(static={"root": "${STATIC_ROOT}/a;b"}), "options.static.root"),
        (options(media={"url": "/static/"}), "options.media.url: is the same"),
        (options(static={"package": "../x"}), "options.static"),
        (options(nginx={"client_max_body_size": "1m;\nroot /"}), "options.nginx.client_max_body_size"),
        (options(nginx={"location": "x"}), "options.nginx.location: is no such setting"),
        ({"options": {"domains": []}}, "needs at least one domain"),
        ({"options": {"domains": ["a.org;\n}"]}}, "is no domain name"),
        ({"options": {"domains": ["a.org\n"]}}, "is no domain name"),
        ({"options": {"domains": ['a" b']}}, "is no domain name"),
        ({"options": {"domains": ["~^(.*)$"]}}, "is no domain name"),
        (options(public_url="https://x/\n"), "options.public_url"),
        ({**options(), "env": {"A B": "x"}}, "is no name of a variable"),
        ({**options(), "env": {"PORT": 587}}, 'env.PORT: YAML made int of it; quote it: PORT: "…"'),
        ({**options(), "memory": "lots"}, "memory: 'lots' is no amount"),
        ({**options(), "files": {"../x": "a"}}, "files: '../x' is no plain name"),
        ({**options(), "files": {"x": 5}}, "files.x: must be text"),
        (options(nginx={"closed": "yes"}), "options.nginx.closed"),
        ({**options(), "runtime": "vm"}, "runtime: must be process or docker"),
    ],
)
def test_what_is_refused_by_name(own: Callable, resolve: Callable, app: dict, words: str) -> None:
    assert words in refused(own, resolve, app)


def test_no_value_of_the_environment_is_shown(own: Callable, resolve: Callable) -> None:
    assert "8675309" not in refused(own, resolve, {**options(), "env": {"PIN": 8675309}})


def test_the_hash_follows_what_the_vhost_says(resolve: Callable) -> None:
    first = resolve(options())[1]["hash"]
    assert resolve({**options(workers=5), "env": {"A": "b"}})[1]["hash"] == first
    others = [options(static=False), options(nginx={"hsts": 5}), options(domains=["b.example.org"])]
    assert len({first, *(resolve(other)[1]["hash"] for other in others)}) == 4


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sockt": "/x"}, "host.sockt: is no setting"),
        ({"nginx": {"conf": "relative"}}, "host.nginx.conf"),
        ({"nginx": {"sites": "/x;\n"}}, "host.nginx.sites"),
        ({"nginx": {"listen": "80; root /"}}, "host.nginx.listen"),
        ({"apps_dir": "/srv/../etc"}, "host.apps_dir: may hold no .."),
        ({"nginx": {"trusted": ["10.0.0.0/24", "x;"]}}, "host.nginx.trusted"),
        ({"port": "80"}, "host.port"),
        ({"users": "yes"}, "host.users"),
        ({"scheme": "ftp"}, "host.scheme"),
        ({"rsyslog": {"logentries": {"token": 'x"'}}}, "host.rsyslog.logentries.token"),
        ({"agent": []}, "host.agent: must be a map"),
    ],
)
def test_settings_of_a_host_are_refused_by_name(own: Callable, given: dict, words: str) -> None:
    with pytest.raises(own("flipside_refused").Refused, match=words.replace(".", r"\.")):
        own("flipside_host").settings(given)


def test_agent_toml_is_toml(own: Callable) -> None:
    import tomllib

    odd = 'a "b" \\ \n \x7f \x01'
    host = own("flipside_host").settings(
        {
            "agent": {"settings": {"keep_releases": 3, "backup": {"recipients": ["age1"]}}},
            "backup": {"repo": odd, "rpo": 5},
        }
    )
    read = tomllib.loads(own("flipside_host").agent_toml(host, "web1"))
    assert read["id"] == "web1" and read["keep_releases"] == 3 and read["web_group"] == "www-data"
    assert read["backup"] == {"repo": odd, "recipients": ["age1"], "rpo": 5}
    assert read["salt"] == {"minion_config": "/etc/salt/minion"}
    assert read["nginx"] == "http://127.0.0.1:80" and "app_units" not in read
    assert tomllib.loads(own("flipside_host").agent_toml(host, "web1", app_units=True))["app_units"] is True
