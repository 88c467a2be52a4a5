"""Free ports on the loopback address."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"

# Below the range from which systems take the ports of outgoing connections: while a server is down, no client can be
# given its port, nor connect to itself by chance.
_LOWEST, _HIGHEST = 20_000, 32_000
_given_out: set[int] = set()
"""A port is bound long after it was chosen: so none is given twice by one process."""


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port that was free a moment ago; another process may still be quicker."""
    chooser = random.SystemRandom()
    for _ in range(1000):
        port = chooser.randrange(_LOWEST, _HIGHEST)
        if port not in _given_out and is_free(port):
            _given_out.add(port)
            return port
    raise OSError("no free port between 20000 and 32000")
