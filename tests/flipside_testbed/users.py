"""The system users that a testbed makes when it runs as root, and their end."""

from __future__ import annotations

import json
import pwd
import subprocess
from pathlib import Path

from flipside_testbed import tools
from flipside_testbed.places import is_root

BUILD_USER = "flipside-build"
# Each testbed keeps one in its folder.
NOTE = "users.json"


def ours() -> list[str]:
    """The users there are that Flipside may have made."""
    names = [entry.pw_name for entry in pwd.getpwall()]
    return sorted(name for name in names if name == BUILD_USER or name.startswith("app-"))


def remember(root: Path) -> None:
    """Notes who was there before the first testbed that is up now, so that they stay."""
    root.mkdir(parents=True, exist_ok=True)
    if (root / NOTE).exists():
        return
    first = next(iter(_others(root)), None)
    (root / NOTE).write_text(first.read_text() if first else json.dumps(ours()))


def add(name: str) -> None:
    """Makes a user like those that the formulas make, unless it is there."""
    argv = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", name]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 9):  # 9: it is there
        raise tools.Missing(f"no user {name}: {done.stderr}")


def remove_new(root: Path) -> None:
    """Removes those that came since, once no other testbed is up: they are shared."""
    note = root / NOTE
    if not is_root() or not note.exists() or _others(root):
        return
    for name in set(ours()) - set(json.loads(note.read_text())):
        subprocess.run(["userdel", name], capture_output=True, check=False)


def _others(root: Path) -> list[Path]:
    return [note for note in sorted(root.parent.glob(f"flipside-*/{NOTE}")) if note.parent != root]
