"""The stdio of one process, an init or an exec: pipes or a pty, the log, the attached peers.

A *session* has up to two *outputs* (stdout and stderr, or the one master of a terminal), at most
one *input*, a log or none, and any number of peers. What the process writes is read once and given
to the log and to every peer. Only a stuck peer stops the reading, and never for longer than the
peer's patience; the log never waits for peers.

Whoever writes much is read in large pieces: after a wake that brought BULK bytes or more so soon
after another such one, we sleep for NAP before we wait again, and the writer fills the pipe
meanwhile. Without that it is interrupted for every few thousand bytes. Who brings CHUNK bytes at a
wake writes such pieces anyhow and is not waited for. A dialogue of short messages is never delayed.

After the process has ended its outputs are *drained*: what the pipes hold is read at once. When
somebody else keeps a pipe open, the drain ends after QUIET seconds without output, and after LIMIT
seconds in any case.
"""

from __future__ import annotations

import errno
import fcntl
import os
from time import monotonic, sleep

from sampan.kernel import heap, terminal
from sampan.shim.loop import GONE, OUT
from sampan.shim.peers import Peer

QUIET = 1.0
LIMIT = 10.0
CHUNK = 64 * 1024
"""Bytes of one read: all that a new pipe holds."""
BULK = 4096
SOON = 0.002
NAP = 0.0002

_F_SETPIPE_SZ = 1031
_LARGE = 224 * 1024
"""Bytes of one read of a wide pipe; what is made of them still fits into a processor's cache."""
_WIDE = 512 * 1024
_KEPT = 2 * 1024 * 1024
_AT_ONCE = 8
"""Reads of one wake, so that nobody else waits long."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.shim.logs import JsonFile
    from sampan.shim.loop import Loop


class Output:
    """The reading end of stream `number` (1 stdout, 2 stderr; a terminal has only 1)."""

    __slots__ = ("_bulk_at", "_paused", "_piece", "_session", "_wide", "fd", "number")

    def __init__(self, session: Session, fd: int, number: int) -> None:
        """Own `fd`, which becomes non-blocking."""
        os.set_blocking(fd, False)
        self._session = session
        self._bulk_at = 0.0
        self._paused = False
        self._piece = CHUNK
        self._wide = session.terminal
        self.fd = fd
        self.number = number
        session.loop.add(fd, self.ready)

    def ready(self, _events: int) -> None:
        """Read what is there and pass it on; then let a busy writer go on for a moment."""
        total = 0
        for _ in range(_AT_ONCE):
            size = self.read()
            total += size
            if size < CHUNK or self._paused:
                break
        if BULK <= total < CHUNK and not self._session.terminal:
            now = monotonic()
            if now - self._bulk_at < SOON and self.fd >= 0:
                sleep(NAP)
                now += NAP
            self._bulk_at = now

    def read(self) -> int:
        """Read once and pass it on; how many bytes, 0 when there is nothing now or never again."""
        try:
            data = os.read(self.fd, self._piece)
        except BlockingIOError:
            return 0
        except OSError:  # EIO: a pty master whose last slave is closed
            data = b""
        if not data:
            self.close()
            return 0
        if len(data) == CHUNK and not self._wide:
            self._widen()
        self._session.took(self.number, data)
        return len(data)

    def pause(self, paused: bool) -> None:
        """Stop or resume waiting for output; the end of the stream then waits too."""
        if paused == self._paused or self.fd < 0:
            return
        self._paused = paused
        # A hang-up is reported even to those who wait for nothing, so the descriptor must leave.
        if paused:
            self._session.loop.remove(self.fd)
        else:
            self._session.loop.add(self.fd, self.ready)

    def close(self) -> None:
        """The stream is at its end."""
        if self.fd >= 0:
            self._session.loop.remove(self.fd)
            os.close(self.fd)
            self.fd = -1
            self._session.closed(self)

    def _widen(self) -> None:
        """A busy writer gets a larger pipe: fewer switches between it and us. What a read takes is
        kept for the next one."""
        self._wide = True
        heap.keep(_KEPT)
        try:
            fcntl.fcntl(self.fd, _F_SETPIPE_SZ, _WIDE)
        except OSError:
            return  # the limit of pipe pages is reached
        self._piece = _LARGE


class Input:
    """The writing end of stdin; holds at most what one peer gave at once."""

    __slots__ = ("_ending", "_fd", "_pending", "_session")

    def __init__(self, session: Session, fd: int) -> None:
        """Own `fd`, which becomes non-blocking."""
        os.set_blocking(fd, False)
        self._session = session
        self._fd = fd
        self._pending = b""
        self._ending = False

    @property
    def has_room(self) -> bool:
        """Whether more input may come."""
        return self._fd >= 0 and not self._pending and not self._ending

    @property
    def is_open(self) -> bool:
        """Whether the process may still get input."""
        return self._fd >= 0 and not self._ending

    def write(self, data: bytes) -> None:
        """Give input to the process; what it does not take now is kept."""
        if self._fd < 0 or self._ending:
            return
        if self._pending:
            self._pending += data
            return
        self._pending = self._put(data)
        if self._pending:
            self._session.loop.add(self._fd, self._ready, OUT)
            self._session.input_changed()

    def end(self) -> None:
        """Close stdin once everything that was given is taken."""
        self._ending = True
        if not self._pending:
            self.close()

    def close(self) -> None:
        """Close stdin now; what is pending is lost."""
        if self._fd >= 0:
            self._session.loop.remove(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._pending = b""
            self._session.input_changed()

    def _put(self, data: bytes) -> bytes:
        try:
            return data[os.write(self._fd, data) :]
        except BlockingIOError:
            return data
        except OSError:  # nobody reads stdin any more
            self.close()
            return b""

    def _ready(self, events: int) -> None:
        if events & GONE and not events & OUT:
            self.close()
            return
        self._pending = self._put(self._pending)
        if self._pending or self._fd < 0:
            return
        self._session.loop.remove(self._fd)
        if self._ending:
            self.close()
        self._session.input_changed()


class Session:
    """All of one process's stdio; calls `done` once, when the process has ended and is drained."""

    __slots__ = (
        "_done",
        "_ended",
        "_hurried",
        "_master",
        "_once",
        "_tell_first",
        "log",
        "loop",
        "outputs",
        "peers",
        "stdin",
        "terminal",
    )

    def __init__(self, loop: Loop, done: Callable[[], None], *, tell_first: bool = False) -> None:
        """An empty session; `configure`, then `open_pipes` or `open_terminal`, make it one.

        With `tell_first`, `done` is called before the peers are let go: who sees the end of an
        exec's output asks for its code next, and the engine should have it by then.
        """
        self.loop = loop
        self._tell_first = tell_first
        self.log: JsonFile | None = None
        self.terminal = False
        self.outputs: list[Output] = []
        self.peers: list[Peer] = []
        self.stdin: Input | None = None
        self._master = -1
        self._once = False
        self._ended = False
        self._hurried = False
        self._done = done

    def configure(self, log: JsonFile | None, *, terminal: bool, once: bool) -> None:
        """Set the log, whether it is a terminal, and whether one peer's end of input is the end."""
        self.log = log
        self.terminal = terminal
        self._once = once

    def open_pipes(self, stdin: int, stdout: int, stderr: int) -> None:
        """Own our ends of the pipes; -1 where there is none."""
        if stdin >= 0:
            self.stdin = Input(self, stdin)
        if stdout >= 0:
            self.outputs.append(Output(self, stdout, 1))
        if stderr >= 0:
            self.outputs.append(Output(self, stderr, 2))

    def open_terminal(self, master: int, *, stdin: bool) -> None:
        """Own the master of the process's terminal."""
        if stdin:
            # epoll knows one entry a descriptor, and the two directions live apart.
            self.stdin = Input(self, fcntl.fcntl(master, fcntl.F_DUPFD_CLOEXEC, 3))
        self._master = master
        self.outputs.append(Output(self, master, 1))

    def attach(self, fd: int, wish: dict[str, Any]) -> None:
        """Add a peer; the descriptor is owned, whatever comes of it.

        Raises:
            OSError: it is not a socket.
        """
        try:
            peer = Peer(self.loop, self, fd, wish)
        except OSError:
            os.close(fd)
            raise
        self.peers.append(peer)

    def resize(self, height: int, width: int) -> None:
        """Set the window size of the terminal.

        Raises:
            OSError: ENOTTY without a terminal.
        """
        if self._master < 0:
            raise OSError(errno.ENOTTY, "resize: the process has no terminal")
        terminal.set_size(self._master, height, width)

    def end(self) -> None:
        """The process has ended: drain, then call `done`."""
        self._ended = True
        if not self.outputs:
            self._finish()
            return
        if self._hurried:
            self._cut()
            return
        self.loop.after(self, QUIET, self._cut)
        self.loop.after((self, "limit"), LIMIT, self._cut)
        for output in list(self.outputs):
            output.pause(False)
            self._empty(output)

    def hurry(self) -> None:
        """What is still written to our pipes interests nobody: end as soon as the process does."""
        self._hurried = True
        if self._ended:
            self._cut()

    def abandon(self) -> None:
        """The process never came to be: close everything, call nobody."""
        self._ended = False
        self._close_stdin()
        self._cut()
        for peer in tuple(self.peers):
            peer.finish()

    @property
    def takes_input(self) -> bool:
        """Whether peers may be read now."""
        return self.stdin is not None and self.stdin.has_room

    @property
    def can_take_input(self) -> bool:
        """Whether stdin is open, be it full now."""
        return self.stdin is not None and self.stdin.is_open

    # What outputs, input and peers tell their session.

    def took(self, number: int, data: bytes) -> None:
        """Output arrived."""
        if self._ended:
            self.loop.after(self, QUIET, self._cut)
        if self.log is not None:
            self.log.write(number, data)
        if not self.peers:
            return
        for peer in tuple(self.peers):
            peer.deliver(number, data)
        if not self._ended and any(peer.stuck for peer in self.peers):
            for output in self.outputs:
                output.pause(True)

    def closed(self, output: Output) -> None:
        """An output is at its end."""
        self.outputs.remove(output)
        self._master = -1
        if self.log is not None:
            self.log.end(output.number)
        if self._ended and not self.outputs:
            self._finish()

    def resume(self) -> None:
        """A peer has taken what it was owed, or left."""
        if not any(peer.stuck for peer in self.peers):
            for output in self.outputs:
                output.pause(False)

    def left(self, peer: Peer) -> None:
        """A peer is closed."""
        if peer in self.peers:
            self.peers.remove(peer)
            self.resume()

    def give(self, data: bytes) -> None:
        """A peer gave input."""
        if self.stdin is not None:
            self.stdin.write(data)

    def input_ended(self) -> None:
        """A peer will give no more input. A terminal has no end but the one that is typed."""
        if self._once and not self.terminal and self.stdin is not None:
            self.stdin.end()

    def input_changed(self) -> None:
        """Stdin became full, free or closed."""
        for peer in tuple(self.peers):
            peer.refresh()

    def _empty(self, output: Output) -> None:
        """Read what a pipe holds, bounded, for whoever keeps it open may write for ever."""
        for _ in range(2 * _WIDE // CHUNK):
            if not output.read():
                return

    def _cut(self) -> None:
        for output in list(self.outputs):
            output.close()

    def _close_stdin(self) -> None:
        if self.stdin is not None:
            self.stdin.close()
            self.stdin = None

    def _finish(self) -> None:
        self.loop.cancel(self)
        self.loop.cancel((self, "limit"))
        self._close_stdin()
        if self.log is not None:
            self.log.close()
        # The collector is off in a shim, so the circle is opened by hand.
        done, self._done = self._done, _nothing
        if self._tell_first:
            done()
        for peer in tuple(self.peers):
            peer.finish()
        if not self._tell_first:
            done()


def make_pipes(
    *, stdin: bool, stdout: bool, stderr: bool
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The process's ends and our ends of its stdio.

    What is not wanted is /dev/null for the process and -1 for us. `close_ends` closes the first.
    """
    ends, ours = [-1, -1, -1], [-1, -1, -1]
    if not (stdin and stdout and stderr):
        ends = [os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)] * 3
    if stdin:
        ends[0], ours[0] = os.pipe2(os.O_CLOEXEC)
    for number, wanted in ((1, stdout), (2, stderr)):
        if wanted:
            ours[number], ends[number] = os.pipe2(os.O_CLOEXEC)
    return (ends[0], ends[1], ends[2]), (ours[0], ours[1], ours[2])


def close_ends(ends: tuple[int, int, int]) -> None:
    """Close the process's ends of its stdio; one descriptor may stand for several."""
    for fd in set(ends):
        if fd >= 0:
            os.close(fd)


def _nothing() -> None:
    """What `done` is after it was called."""
