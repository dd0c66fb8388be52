"""A shim that has nothing to do yet: asleep in one call, sharing its memory with the spawner.

Most containers are quiet most of the time, so what a shim costs is what it has touched until it
sleeps. It forks its helper (see launch.py) and waits on an epoll that the helper fills. The first
output, request, client or exit wakes it; then it becomes a monitor, and reads what the helper left.
"""

from __future__ import annotations

import _socket
import os
import select

from sampan.kernel import process
from sampan.shim.launch import IDLE, help_shim
from sampan.shim.monitor import Monitor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.shim.launch import Runtime

_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT


def become_shim(requests: int, signals: int, runtime: Runtime) -> None:
    """Turn this fresh fork into a shim; returns when its container is gone.

    `requests` is the socket on which the launch message will come; its end, while no launch has
    come, is the end of the shim. `signals` reads SIGCHLD, which is blocked.
    """
    os.setsid()
    process.set_child_subreaper()
    process.set_name("sampan-shim")
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    bell = select.epoll()
    bell.register(signals, select.EPOLLIN)
    helper = process.fork_sharing_files()
    if helper == 0:
        help_shim(requests, runtime, (ours.fileno(), theirs.fileno()), bell.fileno())
    helper = _sleep(bell, signals, helper)
    # The helper may still add to the bell, whose number must stay what it is until it has ended.
    Monitor((ours, theirs, bell), helper, signals, runtime).run()


def _sleep(bell: select.epoll, signals: int, helper: int) -> int:
    """Return when there is work: the pid of the helper, or 0 when that has ended well."""
    while True:
        if bell.poll(-1, 1)[0][0] != signals:
            return helper
        os.read(signals, 128)
        found = os.waitid(os.P_ALL, 0, _LOOK)
        if found is None:
            continue
        if found.si_pid != helper or found.si_status != IDLE:
            return helper
        os.waitid(os.P_PID, helper, os.WEXITED)
        helper = 0
