"""The template's settings module, around real projects on real Django."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from masterless import TEMPLATE

from flipside_testbed import places, tools

pytestmark = pytest.mark.quick

DJANGO = {"4.2": "django==4.2.27", "5.2": "django==5.2.9"}
KEY = "a-key-of-the-host-that-is-long-enough-0123456789-abcdefghij"

LOOK = """
import json
from django.conf import settings
names = ("DEBUG ALLOWED_HOSTS CSRF_TRUSTED_ORIGINS SECRET_KEY DATABASES STATIC_ROOT STATIC_URL MEDIA_ROOT "
         "MEDIA_URL CACHES SECURE_PROXY_SSL_HEADER SESSION_COOKIE_SECURE LOGGING STORAGES INNER").split()
print(json.dumps({name: getattr(settings, name, None) for name in names}, default=str))
"""
LOADER = places.CHECKOUT / "agent/src/runtime/python/loader.py"
# What a worker does, and a look at the settings that it then has.
SERVE = f"import os, runpy\nrunpy.run_path({str(LOADER)!r})['import_entry'](dict(os.environ))\n{LOOK}"
WRITE = """
import django, json
django.setup()
from django.db import connection, transaction
with connection.cursor() as cursor:
    mode = cursor.execute("PRAGMA journal_mode").fetchone()[0]
    synchronous = cursor.execute("PRAGMA synchronous").fetchone()[0]
import sqlite3
blocked = False
with transaction.atomic():
    # IMMEDIATE: the lock is taken by BEGIN, before anything is written.
    try:
        sqlite3.connect(connection.settings_dict["NAME"], timeout=0).execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        blocked = True
print(json.dumps([mode, synchronous, blocked]))
"""


class Project:
    """A project of one Django version, with the environment that the agent gives it."""

    def __init__(self, folder: Path, version: str) -> None:
        # Made once and kept beside the other tools.
        packages = [DJANGO[version], "pymemcache==4.0.0"]
        self.bin = tools._venv(f"django-{version}", packages, installer=tools.uv()) / "bin"
        self.code, self.home = folder / "site-packages", folder / "app"
        self.code.mkdir()
        for name in ("data", "media", "static", "home"):
            (self.home / name).mkdir(parents=True)
        self.env = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "PYTHONPATH": f"{TEMPLATE}:{self.code}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "DJANGO_SETTINGS_MODULE": "flipside_settings",
            "FLIPSIDE_SETTINGS": "shop.settings",
            "FLIPSIDE_APP": "shop",
            "FLIPSIDE_RELEASE": "1.0-0123456789ab",
            "DATA_DIR": str(self.home / "data"),
            "MEDIA_DIR": str(self.home / "media"),
            "STATIC_ROOT": str(self.home / "static"),
            "STATIC_URL": "/static/",
            "HOME": str(self.home / "home"),
            "ALLOWED_HOSTS": "shop.example.org,*.shop.example.org",
            "PUBLIC_URL": "https://shop.example.org",
            "SECRET_KEY": KEY,
            "MEMCACHED": "127.0.0.1:11211",
        }

    def start(self) -> Project:
        """The output of an untouched startproject."""
        self.run("django-admin", "startproject", "shop", str(self.code), DJANGO_SETTINGS_MODULE="")
        return self

    def settings(self, text: str, module: str = "shop/settings.py") -> Project:
        """Replaces the settings module."""
        file = self.code / module
        file.parent.mkdir(parents=True, exist_ok=True)
        (self.code / "shop" / "__init__.py").touch()
        file.write_text(textwrap.dedent(text))
        return self

    def run(self, *argv: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """A command with the app's environment and no other."""
        done = subprocess.run(
            argv, env={**self.env, **env}, cwd=self.home / "data", capture_output=True, text=True, timeout=60
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def python(self, code: str, **env: str) -> dict:
        """What a piece of Python prints as JSON."""
        return json.loads(self.run(str(self.bin / "python"), "-c", code, **env).stdout)


@pytest.fixture(params=list(DJANGO))
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    return Project(tmp_path, request.param)


def test_an_untouched_project_runs_as_production_should(project: Project) -> None:
    seen = project.start().python(LOOK)
    assert seen["DEBUG"] is False
    assert seen["ALLOWED_HOSTS"] == ["shop.example.org", ".shop.example.org"]
    assert seen["CSRF_TRUSTED_ORIGINS"] == ["https://shop.example.org", "https://*.shop.example.org"]
    assert seen["SECRET_KEY"] == KEY
    assert seen["DATABASES"]["default"]["NAME"] == str(project.home / "data/db.sqlite3")
    assert seen["DATABASES"]["default"]["OPTIONS"]["timeout"] == 20
    assert (seen["STATIC_ROOT"], seen["STATIC_URL"]) == (str(project.home / "static"), "/static/")
    assert (seen["MEDIA_ROOT"], seen["MEDIA_URL"]) == (str(project.home / "media"), "/media/")
    cache = seen["CACHES"]["default"]
    assert cache["BACKEND"].endswith("PyMemcacheCache")
    assert (cache["LOCATION"], cache["KEY_PREFIX"]) == ("127.0.0.1:11211", "shop")
    assert seen["SECURE_PROXY_SSL_HEADER"] == ["HTTP_X_FORWARDED_PROTO", "https"]
    assert seen["SESSION_COOKIE_SECURE"] is True
    assert seen["LOGGING"]["root"]["handlers"] == ["stderr"]


def test_the_hooks_pass_and_the_database_is_as_it_should(project: Project) -> None:
    project.start()
    project.run("django-admin", "check")
    collected = project.run("python", "-m", "flipside_static").stdout
    assert "static files" in collected
    project.run("python", "-m", "flipside_migrate")
    assert not list(project.code.glob("*.sqlite3"))
    assert project.python(WRITE) == ["wal", 1, True]
    manifest = json.loads((project.home / "static/staticfiles-1.0-0123456789ab.json").read_text())
    hashed = manifest["paths"]["admin/css/base.css"]
    assert hashed != "admin/css/base.css" and (project.home / "static" / hashed).exists()


def test_every_database_of_the_apps_own_is_migrated(project: Project) -> None:
    project.start()
    settings = project.code / "shop/settings.py"
    other = """
DATABASES["sessions"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db" / "db.sqlite3"}
DATABASES["away"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": "/nowhere/at/all.sqlite3"}
class Router:
    def allow_migrate(self, db, app_label, **hints):
        return (db == "sessions") == (app_label == "sessions")
"""
    settings.write_text(settings.read_text() + other)
    project.run("python", "-m", "flipside_migrate")
    assert not (project.home / "data/sessions-db.sqlite3").exists(), "without a router nothing goes there"
    settings.write_text(settings.read_text() + "DATABASE_ROUTERS = [Router()]\n")
    project.run("python", "-m", "flipside_migrate")
    with sqlite3.connect(project.home / "data/sessions-db.sqlite3") as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables >= {"django_session"} and "auth_user" not in tables


def test_plain_http_sets_no_secure_cookies(project: Project) -> None:
    seen = project.start().python(LOOK, PUBLIC_URL="http://shop.example.org:8080")
    assert seen["SESSION_COOKIE_SECURE"] is False
    assert seen["CSRF_TRUSTED_ORIGINS"][0] == "http://shop.example.org:8080"


def test_what_the_project_chose_stays(project: Project) -> None:
    project.settings(
        f"""
        import os
        INNER = os.environ["DJANGO_SETTINGS_MODULE"]
        SQLITE = "django.db.backends.sqlite3"
        DEBUG = True
        SECRET_KEY = "{KEY[::-1]}"
        ALLOWED_HOSTS = ["www.example.net", "localhost"]
        INSTALLED_APPS = ["django.contrib.staticfiles"]
        DATABASES = {{
            "default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "/var/elsewhere/db.sqlite3"}},
            "memory": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            "pg": {{"ENGINE": "django.db.backends.postgresql", "NAME": "x"}},
            "near": {{"ENGINE": SQLITE, "NAME": "near.db", "OPTIONS": {{"timeout": 3}}}},
            "twin": {{"ENGINE": "django.db.backends.sqlite3", "NAME": __file__ + "/../sub/near.db"}},
        }}
        STATIC_ROOT = "/var/elsewhere/static"
        STATIC_URL = "https://cdn.example.net/"
        STORAGES = {{
            "default": {{"BACKEND": "django.core.files.storage.FileSystemStorage"}},
            "staticfiles": {{"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"}},
        }}
        CACHES = {{"default": {{"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}}}
        LOGGING = {{"version": 1, "mine": True}}
        SESSION_COOKIE_SECURE = False
        """,
        "shop/settings/prod.py",
    )
    (project.code / "shop/settings/__init__.py").touch()
    # Django itself would fail on such a LOGGING; only the values are looked at.
    look = "import flipside_settings as settings" + LOOK.replace("from django.conf import settings", "")
    seen = project.python(look, FLIPSIDE_SETTINGS="shop.settings.prod")
    assert seen["INNER"] == "shop.settings.prod"
    assert seen["DEBUG"] is False
    assert seen["SECRET_KEY"] == KEY[::-1]
    assert seen["ALLOWED_HOSTS"] == ["www.example.net", "shop.example.org", ".shop.example.org"]
    names = {alias: database["NAME"] for alias, database in seen["DATABASES"].items()}
    data = str(project.home / "data")
    assert names["default"] == "/var/elsewhere/db.sqlite3"
    assert names["memory"] == ":memory:"
    assert names["near"] == f"{data}/near.db" and names["twin"] == f"{data}/twin-near.db"
    assert seen["DATABASES"]["near"]["OPTIONS"]["timeout"] == 3
    assert "OPTIONS" not in seen["DATABASES"]["pg"]
    assert seen["STATIC_ROOT"] == "/var/elsewhere/static" and seen["STATIC_URL"] == "https://cdn.example.net/"
    assert seen["STORAGES"]["staticfiles"]["BACKEND"].startswith("whitenoise")
    assert seen["CACHES"]["default"]["BACKEND"].endswith("DummyCache")
    assert seen["LOGGING"] == {"version": 1, "mine": True}
    assert seen["SESSION_COOKIE_SECURE"] is False


CACHE = """
import importlib.util as finder; finder.find_spec = lambda name: None
import json, pickle, time
from django.core.cache import cache
said = {"class": type(cache).__name__}
values = {"n": 5, "s": "tëxt", "b": b"\\r\\nEND\\r\\n", "o": {"a": [1, None]}, "e": "", "t": True, "f": 1.5}
said["rest"] = cache.set_many(values, 60)
said["same"] = cache.get_many([*values, "none"]) == values
said["add"] = [cache.add("n", 1), cache.add("new", 1)]
said["count"] = [cache.incr("n"), cache.decr("n", 3)]
try:
    cache.incr("none")
except ValueError:
    said["lost"] = True
said["touch"] = [cache.touch("n", 60), cache.touch("none", 60)]
cache.set("gone", 1, -1)
said["gone"] = cache.get("gone", "default")
said["deleted"] = [cache.delete("s"), cache.delete("s"), cache.get("s")]
cache.set("big", "x" * (2 << 20))
said["big"] = cache.get("big")
cache.set("ü" * 240, "long")
said["after"] = [cache.get("f"), cache.get("n")]
class Passing: pass
cache.set("class", Passing())
del Passing
said["lost class"] = cache.get("class")
cache.close()
said["kept"] = cache.get("f")
print(json.dumps(said))
"""


def test_without_a_library_of_its_own_a_project_has_the_hosts_memcached(
    project: Project, memcached: tuple[str, subprocess.Popen]
) -> None:
    address, server = memcached
    project.start().env["MEMCACHED"] = address
    assert project.python(CACHE) == {
        "class": "ConnectionProxy",
        "rest": [],
        "same": True,
        "add": [False, True],
        "count": [6, 3],
        "lost": True,
        "touch": [True, False],
        "gone": "default",
        "deleted": [True, False, None],
        "big": None,
        "after": [1.5, 3],
        "lost class": None,
        "kept": 1.5,
    }
    other = "from django.core.cache import cache; print(cache.get('f') is None)"
    assert project.python(
        other.replace("print(", "import json; print(json.dumps(") + ")", FLIPSIDE_APP="other"
    )
    # pymemcache reads what ours has written.
    theirs = (
        "import json; from django.core.cache import cache as c; print(json.dumps([c.get('o'), c.get('n')]))"
    )
    assert project.python(theirs) == [{"a": [1, None]}, 3]
    server.kill()
    server.wait()
    away = "import importlib.util as finder; finder.find_spec = lambda name: None\n" + textwrap.dedent(
        """
        import json, time
        from django.core.cache import cache
        start = time.monotonic()
        said = [cache.get("f"), cache.set("f", 1), cache.add("f", 1)]
        said += [cache.get_many(["f"]), cache.delete("f")]
        print(json.dumps([*said, time.monotonic() - start < 3]))
        """
    )
    assert project.python(away) == [None, None, False, {}, False, True]


@pytest.fixture
def memcached() -> Iterator[tuple[str, subprocess.Popen]]:
    """A memcached of our own: its address and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user = ["-u", "nobody"] if places.is_root() else []
    server = subprocess.Popen(
        [tools.program("memcached"), "-l", "127.0.0.1", "-p", str(port), "-U", "0", *user]
    )
    deadline = time.monotonic() + 10
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield f"127.0.0.1:{port}", server
    server.kill()
    server.wait()


def test_what_django_writes_beside_the_code_goes_to_the_data_folder(project: Project) -> None:
    project.start()
    settings = project.code / "shop/settings.py"
    settings.write_text(
        settings.read_text()
        + textwrap.dedent(
            """
            LOGGING = {
                "version": 1,
                "disable_existing_loggers": False,
                "handlers": {
                    "file": {"class": "logging.FileHandler", "filename": BASE_DIR / "logs" / "debug.log"},
                    "kept": {"class": "logging.FileHandler", "filename": "/dev/null"},
                },
                "root": {"handlers": ["file", "kept"], "level": "INFO"},
            }
            EMAIL_FILE_PATH = BASE_DIR / "mails"
            STORAGES = {
                "default": {
                    "BACKEND": "django.core.files.storage.FileSystemStorage",
                    "OPTIONS": {"location": BASE_DIR / "uploads"},
                },
                "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
            }
            CACHES = {
                "default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
                "disk": {
                    "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
                    "LOCATION": BASE_DIR / "cache",
                },
            }
            """
        )
    )
    seen = project.python(LOOK.replace("INNER", "EMAIL_FILE_PATH"))
    data = project.home / "data"
    files = {name: handler["filename"] for name, handler in seen["LOGGING"]["handlers"].items()}
    assert files == {"file": str(data / "logs/debug.log"), "kept": "/dev/null"}
    assert seen["EMAIL_FILE_PATH"] == str(data / "mails")
    assert seen["STORAGES"]["default"]["OPTIONS"] == {"location": str(project.home / "media")}
    assert seen["STORAGES"]["staticfiles"]["BACKEND"] == "flipside_storage.ReleaseStaticFilesStorage"
    assert seen["CACHES"]["disk"]["LOCATION"] == str(data / "caches/cache")
    assert seen["CACHES"]["default"]["BACKEND"].endswith("DummyCache")
    project.run("django-admin", "check")
    assert (data / "logs/debug.log").exists()


def test_what_a_project_makes_of_cache_url_is_the_hosts_cache(project: Project) -> None:
    project.settings(
        """
        import os
        SECRET_KEY = "x"
        BACKEND = "django.core.cache.backends.memcached.PyLibMCCache"  # which is not installed
        CACHES = {
            "default": {"BACKEND": BACKEND, "LOCATION": os.environ["MEMCACHED"]},
            "other": {"BACKEND": BACKEND, "LOCATION": "10.0.0.1:11211"},
        }
        """
    )
    seen = project.python(LOOK)["CACHES"]
    assert seen["default"]["KEY_PREFIX"] == "shop" and seen["default"]["OPTIONS"]["ignore_exc"]
    assert "KEY_PREFIX" not in seen["other"]


def test_a_database_where_nothing_can_be_written_is_named(project: Project) -> None:
    project.settings(
        """
        SECRET_KEY = "x"
        import os
        FOLDER = os.environ.get("FOLDER", "/nowhere")
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER + "/db.sqlite3"}}
        """
    )
    failed = project.run("python", "-m", "flipside_migrate", check=False)
    assert failed.returncode != 0
    assert "/nowhere/db.sqlite3" in failed.stderr and str(project.home / "data") in failed.stderr
    below = project.home / "data/db/site"
    project.run("python", "-m", "flipside_migrate", FOLDER=str(below))
    assert (below / "db.sqlite3").is_file()


def test_a_project_that_lacks_a_variable_says_so(project: Project) -> None:
    project.settings("import os\nTOKEN = os.environ['SHOP_TOKEN']\n")
    failed = project.run("django-admin", "check", check=False)
    assert failed.returncode != 0
    assert "SHOP_TOKEN" in failed.stderr and "shop/settings.py" in failed.stderr


def test_no_settings_module_is_a_clear_error(project: Project) -> None:
    failed = project.run("django-admin", "check", check=False, FLIPSIDE_SETTINGS="")
    assert failed.returncode != 0 and "set options.settings in pillar" in failed.stderr


def test_a_wsgi_module_that_names_its_own_settings_gets_the_overlay(project: Project) -> None:
    project.start()
    (project.code / "shop/wsgi.py").write_text(
        "import os\n"
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'\n"
        "from django.core.wsgi import get_wsgi_application\n"
        "application = get_wsgi_application()\n"
    )
    entry = {"FLIPSIDE_WSGI": "shop.wsgi:application", "FLIPSIDE_OVERLAY": str(TEMPLATE)}
    seen = project.python(SERVE, **entry)
    assert seen["DEBUG"] is False and seen["SECRET_KEY"] == KEY
    # Without the overlay too the module is the one that pillar names.
    project.settings("SECRET_KEY = 'mine'\n", module="shop/production.py")
    seen = project.python(SERVE, **entry, DJANGO_SETTINGS_MODULE="shop.production")
    assert seen["SECRET_KEY"] == "mine"


def test_a_project_without_static_files_passes_the_hook(project: Project) -> None:
    project.settings("SECRET_KEY = 'x'\nINSTALLED_APPS = []\n")
    assert "nothing to collect" in project.run("python", "-m", "flipside_static").stdout


def test_static_files_go_where_nginx_looks(project: Project) -> None:
    """Products that keep everything below one folder would collect them into the data folder."""
    project.start()
    settings = project.code / "shop/settings.py"
    settings.write_text(settings.read_text() + "\nimport os\nSTATIC_ROOT = os.environ['DATA_DIR'] + '/www'\n")
    assert project.python(LOOK)["STATIC_ROOT"] == str(project.home / "static")


def test_folders_that_the_user_cannot_write_in_are_not_kept(project: Project) -> None:
    settings = project.start().code / "shop/settings.py"
    theirs = """
STATIC_ROOT, MEDIA_ROOT = "/var/www/shop/static", "/var/www/shop/media"
LOGGING = {"version": 1, "handlers": {"file": {"filename": "/var/log/shop/django.log"}}}
"""
    settings.write_text(settings.read_text() + theirs)
    look = "import json, flipside_settings as settings" + LOOK.partition("settings")[2]
    seen = project.python("import os; os.geteuid = os.getegid = lambda: 7; os.getgroups = list; " + look)
    assert seen["STATIC_ROOT"] == str(project.home / "static")
    assert seen["MEDIA_ROOT"] == str(project.home / "media")
    assert seen["LOGGING"]["handlers"]["file"]["filename"] == str(project.home / "data/logs/django.log")


def test_a_stylesheet_that_names_a_missing_file_stops_no_deploy(project: Project) -> None:
    project.start()
    static = project.code / "shop" / "static"
    static.mkdir()
    (static / "broken.css").write_text("a { background: url(missing.png) }\n@import 'broken2.css';\n")
    settings = project.code / "shop/settings.py"
    settings.write_text(settings.read_text() + "\nINSTALLED_APPS.append('shop')\n")
    project.run("python", "-m", "flipside_static")
    assert list((project.home / "static").glob("broken.*.css"))


def test_hashed_names_of_the_projects_own_get_a_manifest_of_each_release(project: Project) -> None:
    project.start()
    settings = project.code / "shop/settings.py"
    storage = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
    storages = {
        "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
        "staticfiles": {"BACKEND": storage},
    }
    settings.write_text(settings.read_text() + f"\nSTORAGES = {storages}\n")
    for release in ("1.0-0123456789ab", "2.0-0123456789ab"):
        project.run("python", "-m", "flipside_static", FLIPSIDE_RELEASE=release)
        assert (project.home / f"static/staticfiles-{release}.json").exists()
    assert not (project.home / "static/staticfiles.json").exists()
    seen = project.python(LOOK)["STORAGES"]
    assert seen["default"]["BACKEND"].endswith("InMemoryStorage")
    assert seen["staticfiles"]["BACKEND"] == "flipside_storage.ReleaseManifestStorage"


def test_the_older_names_of_storages_still_work(tmp_path: Path) -> None:
    """Django 5.1 removed them."""
    project = Project(tmp_path, "4.2").start()
    settings = project.code / "shop/settings.py"
    storage = "django.contrib.staticfiles.storage.StaticFilesStorage"
    settings.write_text(settings.read_text() + f"\nSTATICFILES_STORAGE = '{storage}'\n")
    project.run("python", "-m", "flipside_static")
    assert (project.home / "static/staticfiles-1.0-0123456789ab.json").exists()


def test_no_variable_of_the_caller_is_needed(project: Project) -> None:
    """With an empty environment the project's own values stay, but for DEBUG."""
    project.start()
    few = {key: project.env[key] for key in ("PATH", "PYTHONPATH", "FLIPSIDE_SETTINGS")}
    project.env = {**few, "DJANGO_SETTINGS_MODULE": "flipside_settings"}
    seen = project.python(LOOK)
    assert seen["DEBUG"] is False and seen["SECRET_KEY"].startswith("django-insecure-")
    assert seen["DATABASES"]["default"]["NAME"] == str(project.code / "db.sqlite3")
