"""Installs what a testbed needs, once: Debian packages, uv, Salt, pytest and ruff, each in a venv of its own.

A venv is built under a temporary name and renamed when it is whole, so an interrupted install is never taken
for one. It is made from the system's interpreter: one below somebody's home could not be run by an app's
user.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flipside_testbed import places
from flipside_testbed.engine import Docker

PYTHON = "/usr/bin/python3"
UV = "uv==0.13.9"
SALT = {"3006": "salt==3006.28", "3007": "salt==3007.15", "3008": "salt==3008.3"}
PYTEST = [
    "pytest==8.4.2",
    "pytest-rerunfailures==16.1",
    "pytest-timeout==2.4.0",
    "pytest-xdist==3.8.0",
    "msgpack==1.1.2",
]
# Downloads wheels, which uv does not.
PIP = ["pip==25.3"]
RUFF = ["ruff==0.14.7"]
# A program that is looked for, and the Debian package that brings it.
PROGRAMS = {"nginx": "nginx-light", "memcached": "memcached"}


class Missing(RuntimeError):
    """Something is not installed and cannot be installed from here; the text says what to do."""


def debian_packages(*more: str) -> None:
    """Installs the Debian packages that are missing; as an ordinary user says which. `more` are programs that
    have the name of their package."""
    programs = PROGRAMS | {program: program for program in more}
    wanted = [package for program, package in programs.items() if _which(program) is None]
    if not _has_ensurepip():
        wanted.append("python3-venv")
    if not wanted:
        return
    if not places.is_root():
        raise Missing(f"not installed: {' '.join(wanted)}. As root: apt-get install -y {' '.join(wanted)}")
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with lock("apt"):
        _run(["apt-get", "-o", "DPkg::Lock::Timeout=120", "update", "-q"], env=env)
        _run(
            [
                "apt-get",
                "-o",
                "DPkg::Lock::Timeout=120",
                "install",
                "-y",
                "-q",
                "--no-install-recommends",
                *wanted,
            ],
            env=env,
        )


def program(name: str) -> str:
    """The path of an installed program; daemons lie in sbin, which is not on everybody's PATH."""
    found = _which(name)
    if found is None:
        raise Missing(f"{name} is not installed; as root: apt-get install -y {PROGRAMS.get(name, name)}")
    return found


def docker() -> Docker:
    """The engine of this machine."""
    engine = Docker(Path("/run/docker.sock"))
    try:
        engine.ask("GET", "/_ping")
    except OSError as error:
        raise Missing(
            f"no Docker engine answers at {engine.socket} ({error}); as root: apt-get install -y docker.io,"
            " and start dockerd"
        ) from None
    return engine


def uv() -> Path:
    """The uv that the platform and the testbed use."""
    return _venv("uv", [UV], installer=None) / "bin/uv"


def salt(series: str) -> Path:
    """The folder that holds `salt`, `salt-master` and the rest of one series."""
    if series not in SALT:
        raise Missing(f"no Salt {series!r} here; there are {', '.join(SALT)}")
    return _venv(f"salt-{series}", [SALT[series]], installer=uv()) / "bin"


def pytest() -> Path:
    """The interpreter that has pytest."""
    return _venv("pytest", PYTEST, installer=uv()) / "bin/python"


def ruff() -> Path:
    """The linter of the Python files."""
    return _venv("ruff", RUFF, installer=uv()) / "bin/ruff"


def wheels(requirement: str) -> Path:
    """A folder with the wheel of one package, for a machine that reaches no index."""
    folder = places.cache() / f"wheels-{hashlib.sha256(requirement.encode()).hexdigest()[:10]}"
    with lock(folder.name):
        if not folder.is_dir():
            building = folder.with_name(f".{folder.name}.building")
            shutil.rmtree(building, ignore_errors=True)
            pip = [str(_venv("pip", PIP, installer=uv()) / "bin/python"), "-m", "pip", "download", "-q"]
            how = ["--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "-d", str(building)]
            _run([*pip, *how, requirement], env=dict(os.environ))
            building.rename(folder)
    return folder


def packages(name: str, wanted: list[str]) -> Path:
    """A venv with other packages, for one test."""
    return _venv(name, wanted, installer=uv())


def _venv(name: str, packages: list[str], installer: Path | None) -> Path:
    """The venv of `packages`, built when it is not there. Its name tells its content."""
    tag = hashlib.sha256("\n".join([PYTHON, *packages]).encode()).hexdigest()[:10]
    folder = places.cache() / f"{name}-{tag}"
    if folder.is_dir():
        return folder
    with lock(name):
        if folder.is_dir():
            return folder
        print(f"installing {', '.join(packages)} ...", file=sys.stderr, flush=True)
        building = folder.with_name(f".{folder.name}.building")
        shutil.rmtree(building, ignore_errors=True)
        env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        if installer is None:
            _run([PYTHON, "-m", "venv", str(building)], env=env)
            _run(
                [str(building / "bin/pip"), "install", "-q", "--disable-pip-version-check", *packages],
                env=env,
            )
        else:
            python = ["--python", PYTHON, "--no-python-downloads"]
            _run([str(installer), "venv", "-q", "--relocatable", *python, str(building)], env=env)
            into = ["--python", str(building / "bin/python"), "--compile-bytecode"]
            _run([str(installer), "pip", "install", "-q", *into, *packages], env=env)
        building.rename(folder)
    return folder


def cargo() -> str:
    """cargo, when it is new enough for this workspace."""
    found = shutil.which("cargo")
    needed = re.search(r'^rust-version = "([\d.]+)"', (places.CHECKOUT / "Cargo.toml").read_text(), re.M)[1]
    if found:
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
        version = re.search(r"\d+\.\d+\.\d+", said)
        if version and _numbers(version[0]) >= _numbers(needed):
            return found
        said = said.strip() or "of no known version"
    raise Missing(
        f"Rust {needed} or newer is needed, and "
        + (f"{found} is {said}" if found else "there is no cargo on the PATH")
        + ": install it from https://rustup.rs (Debian's own is too old), and let ~/.cargo/bin come first"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Held while a tool is made: two testbeds of one user may want the same tool at once."""
    places.cache().mkdir(parents=True, exist_ok=True)
    with (places.cache() / f".{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


def _has_ensurepip() -> bool:
    return (
        subprocess.run([PYTHON, "-c", "import ensurepip, venv"], capture_output=True, check=False).returncode
        == 0
    )


def _run(argv: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(
        argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise Missing(f"{' '.join(argv)} failed with {done.returncode}:\n{done.stdout[-3000:]}")


if __name__ == "__main__":
    try:
        debian_packages()
        cargo()
        print({"uv": uv, "ruff": ruff, "pytest": pytest}[sys.argv[1]]())
    except Missing as missing:
        sys.exit(str(missing))
