"""A secret that is planted in pillar reaches the app, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

from flipside_testbed import web
from flipside_testbed.blog import Blog
from flipside_testbed.platform import ASSIGNED, app_pillar
from flipside_testbed.processes import every_process

CANARY = "canary-7f3a9c51e2"
# Where the secret belongs: pillar itself, Salt's caches of it, and the environment file that workers read.
BELONGS = ("/pillar/", "/cache/minions/", "/cache/pillar", "/apps/blog/env", "/apps/blog/env.previous")


def test_a_secret_goes_to_the_app_and_nowhere_else(blog: Blog) -> None:
    pillar = app_pillar("blog")
    pillar["env"] = {"CANARY": CANARY, "TWICE": "x${HOME}$$", "EMPTY": ""}
    blog.platform.assign(ASSIGNED, blog.platform.apps | {"blog": pillar})
    listener = listen(blog)
    returns = [blog.salt(verb, *arguments).text for verb, *arguments in COMMANDS]
    listener.terminate()
    events = listener.communicate(timeout=20)[0]
    assert "flipside/on/" in events, "the capture of events saw none"
    assert web.digest_of_variable(blog.host, "blog", "CANARY") == web.digest(CANARY)
    assert web.digest_of_variable(blog.host, "blog", "EMPTY") == web.digest("")
    home = str(blog.host.apps / "blog/home")
    assert web.digest_of_variable(blog.host, "blog", "TWICE") == web.digest(f"x{home}$")
    for shown in (*returns, events):
        assert CANARY not in shown
    assert command_lines_with_the_secret() == []
    assert files_with_the_secret(blog.platform.root) == []


COMMANDS = [
    ("deploy", "tag=v2"),
    ("deploy", "tag=bad-import"),
    ("env",),
    ("status",),
    ("history",),
    ("logs", "lines=1000"),
    ("plan", "tag=v1"),
    ("rollback",),
]


def listen(blog: Blog) -> subprocess.Popen[str]:
    """Captures all events of the master."""
    for kind in ("v2", "bad-import"):
        blog.published(kind)
    command = blog.platform.salted.command("salt-run").split()
    process = subprocess.Popen(
        [*command, "state.event", "count=-1"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return process


def command_lines_with_the_secret() -> list[int]:
    found = []
    for stat in every_process():
        try:
            if CANARY.encode() in Path(f"/proc/{stat.pid}/cmdline").read_bytes():
                found.append(stat.pid)
        except OSError:
            continue
    return found


def files_with_the_secret(root: Path) -> list[str]:
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink() and CANARY.encode() in path.read_bytes():
            name = f"/{path.relative_to(root)}"
            if not any(place in name for place in BELONGS):
                found.append(name)
    return found
