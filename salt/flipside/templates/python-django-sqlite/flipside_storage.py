"""
Static files under names that hold their hash, with a manifest for each release.

The old release serves on while the new one collects, and its pages name the old files: so both manifests must
be there, and old files stay. A stylesheet that names a file that is not there must not stop a deploy:
projects live with that in development, where nobody looks.
"""

import os

from django.contrib.staticfiles.storage import ManifestStaticFilesStorage


class ReleaseManifestStorage(ManifestStaticFilesStorage):
    """Django's own hashed storage, with the release in its manifest's name: a rollback finds its own."""

    manifest_name = f"staticfiles-{os.environ.get('FLIPSIDE_RELEASE', 'none')}.json"


class ReleaseStaticFilesStorage(ReleaseManifestStorage):
    """The same, forgiving: for projects that have never seen hashed names."""

    manifest_strict = False

    def hashed_name(self, name, content=None, filename=None):
        try:
            return super().hashed_name(name, content, filename)
        except ValueError:
            return name
