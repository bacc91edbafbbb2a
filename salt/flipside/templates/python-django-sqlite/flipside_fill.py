"""
What production needs of a Django project's settings, where the project left a development value.

Each function takes the project's settings as a map and returns the ones to change. A value that the project
chose for production stays. Works with Django 4.2 and newer.
"""

import importlib.util
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import django

LOCAL = {"localhost", "127.0.0.1", "[::1]", ".localhost", "0.0.0.0", "*", "testserver"}
PRAGMAS = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"
FILE_CACHE = "django.core.cache.backends.filebased.FileBasedCache"
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
MEMCACHED = "django.core.cache.backends.memcached"
STORAGE_MODULE = "django.contrib.staticfiles.storage"
STATICFILES = f"{STORAGE_MODULE}.StaticFilesStorage"
# Django's storages, and ours in their place. Any other is the project's choice.
STORAGES = {
    STATICFILES: "flipside_storage.ReleaseStaticFilesStorage",
    f"{STORAGE_MODULE}.ManifestStaticFilesStorage": "flipside_storage.ReleaseManifestStorage",
}


def filled(settings, module, env):
    """The settings to change, from the project's ``settings`` and the app's environment."""
    place = _Place(module, env)
    changes = {"DEBUG": False}
    for fill in (_hosts, _secret_key, _databases, _static, _media, _caches, _https, _logging, _written):
        changes.update(fill({**settings, **changes}, env, place))
    return changes


class _Place:
    """Knows whether a path lies in the project or its release, where nothing may be written."""

    def __init__(self, module, env):
        file = getattr(module, "__file__", None) or "."
        depth = module.__name__.count(".") + (Path(file).name == "__init__.py")
        top = Path(os.path.abspath(file)).parents[depth]
        self.own = [
            Path(env[name]) for name in ("DATA_DIR", "MEDIA_DIR", "STATIC_ROOT", "HOME") if env.get(name)
        ]
        self.code = {Path(os.path.abspath(sys.prefix)), Path(sys.prefix).resolve(), top, top.resolve()}
        if env.get("DATA_DIR"):
            self.code.add(Path(env["DATA_DIR"]).parent)

    def own_folder(self, path):
        path = Path(os.path.abspath(path))
        return any(_within(path, own) or _within(path.resolve(), own.resolve()) for own in self.own)

    def in_project(self, path):
        path = Path(path)
        if not path.is_absolute():
            return True
        path = Path(os.path.abspath(path))
        if self.own_folder(path):
            return False
        return any(_within(path, code) or _within(path.resolve(), code) for code in self.code)

    def out_of_reach(self, path):
        """Whether nothing can be written there: in the project, or in somebody else's folder."""
        return self.in_project(path) or not _may_write(os.path.abspath(path))


def _may_write(path):
    """By owner and mode alone: each process of the app must see the same, whatever its sandbox mounts."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    about = os.stat(path)
    if os.geteuid() == about.st_uid:
        bit = 0o200
    else:
        bit = 0o020 if about.st_gid in (os.getegid(), *os.getgroups()) else 0o002
    return os.geteuid() == 0 or bool(about.st_mode & bit)


def _within(path, folder):
    return path == folder or folder in path.parents


def _hosts(settings, env, _place):
    ours = [_pattern(host) for host in env.get("ALLOWED_HOSTS", "").replace(" ", ",").split(",") if host]
    if not ours:
        return {}
    theirs = [host for host in settings.get("ALLOWED_HOSTS") or [] if host not in LOCAL]
    changes = {"ALLOWED_HOSTS": list(dict.fromkeys([*theirs, *ours]))}
    public = urlsplit(env.get("PUBLIC_URL", ""))
    if public.scheme and public.netloc:
        port = f":{public.port}" if public.port else ""
        origins = [f"{public.scheme}://{'*' if host.startswith('.') else ''}{host}{port}" for host in ours]
        trusted = [
            *(settings.get("CSRF_TRUSTED_ORIGINS") or []),
            f"{public.scheme}://{public.netloc}",
            *origins,
        ]
        changes["CSRF_TRUSTED_ORIGINS"] = list(dict.fromkeys(trusted))
    return changes


def _pattern(host):
    return host[1:] if host.startswith("*.") else host


def _secret_key(settings, env, _place):
    key = settings.get("SECRET_KEY") or ""
    key = key.decode("latin-1") if isinstance(key, bytes) else str(key)
    # The same measure as Django's own deployment check.
    weak = key.startswith("django-insecure-") or len(key) < 50 or len(set(key)) < 5
    return {"SECRET_KEY": env["SECRET_KEY"]} if weak and env.get("SECRET_KEY") else {}


def _databases(settings, env, place):
    data = env.get("DATA_DIR")
    databases = settings.get("DATABASES")
    if not data or not isinstance(databases, dict):
        return {}
    changed, names = {}, set()
    for alias, database in databases.items():
        engine = str(database.get("ENGINE", "")) if isinstance(database, dict) else ""
        if engine.rpartition(".")[2] not in ("sqlite3", "spatialite"):
            changed[alias] = database
            continue
        database = dict(database)
        name = str(database.get("NAME") or "")
        if name and not name.startswith((":memory:", "file:")) and place.in_project(name):
            file = Path(name).name
            # Two databases of one name in different folders stay two.
            file = f"{alias}-{file}" if file in names else file
            database["NAME"] = str(Path(data) / file)
            names.add(file)
        database["OPTIONS"] = _sqlite_options(database.get("OPTIONS"))
        changed[alias] = database
    if django.VERSION < (5, 1):
        _older_sqlite()
    return {"DATABASES": changed}


def _sqlite_options(given):
    options = {"timeout": 20, **(given or {})}
    if django.VERSION >= (5, 1):
        options.setdefault("transaction_mode", "IMMEDIATE")
        options.setdefault("init_command", PRAGMAS)
    return options


def _older_sqlite():
    """Before Django 5.1 there are no options for it: each new connection is told."""
    from django.db.backends.signals import connection_created

    def told(sender, connection, **_kwargs):
        if connection.vendor != "sqlite":
            return
        with connection.cursor() as cursor:
            for pragma in PRAGMAS.split(";"):
                cursor.execute(pragma)
        connection._start_transaction_under_autocommit = lambda: connection.cursor().execute(
            "BEGIN IMMEDIATE"
        )

    connection_created.connect(told, weak=False, dispatch_uid="flipside-sqlite")


def _static(settings, env, place):
    changes = {}
    root = env.get("STATIC_ROOT")
    apps = [str(app) for app in settings.get("INSTALLED_APPS") or []]
    if not root or not any(app.startswith("django.contrib.staticfiles") for app in apps):
        return changes
    theirs = settings.get("STATIC_ROOT")
    # A folder of the app's own is one that nginx does not serve.
    if not theirs or place.out_of_reach(theirs) or place.own_folder(theirs):
        changes["STATIC_ROOT"] = root
    url = settings.get("STATIC_URL") or ""
    if env.get("STATIC_URL") and "//" not in str(url):
        changes["STATIC_URL"] = env["STATIC_URL"]
    storages = settings.get("STORAGES") or {}
    older = settings.get("STATICFILES_STORAGE")
    if older or settings.get("DEFAULT_FILE_STORAGE"):
        # The names of before Django 5.1, which exclude the new one.
        if (older or STATICFILES) in STORAGES:
            changes["STATICFILES_STORAGE"] = STORAGES[older or STATICFILES]
        return changes
    staticfiles = storages.get("staticfiles") or {}
    ours = STORAGES.get(staticfiles.get("BACKEND", STATICFILES))
    if ours:
        default = {"BACKEND": "django.core.files.storage.FileSystemStorage"}
        changes["STORAGES"] = {
            "default": default,
            **storages,
            "staticfiles": {**staticfiles, "BACKEND": ours},
        }
    return changes


def _media(settings, env, place):
    root, theirs = env.get("MEDIA_DIR"), settings.get("MEDIA_ROOT")
    if not root:
        return {}
    changes = {}
    # What lies in a folder of before can still be read there.
    if not theirs or place.in_project(theirs) or not os.path.exists(theirs) and place.out_of_reach(theirs):
        url = settings.get("MEDIA_URL") or env.get("MEDIA_URL") or "/media/"
        changes.update({"MEDIA_ROOT": root, "MEDIA_URL": url})
    storages = settings.get("STORAGES") or {}
    default = storages.get("default") or {}
    options = default.get("OPTIONS") or {}
    if options.get("location") and place.in_project(options["location"]):
        moved = {**default, "OPTIONS": {**options, "location": root}}
        changes["STORAGES"] = {**storages, "default": moved}
    return changes


def _caches(settings, env, _place):
    caches = settings.get("CACHES") or {}
    default = caches.get("default") or {}
    backend, host = default.get("BACKEND", LOCMEM), env.get("MEMCACHED")
    # What projects make of CACHE_URL is the host's cache, without a prefix and perhaps without a client.
    is_hosts = backend.startswith(MEMCACHED) and default.get("LOCATION") in (host, [host])
    if not host or not (backend == LOCMEM or is_hosts):
        return {}
    ours = {"LOCATION": env["MEMCACHED"], "KEY_PREFIX": env.get("FLIPSIDE_APP", "app")}
    if importlib.util.find_spec("pymemcache"):
        ours["BACKEND"] = f"{MEMCACHED}.PyMemcacheCache"
        # A memcached that is away makes the site slower, not broken.
        ours["OPTIONS"] = {"ignore_exc": True, "no_delay": True, "connect_timeout": 1, "timeout": 1}
    elif importlib.util.find_spec("pylibmc"):
        ours["BACKEND"] = f"{MEMCACHED}.PyLibMCCache"
    else:
        ours["BACKEND"] = "flipside_cache.MemcachedCache"
    kept = {key: value for key, value in default.items() if key in ("TIMEOUT", "VERSION", "KEY_FUNCTION")}
    return {"CACHES": {**caches, "default": {**kept, **ours}}}


def _https(settings, env, _place):
    changes = {}
    if not settings.get("SECURE_PROXY_SSL_HEADER"):
        changes["SECURE_PROXY_SSL_HEADER"] = ("HTTP_X_FORWARDED_PROTO", "https")
    if env.get("PUBLIC_URL", "").startswith("https://"):
        for name in ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE"):
            if name not in settings:
                changes[name] = True
    return changes


def _logging(settings, env, place):
    theirs = settings.get("LOGGING")
    if theirs:
        return _log_files(theirs, env.get("DATA_DIR"), place)
    # With its offset, or nobody could tell what is since when.
    line = {
        "format": "{asctime} {levelname} {name} {message}",
        "datefmt": "%Y-%m-%dT%H:%M:%S%z",
        "style": "{",
    }
    handler = {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "line"}
    logging = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": line},
        "handlers": {"stderr": handler},
        "root": {"handlers": ["stderr"], "level": _level(env)},
    }
    return {"LOGGING": logging}


def _log_files(logging, data, place):
    """Log files beside the code, or in a folder of root's, cannot be written: they go to the data folder."""
    handlers = logging.get("handlers") if isinstance(logging, dict) else None
    if not data or not isinstance(handlers, dict):
        return {}
    moved = {}
    for name, handler in handlers.items():
        file = handler.get("filename") if isinstance(handler, dict) else None
        if isinstance(file, str | Path) and place.out_of_reach(file):
            folder = Path(data) / "logs"
            folder.mkdir(exist_ok=True)
            moved[name] = {**handler, "filename": str(folder / Path(file).name)}
    return {"LOGGING": {**logging, "handlers": {**handlers, **moved}}} if moved else {}


def _written(settings, env, place):
    """Folders out of reach that Django itself writes to."""
    data = env.get("DATA_DIR")
    if not data:
        return {}
    changes = {}
    for name in ("EMAIL_FILE_PATH", "SESSION_FILE_PATH", "FILE_UPLOAD_TEMP_DIR"):
        path = settings.get(name)
        if isinstance(path, str | Path) and path and place.out_of_reach(path):
            folder = Path(data) / Path(path).name
            folder.mkdir(exist_ok=True)
            changes[name] = str(folder)
    caches = settings.get("CACHES")
    for alias, cache in caches.items() if isinstance(caches, dict) else ():
        location = cache.get("LOCATION") if isinstance(cache, dict) else None
        if location and cache.get("BACKEND") == FILE_CACHE and place.out_of_reach(location):
            moved = {**cache, "LOCATION": str(Path(data) / "caches" / Path(location).name)}
            changes.setdefault("CACHES", dict(caches))[alias] = moved
    return changes


def _level(env):
    level = env.get("DJANGO_LOG_LEVEL", "").upper()
    return level if level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL") else "INFO"
