"""What the agent finds out about a release's migrations, on real Django."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import textwrap
from pathlib import Path

import pytest

from flipside_testbed import places, tools

pytestmark = pytest.mark.quick

DJANGO = {"4.2": "django==4.2.27", "5.2": "django==5.2.9"}
SCRIPTS = places.CHECKOUT / "agent/src/runtime/python"
SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["shop", "other"]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3",
                "OPTIONS": {"timeout": 5}},
    "stock": {"ENGINE": "django.db.backends.sqlite3", "NAME": "stock.sqlite3"},
    "legacy": {"ENGINE": "django.db.backends.sqlite3", "NAME": "legacy.sqlite3"},
    "absent": {"ENGINE": "django.db.backends.sqlite3", "NAME": "absent.sqlite3"},
    "mirror": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3", "TEST": {"MIRROR": "default"}},
}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = True
"""
ROUTER = """
class Router:
    def allow_migrate(self, db, app_label, model_name=None, **hints):
        return (db == "stock") == (app_label == "other")
"""
MODELS = """
from django.db import models
class Post(models.Model):
    title = models.CharField(max_length=10)
    mood = models.CharField(max_length=10, null=True)
class Old(models.Model):
    pass
"""
# Each operation of the second migration, and whether it is destructive, or breaking where it is not.
OPERATIONS = [
    ('migrations.AddField("Post", "more", models.TextField(null=True))', False),
    ('migrations.AddField("Post", "must", models.TextField(default="x"))', None),
    ('migrations.AddField("Post", "many", models.ManyToManyField("shop.Old"))', False),
    ('migrations.CreateModel("New", [("id", models.AutoField(primary_key=True))])', False),
    ('migrations.AddField("New", "must", models.TextField(default="x"))', False),
    ('migrations.AlterField("Post", "title", models.CharField(max_length=20))', True),
    ('migrations.RemoveField("Post", "mood")', True),
    ('migrations.RenameField("Post", "title", "headline")', True),
    ('migrations.DeleteModel("Old")', True),
    ('migrations.RenameModel("New", "Newer")', True),
    ('migrations.AlterModelTable("Newer", "elsewhere")', True),
    ('migrations.AlterModelOptions("Post", {"ordering": ["id"]})', False),
    ('migrations.AddIndex("Post", models.Index(fields=["more"], name="i"))', False),
    ('migrations.RunSQL("UPDATE shop_post SET more = 1", "")', True),
    ("migrations.RunSQL(migrations.RunSQL.noop)", False),
    ("migrations.RunPython(fill)", True),
    ("migrations.RunPython(fill, migrations.RunPython.noop)", False),
    ("migrations.RunPython(migrations.RunPython.noop)", False),
    ("Final()", True),
    ("Both()", False),
]
NESTED = """migrations.SeparateDatabaseAndState(
    [migrations.SeparateDatabaseAndState([migrations.RunSQL("DELETE FROM shop_post")], [])],
    [migrations.RemoveField("Post", "more")])"""
SECOND = """
from django.db import migrations, models
def fill(apps, editor): pass
class Both(migrations.operations.base.Operation):
    def state_forwards(self, app_label, state): pass
class Final(Both):
    reversible = False
class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [{}]
"""


class Project:
    """A project with a database that its first migrations made."""

    def __init__(self, folder: Path, version: str) -> None:
        packages = [DJANGO[version], "pymemcache==4.0.0"]  # the venv of the overlay's tests
        self.python = tools.packages(f"django-{version}", packages) / "bin/python"
        self.folder = folder
        self.write("conf.py", SETTINGS)
        self.write("wsgi.py", "from django.core.wsgi import get_wsgi_application as made\napp = made()\n")
        self.write("shop/models.py", MODELS)
        self.write("other/models.py", "from django.db import models\nclass Thing(models.Model):\n    pass\n")
        for app in ("shop", "other"):
            self.write(f"{app}/__init__.py", "")
        self.manage("makemigrations", "shop", "other")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def _run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": "/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "DJANGO_SETTINGS_MODULE": "conf",
            "FLIPSIDE_WSGI": "wsgi:app",
            "FLIPSIDE_OVERLAY": str(self.folder),
            "PYTHONPATH": str(self.folder),
        }
        argv = (str(self.python), *argv)
        return subprocess.run(
            argv, env=env, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )

    def manage(self, *argv: str) -> None:
        done = self._run("-m", "django", *argv)
        assert done.returncode == 0, done.stdout + done.stderr

    def look(self, *named: str) -> dict:
        """The report of a pre-flight that only looks."""
        named = ("--named", *named) if named else ()
        return self.preflight("--schema", str(SCRIPTS / "schema.py"), "--schema-only", "--path", "/", *named)

    def preflight(self, *more: str) -> dict:
        """What a pre-flight reports."""
        argv = [
            "-I",
            str(SCRIPTS / "preflight.py"),
            "--loader",
            str(SCRIPTS / "loader.py"),
            "--host",
            "x.org",
        ]
        done = self._run(*argv, *more)
        return json.loads(done.stdout.strip().splitlines()[-1])["flipside_preflight"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, "5.2")


@pytest.mark.parametrize("version", DJANGO)
def test_every_operation_is_classed_and_nothing_is_written(tmp_path: Path, version: str) -> None:
    project = Project(tmp_path, version)
    project.manage("migrate")
    with sqlite3.connect(project.folder / "legacy.sqlite3") as legacy:
        legacy.execute("CREATE TABLE theirs (x)")
    given = ('migrations.AddField("Post", "given", models.TextField(db_default="x"))', False)
    listed = [*OPERATIONS, *([given] if version == "5.2" else [])]
    operations = ", ".join([*(text for text, _ in listed), NESTED])
    project.write("shop/migrations/0002_all.py", SECOND.replace("{}", operations, 1))
    before = {path.name: path.read_bytes() for path in project.folder.glob("*.sqlite3")}

    report = project.look("shop.0001_initial", "shop.nothing")
    schema = report["schema"]
    assert schema["databases"] == [{"alias": "default", "empty": False}]
    assert str(project.folder / "legacy.sqlite3") in schema["files"]
    (pending,) = schema["pending"]
    assert (pending["database"], pending["app"], pending["name"]) == ("default", "shop", "0002_all")
    classed = [
        (one["kind"], None if one["breaking"] else one["destructive"]) for one in pending["operations"]
    ]
    kinds = [text.split("(")[0].removeprefix("migrations.") for text, _ in listed]
    expected = list(zip(kinds, (is_it for _, is_it in listed), strict=True))
    assert classed == [*expected, ("RunSQL", True)]
    subjects = {one["kind"]: one["subject"] for one in pending["operations"]}
    assert subjects["RenameField"] == "Post.title -> headline"
    assert subjects["RemoveField"] == "Post.mood" and subjects["DeleteModel"] == "Old"
    assert subjects["RenameModel"] == "New -> Newer" and subjects["RunPython"].endswith("noop")
    assert [one["name"] for one in schema["named"]] == ["0001_initial"]
    assert {path.name: path.read_bytes() for path in project.folder.glob("*.sqlite3")} == before
    assert "absent.sqlite3" not in before


def test_all_databases_of_the_project_count_and_an_empty_one_can_lose_nothing(project: Project) -> None:
    project.write("router.py", ROUTER)
    project.write("conf.py", SETTINGS + 'DATABASE_ROUTERS = ["router.Router"]\n')
    schema = project.look()["schema"]
    assert schema["databases"][0] == {"alias": "default", "empty": True}
    assert {one["alias"] for one in schema["databases"]} >= {"default", "stock"}
    assert schema["pending"] and not any(one["operations"] for one in schema["pending"])
    for alias in ("default", "stock"):
        project.manage("migrate", "--database", alias)
    project.write(
        "other/migrations/0002_gone.py",
        "from django.db import migrations\nclass Migration(migrations.Migration):\n"
        "    dependencies = [('other', '0001_initial')]\n"
        "    operations = [migrations.DeleteModel('Thing')]\n",
    )
    pending = [one for one in project.look()["schema"]["pending"] if one["name"] == "0002_gone"]
    losing = {one["database"]: one["operations"] for one in pending}
    assert losing["default"] == [], "the router keeps it away from there"
    assert losing["stock"][0]["subject"] == "Thing"


def test_an_older_release_says_what_it_does_not_know(project: Project) -> None:
    second = SECOND.replace("{}", 'migrations.RemoveField("Post", "mood")', 1)
    project.write("shop/migrations/0002_later.py", second)
    project.manage("migrate")
    (project.folder / "shop/migrations/0002_later.py").unlink()
    schema = project.look()["schema"]
    assert schema["unknown"] == [{"database": "default", "app": "shop", "name": "0002_later"}]
    assert schema["pending"] == []


def test_migrations_that_cannot_be_loaded_are_told_with_file_and_line(project: Project) -> None:
    project.write("shop/migrations/0002_broken.py", "import nothing_of_this_name\n")
    report = project.look()
    assert not report["ok"] and "nothing_of_this_name" in report["error"], report
    assert any('0002_broken.py", line 1' in line for line in report["traceback"]), report
    project.write(
        "shop/migrations/0002_broken.py", SECOND.replace("0001_initial", "0009_lost").replace("{}", "")
    )
    assert "0009_lost" in project.look()["error"]


def test_an_error_that_django_answers_for_is_told_whoever_logs_it_and_also_behind_https(
    project: Project,
) -> None:
    project.write("urls.py", "from django.urls import path\nurlpatterns = [path('sick/', lambda r: 1 / 0)]\n")
    quiet = "ROOT_URLCONF, ALLOWED_HOSTS, LOGGING_CONFIG = 'urls', ['x.org'], None\n"
    redirect = (
        "SECURE_SSL_REDIRECT = True\nSECURE_PROXY_SSL_HEADER = ('HTTP_X_FORWARDED_PROTO', 'https')\n"
        "MIDDLEWARE = ['django.middleware.security.SecurityMiddleware']\n"
    )
    for settings in (quiet, quiet + redirect):
        project.write("conf.py", SETTINGS + settings)
        report = project.preflight("--path", "/sick/")
        assert (report["ok"], report["status"]) == (False, 500), report
        assert report["error"].startswith("ZeroDivisionError"), report
        assert any('urls.py", line 2' in line for line in report["traceback"]), report
        assert project.preflight("--path", "/none/")["status"] == 404
