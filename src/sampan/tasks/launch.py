"""The engine's end of the spawner: one warm process that forks a shim for each container.

The spawner runs from a sealed copy of this interpreter in memory, isolated (`-I -S -B`), with a
clean environment, and with one end of a SEQPACKET socket pair as descriptor 3. It is started at
the first launch (or by `warm`), and again whenever it has died: shims do not depend on it. It ends
when its socket ends, so a killed engine leaves none behind.

A launch message is JSON and descriptors, the shim's control socket first. Nothing is answered by
the spawner itself: the shim speaks through its control socket, and an end of file there without a
word means that the launch came to nothing.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import signal
import socket
import sys
from typing import TYPE_CHECKING

import sampan
from sampan.errors import InvalidArgument, Unavailable
from sampan.kernel import fds
from sampan.tasks.task import send_buffer_option

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_MESSAGE = 4 << 20
"""Bytes of one launch message; the arguments and environment of execve are smaller."""

_SPAWNER_FD = 3
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from {module} import main; main(int(sys.argv[2]))"
)
_END_PATIENCE = 2.0


class Launcher:
    """Starts the spawner when it is needed and hands launch messages to it.

    `log` is the descriptor that becomes the stderr of the spawner and of every shim; it stays the
    caller's.
    """

    def __init__(self, log: int = 2) -> None:
        self._log = log
        self._sock: socket.socket | None = None
        self._pidfd = -1
        self._lock = asyncio.Lock()
        self.pid = 0

    def warm(self) -> None:
        """Start the spawner unless it runs."""
        if self._sock is None:
            self._start()

    async def launch(self, message: bytes, passed: Sequence[int]) -> None:
        """Hand one launch to the spawner; `passed` stay the caller's.

        Raises:
            InvalidArgument: the message is larger than it may be.
            Unavailable: the spawner could not be started, or died twice in a row.
        """
        if len(message) > MAX_MESSAGE:
            raise InvalidArgument(
                f"the configuration has {len(message)} bytes, more than {MAX_MESSAGE}"
            )
        async with self._lock:
            for _ in range(2):
                if self._sock is not None and _is_over(self._pidfd):
                    self._bury()  # its death is not told yet; shims of it may keep its socket open
                self.warm()
                assert self._sock is not None
                try:
                    await _send(self._sock, message, passed)
                except (BrokenPipeError, ConnectionResetError):
                    self._bury()
                else:
                    return
        raise Unavailable("launch shim: the spawner died twice")

    async def aclose(self) -> None:
        """Let the spawner end, by force after a while. Shims live on."""
        if self._sock is None:
            return
        pidfd, self._pidfd = self._pidfd, -1
        asyncio.get_running_loop().remove_reader(pidfd)
        self._sock.close()
        self._sock = None
        try:
            await asyncio.wait_for(_readable(pidfd), _END_PATIENCE)
        except TimeoutError:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            await _readable(pidfd)
        _reap(pidfd)

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            interpreter = fds.sealed_copy(sys.executable, "sampan-spawner")
            high = -1
            try:
                # Above what is written to before the exec.
                high = fcntl.fcntl(interpreter, fcntl.F_DUPFD_CLOEXEC, 10)
                sealed = f"/proc/self/fd/{high}"
                self.pid = start_interpreter(
                    "sampan.shim.spawner", theirs.fileno(), self._log, sealed
                )
                self._pidfd = os.pidfd_open(self.pid)
            except OSError as error:
                ours.close()
                raise Unavailable(f"start spawner: {error}") from error
            finally:
                fds.close_all([fd for fd in (interpreter, high) if fd >= 0])
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, send_buffer_option(), MAX_MESSAGE)
        self._sock = ours
        asyncio.get_running_loop().add_reader(self._pidfd, self._bury)

    def _bury(self) -> None:
        """The spawner has died: forget it; the next launch starts another."""
        if self._sock is None:
            return
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._sock.close()
        self._sock = None
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        _reap(self._pidfd)
        self._pidfd = -1


def start_interpreter(module: str, control: int, log: int, program: str = sys.executable) -> int:
    """Run `main` of a module of ours, which gets `control`, in an interpreter of its own; its pid.

    Every other descriptor of ours is close-on-exec. `program` is the interpreter; a descriptor's
    path must be above 9.
    """
    # Above the numbers that the file actions write to, so that none is overwritten before exec.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (control, log)]
    source = os.path.dirname(os.path.dirname(os.path.abspath(sampan.__file__)))
    boot = _BOOT.format(module=module)
    argv = [sys.executable, "-I", "-S", "-B", "-c", boot, source, str(_SPAWNER_FD)]
    try:
        return os.posix_spawn(
            program,
            argv,
            _ENVIRONMENT,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, high[1], 2),
                (os.POSIX_SPAWN_DUP2, high[0], _SPAWNER_FD),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, 32, 33},
        )
    finally:
        fds.close_all(high)


async def _send(sock: socket.socket, message: bytes, passed: Sequence[int]) -> None:
    while True:
        try:
            fds.send(sock, message, list(passed))
            return
        except BlockingIOError:
            await _writable(sock)


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(sock, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_writer(sock)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _is_over(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _reap(pidfd: int) -> None:
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:
        pass  # an embedding program that reaps every child was quicker
    os.close(pidfd)
