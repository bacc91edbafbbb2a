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
import signal
import site
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

# `env` is renamed a moment before `current` is flipped: a worker that starts in between waits for the pair.
PAIR_SECONDS = 3.0
# uWSGI respawns a worker at once; a release that cannot be imported must not make it spin.
REST_SECONDS = 1.0
CANNOT_LOAD = 77
# The other requests of a worker that is ended for one that hangs may take so long.
OTHERS_SECONDS = 5.0


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


class Parts:
    """An answer's body on its way; `end` is called when it is sent or given up."""

    def __init__(self, parts: Iterable[bytes], end: Callable[[], None]) -> None:
        self._parts, self._iterator, self._end = parts, iter(parts), end

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._iterator)

    def close(self) -> None:
        """uWSGI calls it in any case."""
        try:
            if hasattr(self._parts, "close"):
                self._parts.close()
        finally:
            self._end()


class Watch:
    """Ends the worker when a request takes longer than it may.

    In place of uWSGI's harakiri, which has one deadline for all threads of a worker: whichever request ends
    clears it for the others, and one that is still sent its body adds to what was cleared. The sum lies in
    1970, and a worker that did no wrong is killed with all that it has in hand.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._begun: dict[int, tuple[float, str]] = {}

    def over(self, application: Callable[..., Any]) -> Callable[..., Any]:
        """The same application, watched."""

        def watched(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            thread = threading.get_ident()
            what = f"{environ.get('REQUEST_METHOD')} {environ.get('PATH_INFO')!a:.200}"
            self._begun[thread] = (time.monotonic(), what)

            def end() -> None:
                self._begun.pop(thread, None)

            try:
                parts = application(environ, start_response)
            except BaseException:
                end()
                raise
            if hasattr(parts, "read"):  # A file, which uWSGI sends by itself when it gets it as it is.
                end()
                return parts
            return Parts(parts, end)

        threading.Thread(target=self._run, name="flipside-watch", daemon=True).start()
        return watched

    def _late(self) -> list[int]:
        limit = time.monotonic() - self._seconds
        return [thread for thread, (begun, _) in list(self._begun.items()) if begun < limit]

    def _run(self) -> None:
        while not (late := self._late()):
            time.sleep(min(1.0, self._seconds / 4))
        frames = sys._current_frames()
        for thread in late:
            _, what = self._begun.get(thread, (0, "a request"))
            print(f"{what} takes over {self._seconds:g} s (request_timeout): its worker is ended", flush=True)
            traceback.print_stack(frames.get(thread))
        sys.stderr.flush()
        # Takes no more from now on, and ends by itself once all that it has in hand is done.
        os.kill(os.getpid(), signal.SIGHUP)
        until = time.monotonic() + OTHERS_SECONDS
        time.sleep(0.25)  # What it has taken already gets here.
        while set(self._begun) - set(late) and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)


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
        limit = int(os.environ.get("FLIPSIDE_REQUEST_TIMEOUT", "0"))
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
    if limit:
        application = Watch(limit).over(application)
    return with_release(application, release.name) if named else application


if "uwsgi" in sys.modules:
    application = load()
