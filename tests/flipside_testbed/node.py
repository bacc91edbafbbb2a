"""A machine of its own: a container with Debian's systemd as its first process.

Its image is made of Debian packages by mmdebstrap, once: it is named after what it is made of. The tools of
the testbed (Salt, uv) are mounted from the cache, for its Python is the same Debian's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from flipside_testbed import places, tools
from flipside_testbed.processes import wait_for

PACKAGES = ("systemd", "systemd-sysv", "python3", "nginx-light", "memcached", "procps")
SUITE = "bookworm"
# Without --privileged, which wants more than root has in some places.
RIGHTS = ["--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined", "--stop-signal=SIGRTMIN+3"]
RIGHTS += ["--tmpfs=/run", "--tmpfs=/run/lock", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:ro"]
# What is written a lot; on the engine's own layers each file costs.
RIGHTS += [f"--tmpfs={folder}:exec,mode=755" for folder in ("/srv", "/var/lib/flipside", "/var/cache/salt")]


def missing() -> str:
    """Why there can be no node here; empty where there can."""
    if not places.is_root():
        return "a node needs root"
    if shutil.which("docker") is None or _docker("info", check=False).returncode != 0:
        return "no Docker Engine answers: apt-get install docker.io"
    if "VERSION_CODENAME=bookworm" not in Path("/etc/os-release").read_text():
        return "a node runs this machine's programs, which are not those of Debian 12"
    return ""


def image() -> str:
    """The image's name; it is made where it is missing."""
    recipe = json.dumps([SUITE, PACKAGES])
    name = f"flipside-test-node:{hashlib.sha256(recipe.encode()).hexdigest()[:10]}"
    with tools.lock("node"):
        if _docker("image", "inspect", name, check=False).returncode != 0:
            _make(name)
    return name


def _make(name: str) -> None:
    tools.debian_packages("mmdebstrap")
    apt = Path("/etc/apt")
    sources = [*apt.glob("sources.list"), *(apt / "sources.list.d").glob("debian.sources")]
    kept = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale")]
    kept += ["--dpkgopt=force-unsafe-io", f"--include={','.join(PACKAGES)}"]
    argv = ["mmdebstrap", "--variant=minbase", *kept, SUITE, "-", *map(str, sources)]
    # In memory: dpkg syncs a lot.
    env = os.environ | {"TMPDIR": "/dev/shm"}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env) as made:
        change = ["-c", 'CMD ["/lib/systemd/systemd"]', "-c", "ENV container=docker"]
        subprocess.run(
            ["docker", "import", *change, "-", name], stdin=made.stdout, capture_output=True, check=True
        )
    if made.returncode != 0:
        _docker("image", "rm", name, check=False)
        raise tools.Missing(f"mmdebstrap failed with {made.returncode}")


class Node:
    """One container. `mounts` are folders of this machine, readable at the same place in it."""

    def __init__(self, name: str, port: int, mounts: list[Path]) -> None:
        self.name, self.port = name, port
        self.remove()
        folders = [f"--volume={folder}:{folder}:ro" for folder in (*mounts, places.CHECKOUT, places.cache())]
        options = [f"--name={name}", f"--publish=127.0.0.1:{port}:80", *RIGHTS, *folders]
        _docker("run", "--detach", "--pull=never", *options, image())
        wait_for("systemd", lambda: self.run("systemctl", "is-system-running", check=False) in _UP, 60, 0.2)

    def run(self, *argv: str, check: bool = True) -> str:
        """What a program says that is run in it."""
        return _docker("exec", self.name, *argv, check=check).stdout.strip()

    def write(self, path: str, content: Any) -> None:
        """Writes a file; what is no text becomes JSON, which is YAML too."""
        text = content if isinstance(content, str) else json.dumps(content)
        argv = ["docker", "exec", "-i", self.name, "install", "-D", "-m", "644", "/dev/stdin", path]
        subprocess.run(argv, input=text, text=True, check=True)

    def copy(self, source: Path, path: str) -> None:
        """Puts a program there, beside the old one and then in its place: the old one may be running."""
        _docker("cp", str(source), f"{self.name}:{path}.new")
        self.run("mv", "-f", f"{path}.new", path)

    def unit(self, name: str, *properties: str) -> dict[str, str]:
        """Properties of a unit."""
        shown = self.run("systemctl", "show", name, *(f"--property={one}" for one in properties))
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)

    def remove(self) -> None:
        """Ends it; nothing of it stays."""
        _docker("rm", "--force", "--volumes", self.name, check=False)


_UP = ("running", "degraded")


def _docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"docker {' '.join(arguments)} gave {done.returncode}: {done.stdout}{done.stderr}")
    return done
