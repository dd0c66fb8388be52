"""An attached peer: one client's stream socket that gets output and may give input.

A peer gets the streams it asked for, raw or in Docker's frames (8 bytes: stream, 0, 0, 0, length
big endian), and reads as fast as it likes: what it has not taken waits in a buffer. When that holds
BOUND bytes the peer is *stuck* and its session stops reading the container, until the peer has
taken half of it. A stuck peer that takes nothing for PATIENCE seconds is dropped.

The socket belongs to the client too (it may be non-blocking or not), so its flags are never
changed: every call says MSG_DONTWAIT.

A peer that must *settle* gets nothing before it has read what was written to its socket before it
was attached, the head of an HTTP answer: a client that reads that through a buffer would lose what
comes with it. A Unix socket knows how much of it is unread, a TCP socket how much is on its way.
"""

from __future__ import annotations

import _socket
import fcntl
from collections import deque
from itertools import islice
from time import monotonic

from sampan.shim.loop import GONE, IN, OUT, RDHUP

BOUND = 1024 * 1024
FAR_BEYOND = 4 * BOUND
"""More than any pipe held when the bound was met; only a drain reads on until then."""
PATIENCE = 10.0
SETTLE = 0.1
"""Seconds at most that output waits for a client to read what came before it."""
DETACH_KEYS = b"\x10\x11"  # ctrl-p, ctrl-q

_SEND = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL
_AT_ONCE = 64
"""Pieces in one sendmsg(2): what waits is neither joined nor moved."""
_CHUNK = 32 * 1024
_LAST_WORDS = 1024 * 1024
_LOOK_AGAIN = 0.0005
_SIOCOUTQ = 0x5411  # as TIOCOUTQ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.shim.loop import Loop
    from sampan.shim.stdio import Session


def adopt(fd: int) -> _socket.socket:
    """A socket object that owns `fd`; family and type are read from the kernel.

    Raises:
        OSError: it is not a socket.
    """
    return _socket.socket(-1, -1, -1, fd)


class Peer:
    """One attached client of a session."""

    __slots__ = (
        "_events",
        "_finishing",
        "_framed",
        "_keys",
        "_loop",
        "_matched",
        "_owed",
        "_parked",
        "_readable",
        "_session",
        "_settled_at",
        "_sock",
        "_streams",
        "_waiting",
        "stuck",
    )

    def __init__(self, loop: Loop, session: Session, fd: int, wish: dict[str, Any]) -> None:
        """Own `fd`; `wish` is an attach entry of the protocol."""
        self._sock = adopt(fd)
        self._loop = loop
        self._session = session
        self._streams = (0, 1 if wish.get("stdout") else 0, 2 if wish.get("stderr") else 0)
        self._framed = wish.get("framing") == "multiplexed"
        self._keys = _detach_keys(wish.get("detach_keys")) if session.terminal else b""
        self._matched = 0
        self._readable = bool(wish.get("stdin")) and session.stdin is not None
        self._waiting: deque[bytes | memoryview] = deque()
        self._owed = 0
        self._finishing = False
        self._parked = False
        self.stuck = False
        self._settled_at = monotonic() + SETTLE if wish.get("settle") else 0.0
        self._events = self._wanted()
        loop.add(fd, self._ready, self._events)

    def deliver(self, stream: int, data: bytes) -> None:
        """Send output of stream 1 or 2, or keep it until the peer takes it."""
        if not self._streams[stream]:
            return
        parts = [bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big")] if self._framed else []
        parts.append(data)
        sent = 0
        if not self._waiting and self._is_settled():
            try:
                sent = self._sock.sendmsg(parts, (), _SEND)
            except BlockingIOError:
                pass
            except OSError:
                self.close()
                return
        self._keep(parts, sent)

    def finish(self) -> None:
        """There is no more to come: close as soon as the peer has taken what it is owed."""
        self._finishing = True
        self._readable = False
        if not self._waiting:
            self.close()
            return
        self._loop.after(self, PATIENCE, self.close)
        self._watch()

    def refresh(self) -> None:
        """The session's stdin has room again, or none any more: look anew at what to wait for."""
        self._watch()

    def close(self) -> None:
        """Drop the peer: the client reads the end of the stream."""
        if self._sock.fileno() < 0:
            return
        self._loop.cancel(self)
        self._loop.remove(self._sock.fileno())
        try:
            # The engine may hold a copy, so the end is said aloud. Input nobody read would turn it
            # into a connection reset, therefore it is taken off.
            self._sock.shutdown(_socket.SHUT_WR)
            for _ in range(_LAST_WORDS // _CHUNK):
                if not self._sock.recv(_CHUNK, _socket.MSG_DONTWAIT):
                    break
        except OSError:
            pass
        self._sock.close()
        self._session.left(self)

    def _is_settled(self) -> bool:
        """Whether the client has read what came before us, or was waited for long enough."""
        if self._settled_at:
            if _unread(self._sock) and monotonic() < self._settled_at:
                self._loop.after(self._is_settled, _LOOK_AGAIN, self._settle)
                return False
            self._settled_at = 0.0
        return True

    def _settle(self) -> None:
        if self._sock.fileno() >= 0 and self._is_settled():
            self._watch()

    def _keep(self, parts: list[bytes], sent: int) -> None:
        for part in parts:
            if sent < len(part):
                self._waiting.append(memoryview(part)[sent:] if sent else part)
                self._owed += len(part) - sent
            sent = max(0, sent - len(part))
        if not self._waiting:
            return
        self._watch()
        if self._owed > FAR_BEYOND:
            self.close()
        elif not self.stuck and self._owed >= BOUND:
            self.stuck = True
            self._loop.after(self, PATIENCE, self.close)

    def _ready(self, events: int) -> None:
        if events & OUT:
            self._flush()
        if self._sock.fileno() < 0:
            return
        if self._readable and self._session.takes_input and events & (IN | RDHUP | GONE):
            self._read()
        elif events & GONE:
            self._gone()

    def _gone(self) -> None:
        """The client is away in both directions; what it gave before still counts."""
        if self._readable and self._session.can_take_input:
            self._parked = True
            self._loop.remove(self._sock.fileno())
        else:
            self.close()

    def _flush(self) -> None:
        waiting = self._waiting
        try:
            sent = self._sock.sendmsg(list(islice(waiting, _AT_ONCE)), (), _SEND)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._owed -= sent
        while waiting and sent >= len(waiting[0]):
            sent -= len(waiting.popleft())
        if sent:
            waiting[0] = memoryview(waiting[0])[sent:]
        if not waiting:
            if self._finishing:
                self.close()
                return
            self._watch()
        if self._finishing:
            self._loop.after(self, PATIENCE, self.close)
        elif self.stuck:
            self._unstick()

    def _unstick(self) -> None:
        if self._owed > BOUND // 2:
            self._loop.after(self, PATIENCE, self.close)
            return
        self.stuck = False
        self._loop.cancel(self)
        self._session.resume()

    def _read(self) -> None:
        try:
            data = self._sock.recv(_CHUNK, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            # Half-closed, or all gone: then the next EPOLLHUP closes it.
            self._lose_input()
            self._watch()
            return
        rest, detached = self._without_keys(data) if self._keys else (data, False)
        if rest:
            self._session.give(rest)
        if detached:
            self.close()

    def _lose_input(self) -> None:
        if self._readable:
            self._readable = False
            self._session.input_ended()

    def _without_keys(self, data: bytes) -> tuple[bytes, bool]:
        """Input up to the detach sequence, and whether it came. A begun sequence is held back."""
        keys, out = self._keys, bytearray()
        for code in data:
            if code == keys[self._matched]:
                self._matched += 1
                if self._matched == len(keys):
                    return bytes(out), True
                continue
            out += keys[: self._matched]
            self._matched = 1 if code == keys[0] else 0
            if not self._matched:
                out.append(code)
        return bytes(out), False

    def _wanted(self) -> int:
        events = OUT if self._waiting and not self._settled_at else 0
        if self._readable and self._session.takes_input:
            events |= IN | RDHUP
        return events

    def _watch(self) -> None:
        if self._sock.fileno() < 0:
            return
        events = self._wanted()
        if self._parked:
            # Parked means hung up: only room for its input, or the end, brings it back.
            if events & IN or not self._readable or not self._session.can_take_input:
                self._parked = False
                self._events = events
                self._loop.add(self._sock.fileno(), self._ready, events)
        elif events != self._events:
            self._events = events
            self._loop.change(self._sock.fileno(), events)


def _unread(sock: _socket.socket) -> bool:
    """Whether something that was written is still to be read. Not known: no."""
    try:
        return any(fcntl.ioctl(sock.fileno(), _SIOCOUTQ, bytes(4)))
    except OSError:
        return False


def _detach_keys(given: str | list[int] | None) -> bytes:
    """The sequence of an attach entry: a list of codes, or the same as "16,17"."""
    codes = given.split(",") if isinstance(given, str) and given else given
    return bytes(int(code) for code in codes) if codes else DETACH_KEYS
