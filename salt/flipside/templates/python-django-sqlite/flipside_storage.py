"""
Static files under names that hold their hash, with a manifest for each release.

The old release serves on while the new one collects, and its pages name the old files: so both manifests must
be there, and old files stay. A stylesheet that names a file that is not there must not stop a deploy:
projects live with that in development, where nobody looks.
"""

import os

from django.contrib.staticfiles.storage import ManifestStaticFilesStorage


class ReleaseStaticFilesStorage(ManifestStaticFilesStorage):
    """Django's own hashed storage, forgiving, and with the release in its manifest's name."""

    manifest_name = f"staticfiles-{os.environ.get('FLIPSIDE_RELEASE', 'none')}.json"
    manifest_strict = False

    def hashed_name(self, name, content=None, filename=None):
        try:
            return super().hashed_name(name, content, filename)
        except ValueError:
            return name
