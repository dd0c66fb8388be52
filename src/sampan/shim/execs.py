"""Processes that were executed in the running container, besides its init.

An exec has its own stdio and peers, no log, and a code that is told by an `exec-exit` event when it
has ended and its output is drained. The last codes are kept, so that an engine that was away can
ask for them.
"""

from __future__ import annotations

import errno
import os
from time import time_ns

from sampan.kernel import process
from sampan.shim.loop import complain
from sampan.shim.stdio import Session, close_ends, make_pipes

REMEMBERED = 32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.shim.launch import Spawned
    from sampan.shim.loop import Loop

    Message = dict[str, Any]


LOST = (255, 0)
"""The code and signal of a process that somebody else has reaped."""


def take_status(pidfd: int, *, block: bool = False) -> tuple[int, int] | None:
    """Reap the child behind `pidfd` if it has ended: its code and signal, or LOST itself.

    With `block` it is waited for.
    """
    try:
        return process.wait_pidfd(pidfd, block=block)
    except ChildProcessError:
        # It must not happen; but if it did, a wait without an end would be worse.
        complain(f"wait for descriptor {pidfd}: the exit code was taken by somebody else")
        return LOST


def _kill_member(pid: int, session: int) -> bool:
    """Kill the process if it is of the session; whether it was."""
    try:
        pidfd = process.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # Looked at behind the descriptor: what the number meant before is of no interest.
        if os.getsid(pid) != session:
            return False
        process.pidfd_send_signal(pidfd, process.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


class Exec:
    """One executed process."""

    __slots__ = ("name", "pid", "pidfd", "session", "status", "time")

    def __init__(self, name: str, loop: Loop, done: Callable[[Exec], None], terminal: bool) -> None:
        self.name = name
        self.pid = 0
        self.pidfd = -1
        self.status: tuple[int, int] | None = None
        self.time = 0
        self.session = Session(loop, lambda: done(self), tell_first=True)
        self.session.configure(None, terminal=terminal, once=True)


class Execs:
    """All execs of a container, by name."""

    __slots__ = ("_announce", "_loop", "_spawn", "finished", "running")

    def __init__(
        self,
        loop: Loop,
        spawn: Callable[..., Spawned],
        announce: Callable[[Message], None],
    ) -> None:
        """`spawn` starts a process with the keywords `process_spec` and `stdio`."""
        self._loop = loop
        self._spawn = spawn
        self._announce = announce
        self.running: dict[str, Exec] = {}
        self.finished: list[Message] = []

    def start(self, message: Message, fds: list[int], **how: Any) -> Message:
        """Execute `message["process"]` with the attach entries, whose descriptors are `fds`.

        Raises:
            OSError: it could not be started; peers are closed.
        """
        name = str(message["exec"])
        if name in self.running:
            raise OSError(errno.EEXIST, f"exec {name}: it runs already")
        terminal = bool(message.get("terminal"))
        one = Exec(name, self._loop, self._drained, terminal)
        wishes: list[Message] = message.get("attach") or []
        try:
            self._launch(one, message, wishes, how)
            for wish in wishes:
                one.session.attach(fds.pop(0), wish)
        except BaseException:
            self._undo(one)
            raise
        return {"pid": one.pid}

    def get(self, name: str) -> Exec:
        """The running exec `name`.

        Raises:
            OSError: ESRCH, there is none.
        """
        found = self.running.get(name)
        if found is None:
            raise OSError(errno.ESRCH, f"exec {name}: no such process")
        return found

    def signal(self, name: str, number: int) -> None:
        """Send a signal to an exec."""
        one = self.get(name)
        if one.status is not None:
            raise OSError(errno.ESRCH, f"exec {name}: it has ended")
        process.pidfd_send_signal(one.pidfd, number)

    def kill_session(self, name: str, pids: Callable[[], list[int]]) -> None:
        """End an exec and every process of its session; do not wait for its output.

        `pids` lists the container's processes. Who has been killed starts no other, so it is over
        when a look finds nobody new. Who started a session of its own has left; what it writes to
        our pipes is not read.
        """
        one = self.get(name)
        if one.status is None:
            process.pidfd_send_signal(one.pidfd, process.SIGKILL)
        killed = {one.pid}
        while found := {pid for pid in pids() if pid not in killed and _kill_member(pid, one.pid)}:
            killed |= found
        one.session.hurry()

    def reap(self, pid: int) -> bool:
        """Take the status of `pid` if it is one of ours that has ended."""
        for one in self.running.values():
            if one.pid == pid and one.status is None:
                self._reap(one)
                return True
        return False

    def _launch(self, one: Exec, message: Message, wishes: list[Message], how: Message) -> None:
        session = one.session
        stdin = any(wish.get("stdin") for wish in wishes)
        ends = (-1, -1, -1)
        if not session.terminal:
            ends, ours = make_pipes(
                stdin=stdin,
                stdout=any(wish.get("stdout") for wish in wishes),
                stderr=any(wish.get("stderr") for wish in wishes),
            )
            session.open_pipes(*ours)
        asked = message["process"]
        if message.get("console_size"):  # before the program can ask for it
            height, width = message["console_size"]
            asked = {**asked, "consoleSize": {"height": height, "width": width}}
        try:
            spawned = self._spawn(process_spec=asked, stdio=ends, **how)
        finally:
            close_ends(ends)
        one.pid, one.pidfd = spawned.pid, spawned.pidfd
        self.running[one.name] = one
        if session.terminal:
            session.open_terminal(spawned.master, stdin=stdin)
        self._loop.add(one.pidfd, lambda _events: self._reap(one))

    def _undo(self, one: Exec) -> None:
        if one.pidfd >= 0:
            # It runs, but its peers are unusable: it ends, and the loop reaps it as any other.
            process.pidfd_send_signal(one.pidfd, process.SIGKILL)
        else:
            one.session.abandon()

    def _reap(self, one: Exec) -> None:
        status = take_status(one.pidfd)
        if status is None:
            return
        self._loop.remove(one.pidfd)
        os.close(one.pidfd)
        one.status, one.time = status, time_ns()
        one.session.end()

    def _drained(self, one: Exec) -> None:
        assert one.status is not None
        code, number = one.status
        del self.running[one.name]
        record = {"exec": one.name, "code": code, "signal": number, "time": one.time}
        self.finished.append(record)
        del self.finished[:-REMEMBERED]
        self._announce({"event": "exec-exit", **record})
