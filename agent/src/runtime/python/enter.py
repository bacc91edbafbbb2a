"""The first process of a container: takes the app's listener and log over from the host, and becomes uWSGI.

Docker hands no descriptor to a container, but a UNIX socket does: the one at the path in the first argument is
open for this very process, once. The rest of the arguments is what to become.
"""

from __future__ import annotations

import os
import socket
import sys

PATIENCE_SECONDS = 30
# Where systemd's protocol for handing over sockets puts the first.
LISTENER = 3


def main() -> None:
    """Does not return."""
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(PATIENCE_SECONDS)
        door.connect(sys.argv[1])
        _, descriptors, _, _ = socket.recv_fds(door, 1, 2)
    listener, log = descriptors
    for stream in (1, 2):
        os.dup2(log, stream)
    if listener == LISTENER:
        os.set_inheritable(listener, True)
    else:
        os.dup2(listener, LISTENER)
    for descriptor in {listener, log} - {LISTENER}:
        os.close(descriptor)
    os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"] = "1", str(os.getpid())
    os.execv(sys.argv[2], sys.argv[2:])


main()
