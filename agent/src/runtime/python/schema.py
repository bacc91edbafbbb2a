"""Which migrations of a Django project wait for each of its databases, and what each would do to the data.

Executed by the pre-flight in the release's venv, as the app's user. It reads the databases through connections
that cannot write, and runs nothing of a migration. A project without Django has nothing to tell.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

# Operations that lose nothing are left out of the report beyond so many: it is one line.
MOST = 1000


def look(named: Iterable[tuple[str, str]] = ()) -> dict[str, Any] | None:
    """What to report; `named` are migrations to describe besides. `None` without Django."""
    if not os.environ.get("DJANGO_SETTINGS_MODULE") or importlib.util.find_spec("django") is None:
        return None
    import django
    from django.apps import apps
    from django.conf import settings
    from django.db import connections
    from django.db.migrations.executor import MigrationExecutor

    if not apps.ready:
        django.setup()
    report: dict[str, Any] = {"databases": [], "pending": [], "unknown": [], "named": [], "files": []}
    room, made = [MOST], set()
    for alias in aliases(settings.DATABASES):
        if connections[alias].vendor == "sqlite" and not connections[alias].is_in_memory_db():
            report["files"].append(os.path.abspath(str(connections[alias].settings_dict["NAME"])))
        connection, is_there = reader(connections[alias])
        try:
            executor = MigrationExecutor(connection if is_there else None)
            loader = executor.loader
            applied = executor.recorder.applied_migrations() if is_there else {}
            empty = not is_there or (not applied and is_empty(connection))
            routed = bool(settings.DATABASE_ROUTERS) and empty
            if alias != "default" and not routed and not (is_there and executor.recorder.has_table()):
                continue  # another's, which nobody migrates
            report["databases"].append({"alias": alias, "empty": empty})
            if is_there:
                loader.check_consistent_history(connection)
            for migration, _ in executor.migration_plan(loader.graph.leaf_nodes()):
                report["pending"].append(described(alias, migration, room, made, with_operations=not empty))
            report["unknown"] += [
                {"database": alias, "app": app, "name": name} for app, name in unknown(loader, applied)
            ]
            for key in named:
                if key in loader.disk_migrations:
                    report["named"].append(described(alias, loader.disk_migrations[key], room, made))
        finally:
            if is_there:
                connection.close()
    return report


def aliases(databases: dict[str, Any]) -> Iterator[str]:
    """The databases that may be migrated: no mirrors, and no default one that is none."""
    for alias, database in databases.items():
        engine = str(database.get("ENGINE", ""))
        mirror = (database.get("TEST") or {}).get("MIRROR")
        if engine and not engine.endswith(".dummy") and not mirror:
            yield alias


def reader(connection: Any) -> tuple[Any, bool]:
    """A connection that reads only, and whether there is a database at all: opening one would create it."""
    if connection.vendor != "sqlite":
        return connection, True
    name = str(connection.settings_dict["NAME"])
    if connection.is_in_memory_db():
        return connection, False
    if not name.startswith("file:"):
        path = Path(name)
        if not path.is_file() or path.stat().st_size == 0:
            return connection, False
        name = f"file:{quote(str(path.absolute()))}?mode=ro"
    options = {"timeout": connection.settings_dict.get("OPTIONS", {}).get("timeout", 30)}
    settings = {**connection.settings_dict, "NAME": name, "OPTIONS": options}
    return type(connection)(settings, connection.alias), True


def is_empty(connection: Any) -> bool:
    """Whether it holds no table but Django's own list of migrations."""
    return not set(connection.introspection.table_names()) - {"django_migrations"}


def unknown(loader: Any, applied: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The migrations that were applied and that this release does not bring, also not squashed."""
    replaced = {key for migration in loader.disk_migrations.values() for key in migration.replaces}
    return sorted(key for key in applied if key not in loader.disk_migrations and key not in replaced)


def described(
    alias: str, migration: Any, room: list[int], made: set[tuple[str, ...]], with_operations: bool = True
) -> dict[str, Any]:
    """A migration with its operations; on an empty database there is nothing that they could lose. `made` are
    the models that the migrations before it create, of which the code of before knows nothing."""
    operations = []
    for operation in flat(migration.operations) if with_operations else ():
        if not is_allowed(alias, migration.app_label, operation):
            continue
        model = (alias, migration.app_label, model_of(operation))
        if type(operation).__name__ == "CreateModel":
            made.add(model)
        losing, breaking = is_destructive(operation), is_breaking(operation) and model not in made
        room[0] -= 1
        if losing or breaking or room[0] >= 0:
            told = {"kind": type(operation).__name__, "subject": subject(operation)}
            operations.append(told | {"destructive": losing, "breaking": breaking})
    return {
        "database": alias,
        "app": migration.app_label,
        "name": migration.name,
        "operations": operations,
    }


def flat(operations: Iterable[Any]) -> Iterator[Any]:
    """The operations that reach the database: what is only state changes nothing there."""
    from django.db.migrations import SeparateDatabaseAndState

    for operation in operations:
        if isinstance(operation, SeparateDatabaseAndState):
            yield from flat(operation.database_operations)
        else:
            yield operation


def is_destructive(operation: Any) -> bool:
    """Whether it loses data, or changes it so that the code of before cannot go on."""
    from django.db import migrations

    losing = (
        migrations.RemoveField,
        migrations.DeleteModel,
        migrations.RenameField,
        migrations.RenameModel,
        migrations.AlterField,
        migrations.AlterModelTable,
    )
    if isinstance(operation, migrations.RunSQL):
        return bool(operation.sql)
    if isinstance(operation, migrations.RunPython):
        return operation.reverse_code is None and operation.code is not migrations.RunPython.noop
    return isinstance(operation, losing) or not operation.reversible


def is_breaking(operation: Any) -> bool:
    """Whether the code of before cannot write any more, though nothing is lost: its inserts leave out a column
    that must have a value, and Django keeps a default in the database only where `db_default` says so."""
    from django.db import migrations
    from django.db.models import NOT_PROVIDED

    if not isinstance(operation, migrations.AddField):
        return False
    field = operation.field
    given = getattr(field, "db_default", NOT_PROVIDED) is not NOT_PROVIDED
    return not (given or field.null or field.many_to_many or getattr(field, "generated", False))


def is_allowed(alias: str, app: str, operation: Any) -> bool:
    """Whether the project's routers let it run on this database."""
    from django.db import router

    hints = dict(getattr(operation, "hints", None) or {})
    if model := model_of(operation):
        hints.setdefault("model_name", model)
    return router.allow_migrate(alias, app, **hints)


def model_of(operation: Any) -> str:
    """The model that it is about, in lower case; empty where there is none."""
    # The names of a field, an index or a constraint are no models; their operations name theirs first.
    names = ("model_name_lower", "new_name_lower", "name_lower")
    return next((model for name in names if (model := getattr(operation, name, None))), "")


def subject(operation: Any) -> str:
    """What it is about, in a few words."""
    model, name = getattr(operation, "model_name", None), getattr(operation, "name", None)
    old, new = getattr(operation, "old_name", None), getattr(operation, "new_name", None)
    code, sql = getattr(operation, "code", None), getattr(operation, "sql", None)
    if old and new:
        text = f"{model}.{old} -> {new}" if model else f"{old} -> {new}"
    elif model:
        text = f"{model}.{name}" if name else str(model)
    elif callable(code):
        text = f"{getattr(code, '__module__', '?')}.{getattr(code, '__qualname__', '?')}"
    elif sql is not None:
        text = " ".join((sql if isinstance(sql, str) else str(sql)).split())
    else:
        text = str(name or operation.describe())
    return text if len(text) <= 100 else f"{text[:99]}…"
