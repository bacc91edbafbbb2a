"""Imports a release as its workers will, asks it one question, and says in a line of JSON how it went.

Where it is told to, it also says which migrations wait; see schema.py.

Runs in the release's venv, or with its wheels unpacked, as the app's user, with the app's whole environment, in
a process of its own: what it breaks, and how long it hangs, is its own affair.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import os
import site
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path[:] = [entry for entry in sys.path if Path(entry) != Path(__file__).parent]
MOST_BODY = 1 << 20
# The app may close or replace sys.stdout.
REPORT_TO = os.dup(1)


def environ(path: str, host: str, https: bool) -> dict[str, Any]:
    """A GET as nginx would pass it on."""
    path, _, query = path.partition("?")
    scheme = "https" if https else "http"
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": "",
        "CONTENT_LENGTH": "",
        "SERVER_NAME": host,
        "SERVER_PORT": "443" if https else "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": host,
        "HTTP_USER_AGENT": "flipside-preflight",
        "HTTP_X_FORWARDED_FOR": "127.0.0.1",
        "HTTP_X_FORWARDED_PROTO": scheme,
        **({"HTTPS": "on"} if https else {}),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


def ask(application: Callable[..., Any], question: dict[str, Any]) -> tuple[int, str]:
    """The status that the application answers, and where it sends a browser."""
    answered: list[tuple[int, str]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if exc_info is not None:
            raise exc_info[1].with_traceback(exc_info[2])
        to = next((value for name, value in headers if name.lower() == "location"), "")
        answered[:] = [(int(status.split(" ", 1)[0]), to)]
        return lambda _data: None

    body = application(question, start_response)
    try:
        size = 0
        for chunk in body:
            size += len(chunk)
            if size > MOST_BODY:
                break
    finally:
        getattr(body, "close", lambda: None)()
    if not answered:
        raise RuntimeError("the application answered without calling start_response")
    return answered[0]


def told(report: dict[str, Any], error: BaseException) -> None:
    """Puts the exception that is being handled into the report."""
    report["error"] = f"{type(error).__name__}: {error}"[:2000]
    report["traceback"] = traceback.format_exc().splitlines()[-40:]


def executed(script: Path) -> dict[str, Any]:
    """What a script of ours defines. It is no module: the release may have one of that name."""
    names: dict[str, Any] = {"__name__": f"flipside_{script.stem}", "__file__": str(script)}
    exec(compile(script.read_bytes(), str(script), "exec"), names)  # noqa: S102
    return names


def unpack(folder: Path) -> None:
    """Makes the wheels of a folder importable, as they are: nothing of them is installed."""
    there = folder / "site"
    for wheel in sorted((folder / "wheels").glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(there)
    for packages in (there, *sorted(there.glob("*.data/*lib"))):
        site.addsitedir(str(packages))


def look_at_schema(report: dict[str, Any], asked: argparse.Namespace) -> None:
    """Puts into the report what is known of the migrations."""
    try:
        named = [tuple(name.split(".", 1)) for name in asked.named]
        report["schema"] = executed(asked.schema)["look"](named)
    except Exception:
        # A rollback may be the way out of what makes them untellable.
        if not asked.lenient:
            raise


def listen_for_errors(report: dict[str, Any]) -> None:
    """Has Django tell of the exceptions that it answers with a page: who logs them, and where, is the app's own
    choice."""
    signals = sys.modules.get("django.core.signals")
    if signals:

        def heard(**_about: Any) -> None:
            error = sys.exc_info()[1]
            if error is not None:
                told(report, error)

        signals.got_request_exception.connect(heard, weak=False)


def answered_well(report: dict[str, Any], application: Callable[..., Any], asked: argparse.Namespace) -> bool:
    """Asks once, and puts into the report what came of it. Who sends a browser to the same page over https is
    asked as if by the proxy that does https."""
    report["error"], report["traceback"] = "", []
    try:
        status, to = ask(application, environ(asked.path, asked.host, asked.https))
        if not asked.https and 300 <= status < 400 and to.startswith("https://"):
            if urlsplit(to).path == urlsplit(asked.path).path:
                status, _ = ask(application, environ(asked.path, asked.host, True))
        report["status"] = status
    except Exception as error:  # to a browser the server answers for such an app
        report["status"] = 500
        told(report, error)
    report["ok"] = report["status"] < 500
    return report["ok"]


def main() -> dict[str, Any]:
    """What to report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--loader", type=Path, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--unpack", type=Path, help="a folder with the release's wheels")
    parser.add_argument("--https", action="store_true")
    parser.add_argument("--schema", type=Path, help="the script that looks at the migrations")
    parser.add_argument("--named", nargs="*", default=[], help="migrations to describe, as app.name")
    parser.add_argument("--schema-only", action="store_true", help="ask nothing")
    parser.add_argument("--lenient", action="store_true", help="go on where the migrations cannot be told")
    parser.add_argument("--stack-after", type=float, help="seconds after which to say where it hangs")
    parser.add_argument("--patience", type=float, default=0, help="seconds for an answer to get better")
    asked = parser.parse_args()
    if asked.stack_after:
        faulthandler.dump_traceback_later(asked.stack_after)
    begun = time.monotonic()
    report: dict[str, Any] = {"ok": False, "status": None, "error": "", "traceback": []}
    try:
        if asked.unpack:
            unpack(asked.unpack)
        loader = executed(asked.loader)
        # An app may look at its arguments; they are not those of this script.
        sys.argv[:] = ["uwsgi"]
        sys.path[:] = [entry for entry in sys.path if entry not in ("", ".")]
        application = loader["import_entry"](dict(os.environ))
        if asked.schema:
            look_at_schema(report, asked)
        if asked.schema_only:
            report["ok"] = True
        else:
            listen_for_errors(report)
            until = begun + asked.patience
            while not answered_well(report, application, asked) and time.monotonic() < until:
                time.sleep(0.25)
    except BaseException as error:  # an app that exits while it is imported does not start either
        told(report, error)
    report["ms"] = round((time.monotonic() - begun) * 1000)
    return report


if __name__ == "__main__":
    outcome = main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    line = json.dumps({"flipside_preflight": outcome})
    os.write(REPORT_TO, f"\n{line}\n".encode())
    # Threads and exit handlers of the app must not hold us.
    os._exit(0 if outcome["ok"] else 1)
