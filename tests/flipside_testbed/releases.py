"""The example app's releases, good and bad: one source, and a small change for each.

`blog` is what lies in tests/example; `shop` is the same under another name, so that two apps differ in
everything that could be mixed up.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from flipside_testbed.places import CHECKOUT

SOURCE = CHECKOUT / "tests/example"

# True only where a server imports it: pre-flight imports the same module outside of one.
_IN_WORKER = """
try:
    import uwsgi  # noqa: F401
except ImportError:
    SERVED = False
else:
    SERVED = True
"""

_MIGRATION = '''"""Adds a field."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Old code may go on writing meanwhile: the field may be empty."""

    dependencies = [("blog", "0001_initial")]
    operations = [migrations.AddField("Post", "mood", models.CharField(max_length=50, null=True))]
'''

_RENAME = '''"""Renames a field: code of before and code of after cannot both write."""

from django.db import migrations


class Migration(migrations.Migration):
    """Needs the listener held while it runs."""

    dependencies = [("blog", "0001_initial")]
    operations = [migrations.RenameField("Post", "title", "headline")]
'''


def _append(project: Path, file: str, text: str) -> None:
    with (project / file).open("a") as out:
        out.write(text)


def _replace(project: Path, file: str, old: str, new: str) -> None:
    path = project / file
    text = path.read_text()
    if old not in text:
        raise ValueError(f"{path} does not hold {old!r}")
    path.write_text(text.replace(old, new))


def _v2(project: Path) -> None:
    (project / "blog/migrations/0002_mood.py").write_text(_MIGRATION)
    body = "    body = models.TextField()\n"
    _replace(
        project, "blog/models.py", body, f"{body}    mood = models.CharField(max_length=50, null=True)\n"
    )
    _replace(project, "blog/views.py", '("title", "body")}', '("title", "body")} | {"mood": "good"}')
    _replace(project, "blog/static/blog/site.css", "sans-serif", "serif")


def _renaming(project: Path) -> None:
    (project / "blog/migrations/0002_headline.py").write_text(_RENAME)
    _replace(project, "blog/models.py", "    title = ", "    headline = ")
    _replace(project, "blog/models.py", "self.title", "self.headline")
    _replace(
        project, "blog/views.py", "create(**fields)", 'create(headline=fields["title"], body=fields["body"])'
    )
    _replace(project, "blog/templates/blog/index.html", "post.title", "post.headline")


def _bad_import(project: Path) -> None:
    _append(project, "blog/views.py", "\nimport a_module_that_nobody_declared  # noqa: E402,F401\n")


def _sick(when: str) -> Callable[[Path], None]:
    def change(project: Path) -> None:
        _append(project, "blog/views.py", _IN_WORKER)
        answer = "    Post.objects.exists()\n"
        broken = f'{answer}    if {when}:\n        return HttpResponse("the queue is away\\n", status=500)\n'
        _replace(project, "blog/views.py", answer, broken)

    return change


def _at_import(statement: str) -> Callable[[Path], None]:
    return lambda project: _append(project, "blog/wsgi.py", f"\n{statement}\n")


def _in_worker(statement: str) -> Callable[[Path], None]:
    return _at_import(f"{_IN_WORKER}\nif SERVED:\n    {statement}")


KINDS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "v1": ("1.0", lambda project: None),
    "v2": ("2.0", _v2),
    "v2b": ("2.1", _v2),
    "renaming": ("3.0", _renaming),
    "bad-import": ("9.1", _bad_import),
    "bad-health": ("9.2", _sick("True")),
    # Only where a server runs it: nothing but the health check through nginx can know.
    "bad-health-served": ("9.6", _sick("SERVED")),
    "slow": ("9.3", _at_import("__import__('time').sleep(8)")),
    "hang": ("9.4", _at_import("__import__('time').sleep(10_000)")),
    "exit": ("9.5", _at_import("os._exit(3)")),
    "hang-served": ("9.7", _in_worker("__import__('time').sleep(10_000)")),
    "exit-served": ("9.8", _in_worker("os._exit(3)")),
}


def project(app: str, kind: str, into: Path) -> Path:
    """Writes the project of one release to `into`, which is replaced."""
    version, change = KINDS[kind]
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(
        SOURCE,
        into,
        ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", "build", "*.sqlite3"),
    )
    for file in ("pyproject.toml", "blog/__init__.py"):
        _replace(into, file, '"1.0"', f'"{version}"')
    change(into)
    if app != "blog":
        _rename(into, app)
    return into


def _rename(project: Path, app: str) -> None:
    for path in sorted(project.rglob("*"), reverse=True):
        if path.is_file():
            path.write_text(path.read_text().replace("blog", app))
        if "blog" in path.name:
            path.rename(path.with_name(path.name.replace("blog", app)))
