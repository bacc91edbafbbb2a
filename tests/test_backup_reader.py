"""The examples in backup_examples stay readable for ever, by a reader that shares no code with Flipside."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from flipside_testbed import tools

pytestmark = pytest.mark.real

HERE = Path(__file__).parent
EXAMPLES = sorted(path for path in (HERE / "backup_examples").iterdir() if path.is_dir())
READER = ["pyrage==1.4.0", "pynacl==1.6.2", "zstandard==0.25.0", "blake3==1.0.11"]
DIGEST = """import sys
from blake3 import blake3
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        print(blake3(file.read()).hexdigest())
"""


@pytest.fixture(scope="session")
def python() -> str:
    """An interpreter with the reader's four packages, and none of ours."""
    return str(tools.packages("backup-reader", READER) / "bin/python")


def read(python: str, repo: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the reader."""
    words = [python, HERE / "backup_reader.py", repo, "--identity", HERE / "backup_examples/identity.txt"]
    return subprocess.run(
        [str(word) for word in [*words, *arguments]], capture_output=True, text=True, check=False
    )


def digests(python: str, *paths: Path) -> list[str]:
    """The BLAKE3 of files."""
    argv = [python, "-c", DIGEST, *map(str, paths)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


def expected(example: Path) -> dict:
    """What was written down when the example was made."""
    return json.loads((example / "expected.json").read_text())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_position_of_an_example_restores(python: str, example: Path, tmp_path: Path) -> None:
    said = expected(example)
    assert len(said["positions"]) > 5
    for place in said["positions"]:
        chain, position = place.split(":")
        out = tmp_path / position
        where = ["--chain", chain, "--host-key", said["host"], "--position", position]
        done = read(python, example / "repo", *where, "-o", out)
        assert done.returncode == 0, done.stderr
    outs = [tmp_path / place.split(":")[1] for place in said["positions"]]
    assert digests(python, *outs) == list(said["positions"].values())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_media_of_an_example_restore(python: str, example: Path, tmp_path: Path) -> None:
    said = expected(example)
    assert said["media"]
    for number, (one, files) in enumerate(said["media"].items()):
        out = tmp_path / str(number)
        where = ["--host-key", said["host"], "--media", said["set"], "--list", one]
        done = read(python, example / "repo", *where, "-o", out)
        assert done.returncode == 0, done.stderr
        assert digests(python, *(out / path for path in files)) == list(files.values())


@pytest.mark.parametrize("seed", range(12))
def test_a_byte_that_changed_is_refused(python: str, seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    example = chance.choice(EXAMPLES)
    repo = tmp_path / "repo"
    shutil.copytree(example / "repo", repo)
    place = chance.choice(list(expected(example)["positions"]))
    chain, position = place.split(":")
    # An object without which there is no way: all that is there, with one byte changed in each.
    for path in (repo / chain).glob("L*/*"):
        content = bytearray(path.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
    done = read(python, repo, "--chain", chain, "--position", position, "-o", tmp_path / "out")
    assert (done.returncode, done.stderr.startswith("refused: ")) == (1, True), done.stderr
    assert not (tmp_path / "out").exists()


def test_another_host_is_refused(python: str, tmp_path: Path) -> None:
    done = read(python, EXAMPLES[0] / "repo", "--host-key", "00" * 32, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "another host" in done.stderr
