"""A way to a PostgreSQL server that a test or a benchmark may cut, and that leads to where the server is now.

In: a port. Out: a port of its own, whose connections end when it is cut.
"""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """A way to a server on 127.0.0.1 that may be cut.

    Args:
        target: The server's port.
        tells_server: Whether the server learns of a connection that is cut. Else its session lives on.

    Attributes:
        target: The server's port.
        port: Its own.
        is_cut: Whether it is cut now.
        accepted: Connections that it has taken, and cut.
    """

    def __init__(self, target: int, *, tells_server: bool = True) -> None:
        self.target = target
        self.is_cut = False
        self.accepted = 0
        self._tells_server = tells_server  # else it never learns that a client is gone
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._clients: list[socket.socket] = []
        self._servers: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        """End all connections, and let none be made until `is_cut` is False."""
        self.is_cut = True
        for each in [*self._clients, *(self._servers if self._tells_server else ())]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        self._tells_server = True
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._clients, *self._servers):
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._clients.append(client)
                self.accepted += 1
                if self.is_cut:
                    client.shutdown(socket.SHUT_RDWR)
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self.target))
                except ConnectionRefusedError:
                    client.shutdown(socket.SHUT_RDWR)
                    continue
                self._servers.append(server)
                for pair in ((client, server), (server, client)):
                    thread = threading.Thread(target=self._pass_on, args=pair)
                    self._threads.append(thread)
                    thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        if self._tells_server or target in self._clients:
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)
