"""A blank: a child in fresh namespaces that waits to be told which container it becomes.

Its parent gives it the order (`create`) and it obeys (`init`). It may have been made just now, or
kept ready.
"""

from __future__ import annotations

import _socket
import os

from sampan.kernel import namespaces, process
from sampan.runtime import init
from sampan.runtime.plan import clone_flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.runtime.readiness import Ready


class Blank:
    """A child in fresh namespaces of `kinds` that waits for its order (see `init`).

    It is the machine, with what it made ready, or an interpreter where `ready` is None.
    """

    __slots__ = ("kinds", "pid", "pidfd", "ready", "sync")

    def __init__(
        self,
        kinds: list[str],
        pid: int,
        pidfd: int,
        sync: _socket.socket,
        ready: Ready | None = None,
    ) -> None:
        self.kinds, self.pid, self.pidfd, self.sync = frozenset(kinds), pid, pidfd, sync
        self.ready = ready

    def discard(self) -> None:
        """End it; it was not needed."""
        self.sync.close()
        reap(self.pidfd)


def make_blank(
    kinds: list[str],
    pid_namespace: int | None = None,
    *,
    is_spare: bool = False,
    cgroup: int = -1,
) -> Blank:
    """A blank whose namespaces of `kinds` are new.

    `pid_namespace` is a descriptor of the pid namespace to be born in, where that is not new;
    `cgroup` one of a cgroup of version 2.
    A spare has time: it makes ready what most containers want, and dies with its parent from its
    birth on.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    flags = clone_flags(kinds)
    if pid_namespace is None:
        pid, pidfd = process.clone3(flags, cgroup)
    else:
        pid, pidfd = namespaces.clone_in_pid_namespace(pid_namespace, flags, cgroup)
    if pid == 0:
        ours.close()
        init.live_as_blank(theirs, kinds if is_spare else [])
    theirs.close()
    return Blank(kinds, pid, pidfd, ours)


def reap(pidfd: int) -> None:
    """Kill the child behind `pidfd`, wait for its end, close the descriptor."""
    try:
        process.pidfd_send_signal(pidfd, process.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        process.wait_pidfd(pidfd)
    except ChildProcessError:
        pass
    os.close(pidfd)
