"""The user's terminal: raw mode, its size, and its size again when it changes.

Imported only when a command has a terminal to do with.
"""

from __future__ import annotations

import fcntl
import os
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def is_terminal(fd: int) -> bool:
    """Whether `fd` is a terminal."""
    return os.isatty(fd)


def size(fd: int) -> tuple[int, int]:
    """Height and width; zeros when it cannot be known."""
    try:
        raw = fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8)
    except OSError:
        return 0, 0
    return int.from_bytes(raw[0:2], "little"), int.from_bytes(raw[2:4], "little")


class RawMode:
    """A with-block in which the terminal passes every byte on, as it is typed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[Any] = []

    def __enter__(self) -> None:
        self._saved = termios.tcgetattr(self._fd)
        mode = termios.tcgetattr(self._fd)
        mode[0] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        mode[1] &= ~termios.OPOST
        mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSANOW, mode)

    def __exit__(self, *_: object) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
