"""
The project's first commands, for those who know them: `invoke app.publish` and its like.

Each is a thin call of `flipside` or of make, which do the work and tell more with --help.
"""

import os
import shutil
import sys
from pathlib import Path

from invoke import Collection, Exit, task

ROOT = Path(__file__).resolve().parent
BUILT = (ROOT / "target" / "release" / "flipside", ROOT / "target" / "debug" / "flipside")


def flipside(context, *arguments):
    """Runs the command line: $FLIPSIDE, the one on PATH, or the one built here; its exit code is ours."""
    named = os.environ.get("FLIPSIDE")
    found = named or shutil.which("flipside") or next((str(path) for path in BUILT if path.is_file()), None)
    if found is None:
        raise Exit("flipside is neither on PATH nor built: run cargo build", code=4)
    run(context, found, *arguments)


def run(context, *argv):
    """Replaces this process, so that signals, terminal and exit code are the program's own."""
    if context.config.run.dry:
        print(*argv)
        return
    sys.stdout.flush()
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        raise Exit(f"cannot start {argv[0]}: {error.strerror}", code=1) from error


def given(flag, value):
    """A flag with its value, or nothing where there is no value."""
    return [] if value is None else [flag, value]


def named(command):
    """`["name"]` where a name follows the command: Invoke has no word that may be left out."""
    after = sys.argv[sys.argv.index(command) + 1 :] if command in sys.argv else []
    return ["name"] if after and not after[0].startswith("-") else []


@task(
    positional=["name"],
    help={
        "name": "the app",
        "directory": "the project's folder",
        "template": "the deploy template",
        "store": "the package store",
    },
)
def bootstrap(context, name, directory=".", template="python-django-sqlite", store=None):
    """Write .flipside-app into a project's folder, which is made if absent."""
    arguments = ["app", "bootstrap", name, "-d", directory, "-t", template]
    flipside(context, *arguments, *given("--store", store))


@task(
    positional=named("app.publish"),
    help={"name": "the app", "directory": "the project", "store": "the package store", "tag": "the tag"},
)
def publish(context, name=None, directory=".", store=None, tag=None):
    """Build the project's package and put it into the store."""
    flags = [*given("--name", name), *given("--store", store), *given("--tag", tag)]
    flipside(context, "publish", directory, *flags)


@task(positional=named("app.test"), help={"name": "the app", "directory": "the project"})
def test(context, name=None, directory="."):
    """Run the project's own tests."""
    flipside(context, "app", "test", "-d", directory, *([] if name is None else [name]))


@task(
    positional=named("app.deploy"),
    help={"name": "the app", "tag": "the tag to deploy", "store": "the package store"},
)
def deploy(context, name=None, tag="latest", store=None):
    """Make a published release current on this host."""
    names = [] if name is None else [name]
    flipside(context, "deploy", *names, "--tag", tag, *given("--store", store))


namespace = Collection()
namespace.add_collection(Collection("app", bootstrap, publish, test, deploy))
