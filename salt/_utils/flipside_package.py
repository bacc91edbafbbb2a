"""
From a tag to files of a release on this host, fetched by name from the package store.

The store is the Salt environment ``flipside``. Each file is asked for by its name: Salt caches a folder's
list of files for 20 seconds, and a deploy a second after a publish must find what was published. Hashes are
the agent's to check; here only names are, because they become paths.
"""

import json
import re
import shutil
from pathlib import Path

from flipside_refused import Refused
from flipside_spec import RELEASE, TAG, text

SALTENV = "flipside"
HINT = "flipside publish puts it there; the store is the environment `flipside` of the master's file_roots"
WHEEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,250}")


def choose(cache_file, app, tag, release, pillar_tag):
    """The release that is meant: ``release`` itself, or where the tag points now."""
    problems = []
    if release is not None:
        if text("release", release, problems) is not None and not RELEASE.fullmatch(release):
            problems.append(f"release: {release[:120]!r} is no release id, such as 1.0-0123456789ab")
        if tag is not None:
            problems.append("release: give a tag or a release, not both")
        if problems:
            raise Refused(problems)
        return release
    tag = pillar_tag if tag is None else tag
    if text("tag", tag, problems) is not None and not TAG.fullmatch(tag):
        problems.append(f"tag: {tag[:80]!r} is no tag")
    if problems:
        raise Refused(problems)
    tags = _read(cache_file, f"{app}/tags.json", f"nothing is published of {app}").get("tags")
    found = tags.get(tag) if isinstance(tags, dict) else None
    if not isinstance(found, str) or not RELEASE.fullmatch(found):
        known = ", ".join(sorted(tags)[:20]) if isinstance(tags, dict) else ""
        raise Refused(
            [f"tag: {app} has no tag {tag!r}"], f"its tags are: {known}" if known else "publish a release"
        )
    return found


def fetch(cache_file, app, release, wheels):
    """The folder of the release on this host: with its manifest, and with its wheels where ``wheels``."""
    base = f"{app}/{release}"
    path = cache_file(f"salt://{base}/manifest.json", saltenv=SALTENV)
    if not path:
        raise Refused(
            [f"release: the package store has no {release} of {app}"], "flipside publish puts it there"
        )
    folder = Path(path).parent
    if not wheels:
        return folder
    files = _load(path).get("files")
    if not isinstance(files, list):
        raise Refused([f"release: the manifest of {base} lists no files"], "publish the release again")
    for entry in files:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not WHEEL.fullmatch(name):
            raise Refused(
                [f"release: the manifest of {base} names a file {str(name)[:80]!r}"], "publish it again"
            )
    _room(folder, files, base)
    for entry in files:
        if not cache_file(f"salt://{base}/wheels/{entry['name']}", saltenv=SALTENV):
            raise Refused(
                [f"release: the package store lacks {base}/wheels/{entry['name']}"], "publish it again"
            )
    return folder


def _room(folder, files, base):
    sizes = [entry.get("size", 0) for entry in files]
    missing = sum(
        size
        for size, entry in zip(sizes, files, strict=True)
        if isinstance(size, int) and not (folder / "wheels" / entry["name"]).exists()
    )
    free = shutil.disk_usage(folder).free
    if missing + (64 << 20) > free:
        raise Refused(
            [f"release: {base} needs {missing >> 20} MiB below {folder}, which has {free >> 20} MiB free"],
            "free some disk",
        )


def forget(folder, cachedir):
    """Drops the fetched wheels of an installed release, where they are a cache and not the store itself."""
    folder = Path(folder)
    if Path(cachedir) in folder.parents:
        shutil.rmtree(folder / "wheels", ignore_errors=True)


def _read(cache_file, name, missing):
    path = cache_file(f"salt://{name}", saltenv=SALTENV)
    if not path:
        raise Refused([f"tag: {missing}: {name} is not in the package store"], HINT)
    return _load(path)


def _load(path):
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused([f"release: {path} cannot be read: {error}"], "publish the release again") from error
    if not isinstance(content, dict):
        raise Refused([f"release: {path} holds no map"], "publish the release again")
    return content
