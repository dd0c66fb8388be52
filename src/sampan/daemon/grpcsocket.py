"""The socket of a gRPC interface, and the server that is made when it is needed.

A node without a kubelet and without clients of containerd should not pay for gRPC. So the daemon
listens itself, and at the first connection makes the server under another name, which then takes
the socket's place. Connections that came before are passed on, and their clients are told behind
the first answer to make another one for the next call (GOAWAY, RFC 9113 section 6.8).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

from sampan.daemon import sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Protocol

    from sampan.engine.engine import Engine
    from sampan.pods.service import Pods

    class Server(Protocol):
        """What is made of the interface."""

        async def start(self, path: str) -> None: ...
        async def aclose(self) -> None: ...


LONGEST = 103
"""Bytes of a path: 107 of an address (unix(7)), less those of the name that it has at first."""

_PIECE = 1 << 16
_FRAME_HEAD = 9
_HEADERS, _ENDS = 1, 5  # type and flags: all headers are there, and the stream is at its end
_GO_AWAY = bytes.fromhex("000008 07 00 00000000 7fffffff 00000000")
"""A frame of HTTP/2: no call that was made is refused, no other is to be made here, no error."""
_log = logging.getLogger("sampan.daemon")


def kubernetes(pods: Pods) -> Server:
    """The server of the Kubernetes runtime interface."""
    from sampan.api.cri.server import CriServer

    return CriServer(pods)


def containerd(engine: Engine) -> Server:
    """The server of containerd's interface."""
    from sampan.api.containerd.server import ContainerdServer

    return ContainerdServer(engine)


class GrpcSocket:
    """Listens at `path` from `open` on; the server comes with the first client.

    `title` is what the log calls it.
    """

    def __init__(self, make: Callable[[], Server], title: str, path: str, group: str = "") -> None:
        self._make = make
        self._title = title
        self._path = path
        self._group = group
        self._listener: socket.socket | None = None
        self._server: Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_used(self) -> bool:
        """Whether somebody has come."""
        return self._server is not None

    @property
    def is_open(self) -> bool:
        """Whether somebody can come."""
        return self._listener is not None or self._server is not None

    def open(self) -> None:
        """Listen, unless the path is too long for a socket. Raises as `sockets.listen`."""
        if len(os.fsencode(self._path)) > LONGEST:
            _log.warning("%s is not served: %s is too long for a socket", self._title, self._path)
            return
        self._listener = sockets.listen(self._path, self._group)
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._first)

    async def start(self) -> None:
        """Listen, and make the server at once, for who is expected. Raises as `open`."""
        self.open()
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            await self._start()

    async def aclose(self) -> None:
        """Stop listening, end the server. Idempotent."""
        sockets.remove(self._path)
        self._close_listener()
        server, self._server = self._server, None
        if server is not None:
            await server.aclose()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _first(self) -> None:
        assert self._listener is not None
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._spawn(self._start())

    async def _start(self) -> None:
        self._server = self._make()
        fresh = self._path + ".new"
        await self._server.start(fresh)
        gid = sockets.group_id(self._group)
        if gid is not None:
            os.chown(fresh, -1, gid)
        os.chmod(fresh, 0o660)
        os.rename(fresh, self._path)
        self._pass_on()
        _log.info("%s is served on %s", self._title, self._path)

    def _pass_on(self) -> None:
        """Those who connected to our own socket go to the server's."""
        assert self._listener is not None
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                break
            client.setblocking(False)
            self._spawn(self._relay(client))
        self._close_listener()

    async def _relay(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        server = socket.socket(socket.AF_UNIX)
        server.setblocking(False)
        try:
            await loop.sock_connect(server, self._path)
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(client, server))
                group.create_task(_answer(server, client))
        except* (OSError, EOFError):
            pass
        finally:
            client.close()
            server.close()

    def _close_listener(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("%s: %s", self._title, task.exception())


async def _answer(server: socket.socket, client: socket.socket) -> None:
    """What the server says, and behind the end of the first call that the client should go away.

    Not at once: a client that is told so while it connects (gRPC's own, in C) tries without end.
    """
    loop = asyncio.get_running_loop()
    is_answered = False
    while not is_answered:
        head = await _read(server, _FRAME_HEAD)
        content = await _read(server, int.from_bytes(head[:3]))
        is_answered = head[3] == _HEADERS and head[4] & _ENDS == _ENDS
        await loop.sock_sendall(client, head + content + (_GO_AWAY if is_answered else b""))
    await _copy(server, client)


async def _read(source: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes. Raises EOFError."""
    data = b""
    while len(data) < size:
        piece = await asyncio.get_running_loop().sock_recv(source, size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


async def _copy(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while piece := await loop.sock_recv(source, _PIECE):
        await loop.sock_sendall(target, piece)
    target.shutdown(socket.SHUT_WR)
