"""The terminal of a container at the command line:

handed to another program, or relayed to ours.
"""

from __future__ import annotations

import _signal
import _socket
import errno
import os
import select
import termios

from sampan.kernel import fds, terminal

_CHUNK = 65536


def hand_over(path: str, master: int) -> None:
    """Send the master to the listener of `--console-socket`; ours is closed."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
        fds.send(sock, b"/dev/ptmx", [master])
    finally:
        sock.close()
        os.close(master)


class RawTerminal:
    """Our own terminal in raw mode for as long as a container's is relayed to it."""

    __slots__ = ("_before", "_fd")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before = termios.tcgetattr(fd)
        raw = termios.tcgetattr(fd)
        raw[0] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        raw[1] &= ~termios.OPOST
        raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        termios.tcsetattr(fd, termios.TCSANOW, raw)

    def restore(self) -> None:
        """Back to how it was."""
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)


def relay(master: int, pidfd: int) -> None:
    """Copy between our standard streams and `master` until the process behind `pidfd` has ended."""
    raw = RawTerminal(0) if os.isatty(0) else None
    try:
        if raw is not None:
            terminal.set_size(master, *terminal.get_size(0))
            _signal.signal(
                _signal.SIGWINCH,
                lambda *_: terminal.set_size(master, *terminal.get_size(0)),
            )
        _copy(master, pidfd)
    finally:
        if raw is not None:
            raw.restore()
        os.close(master)


def _copy(master: int, pidfd: int) -> None:
    ready = select.poll()
    ready.register(master, select.POLLIN)
    ready.register(pidfd, select.POLLIN)
    ready.register(0, select.POLLIN)
    ended = False
    while not ended:
        events = dict(ready.poll())
        if 0 in events:
            data = os.read(0, _CHUNK)
            if data:
                _write_all(master, data)
            else:
                ready.unregister(0)
        if master in events and not _forward(master):
            return
        ended = pidfd in events and master not in events


def _forward(master: int) -> bool:
    """One read of the master to our stdout; False at its end, which is EIO on Linux."""
    try:
        data = os.read(master, _CHUNK)
    except OSError as error:
        if error.errno == errno.EIO:
            return False
        raise
    _write_all(1, data)
    return bool(data)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
