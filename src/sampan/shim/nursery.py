"""The nursery: a quiet copy of the spawner that does nothing but fork shims and monitors.

Memory is shared with whom one was forked from until one of the two writes. A busy parent writes all
the time, and every page it copies for itself leaves the old one to its children alone, each with
its own. So shims are forked from a process that has imported everything and then only waits: it
gets two descriptors, forks, and answers with the pid. What a keeper sends to the other socket
becomes a monitor (waking.py).

It ends when the spawner and all keepers are gone; its shims live on.
"""

from __future__ import annotations

import _signal
import _socket
import os
import select
import struct
from errno import EPIPE

from sampan.kernel import fds as descriptors
from sampan.kernel import process
from sampan.shim.idle import become_shim
from sampan.shim.keeper import LARGEST
from sampan.shim.loop import complain
from sampan.shim.spares import Spare
from sampan.shim.waking import watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from typing import NoReturn

    from sampan.shim.launch import Runtime

_PID = struct.Struct("i")


class Nursery:
    """The spawner's end of the nursery; one that has died is replaced.

    `wake` is the keepers' socket. We hold both of its ends, so that it outlives a nursery.
    """

    __slots__ = ("_of", "_sock", "wake")

    def __init__(self, runtime: Runtime, signals: int, kept: AbstractSet[int]) -> None:
        """Fork the nursery. `signals` reads SIGCHLD; `kept` are descriptors that shims share."""
        wakers, wake = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.wake = wake.detach()
        self._of = wakers, runtime, {signals, *kept}, signals
        self._sock = _fork_nursery(*self._of)

    def fileno(self) -> int:
        """What hangs up when the nursery ends."""
        return self._sock.fileno()

    def revive(self) -> None:
        """Fork another if this one has ended."""
        ended = select.poll()
        ended.register(self._sock.fileno(), 0)
        if ended.poll(0):
            self._sock.close()
            self._sock = _fork_nursery(*self._of)

    def new_shim(self) -> Spare:
        """A new shim that sleeps.

        Raises:
            OSError: it could not be forked, or two nurseries in a row have died.
        """
        try:
            return self._ask()
        except (BrokenPipeError, ConnectionResetError):
            self.revive()
            return self._ask()

    def _ask(self) -> Spare:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        bell = select.epoll()
        bell.register(theirs.fileno(), 0)  # its end alone
        try:
            descriptors.send(self._sock, b"F", [theirs.fileno(), bell.fileno()])
            answer = self._sock.recv(_PID.size)
            if len(answer) != _PID.size:
                raise BrokenPipeError(EPIPE, "the nursery is gone")
            (pid,) = _PID.unpack(answer)
            if pid < 0:
                raise OSError(-pid, f"fork a shim: {os.strerror(-pid).lower()}")
            return Spare(pid, ours, theirs, bell)
        except BaseException:
            for one in (ours, theirs, bell):
                one.close()
            raise


def _fork_nursery(
    wakers: _socket.socket, runtime: Runtime, kept: AbstractSet[int], signals: int
) -> _socket.socket:
    """Fork a nursery; our end of its socket."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        _serve(theirs, wakers, runtime, kept, signals)
    theirs.close()
    return ours


def _serve(
    sock: _socket.socket,
    wakers: _socket.socket,
    runtime: Runtime,
    kept: AbstractSet[int],
    signals: int,
) -> NoReturn:
    """Be the nursery until the spawner and all keepers are gone."""
    try:
        process.set_name("sampan-nursery")
        keep_only({0, 1, 2, sock.fileno(), wakers.fileno(), *kept})
        ready = select.poll()
        ready.register(sock.fileno(), select.POLLIN)
        ready.register(wakers.fileno(), select.POLLIN)
        left = 2
        while left:
            for fd, _ in ready.poll():
                is_spawner = fd == sock.fileno()
                data, fds = _hear(sock if is_spawner else wakers)
                if not data:
                    ready.unregister(fd)
                    left -= 1
                    continue
                pid = _fork()
                if pid == 0 and is_spawner:
                    _become(fds[0], fds[1], signals, runtime, kept)
                elif pid == 0:
                    keep_only({0, 1, 2, *fds, *kept})
                    watch(data, fds, signals, runtime)
                descriptors.close_all(fds)
                if is_spawner:
                    _answer(sock, pid)
    except BaseException as error:
        complain(f"nursery: {type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _hear(sock: _socket.socket) -> tuple[bytes, list[int]]:
    try:
        return descriptors.receive(sock, LARGEST)
    except ConnectionResetError:  # it went without reading our answer
        return b"", []


def _answer(sock: _socket.socket, pid: int) -> None:
    try:
        sock.send(_PID.pack(pid), _socket.MSG_NOSIGNAL)
    except BrokenPipeError:
        pass  # the spawner is gone; its end is heard next


def _fork() -> int:
    """The child's pid, 0 in the child, or the error negated."""
    try:
        return os.fork()
    except OSError as error:
        return -(error.errno or 1)


def _become(
    orders: int, bell: int, signals: int, runtime: Runtime, kept: AbstractSet[int]
) -> NoReturn:
    """The child: only its own socket and what shims share stay open."""
    status = 1
    try:
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        keep_only({0, 1, 2, orders, bell, *kept})
        become_shim(orders, select.epoll.fromfd(bell), signals, runtime)
        status = 0
    except BaseException as error:
        complain(f"shim: {type(error).__name__}: {error}")
    finally:
        os._exit(status)


def keep_only(wanted: AbstractSet[int]) -> None:
    """Close every descriptor that is not in `wanted`."""
    first = 0
    for fd in sorted(wanted):
        if first < fd:  # closerange(0, 0) would close everything
            os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, 2**31 - 1)
