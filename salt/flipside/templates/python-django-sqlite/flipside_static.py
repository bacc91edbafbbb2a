"""
The template's hook for static files: collects them, where the project has any.

``django-admin collectstatic`` fails as an unknown command in a project without the static files app.
"""

import sys


def main():
    """Collects into STATIC_ROOT; does nothing where there is nothing to collect or nowhere to put it."""
    import django
    from django.apps import apps
    from django.conf import settings
    from django.core.management import call_command

    django.setup()
    if not apps.is_installed("django.contrib.staticfiles"):
        print("this project has no static files app: nothing to collect")
    elif not settings.STATIC_ROOT:
        print("STATIC_ROOT is not set: the app serves its static files itself")
    else:
        call_command("collectstatic", interactive=False, verbosity=1)


if __name__ == "__main__":
    sys.exit(main())
