"""The spawner: a warm, sealed, single-threaded process that forks a shim for each container.

The engine runs it with an isolated interpreter (`python -I -S -B`) and one end of a SEQPACKET
socket pair. It imports everything a shim and the runtime need, closes the import system, freezes
the collector so that forks share its memory, and then only waits for launch messages: JSON, and
descriptors of which the first is the control socket of the new shim.

It answers nothing itself. A launch that cannot be forked or understood is told on the control
socket that came with it, as `start-failed`. The end of its own socket means that the engine is
gone: it exits, and its shims live on.
"""

from __future__ import annotations

import _signal
import _socket
import gc
import os
import resource
import sys
import time

from sampan.kernel import fds as descriptors
from sampan.kernel import process
from sampan.kernel.cgroups import hierarchy
from sampan.runtime import freeze
from sampan.shim.control import failure, parse
from sampan.shim.exits import encode
from sampan.shim.loop import complain
from sampan.shim.monitor import Runtime, become_shim

LARGEST = 4 * 1024 * 1024
"""Bytes of one launch message."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from typing import Any, NoReturn


def main(control: int) -> NoReturn:
    """Serve launch messages on the descriptor `control` until its end, then exit."""
    status = 1
    try:
        kept = {tree.fd for tree in hierarchy.mounted()}
        serve(control, real_runtime(), kept)
        status = 0
    except BaseException as error:
        complain(f"spawner: {type(error).__name__}: {error}")
    finally:
        os._exit(status)


def real_runtime() -> Runtime:
    """The runtime's own functions; imported here, so that a test's spawner can bring others."""
    from sampan.runtime import create, rootfs
    from sampan.runtime.exec import spawn

    return Runtime(create.create, spawn, rootfs.mount)


def serve(control: int, runtime: Runtime, kept: AbstractSet[int] = frozenset()) -> None:
    """Harden this process, then fork a shim for each message until the engine is gone.

    `kept` are descriptors that shims share: the roots of the cgroup hierarchies, found only once.
    """
    sock = _socket.socket(-1, -1, -1, control)
    sock.setblocking(True)
    os.set_inheritable(control, False)
    harden()
    while True:
        try:
            data, fds = descriptors.receive(sock, LARGEST)
        except OSError as error:
            complain(f"spawner: receive: {error}")
            continue
        if not data:
            return
        launch(data, fds, runtime, kept)
        descriptors.close_all(fds)


def harden() -> None:
    """Import nothing more, share memory with every fork, and be no target for debuggers."""
    process.set_name("sampan-spawner")
    os.chdir("/")
    os.umask(0o022)
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    # Ended shims are nobody's to wait for.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    process.set_not_dumpable()
    # Only the soft limit: the container's own limits start from the hard one.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    time.gmtime(0)  # the C library reads its time zone now
    freeze.close_imports()
    gc.collect()
    gc.disable()
    gc.freeze()


def launch(data: bytes, fds: list[int], runtime: Runtime, kept: AbstractSet[int]) -> None:
    """Fork the shim of one message; the parent returns, the child never does."""
    if not fds:
        complain("spawner: a launch without a control socket")
        return
    try:
        pid = os.fork()
    except OSError as error:
        _refuse(fds[0], error)
        return
    if pid == 0:
        _become(data, fds, runtime, kept)


def _become(data: bytes, fds: list[int], runtime: Runtime, kept: AbstractSet[int]) -> NoReturn:
    """The child: only what came with the message stays open."""
    status = 1
    try:
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        keep_only({0, 1, 2, *fds, *kept})
        try:
            request = parse(data)
        except ValueError as error:
            _refuse(fds[0], error)
            os._exit(1)
        del data
        become_shim(request, fds, runtime)
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


def _refuse(fd: int, error: Exception) -> None:
    sock = _socket.socket(-1, -1, -1, os.dup(fd))
    event: dict[str, Any] = {"event": "start-failed", **failure(error)}
    try:
        descriptors.send(sock, encode(event).encode("ascii"))
    except OSError as lost:
        complain(f"spawner: refuse a launch: {lost}")
    sock.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
