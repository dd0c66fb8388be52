"""A port of a machine, as the node has it: taken by a lock, and left by closing it."""

from __future__ import annotations

import fcntl
import os
import socket
from typing import TYPE_CHECKING

from sampan.vm.frames import PIECE, Splitter, read_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Self


class Port:
    """Connected to one port of the machine in `directory`. Raises BlockingIOError: it is taken."""

    def __init__(self, directory: str, number: int) -> None:
        self._home = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._lock = os.open(f"lock{number}", flags, 0o600, dir_fd=self._home)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.connect(f"/proc/self/fd/{self._home}/port{number}")  # short, whatever it is
        except OSError:
            os.close(self._lock)
            raise
        finally:
            os.close(self._home)
        self.splitter = Splitter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        os.close(self._lock)


def take(directory: str, count: int) -> Port:
    """A port that is free; not the same again and again. Raises OSError when all are taken."""
    first = int.from_bytes(os.urandom(2), "big")
    for number in _turn(first % count, count):
        try:
            return Port(directory, number)
        except BlockingIOError:
            continue
    raise OSError(11, f"all {count} ports of the machine are taken by processes")


def _turn(first: int, count: int) -> Iterator[int]:
    for number in range(count):
        yield (first + number) % count


def say_and_hear(
    port: Port, frame: bytes, look: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Send a call, and wait for its answer; nothing else is said meanwhile. `look` is called as
    often as the socket's time is over.

    Raises:
        OSError: it was refused, or the machine is gone.
    """
    port.sock.sendall(frame)
    while data := _next(port, look):
        for letter, content in port.splitter.feed(data):
            if letter != "R":
                raise OSError(71, f"unexpected frame {letter!r}")
            answer = read_document(content)
            if "error" in answer:
                raise OSError(int(answer.get("errno") or 5), str(answer["error"]))
            return answer
    raise OSError(5, "the machine has ended")


def _next(port: Port, look: Callable[[], None]) -> bytes:
    while True:
        try:
            return port.sock.recv(PIECE)
        except TimeoutError:
            look()
