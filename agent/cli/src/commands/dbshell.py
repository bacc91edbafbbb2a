"""A SQLite database of the app: by the program sqlite3 where there is one, else by Python's own module."""

import os
import sqlite3
import sys
import urllib.parse
from pathlib import Path


def main(mode, name):
    folder = Path(os.environ["DATA_DIR"])
    url = os.environ.get("DATABASE_URL", "")
    if not name and not url.startswith("sqlite:///"):
        sys.exit("error: the app's own database is no SQLite file that DATABASE_URL names: say which one")
    path = folder / (name or urllib.parse.unquote(url.removeprefix("sqlite:///").partition("?")[0]))
    if not path.is_file():
        known = sorted(
            str(file.relative_to(folder))
            for end in ("sqlite3", "sqlite", "db")
            for file in folder.rglob(f"*.{end}")
        )
        sys.exit(
            f"error: there is no database {path}\nhint: in the data folder are {', '.join(known) or 'none'}"
        )
    for place in os.environ.get("PATH", "").split(os.pathsep):
        program = os.path.join(place, "sqlite3")
        if os.access(program, os.X_OK):
            os.execv(program, ["sqlite3", *(["-readonly"] if mode == "ro" else []), str(path)])
    uri = f"file:{urllib.parse.quote(str(path))}?mode={mode}"
    sys.exit(converse(sqlite3.connect(uri, uri=True, isolation_level=None), path))


def converse(database, path):
    """Statements in, rows out, with a bar between columns; the exit code says whether all went well."""
    people, failed, statement = sys.stdin.isatty(), 0, ""
    if people:
        print(f"{path}: SQLite {sqlite3.sqlite_version}; end statements with ; and leave with Ctrl-D")
    while True:
        try:
            line = input("...> " if statement.strip() else "sqlite> ") if people else next_line()
        except EOFError:
            break
        except KeyboardInterrupt:
            statement = ""
            print()
            continue
        # Several may stand on a line, and a semicolon in a text ends none.
        *parts, rest = line.split(";")
        for part in parts:
            statement += part + ";"
            if sqlite3.complete_statement(statement):
                failed |= run(database, statement)
                statement = ""
        statement += rest + "\n"
    if statement.strip():
        failed |= run(database, statement)
    return failed


def next_line():
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


def run(database, statement):
    try:
        for row in database.execute(statement):
            print("|".join("" if value is None else str(value) for value in row))
    except (sqlite3.Error, sqlite3.Warning) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


main(*sys.argv[1:])
