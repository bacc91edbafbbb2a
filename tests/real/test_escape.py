"""An app's user who wants out of his app: refused or harmless, and the app beside his notices nothing.

He can do in his app's folders whatever he likes: that is where the agent, nginx and the backups meet him.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flipside_testbed import places, web
from flipside_testbed.blog import Blog
from flipside_testbed.host import Host
from flipside_testbed.tools import PYTHON

pytestmark = pytest.mark.skipif(
    not places.is_root(), reason="apps have users of their own where root runs them"
)

ROW = "a-row-of-the-shop"
# He tries one thing after the other, and says which worked.
TRIES = """
import os, socket, sys
home, shop, run, log, state, sock, agent, holder = sys.argv[1:]
def t(name, do):
    try:
        do()
        print("WORKED", name)
    except OSError:
        pass
def connect(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
for name in ("env", "env.next", "current", "vhost", "releases/x", "overlays/x"):
    t(f"write {name}", lambda: open(f"{home}/{name}", "a"))
    t(f"link {name}", lambda: os.symlink("/etc/passwd", f"{home}/{name}.x"))
    t(f"remove {name}", lambda: os.rename(f"{home}/{name}", f"{home}/data/{name.replace('/', '-')}"))
for name in ("data", "media", "static"):
    t(f"move {name}", lambda: os.rename(f"{home}/{name}", f"{home}/moved"))
    t(f"write {name} of the shop", lambda: open(f"{shop}/{name}/x", "w"))
for name in ("env", "data/db.sqlite3"):
    t(f"read {name} of the shop", lambda: open(f"{shop}/{name}"))
t("read the backups' state of the shop", lambda: os.scandir(f"{shop}/backup"))
for mark in os.scandir(f"{shop}/marks"):
    t("read a mark of the shop", lambda: os.scandir(mark.path))
for file in ("agent.db", "agent.db-wal", "lock"):
    t(f"write {file}", lambda: open(f"{state}/{file}", "a"))
for name in ("app.sock", "holder.sock", "holder.lock", "maintenance"):
    t(f"replace {name}", lambda: os.symlink("/etc/passwd", f"{run}/{name}.x"))
    t(f"remove {name}", lambda: os.unlink(f"{run}/{name}"))
t("log", lambda: os.rename(log, log + ".x"))
t("truncate log", lambda: open(log, "w"))
t("state", lambda: os.scandir(state))
t("agent.db", lambda: open(f"{state}/agent.db"))
t("identity", lambda: open(f"{state}/identity"))
t("talk to the agent", lambda: connect(sock))
t("talk to the holder", lambda: connect(f"{run}/holder.sock"))
t("talk to the shop", lambda: connect(f"{os.path.dirname(run)}/shop/app.sock"))
t("signal the agent", lambda: os.kill(int(agent), 0))
t("signal the holder", lambda: os.kill(int(holder), 0))
t("trace the holder", lambda: open(f"/proc/{holder}/environ").read())
t("become root", lambda: os.setuid(0))
print("uid", os.getuid(), os.getgroups())
"""


@pytest.fixture
def shop(blog: Blog) -> Iterator[Host]:
    """The app beside: its pages and its rows are the same afterwards."""
    web.write(blog.host, "shop", ROW)
    posts, status = web.posts(blog.host, "shop"), _shop_files(blog.host)
    yield blog.host
    assert web.posts(blog.host, "shop") == posts and _shop_files(blog.host) == status


def _shop_files(host: Host) -> dict[str, tuple[int, int, int]]:
    """What lies in the shop's folders, and whose it is. Its databases change by themselves."""
    found = {}
    for folder in ("data", "media", "static"):
        for path in (host.apps / "shop" / folder).rglob("*"):
            if "sqlite3" not in path.name:
                at = path.lstat()
                found[str(path)] = (at.st_uid, at.st_gid, at.st_mode)
    return found


def _holder(host: Host, app: str) -> int:
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if b"hold" in line and str(host.run / app).encode() in line:
            return int(entry.name)
    raise AssertionError("no holder")


def _as_app(host: Host, *argv: str) -> str:
    owner = (host.apps / "blog/data").stat()
    done = subprocess.run(
        argv,
        user=owner.st_uid,
        group=owner.st_gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_he_reaches_nothing_but_his_own(blog: Blog, shop: Host) -> None:
    home, state = shop.apps / "blog", shop.state
    paths = [home, shop.apps / "shop", shop.run / "blog", shop.log / "blog.log", state, shop.socket]
    numbers = [shop.agent.pid(), _holder(shop, "blog")]
    for said in (
        _as_app(shop, PYTHON, "-c", TRIES, *map(str, [*paths, *numbers])),
        # In a command of the agent's he is nobody else either.
        shop.cli("run", "blog", "--", PYTHON, "-c", TRIES, *map(str, [*paths, *numbers])).stdout,
    ):
        assert "WORKED" not in said and f"uid {home.joinpath('data').stat().st_uid} " in said, said


def test_what_stands_in_the_place_of_his_statistics_holds_nobody_up(blog: Blog, shop: Host) -> None:
    notes = shop.run / "blog/w"
    (stats,) = notes.glob("*.stats")
    aside = stats.with_suffix(".aside")
    stats.rename(aside)
    try:
        for trick in ("fifo", "endless", "link", "folder"):
            if trick == "fifo":
                os.mkfifo(stats)
            elif trick == "endless":
                stats.symlink_to("/dev/zero")
            elif trick == "link":
                stats.symlink_to(shop.socket)
            else:
                stats.mkdir()
            app = json.loads(shop.cli("status", "blog", "--json").stdout)["data"]["apps"]["blog"]
            assert app["release"] == blog.v1 and len(app["workers"]) == 2, (trick, app)
            (stats.rmdir if trick == "folder" else stats.unlink)()
    finally:
        aside.rename(stats)
    assert shop.cli("reload", "blog").returncode == 0


def test_links_in_what_nginx_serves_lead_nowhere(blog: Blog, shop: Host) -> None:
    secret = shop.apps / "shop/media/private.txt"
    secret.write_text("the shop's own")
    shutil.chown(secret, *(2 * [secret.parent.stat().st_uid]))
    links = [shop.apps / "blog/static/out.txt", shop.apps / "blog/media/out.txt"]
    try:
        for link in links:
            _as_app(shop, "ln", "-s", str(secret), str(link))
            page = web.get(shop, "blog", f"/{link.parent.name}/out.txt")
            assert page.status in (403, 404) and "own" not in page.text, page
        folder = shop.apps / "blog/static/folder"
        _as_app(shop, "ln", "-s", str(secret.parent), str(folder))
        links.append(folder)
        assert web.get(shop, "blog", "/static/folder/private.txt").status in (403, 404)
        # What is copied there later goes to nobody else's folder.
        assert blog.deploy("v2")["result"]
    finally:
        for link in links:
            link.unlink(missing_ok=True)
        secret.unlink()


def test_a_database_that_is_a_link_brings_him_no_other(blog: Blog, shop: Host) -> None:
    """Backup, mark and restore run as he does, so that a link takes them no further than him."""
    database = shop.apps / "blog/data/db.sqlite3"
    assert blog.salt("backup").app("blog")["result"]
    kept = [path for path in sorted(database.parent.glob("db.sqlite3*")) if path.is_file()]
    aside = shop.home / "aside"
    aside.mkdir()
    assert shop.cli("stop", "blog").returncode == 0
    for path in kept:
        shutil.move(path, aside / path.name)
    theirs = shop.apps / "shop/data/db.sqlite3"
    before = hashlib.sha256(theirs.read_bytes()).hexdigest()
    try:
        _as_app(shop, "ln", "-s", str(theirs), str(database))
        said = blog.deploy("v2")
        assert said["result"] is False and said["error"]["message"], said
        # A restore may put the app's own database in the link's place.
        blog.salt("restore")
        assert hashlib.sha256(theirs.read_bytes()).hexdigest() == before
        for folder in ("marks", "backup", "data"):
            files = [path for path in (shop.apps / "blog" / folder).rglob("*") if not path.is_symlink()]
            stolen = [path for path in files if path.is_file() and ROW.encode() in path.read_bytes()]
            assert not stolen, f"{stolen} hold the shop's rows"
    finally:
        for path in database.parent.glob("db.sqlite3*"):
            path.unlink()
        for path in kept:
            shutil.move(aside / path.name, path)
        aside.rmdir()
        shop.cli("start", "blog")
