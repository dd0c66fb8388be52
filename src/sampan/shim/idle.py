"""A shim that has nothing to do yet: asleep in one call, sharing its memory with the spawner.

Most containers are quiet most of the time, so what a shim costs is what it has touched until it
sleeps. It makes its blank child, offers it to the spawner, and waits on an epoll that the spawner
fills (see launch.py). The first output, request, client or exit wakes it; then it becomes a
monitor, and reads what waits for it.
"""

from __future__ import annotations

import _socket
import os
import select
from marshal import dumps, loads

from sampan.kernel import fds as descriptors
from sampan.kernel import process
from sampan.shim.control import DESERTED
from sampan.shim.monitor import Monitor
from sampan.shim.spares import MAX_REPORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.shim.launch import Runtime

_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT


def become_shim(orders: int, bell: select.epoll, signals: int, runtime: Runtime) -> None:
    """Turn this fresh fork into a shim; returns when its container is gone.

    `orders` is the socket to the spawner; its end, while no launch has come, is the end of the
    shim. `bell` is the epoll to sleep on, which has `orders` already. `signals` reads SIGCHLD,
    which is blocked.
    """
    os.setsid()
    process.set_child_subreaper()
    process.set_name("sampan-shim")
    sock = _socket.socket(-1, -1, -1, orders)
    _offer(sock, ([], "", False), runtime)
    bell.register(signals, select.EPOLLIN)
    while True:
        _sleep(bell, signals)
        word, content, fds = _next_order(sock)
        if word == "launched":
            break
        if word != "prepare":
            return
        _offer(sock, content, runtime)
    sock.close()
    bell.close()
    facts, names = content
    Monitor(signals, runtime).run(facts, names, fds)


def _offer(sock: _socket.socket, wish: tuple[list[str], str, bool], runtime: Runtime) -> None:
    """Make a blank, of the usual namespaces if none are named, and send its parts."""
    blank = runtime.prepare(*wish)
    made = sorted(getattr(blank, "kinds", wish[0]))
    is_machine = getattr(blank, "ready", None) is not None
    text = dumps((made, blank.pid, is_machine))
    try:
        descriptors.send(sock, text, [blank.pidfd, blank.sync.fileno()])
    except BrokenPipeError:
        pass  # the spawner is gone; the next wait sees its end
    blank.sync.close()
    os.close(blank.pidfd)


def _sleep(bell: select.epoll, signals: int) -> None:
    """Return when something stirred, or a child has ended; an engine that has gone is nothing."""
    while True:
        fd, events = bell.poll(-1, 1)[0]
        if fd == signals:
            os.read(signals, 128)
            if os.waitid(os.P_ALL, 0, _LOOK) is not None:
                return
        elif events != DESERTED:
            return


def _next_order(sock: _socket.socket) -> tuple[str, Any, list[int]]:
    """(word, content, descriptors); an empty word when there is none and never will be.

    It waits: what woke us may be the end of a container whose launch is still being written up.
    """
    try:
        data, fds = descriptors.receive(sock, MAX_REPORT)
    except ConnectionResetError:
        data, fds = b"", []  # the spawner went without reading our offer
    if not data:
        return "", None, fds
    word, content = loads(data)  # noqa: S302 - the sender is the process that this one is a copy of
    return word, content, fds
