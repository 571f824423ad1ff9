"""Ports for servers that cannot be given port 0."""

from __future__ import annotations

import random
import socket
from pathlib import Path

__all__ = ["free_port"]

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """Return a port that is free, below those that the system gives to clients.

    One of the system's own could be taken by any connection before the server binds it: the tests
    of other processes make thousands.
    """
    first = int(RANGE.read_text().split()[0]) if RANGE.exists() else 32_768
    while True:
        port = random.SystemRandom().randrange(min(10_000, first - 1_000), first)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
