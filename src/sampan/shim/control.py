"""The control sockets of a shim: JSON messages with descriptors, to and from any number of engines.

Engine to shim: `{"re":N,"op":...}`. Shim to engine: `{"re":N,"ok":true,...}` or
`{"re":N,"error":TEXT,"errno":N,"operation":TEXT}`, and events `{"event":...}` to all. The socket
that came with the launch is the first connection; a restarted engine connects to `shim.sock` and
is greeted by a `hello` event with the state.

An engine that does not read is dropped once BACKLOG messages wait for it: the records on disk are
the truth, and it can come back. Descriptors that no operation took are closed.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import struct
from json import loads

from sampan.kernel import fds as descriptors
from sampan.shim.exits import encode
from sampan.shim.loop import GONE, IN, OUT, complain

SOCKET = "shim.sock"
BACKLOG = 256
STIRS = select.EPOLLIN | select.EPOLLRDNORM | select.EPOLLET
"""With what a sleeping shim's epoll has a control socket; nothing else there has EPOLLRDNORM."""
DESERTED = select.EPOLLIN | select.EPOLLRDNORM | select.EPOLLHUP
"""What that epoll then tells, once, of a socket whose engine has gone: nothing to wake up for."""
LARGEST = 1024 * 1024
"""Bytes of one message; beyond the kernel's 208 KiB the sender must raise SO_SNDBUF."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.shim.loop import Loop

    Message = dict[str, Any]
    Operation = Callable[["Connection", Message, list[int]], Message | None]


def parse(data: bytes) -> Message:
    """One message.

    Raises:
        ValueError: it is not a JSON object.
    """
    try:
        message = loads(data)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(message, dict):
        raise ValueError("not an object")  # noqa: TRY004  # one error for one meaning
    return message


def failure(error: Exception) -> Message:
    """An error as fields of a message.

    `operation` is empty only where the runtime left it so: when execve itself was refused. The
    engine decides by it whether a command was not found, so any other error names itself.
    """
    if isinstance(error, ValueError):
        return {"error": str(error), "errno": errno.EINVAL, "operation": ""}
    if isinstance(error, (KeyError, TypeError)):
        text = f"invalid message: {type(error).__name__}: {error}"
        return {"error": text, "errno": errno.EINVAL, "operation": ""}
    if not isinstance(error, OSError):
        text = f"{type(error).__name__}: {error}"
        return {"error": text, "errno": errno.EINVAL, "operation": ""}
    operation = getattr(error, "operation", None)
    text = str(error)
    if operation is None and error.strerror:
        where = f" {os.fsdecode(error.filename)}" if error.filename else ""
        text = error.strerror + where
    if operation is None:
        operation = "shim"
    return {"error": text, "errno": error.errno or 0, "operation": str(operation)}


class Connection:
    """One engine."""

    __slots__ = ("_gone", "_loop", "_queue", "_serve", "_sock")

    def __init__(
        self,
        loop: Loop,
        sock: _socket.socket,
        serve: Operation,
        gone: Callable[[Connection], None],
    ) -> None:
        """Own `sock`; `serve` answers messages, `gone` hears of the end."""
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._serve = serve
        self._gone = gone
        self._queue: list[bytes] = []
        loop.add(sock.fileno(), self._ready)

    @property
    def is_flushed(self) -> bool:
        """Whether everything that was sent is with the kernel."""
        return not self._queue

    def send(self, message: Message) -> None:
        """Send, or queue, one message; never blocks and never raises OSError."""
        data = encode(message).encode("ascii")
        if self._queue:
            self._queue.append(data)
            if len(self._queue) > BACKLOG:
                self.close()
            return
        if not self._put(data):
            self._queue.append(data)
            self._loop.change(self._sock.fileno(), IN | OUT)

    def close(self) -> None:
        """Drop the connection."""
        if self._sock.fileno() >= 0:
            self._loop.remove(self._sock.fileno())
            self._sock.close()
            self._queue.clear()
            self._gone(self)

    def _put(self, data: bytes) -> bool:
        """Whether it needs no second attempt."""
        try:
            descriptors.send(self._sock, data)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
        return True

    def _ready(self, events: int) -> None:
        if events & OUT:
            self._flush()
        if events & (IN | GONE) and self._sock.fileno() >= 0:
            self._receive()

    def _flush(self) -> None:
        while self._queue and self._put(self._queue[0]):
            if self._queue:  # empty when the attempt closed the connection
                del self._queue[0]
        if not self._queue and self._sock.fileno() >= 0:
            self._loop.change(self._sock.fileno(), IN)

    def _receive(self) -> None:
        try:
            data, fds = descriptors.receive(self._sock, LARGEST)
        except BlockingIOError:
            return
        except ConnectionResetError:  # gone, without having read everything
            data, fds = b"", []
        except OSError as error:
            complain(f"control: {error}")
            data, fds = b"", []
        try:
            if not data:
                self.close()
                return
            self._answer(data, fds)
        finally:
            descriptors.close_all(fds)

    def _answer(self, data: bytes, fds: list[int]) -> None:
        number: object = None
        try:
            message = parse(data)
            number = message.get("re")
            answer = self._serve(self, message, fds)
        except Exception as error:
            # One of the edges: whatever it is, the engine must not wait for an answer.
            self.send({"re": number, **failure(error)})
        else:
            if answer is not None:
                self.send({"re": number, "ok": True, **answer})


def listen(directory: int) -> int:
    """A listening socket named `shim.sock` in the directory, for its owner alone.

    Raises:
        OSError: the socket could not be made.
    """
    kind = _socket.SOCK_SEQPACKET | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
    sock = _socket.socket(_socket.AF_UNIX, kind, 0)
    _unlink(directory)
    mask = os.umask(0o177)
    # The whole path may be longer than the 107 bytes of an address; the directory is / otherwise,
    # and nothing else runs in this process.
    os.fchdir(directory)
    try:
        sock.bind(SOCKET)
    finally:
        os.umask(mask)
        os.chdir("/")
    sock.listen(8)
    return sock.detach()


def _unlink(directory: int) -> None:
    try:
        os.unlink(SOCKET, dir_fd=directory)
    except FileNotFoundError:
        pass


class Listener:
    """`shim.sock` in the shim's directory, for an engine that was restarted."""

    __slots__ = ("_accepted", "_directory", "_loop", "_sock")

    def __init__(
        self, loop: Loop, fd: int, directory: int, accepted: Callable[[_socket.socket], None]
    ) -> None:
        """Own `fd`, made by `listen`; `accepted` owns the sockets of those who may talk to us."""
        self._loop = loop
        self._directory = directory
        self._accepted = accepted
        self._sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        loop.add(fd, self._ready)

    def close(self) -> None:
        """Stop listening and remove the name."""
        self._loop.remove(self._sock.fileno())
        _unlink(self._directory)
        self._sock.close()

    def _ready(self, _events: int) -> None:
        try:
            fd, _ = self._sock._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        except OSError:  # it went away again, or descriptors are used up
            return
        sock = _socket.socket(-1, -1, -1, fd)
        if peer_uid(sock) in (0, os.geteuid()):
            self._accepted(sock)
        else:
            sock.close()


def peer_uid(sock: _socket.socket) -> int:
    """The user at the other end of a unix socket, as the kernel saw it connect."""
    credentials = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int(struct.unpack("iII", credentials)[1])
