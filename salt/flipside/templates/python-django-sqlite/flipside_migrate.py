"""
The template's hook for migrations: of every database that is the app's own.

``django-admin migrate`` alone leaves out every database but the default one.
"""

import os
import sys
from pathlib import Path


def own(databases, routed, data):
    """The aliases: the default one and, where routers choose, each other SQLite file in the data folder."""
    if "default" in databases:
        yield "default"
    for alias, database in databases.items():
        mirror = (database.get("TEST") or {}).get("MIRROR")
        sqlite = str(database.get("ENGINE", "")).rpartition(".")[2] in ("sqlite3", "spatialite")
        if alias == "default" or not (routed and sqlite and data) or mirror:
            continue
        if Path(data) in Path(str(database.get("NAME") or "")).parents:
            yield alias


def unwritable(database, data):
    """The file of a SQLite database whose folder the app cannot write to. One in the data folder is made."""
    name = str(database.get("NAME") or "")
    sqlite = str(database.get("ENGINE", "")).rpartition(".")[2] in ("sqlite3", "spatialite")
    if not sqlite or not name or name.startswith((":memory:", "file:")):
        return None
    folder = Path(name).absolute().parent
    if data and Path(data) in folder.parents:
        folder.mkdir(parents=True, exist_ok=True)
    return None if os.access(folder, os.W_OK | os.X_OK) else name


def main():
    """Migrates them, one after the other."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    django.setup()
    data = os.environ.get("DATA_DIR")
    for alias in own(settings.DATABASES, settings.DATABASE_ROUTERS, data):
        if name := unwritable(settings.DATABASES[alias], data):
            sys.exit(
                f"DATABASES[{alias!r}] is {name}, and the app's user can write nothing in that folder: "
                f"leave it in the project's folder, or name it below DATA_DIR ({data})"
            )
        call_command("migrate", interactive=False, database=alias)


if __name__ == "__main__":
    sys.exit(main())
