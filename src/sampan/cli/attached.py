"""Copies between the user's streams and a container's, until the container's end.

One poll loop: the connection, standard input when it is attached, and a wakeup descriptor for
signals. Bytes for a container that does not read wait here, and standard input is not read
meanwhile; output is copied all the same. Without a terminal, signals are passed on to the container
(`proxy`); with one, its keys do that, and the loop only follows its size (`resized`).

The end of standard input closes our half of the connection. The daemon watches for the detach keys;
the loop only remembers whether they were typed last, to tell a detach from an end.
"""

from __future__ import annotations

import _signal
import _socket
import os
import select

from sampan.cli.session import write
from sampan.client.streams import STDERR, SYSTEM_ERROR, Frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

_PIECE = 65536
_PROXIED = (
    _signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGUSR1,
    _signal.SIGUSR2, _signal.SIGCONT, _signal.SIGTSTP,
)  # fmt: skip
_NAMES = {
    getattr(_signal, "SIG" + name): name
    for name in "HUP INT QUIT TERM USR1 USR2 CONT TSTP WINCH".split()
}
DEFAULT_DETACH_KEYS = b"\x10\x11"


def parse_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` or `a,ctrl-]` as the bytes that are typed; the default for an empty text."""
    if not text:
        return DEFAULT_DETACH_KEYS
    keys = bytearray()
    for word in text.split(","):
        letter = word.removeprefix("ctrl-")
        if len(letter) != 1:
            raise ValueError(f"Unknown character: '{word}'")
        keys.append(ord(letter.upper()) ^ 0x40 if word.startswith("ctrl-") else ord(letter))
    return bytes(keys)


class Signals:
    """A with-block in which signals arrive as bytes of a descriptor."""

    def __init__(self, wanted: tuple[int, ...]) -> None:
        self._wanted = wanted
        self._before: dict[int, object] = {}
        self._read = self._write = -1

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        _signal.set_wakeup_fd(self._write)
        for number in self._wanted:
            self._before[number] = _signal.signal(number, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            _signal.signal(number, handler)
        _signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        """For poll."""
        return self._read

    def taken(self) -> list[str]:
        """The names of the signals that came: INT, TERM."""
        try:
            return [_NAMES[number] for number in os.read(self._read, 512) if number in _NAMES]
        except BlockingIOError:
            return []


def proxied(*, tty: bool) -> Signals:
    """The signals to take while attached: all that a container may want, or the size's only."""
    return Signals((_signal.SIGWINCH,) if tty else _PROXIED)


class Copy:
    """One attached connection and what is copied through it."""

    def __init__(
        self,
        connection: _socket.socket,
        first: bytes,
        *,
        framed: bool,
        stdin: bool,
        keys: bytes = DEFAULT_DETACH_KEYS,
    ) -> None:
        self._socket = connection
        self._frames = Frames() if framed else None
        self._stdin = stdin
        self._keys = keys
        self._typed = b""
        self._pending = b""
        self._closing = False
        self._output(first)
        connection.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def may_be_detached(self) -> bool:
        """The detach keys were the last that was typed."""
        return bool(self._typed) and self._typed == self._keys

    def run(self, signals: Signals, on_signal: Callable[[str], None]) -> None:
        """Copy until the connection ends."""
        while True:
            ready = self._wait(signals)
            if signals.fileno() in ready:
                for name in signals.taken():
                    on_signal(name)
            if 0 in ready:
                self._read_stdin()
            events = ready.get(self._socket.fileno(), 0)
            if events & select.POLLOUT:
                self._send(b"")
            if events & ~select.POLLOUT and not self._receive():
                return

    def _wait(self, signals: Signals) -> dict[int, int]:
        poll = select.poll()
        poll.register(signals.fileno(), select.POLLIN)
        sending = select.POLLOUT if self._pending else 0
        poll.register(self._socket.fileno(), select.POLLIN | sending)
        if self._stdin and not self._pending:
            poll.register(0, select.POLLIN)
        return dict(poll.poll())

    def _read_stdin(self) -> None:
        try:
            data = os.read(0, _PIECE)
        except OSError:
            data = b""
        if data:
            self._typed = (self._typed + data)[-len(self._keys) :]
            self._send(data)
            return
        self._stdin, self._closing = False, True
        self._send(b"")

    def _send(self, data: bytes) -> None:
        self._pending += data
        try:
            while self._pending:
                self._pending = self._pending[self._socket.send(self._pending) :]
            if self._closing:
                self._closing = False
                self._socket.shutdown(_socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            self._pending = b""  # the container does not read any more: what it says still comes

    def _receive(self) -> bool:
        try:
            data = self._socket.recv(_PIECE)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._output(data)
        return bool(data)

    def _output(self, data: bytes) -> None:
        if self._frames is None:
            write(1, data)
            return
        for stream, payload in self._frames.feed(data):
            write(2 if stream in (STDERR, SYSTEM_ERROR) else 1, payload)
