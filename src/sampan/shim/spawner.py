"""The spawner: a warm, sealed, single-threaded process that forks a shim for each container.

The engine runs it with an isolated interpreter (`python -I -S -B`) and one end of a SEQPACKET
socket pair. It imports everything a shim and the runtime need, closes the import system, freezes
the collector so that forks share its memory, and then only waits for launch messages: JSON, and
descriptors of which the first is the control socket of the new shim. A message goes unread to a
shim that was forked before it came; the next one is forked behind it.

It answers nothing itself. A launch for which no shim can be forked is told on the control socket
that came with it, as `start-failed`. The end of its own socket means that the engine is
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
from sampan.kernel.signals import signal_fd
from sampan.runtime import freeze
from sampan.shim.control import failure
from sampan.shim.exits import encode
from sampan.shim.idle import become_shim
from sampan.shim.launch import LARGEST
from sampan.shim.loop import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from typing import Any, NoReturn

    from sampan.shim.launch import Runtime


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
    from sampan.shim import containers

    return containers.runtime()


def serve(control: int, runtime: Runtime, kept: AbstractSet[int] = frozenset()) -> None:
    """Harden this process, then hand each message to a shim until the engine is gone.

    `kept` are descriptors that shims share: the roots of the cgroup hierarchies, found only once.
    """
    sock = _socket.socket(-1, -1, -1, control)
    sock.setblocking(True)
    os.set_inheritable(control, False)
    harden()
    spares = Spares(runtime, frozenset(kept))
    spares.prepare()
    while True:
        try:
            data, fds = descriptors.receive(sock, LARGEST)
        except OSError as error:
            complain(f"spawner: receive: {error}")
            continue
        if not data:
            return
        try:
            spares.launch(data, fds)
        finally:
            descriptors.close_all(fds)
        spares.prepare()


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


class Spares:
    """One shim that is forked already, warmed up and without a container, and how it gets one."""

    __slots__ = ("_kept", "_runtime", "_signals", "_spare")

    def __init__(self, runtime: Runtime, kept: AbstractSet[int]) -> None:
        self._runtime = runtime
        # Each reader of a signalfd reads its own signals, so all shims can have this one.
        self._signals = signal_fd(process.SIGCHLD)
        self._kept = {*kept, self._signals}
        self._spare: _socket.socket | None = None

    def prepare(self) -> None:
        """Fork the next shim, after the launch before it: the container does not wait for this."""
        if self._spare is None:
            try:
                self._spare = self._fork()
            except OSError as error:
                complain(f"spawner: prepare a shim: {error}")

    def launch(self, data: bytes, fds: list[int]) -> None:
        """Hand a launch message to a shim; a failure is told on the control socket."""
        if not fds:
            complain("spawner: a launch without a control socket")
            return
        spare, self._spare = self._spare, None
        try:
            if spare is None or not _hand_over(spare, data, fds):
                _hand_over(self._fork(), data, fds)
        except OSError as error:
            _refuse(fds[0], error)

    def _fork(self) -> _socket.socket:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        ours.setsockopt(_socket.SOL_SOCKET, _send_buffer_option(), LARGEST)
        if os.fork() == 0:
            _become(theirs.fileno(), self._signals, self._runtime, self._kept)
        theirs.close()
        return ours


def _hand_over(spare: _socket.socket, data: bytes, fds: list[int]) -> bool:
    """Whether the shim behind `spare` was there to take the message."""
    try:
        descriptors.send(spare, data, fds)
    except BrokenPipeError:
        return False
    finally:
        spare.close()
    return True


def _send_buffer_option() -> int:
    """SO_SNDBUFFORCE for root, who alone may pass the system's ceiling."""
    return 32 if os.geteuid() == 0 else _socket.SO_SNDBUF


def _become(requests: int, signals: int, runtime: Runtime, kept: AbstractSet[int]) -> NoReturn:
    """The child: only its own socket and what shims share stay open."""
    status = 1
    try:
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        keep_only({0, 1, 2, requests, *kept})
        become_shim(requests, signals, runtime)
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
