"""A server that answers with exactly the bytes it is told to, for replies no decent server sends."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable

Script = Callable[[socket.socket], None]


class RawServer:
    """Accepts on a free loopback port and runs `script` on each connection in its own thread."""

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.requests: list[bytes] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                if self._context is not None:
                    connection = self._context.wrap_socket(connection, server_side=True)
                self._script(connection)
            except OSError:
                pass
            finally:
                connection.close()

    def read_head(self, connection: socket.socket) -> bytes:
        """Read one request's head and remember it."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65_536)
            if not piece:
                break
            data += piece
        self.requests.append(data)
        return data

    def close(self) -> None:
        """Stop accepting and wait for what runs."""
        self.stopping.set()
        # A blocked accept() does not notice close() on every system.
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        for thread in self._threads:
            thread.join(5)


def reset(connection: socket.socket) -> None:
    """Close with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
