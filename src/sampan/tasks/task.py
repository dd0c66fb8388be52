"""The engine's client of one shim: requests and replies, events, descriptors.

One SEQPACKET socket, read by the event loop; no thread. Each message is one JSON object. A request
carries `re`, a number that its reply repeats; a message with `event` is news. News are handed to
`on_event` in the order in which they came, before `on_gone` says that the shim is no more. Records
on disk are the truth: whoever hears `on_gone` without having heard an exit reads `exit.json`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from sampan.errors import DeadlineExceeded, InvalidArgument, SampanError, Unavailable
from sampan.kernel import fds, identity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Handler = Callable[[dict[str, Any]], None]

MAX_MESSAGE = 1 << 20
"""Bytes of one message from a shim."""

_PLAIN_MESSAGE = 100_000
"""Bytes that fit into a socket's buffer as the kernel makes it (212,992 with its bookkeeping)."""

SO_SNDBUFFORCE = 32  # asm-generic/socket.h; past the system's ceiling, for root

PATIENCE = 30.0
"""Seconds until a request that the shim does not answer is given up."""

encode = msgspec.json.encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class TaskFailure(SampanError):
    """The shim tried and could not; `errno` and `operation` say what the kernel refused."""

    def __init__(self, message: str, number: int = 0, operation: str = "") -> None:
        super().__init__(message)
        self.errno = number
        self.operation = operation


class Task:
    """One shim, as long as it lives."""

    __slots__ = (
        "_loop",
        "_next",
        "_on_event",
        "_on_gone",
        "_outbox",
        "_pending",
        "_sock",
    )

    def __init__(
        self, sock: socket.socket | None, on_event: Handler, on_gone: Callable[[], None]
    ) -> None:
        self._sock: socket.socket | None = None
        self._loop = asyncio.get_running_loop()
        self._on_event = on_event
        self._on_gone = on_gone
        self._next = 1
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._outbox: deque[tuple[bytes, tuple[int, ...]]] = deque()
        if sock is not None:
            self._listen(sock)

    def _listen(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def is_open(self) -> bool:
        """Whether the shim can be spoken to."""
        return self._sock is not None

    async def call(
        self, op: str, passed: Sequence[int] = (), *, patience: float = PATIENCE, **fields: Any
    ) -> dict[str, Any]:
        """Ask the shim and wait for its answer; `passed` descriptors stay the caller's.

        Raises:
            TaskFailure: it answered with an error.
            Unavailable: it is gone.
            DeadlineExceeded: it did not answer in time.
        """
        if self._sock is None:
            raise Unavailable(f"{op}: the monitor of the container is gone")
        number = self._next
        self._next += 1
        reply: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._pending[number] = reply
        timer = self._loop.call_later(patience, _give_up, reply)
        try:
            self._send(encode({"re": number, "op": op, **fields}), tuple(passed))
            answer = await reply
        except TimeoutError as error:
            raise DeadlineExceeded(f"{op}: the monitor did not answer in {patience} s") from error
        finally:
            timer.cancel()
            self._pending.pop(number, None)
        if "error" in answer:
            raise TaskFailure(answer["error"], answer.get("errno", 0), answer.get("operation", ""))
        return answer

    def close(self) -> None:
        """Stop listening, without `on_gone`. The shim lives on."""
        if self._sock is None:
            return
        self._loop.remove_reader(self._sock.fileno())
        if self._outbox:
            self._loop.remove_writer(self._sock.fileno())
            self._drop_outbox()
        self._sock.close()
        self._sock = None
        for reply in self._pending.values():
            if not reply.done():
                reply.set_exception(Unavailable("the monitor of the container is gone"))

    def _send(self, message: bytes, passed: tuple[int, ...]) -> None:
        assert self._sock is not None
        if self._outbox:
            self._queue(message, passed)
            return
        if len(message) > _PLAIN_MESSAGE:
            _make_room(self._sock, message)
        try:
            fds.send(self._sock, message, passed)
        except BlockingIOError:
            self._queue(message, passed)
            self._loop.add_writer(self._sock.fileno(), self._flush)
        except OSError as error:
            raise Unavailable(f"the monitor of the container is gone: {error}") from error

    def _queue(self, message: bytes, passed: tuple[int, ...]) -> None:
        # With descriptors of its own: the caller may be cancelled and close its.
        self._outbox.append((message, tuple(os.dup(fd) for fd in passed)))

    def _drop_outbox(self) -> None:
        for _, passed in self._outbox:
            fds.close_all(list(passed))
        self._outbox.clear()

    def _flush(self) -> None:
        assert self._sock is not None
        try:
            while self._outbox:
                fds.send(self._sock, *self._outbox[0])
                fds.close_all(list(self._outbox.popleft()[1]))
        except BlockingIOError:
            return
        except OSError:
            self._drop_outbox()  # the end of file that follows fails the callers
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        # One message per wake-up: other connections have their turn between two of a busy shim.
        assert self._sock is not None
        try:
            message, strays = fds.receive(self._sock, MAX_MESSAGE)
        except (BlockingIOError, ConnectionResetError):
            # A reset says that the shim went without reading all of ours. It is told once, and
            # what the shim had said before is still to be read, then the end.
            return
        except OSError:
            message, strays = b"", []
        fds.close_all(strays)
        if not message:
            self.close()
            self._on_gone()
            return
        self._dispatch(message)

    def _dispatch(self, message: bytes) -> None:
        content = _decode(message)
        number = content.get("re")
        if number is None:
            self._on_event(content)
            return
        reply = self._pending.get(number)
        if reply is not None and not reply.done():
            reply.set_result(content)


def _give_up(reply: asyncio.Future[dict[str, Any]]) -> None:
    if not reply.done():
        reply.set_exception(TimeoutError())


def open_socket(directory: str) -> socket.socket:
    """Connect to the shim that listens in `directory`.

    Raises:
        OSError: nobody does any more.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Through the descriptor, for the path may be longer than the 107 bytes of an address.
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{fd}/shim.sock")
    except OSError:
        sock.close()
        raise
    finally:
        os.close(fd)
    return sock


def _make_room(sock: socket.socket, message: bytes) -> None:
    """See to it that one large message fits into the socket's buffer."""
    if len(message) > MAX_MESSAGE:
        raise InvalidArgument(
            f"the request has {len(message)} bytes, more than {MAX_MESSAGE} for the monitor"
        )
    sock.setsockopt(socket.SOL_SOCKET, send_buffer_option(), MAX_MESSAGE)


def send_buffer_option() -> int:
    """The option that sets a send buffer: for root beyond the system's ceiling."""
    return socket.SO_SNDBUF if identity.is_unprivileged() else SO_SNDBUFFORCE
