"""
The settings that a Flipside host runs a Django project with: the project's own, and what production needs.

The project's module is imported as it is (``FLIPSIDE_SETTINGS``); only what it left at a development value is
filled in, by ``flipside_fill``. ``options.settings_overlay: false`` takes the project's own alone.
"""

import importlib
import os

import flipside_fill


def _project():
    name = os.environ.get("FLIPSIDE_SETTINGS")
    if not name:
        raise RuntimeError(
            "Flipside does not know the project's settings module: set options.settings in pillar, "
            "or publish with --settings"
        )
    outer = os.environ.get("DJANGO_SETTINGS_MODULE")
    # Some projects break when the variable names another module than the one being imported.
    os.environ["DJANGO_SETTINGS_MODULE"] = name
    try:
        return importlib.import_module(name)
    finally:
        if outer is None:
            del os.environ["DJANGO_SETTINGS_MODULE"]
        else:
            os.environ["DJANGO_SETTINGS_MODULE"] = outer


_module = _project()
globals().update({name: getattr(_module, name) for name in dir(_module) if name.isupper()})
globals().update(flipside_fill.filled(globals(), _module, os.environ))
