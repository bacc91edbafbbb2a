"""Commands beside the app: what they print, how they end, and that nothing of them outlives who asked."""

from __future__ import annotations

import json
import os
import pty
import subprocess

from flipside_testbed.blog import Blog
from flipside_testbed.processes import alive, wait_for
from flipside_testbed.salted import clean_environment

SPEAKS = "import os, sys; print(os.environ['FLIPSIDE_RELEASE']); print('oh', file=sys.stderr); sys.exit(3)"
# A child in a group of its own, as a shell's jobs are.
LINGERS = """
import os, time
child = os.fork()
if not child: os.setpgid(0, 0)
else: print(os.getpid(), child, flush=True)
time.sleep(3600)
"""
TERMINAL = "import os; print(*os.get_terminal_size(), os.ttyname(0) == os.ttyname(2), input('who? '))"


def test_output_errors_and_code_are_the_commands_own(blog: Blog) -> None:
    done = blog.host.cli("run", "blog", "--", "python3", "-c", SPEAKS, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{blog.v1}\n", "oh\n")
    said = blog.salt("run", json.dumps(["python3", "-c", SPEAKS]))
    assert said.code != 0
    assert (said.app("blog")["stdout"], said.app("blog")["stderr"]) == (blog.v1, "oh"), said.text
    assert blog.host.cli("manage", "blog", "check").returncode == 0
    first, second, third = json.loads(blog.host.cli("history", "blog", "-n", "3", "--json").stdout)["data"]
    assert [one["verb"] for one in (first, second, third)] == ["run"] * 3
    assert (second["who"]["via"], third["who"]["via"], second["state"]) == ("salt", "cli", "failed")
    assert first["message"] == "django-admin check" and "python3 -c: it ended with code 3" in third["message"]


def test_a_command_ends_with_all_its_children_when_its_client_is_killed(blog: Blog) -> None:
    argv = [*blog.host.command(), "run", "blog", "--", "python3", "-c", LINGERS]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=clean_environment()) as client:
        pids = [int(pid) for pid in client.stdout.readline().split()]
        assert len(pids) == 2 and all(alive(pid) for pid in pids)
        client.kill()
    wait_for("the end of the command", lambda: not any(alive(pid) for pid in pids), 30)


def test_a_command_has_a_terminal_of_the_users_size(blog: Blog) -> None:
    ours, theirs = pty.openpty()
    os.set_blocking(ours, True)
    subprocess.run(["stty", "rows", "33", "cols", "101"], stdin=theirs, check=True)
    argv = [*blog.host.command(), "run", "blog", "--", "python3", "-c", TERMINAL]
    with subprocess.Popen(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, env=clean_environment()
    ) as client:
        seen = read_until(ours, b"who? ")
        os.write(ours, b"ann\r")
        seen += read_until(ours, b"101 33 True ann")
        assert client.wait(30) == 0, seen


def test_the_shell_of_a_database_reads_unless_it_may_write(blog: Blog) -> None:
    def ask(statement: str, *flags: str) -> subprocess.CompletedProcess[str]:
        argv = [*blog.host.command(), "dbshell", "blog", *flags]
        return subprocess.run(
            argv, input=statement, capture_output=True, text=True, env=clean_environment(), check=False
        )

    counted = ask("SELECT count(*) > 0 FROM django_migrations;\n")
    assert (counted.returncode, counted.stdout) == (0, "1\n"), counted
    refused = ask("CREATE TABLE extra (x);\n")
    assert refused.returncode != 0 and "readonly" in refused.stderr, refused
    assert ask("CREATE TABLE extra (x); DROP TABLE extra;\n", "--write").returncode == 0
    missing = ask("", "none.sqlite3")
    assert missing.returncode == 1 and "in the data folder are" in missing.stderr, missing
    shown = blog.host.cli("shell", "blog", check=False)
    assert shown.returncode == 0, shown.stderr


def read_until(fd: int, end: bytes) -> bytes:
    seen = b""
    while end not in seen:
        part = os.read(fd, 1024)
        assert part, seen
        seen += part
    return seen
