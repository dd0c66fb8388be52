"""A monitor for a container whose parent is a keeper: forked by the nursery, or started alone.

What the keeper passes on is what the spawner had sent to it (launch.py), and behind it a pair of
sockets: while we hold the second, the keeper knows that we live, and tells us how init ended.
"""

from __future__ import annotations

import _signal
import _socket
import marshal
import os
import select

from sampan.kernel import fds as descriptors
from sampan.kernel import process
from sampan.kernel.signals import signal_fd
from sampan.shim.keeper import LARGEST, ORDERS, PATH_SIZE
from sampan.shim.loop import complain
from sampan.shim.monitor import Monitor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sampan.shim.launch import Runtime


def watch(data: bytes, fds: list[int], signals: int, runtime: Runtime) -> NoReturn:
    """Be the monitor of the container that `data` and `fds` are about, and exit.

    `signals` reads SIGCHLD, which is blocked.
    """
    status = 1
    try:
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        os.setsid()
        process.set_child_subreaper()
        process.set_name("sampan-monitor")
        # The sender got it from the process that this one is a copy of.
        facts, names = marshal.loads(data[PATH_SIZE:])  # noqa: S302
        ours, theirs = fds.pop(), fds.pop()
        os.close(theirs)
        _forget_the_dead(fds[names.index("control")])
        for place, name in enumerate(names):
            if not name:
                os.close(fds[place])
        Monitor(signals, runtime).run(facts, [*names, "keeper"], [*fds, ours])
        status = 0
    except BaseException as error:
        complain(f"monitor: {type(error).__name__}: {error}")
    finally:
        os._exit(status)


def _forget_the_dead(control: int) -> None:
    """Drop what an engine asked for in its last moment: the keeper may have slept on for hours."""
    looking = select.poll()
    looking.register(control, 0)
    if not looking.poll(0):
        return
    sock = _socket.socket(-1, -1, -1, control)
    try:
        while sock.recv(1, _socket.MSG_DONTWAIT):  # a message is gone with its first byte
            continue
    except ConnectionResetError:
        pass
    finally:
        sock.detach()


def main() -> NoReturn:
    """Be the monitor that a keeper has started, which waits in our socket for us."""
    from sampan.runtime import freeze
    from sampan.shim import containers

    process.set_not_dumpable()
    os.chdir("/")
    runtime = containers.runtime()
    signals = signal_fd(process.SIGCHLD)
    freeze.close_imports()
    sock = _socket.socket(-1, -1, -1, ORDERS)
    data, fds = descriptors.receive(sock, LARGEST)
    sock.close()
    watch(data, fds, signals, runtime)
