"""The system users that a testbed makes when it runs as root, and their end."""

from __future__ import annotations

import json
import pwd
import subprocess
from pathlib import Path

from flipside_testbed.places import is_root

BUILD_USER = "flipside-build"


def ours() -> list[str]:
    """The users there are that Flipside may have made."""
    names = [entry.pw_name for entry in pwd.getpwall()]
    return sorted(name for name in names if name == BUILD_USER or name.startswith("app-"))


def remember(root: Path) -> None:
    """Notes who was there before, so that they stay."""
    (root / "users.json").write_text(json.dumps(ours()))


def remove_new(root: Path) -> None:
    """Removes those that came since; one whose processes run elsewhere stays."""
    note = root / "users.json"
    if not is_root() or not note.exists():
        return
    for name in set(ours()) - set(json.loads(note.read_text())):
        subprocess.run(["userdel", name], capture_output=True, check=False)
