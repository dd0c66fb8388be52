"""A process on the node that stands for one in the machine: it says what that one says, is told
what it is told, and ends as it ends.

Signals that reach it go on to the other; killed, it closes the port, and the agent kills the other.
Its container's verbs (start, kill) come through a socket in the bundle.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from json import dumps
from typing import TYPE_CHECKING

from sampan.kernel import terminal
from sampan.kernel.signals import signal_fd
from sampan.vm.frames import PIECE, document, pack, read_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.vm.port import Port

CONTROL = "control.sock"
MAX_PENDING = 1 << 20
_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


class StandIn:
    """The relay between descriptors 0, 1 and 2 and a port whose process is made."""

    def __init__(self, port: Port, *, terminal: bool, control: socket.socket | None) -> None:
        self._port, self._terminal, self._control = port, terminal, control
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._pending = bytearray()
        self._asking: socket.socket | None = None
        self._code: int | None = None

    def run(self) -> int:
        """Until the process has ended; its code. That of a killed one when the machine ends."""
        self._port.sock.setblocking(False)
        self._watch(self._port.sock.fileno(), self._port_ready, select.EPOLLIN)
        self._watch_stdin()
        for number in _SIGNALS:
            self._watch_signal(number, document("S", sig=int(number)))
        if self._terminal:
            self._watch_size()
        if self._control is not None:
            self._watch(self._control.fileno(), self._asked, select.EPOLLIN)
        self._hear(b"")  # what came with the answer to the call
        while self._code is None:
            for fd, events in self._poll.poll():
                handler = self._handlers.get(fd)
                if handler is not None and self._code is None:
                    handler(events)
        return self._code

    def _watch(self, fd: int, handler: Callable[[int], None], events: int) -> None:
        self._poll.register(fd, events)
        self._handlers[fd] = handler

    def _watch_stdin(self) -> None:
        try:
            self._watch(0, self._stdin_ready, select.EPOLLIN)
        except PermissionError:  # a file, or /dev/null: it ends at once
            self._send(pack("E"))

    def _watch_signal(self, number: int, frame: bytes) -> None:
        fd = signal_fd(number)

        def ready(_events: int) -> None:
            os.read(fd, 128)
            self._send(frame)

        self._watch(fd, ready, select.EPOLLIN)

    def _watch_size(self) -> None:
        fd = signal_fd(signal.SIGWINCH)

        def ready(_events: int) -> None:
            os.read(fd, 128)
            height, width = terminal.get_size(0)
            self._send(document("W", height=height, width=width))

        self._watch(fd, ready, select.EPOLLIN)
        ready_now = terminal.get_size(0)
        if any(ready_now):
            self._send(document("W", height=ready_now[0], width=ready_now[1]))

    # node to machine

    def _stdin_ready(self, _events: int) -> None:
        try:
            data = os.read(0, PIECE)
        except OSError:
            data = b""
        if data:
            self._send(pack("I", data))
            return
        self._poll.unregister(0)
        del self._handlers[0]
        self._send(pack("E"))

    def _send(self, data: bytes) -> None:
        self._pending += data
        self._flush()

    def _flush(self) -> None:
        while self._pending:
            try:
                sent = self._port.sock.send(self._pending[:PIECE])
            except BlockingIOError:
                break
            except OSError:
                return  # its end is about to be read
            del self._pending[:sent]
        out = select.EPOLLOUT if self._pending else 0
        self._poll.modify(self._port.sock.fileno(), select.EPOLLIN | out)
        if 0 in self._handlers:
            full = len(self._pending) > MAX_PENDING
            self._poll.modify(0, 0 if full else select.EPOLLIN)

    # machine to node

    def _port_ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if not events & ~select.EPOLLOUT:
            return
        try:
            data = self._port.sock.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._code = 137  # the machine has ended
            return
        self._hear(data)

    def _hear(self, data: bytes) -> None:
        for letter, content in self._port.splitter.feed(data):
            self._heard(letter, content)

    def _heard(self, letter: str, content: bytes) -> None:
        if letter in ("O", "X"):
            _write(1 if letter == "O" else 2, content)
        elif letter == "Q":
            self._code = int(read_document(content)["code"])
        elif letter == "R" and self._asking is not None:
            self._asking.send(content)
            self._asking.close()
            self._asking = None

    # the container's verbs

    def _asked(self, _events: int) -> None:
        assert self._control is not None
        asking, _ = self._control.accept()
        call = read_document(asking.recv(PIECE))
        if call["op"] == "kill":
            self._send(document("S", sig=int(call["sig"])))
            asking.send(b"{}")
            asking.close()
        else:
            self._asking = asking
            self._send(document("C", op="start"))


def ask(**call: object) -> dict[str, object]:
    """Say a verb to the stand-in of the container in the current directory.

    Raises:
        OSError: it is gone, or what it was told failed.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(CONTROL)
        sock.send(dumps(call).encode())
        answer = sock.recv(PIECE)
    if not answer:
        raise OSError(3, "the process has ended")
    found = read_document(answer)
    if "error" in found:
        raise OSError(int(found.get("errno") or 5), str(found["error"]))
    return found


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except OSError:
            return  # nobody listens any more
