"""What uWSGI loads in every worker: the app of whichever release is current when the worker starts.

A worker is pinned to the release that it started with; the next one is the next worker's. So code,
dependencies, entry module and environment all change at one instant, with the restart of the worker, and
never under a request.
"""

from __future__ import annotations

import importlib.util
import operator
import os
import shlex
import site
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

# `env` is renamed a moment before `current` is flipped: a worker that starts in between waits for the pair.
PAIR_SECONDS = 3.0
# uWSGI respawns a worker at once; a release that cannot be imported must not make it spin.
REST_SECONDS = 1.0
CANNOT_LOAD = 77


def read_env(path: Path) -> dict[str, str]:
    """The variables of an env file: one NAME='value' a line, quoted as a POSIX shell would."""
    pairs = (word.partition("=") for word in shlex.split(path.read_text(encoding="utf-8")))
    return {name: value for name, _, value in pairs}


def current(home: Path) -> tuple[Path, dict[str, str]]:
    """The current release's folder and the environment that was written for it."""
    deadline = time.monotonic() + PAIR_SECONDS
    while True:
        release = (home / "current").resolve(strict=True)
        for name in ("env", "env.previous"):
            try:
                env = read_env(home / name)
            except FileNotFoundError:
                continue
            if env.get("FLIPSIDE_RELEASE") == release.name:
                return release, env
        if time.monotonic() >= deadline:
            return release, read_env(home / "env")
        time.sleep(0.05)


def enter_venv(venv: Path) -> None:
    """Makes this interpreter, which runs in uWSGI's venv, one of `venv`."""
    packages = venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    if not packages.is_dir():
        raise RuntimeError(f"{packages} is missing: the release was built for another Python")
    if sys.prefix != sys.base_prefix:
        ours = os.path.join(sys.prefix, "lib")
        sys.path[:] = [entry for entry in sys.path if not entry.startswith(ours)]
    sys.path[:] = [entry for entry in sys.path if entry not in ("", ".")]
    sys.prefix = sys.exec_prefix = str(venv)
    sys.executable = str(venv / "bin" / "python3")
    site.PREFIXES[:] = [sys.prefix]
    site.addsitedir(str(packages))


def insist_on_settings(module: str) -> None:
    """Has Django take the settings of `module` whatever the entry says: many a wsgi.py assigns its own."""
    import django.conf

    class Insisted(django.conf.Settings):
        def __init__(self, _asked: str) -> None:
            super().__init__(module)

    django.conf.Settings = Insisted


def import_entry(env: dict[str, str]) -> Callable[..., Iterable[bytes]]:
    """The WSGI callable that FLIPSIDE_WSGI names; what PYTHONPATH names, the overlay first, is before all else."""
    entry, path = env.get("FLIPSIDE_WSGI", ""), env.get("PYTHONPATH", "")
    module, _, attribute = entry.partition(":")
    if not module or not attribute:
        raise RuntimeError(f"FLIPSIDE_WSGI must be module:attribute, and is {entry!r}")
    sys.path[:0] = [folder for folder in path.split(os.pathsep) if folder]
    importlib.invalidate_caches()
    settings = env.get("DJANGO_SETTINGS_MODULE")
    if settings and importlib.util.find_spec("django"):
        insist_on_settings(settings)
    application = operator.attrgetter(attribute)(importlib.import_module(module))
    if not callable(application):
        raise TypeError(f"{entry} is {type(application).__name__}, which cannot be called")
    return application


def with_release(application: Callable[..., Any], release: str) -> Callable[..., Any]:
    """The same application, whose answers say which release gave them."""

    def wrapped(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            return start_response(status, [*headers, ("X-Flipside-Release", release)], *exc_info)

        return application(environ, start)

    return wrapped


def tell(folder: Path, release: str) -> None:
    """Leaves word of what this worker serves, and removes that of workers long gone."""
    folder.mkdir(mode=0o750, exist_ok=True)
    for note in folder.iterdir():
        if note.name.isdigit() and not Path("/proc", note.name).exists():
            note.unlink(missing_ok=True)
    temporary = folder / f".{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.write_text(release, encoding="ascii")
    temporary.replace(folder / str(os.getpid()))


def give_up() -> NoReturn:
    """Ends the worker. Without an app it would take requests and answer each with an error."""
    traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(REST_SECONDS)
    os._exit(CANNOT_LOAD)


def load() -> Callable[..., Any]:
    """The current release's application."""
    try:
        home, notes = Path(os.environ["FLIPSIDE_HOME"]), Path(os.environ["FLIPSIDE_NOTES"])
        named = os.environ["FLIPSIDE_RELEASE_HEADER"] == "1"
        release, env = current(home)
        os.environ.clear()
        os.environ.update(env)
        os.environ["VIRTUAL_ENV"] = str(release / "venv")
        time.tzset()
        enter_venv(release / "venv")
        application = import_entry(env)
        tell(notes, release.name)
    except BaseException:  # SystemExit too: whatever stops the import stops the worker
        give_up()
    return with_release(application, release.name) if named else application


if "uwsgi" in sys.modules:
    application = load()
