"""What stands ready before a launch is known: a parent for the container, and its blank.

Two kinds of parent: a `Spare` is a shim, an interpreter that can be whatever a container wants; a
`Kept` is a keeper (keeper.py), a machine for containers that start at once and that nobody is
attached to. Both sleep, with a blank for a child.
"""

from __future__ import annotations

import _signal
import _socket
import fcntl
import marshal
import os
import select
import struct

from sampan.kernel import fds as descriptors
from sampan.kernel import process
from sampan.runtime.failure import NeedsInterpreter
from sampan.shim import keeper

MAX_REPORT = 256 * 1024
_HIGH = 100
_PID = struct.Struct("q")
_FIXED_SIGNALS = {_signal.SIGKILL, _signal.SIGSTOP, 32, 33}
_SIGNALS = sorted(_signal.valid_signals() - _FIXED_SIGNALS)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.shim.launch import Runtime

    Offer = tuple[list[str], int, int, int, bool]


class Spare:
    """A shim that is forked already and sleeps, and the blank that is its child.

    `sock` leads to the shim, which has `shim_end` under the same number; `bell` is the epoll that
    it sleeps on. Both ends and the bell are open here until the launch, so that we may shape the
    bell.
    """

    __slots__ = ("_is_used", "_offer", "_pidfd", "bell", "pid", "shim_end", "sock")

    def __init__(
        self, pid: int, sock: _socket.socket, shim_end: _socket.socket, bell: select.epoll
    ) -> None:
        self.pid, self.sock, self.shim_end, self.bell = pid, sock, shim_end, bell
        self._pidfd = process.pidfd_open(pid)
        self._offer: Offer | None = None
        self._is_used = False

    def is_alive(self) -> bool:
        """Whether the shim and its blank are still there."""
        if self.has_ended():
            return False
        ended = select.poll()
        try:
            ended.register(self._take_offer()[2], select.POLLIN)
        except OSError:
            return False
        return not ended.poll(0)

    def has_ended(self, patience: int = 0) -> bool:
        """Whether the shim has died, or does so within `patience` milliseconds."""
        ended = select.poll()
        ended.register(self._pidfd, select.POLLIN)
        return bool(ended.poll(patience))

    def _take_offer(self) -> Offer:
        """(kinds, pid, pidfd, socket, whether it is the machine) of the blank.

        Raises OSError when the shim is gone.
        """
        if self._offer is None:
            self._await()
            data, fds = descriptors.receive(self.sock, MAX_REPORT)
            # The sender is our own fork.
            kinds, pid, is_machine = marshal.loads(data)  # noqa: S302
            self._offer = kinds, pid, fds[0], fds[1], is_machine
        return self._offer

    def _await(self) -> None:
        """Wait for a message of the shim, or its end. We hold its end of the socket as well."""
        ready = select.poll()
        ready.register(self.sock.fileno(), select.POLLIN)
        ready.register(self._pidfd, select.POLLIN)
        if self.sock.fileno() not in dict(ready.poll()):
            raise OSError(32, "the spare shim is gone")

    def blank(
        self, runtime: Runtime, kinds: list[str], pid_namespace: str, *, interpreted: bool
    ) -> Any:
        """A blank with new namespaces of `kinds`; the shim makes one if its own does not fit."""
        offer = None if self._is_used else self._take_offer()
        self._offer, self._is_used = None, True
        fits = offer is not None and not pid_namespace and sorted(kinds) == sorted(offer[0])
        if offer is None or not fits or (interpreted and offer[4]):
            if offer is not None:
                descriptors.close_all([offer[2], offer[3]])
            self.bell.modify(self.shim_end.fileno(), select.EPOLLIN)
            self.sock.send(marshal.dumps(("prepare", (kinds, pid_namespace, interpreted))))
            offer = self._take_offer()
            self._offer = None
            self.bell.modify(self.shim_end.fileno(), 0)
        return runtime.adopt(*offer)

    def close(self) -> None:
        """Let go of it; a shim without a container ends then."""
        if self._offer is not None:
            descriptors.close_all([self._offer[2], self._offer[3]])
        os.close(self._pidfd)
        self.sock.close()
        self.shim_end.close()
        self.bell.close()


class Kept(Spare):
    """A keeper that sleeps, and the machine that is its child."""

    __slots__ = ("_kinds",)

    def __init__(
        self,
        pid: int,
        sock: _socket.socket,
        shim_end: _socket.socket,
        bell: select.epoll,
        kinds: list[str],
    ) -> None:
        super().__init__(pid, sock, shim_end, bell)
        self._kinds = kinds

    def _take_offer(self) -> Offer:
        if self._offer is None:
            self._await()
            data, fds = descriptors.receive(self.sock, MAX_REPORT)
            if len(fds) != 2:
                descriptors.close_all(fds)
                raise OSError(5, f"a keeper failed: {data.hex()}")
            self._offer = self._kinds, *_PID.unpack(data), *fds, True
        return self._offer

    def blank(
        self, runtime: Runtime, kinds: list[str], pid_namespace: str, *, interpreted: bool
    ) -> Any:
        """The machine. Raises NeedsInterpreter when it does not fit, for it is all there is."""
        if self._is_used or interpreted or pid_namespace or kinds != self._kinds:
            raise NeedsInterpreter("a keeper has one machine")
        offer = self._take_offer()
        self._offer, self._is_used = None, True
        return runtime.adopt(*offer)


class Keepers:
    """Makes keepers: without a fork, so that no page of ours is copied."""

    __slots__ = ("_actions", "_path", "kinds")

    def __init__(self, kinds: list[str], program: bytes, given: dict[int, int]) -> None:
        """`given` says by number what each keeper has, beside what is made for it."""
        self.kinds = kinds
        self._path = f"/proc/self/fd/{_raise(descriptors.sealed_memfd('sampan-shim', program))}"
        self._actions = [(os.POSIX_SPAWN_DUP2, _raise(fd), at) for at, fd in given.items()]

    def new(self) -> Kept:
        """A keeper that sleeps.

        Raises:
            OSError: it could not be made.
        """
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        bell = select.epoll()
        bell.register(theirs.fileno(), 0)  # its end alone
        high = [_raise(theirs.fileno()), _raise(bell.fileno())]
        try:
            actions = [
                (os.POSIX_SPAWN_DUP2, high[0], keeper.ORDERS),
                (os.POSIX_SPAWN_DUP2, high[1], keeper.BELL),
                *self._actions,
            ]
            pid = os.posix_spawn(
                self._path,
                ["sampan-shim"],
                {},
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=_SIGNALS,
            )
            return Kept(pid, ours, theirs, bell, self.kinds)
        except BaseException:
            for one in (ours, theirs, bell):
                one.close()
            raise
        finally:
            descriptors.close_all(high)


def _raise(fd: int) -> int:
    """A second descriptor, beyond the numbers that a keeper's are given."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH)


class Spares:
    """One parent of each kind, made when there is nothing else to do.

    While `is_busy` there is always something else: then the next keeper is made when one is taken,
    and gets ready beside the launch.
    """

    __slots__ = ("_keepers", "_kept", "_new_shim", "_shim", "is_busy")

    def __init__(self, keepers: list[Keepers], new_shim: Callable[[], Spare]) -> None:
        self._keepers = {tuple(one.kinds): one for one in keepers}
        self._kept: dict[tuple[str, ...], Kept] = {}
        self._new_shim = new_shim
        self._shim: Spare | None = None
        self.is_busy = False

    @property
    def is_complete(self) -> bool:
        """Whether nothing is to be made."""
        return self._shim is not None and len(self._kept) == len(self._keepers)

    def make(self) -> None:
        """Make one of what is missing.

        Raises:
            OSError: it could not be made.
        """
        for kinds, keepers in self._keepers.items():
            if kinds not in self._kept:
                self._kept[kinds] = keepers.new()
                return
        if self._shim is None:
            self._shim = self._new_shim()

    def shim(self) -> Spare:
        """A shim, made now if none is alive. Raises OSError when it cannot be made."""
        spare, self._shim = self._shim, None
        return _living(spare) or self._new_shim()

    def kept(self, kinds: list[str]) -> Spare | None:
        """A keeper with a blank of `kinds`; None where that is not to be had."""
        keepers = self._keepers.get(tuple(kinds))
        if keepers is None:
            return None
        taken = _living(self._kept.pop(tuple(kinds), None)) or keepers.new()
        if self.is_busy:
            self._kept[tuple(kinds)] = keepers.new()
        return taken


def _living(spare: Spare | None) -> Spare | None:
    """The spare, unless it has died."""
    if spare is None or spare.is_alive():
        return spare
    spare.close()
    return None
