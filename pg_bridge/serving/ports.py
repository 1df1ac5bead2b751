"""A TCP port for a server that is about to start.

In: nothing. Out: a number. The server itself binds it, a moment or half a minute later: until then nothing holds it.
"""

from __future__ import annotations

import random
import socket

# Below what systems give to outgoing connections and to those who ask for any port (Linux from 32768, others from
# 49152): of those, any process may get ours before the server that it is for has bound it.
PORTS = range(10_000, 32_000)


def free_port() -> int:
    """Return a port on which nothing listens on this machine's loopback.

    Raises:
        OSError: A hundred ports were tried, and each is taken.
    """
    draw = random.SystemRandom()
    for _ in range(100):
        port = draw.choice(PORTS)
        if not port_is_taken("127.0.0.1", port):
            return port
    raise OSError(f"a hundred ports from {PORTS.start} to {PORTS.stop - 1} were tried, and each is taken")


def port_is_taken(host: str, port: int) -> bool:
    """Say whether a server could not listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: a port whose last connections still linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False
