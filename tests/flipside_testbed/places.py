"""Where things lie: the checkout, the cache of installed tools, and the folders of a testbed.

Nothing of a testbed lies below the checkout or a home folder: apps run as users of their own, who must be
able to walk to their files, and /root is closed to them.
"""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def is_root() -> bool:
    """Whether apps can get system users of their own here."""
    return os.geteuid() == 0


def cache() -> Path:
    """The folder of installed tools; readable by all when it is root's."""
    if is_root():
        return Path("/var/cache/flipside")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "flipside"


def testbed_root(kind: str) -> Path:
    """`/var/tmp/flipside-<kind>-<uid>-<hash of the checkout's path>`: short, for paths of sockets have 107
    bytes."""
    digest = hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]
    return Path("/var/tmp") / f"flipside-{kind}-{os.geteuid()}-{digest}"


class Ports:
    """Hands out ports of the loopback that are free now, upwards from a base that the folder's name gives.

    Below the range from which the kernel takes ports for outgoing connections, so that none is taken
    meanwhile.
    """

    def __init__(self, root: Path) -> None:
        self._next = 26000 + int(hashlib.sha256(str(root).encode()).hexdigest(), 16) % 90 * 11

    def free(self) -> int:
        """The next free port."""
        while True:
            port, self._next = self._next, self._next + 1
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
