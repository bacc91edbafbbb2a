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


def main():
    """Migrates them, one after the other."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    django.setup()
    for alias in own(settings.DATABASES, settings.DATABASE_ROUTERS, os.environ.get("DATA_DIR")):
        call_command("migrate", interactive=False, database=alias)


if __name__ == "__main__":
    sys.exit(main())
