"""A scripted daemon on a unix socket: it answers what it was told to, and remembers what came.

An exchange is (method, path as it begins, answer); the answer is bytes to send as they are, or a
function that is given the connection. Exchanges may be used any number of times, first match first.
`replay` makes them of a recording of docker's.
"""

from __future__ import annotations

import json
import pathlib
import socket
import threading
from typing import Any, Self

RECORDINGS = pathlib.Path(__file__).parent.parent / "cli" / "recordings"


def answer(document: Any = None, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """A whole response; text is sent as it is, anything else as JSON."""
    if status.startswith(("204", "304")):
        return f"HTTP/1.1 {status}\r\n\r\n".encode()
    text = document if isinstance(document, str) else json.dumps(document)
    body = text.encode("latin-1")
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def upgraded(body: bytes, kind: str = "application/vnd.docker.multiplexed-stream") -> bytes:
    """A connection that is handed over, with its first bytes."""
    head = (
        f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {kind}\r\n"
        "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )
    return head.encode() + body


def frame(stream: int, data: bytes) -> bytes:
    """One multiplexed frame."""
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


class FakeDaemon:
    """Listens until the with-block ends. `requests` is what came: (method, path, body)."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.path = str(directory / "d.sock")
        self.script: list[tuple[str, str, Any]] = []
        self.requests: list[tuple[str, str, bytes]] = []
        self.connections = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def on(self, method: str, path: str, reply: Any) -> None:
        """Answer requests whose path begins so."""
        self.script.append((method, path, reply))

    def replay(self, name: str) -> None:
        """Answer as docker did in a recording."""
        for exchange in json.loads((RECORDINGS / f"{name}.json").read_text()):
            request, response = exchange["request"], exchange["response"]
            path = request["path"].removeprefix("/v1.50").partition("?")[0].replace("%2F", "/")
            if response["status"].startswith("101"):
                reply = upgraded((response["body"] or "").encode("latin-1"), response["type"])
            else:
                reply = answer(response["body"], response["status"], response["type"])
            self.on(request["method"], path, reply)

    def body_of(self, method: str, path: str) -> Any:
        """The JSON of the first request whose path begins so."""
        for had, where, body in self.requests:
            if had == method and where.startswith(path):
                return json.loads(body)
        raise AssertionError(f"no {method} {path} among {self.requests}")

    @property
    def calls(self) -> list[str]:
        """Method and path of every request, in order."""
        return [f"{method} {path}" for method, path, _ in self.requests]

    def __enter__(self) -> Self:
        self._listener.bind(self.path)
        self._listener.listen(16)
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(5)
        for connection in self._open:
            connection.close()

    def _spawn(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            try:
                while self._one(connection, stream):
                    pass
            except (OSError, ValueError):
                return

    def _one(self, connection: socket.socket, stream: Any) -> bool:
        line = stream.readline()
        if not line:
            return False
        method, path, _ = line.decode().split()
        headers = {}
        while header := stream.readline().strip():
            name, _, value = header.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = self._body(stream, headers)
        path = path.removeprefix("/v1.50")
        self.requests.append((method, path, body))
        plain = path.partition("?")[0].replace("%2F", "/")
        for had, where, reply in self.script:
            if had == method and (plain == where or path.startswith(where)):
                if callable(reply):
                    return bool(reply(connection))
                connection.sendall(reply)
                if reply.startswith(b"HTTP/1.1 101"):
                    connection.shutdown(socket.SHUT_WR)
                    return False
                return True
        connection.sendall(answer({"message": f"page not found: {path}"}, "404 Not Found"))
        return True

    def _body(self, stream: Any, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return bytes(stream.read(int(headers.get("content-length", 0))))
        parts = []
        while size := int(stream.readline(), 16):
            parts.append(stream.read(size))
            stream.readline()
        stream.readline()
        return b"".join(parts)
