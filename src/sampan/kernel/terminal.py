"""Pseudo-terminals of a container's own devpts, and window sizes."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

# linux/ioctl numbers: TIOCGPTPEER is not in the termios module before Python 3.13.
TIOCGPTPEER = 0x5441
TIOCSPTLCK = 0x40045431


def open_pair(ptmx: int) -> tuple[int, int]:
    """(master, peer) of an open ptmx; the peer by descriptor, never by a path in the container."""
    fcntl.ioctl(ptmx, TIOCSPTLCK, struct.pack("i", 0))
    peer = fcntl.ioctl(ptmx, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return ptmx, peer


def clear_newline_translation(fd: int) -> None:
    """Leave a newline alone on its way out (ONLCR), for a terminal that is relayed to another."""
    modes = termios.tcgetattr(fd)
    modes[1] &= ~termios.ONLCR
    termios.tcsetattr(fd, termios.TCSANOW, modes)


def set_size(fd: int, height: int, width: int) -> None:
    """The window size in characters; the kernel sends SIGWINCH."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def get_size(fd: int) -> tuple[int, int]:
    """(height, width) in characters."""
    height, width, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return height, width


def become_controlling(fd: int) -> None:
    """Make `fd` the controlling terminal of this session leader."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
