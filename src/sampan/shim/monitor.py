"""The monitor of one container: it watches init and leaves its exit on the disk.

    waiting -> created -> running -> ended (init reaped, stdio drained) -> recorded -> gone

The order at the end is fixed: init is reaped, its output drained, what is left in the cgroup
killed, the cgroup removed, `exit.json` flushed to the disk, and only then are engines told. Nothing
that an engine or a client does (or fails to do) can delay the record by more than the drain.

The helper of launch.py makes the container; its verdict (started or failed) decides, even when init
has ended before it arrives. The monitor is the parent of init and of every exec, and the subreaper
of what they orphan. Codes are taken by pidfd; strays are looked at without being taken first, so
that none is ever stolen.
"""

from __future__ import annotations

import _socket
import errno
import os
from marshal import loads
from time import time_ns

from sampan.kernel import process
from sampan.shim.control import Connection, Listener
from sampan.shim.execs import LOST, Execs, take_status
from sampan.shim.exits import EXIT, write_record
from sampan.shim.launch import read_filter
from sampan.shim.logs import JsonFile
from sampan.shim.loop import Loop, complain
from sampan.shim.peers import adopt
from sampan.shim.stdio import Session

LINGER = 10.0
MAX_REPORT = 256 * 1024
MAX_CONNECTIONS = 16

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from select import epoll
    from typing import Any

    from sampan.shim.launch import Cgroup, Runtime

    Message = dict[str, Any]
    Filter = tuple[bytes, int]


class Monitor:
    """One container's monitor."""

    __slots__ = (
        "_connections",
        "_container",
        "_directory",
        "_execs",
        "_exit",
        "_first",
        "_helper",
        "_id",
        "_is_lost",
        "_listener",
        "_log",
        "_loop",
        "_pid",
        "_pidfd",
        "_report",
        "_runtime",
        "_seccomp",
        "_session",
        "_shared",
        "_signals",
        "_started",
        "_status",
        "_undecided",
        "_waiting",
    )

    def __init__(
        self,
        shared: tuple[_socket.socket, _socket.socket, epoll],
        helper: int,
        signals: int,
        runtime: Runtime,
    ) -> None:
        """Go on where `idle` woke up.

        `shared` are the socket pair and the epoll of the helper, kept open until it has ended;
        `helper` is its pid, or 0 when it has ended well; `signals` reads SIGCHLD.
        """
        self._runtime = runtime
        self._loop = Loop()
        self._connections: list[Connection] = []
        self._container: Message = {}
        self._directory = self._pid = self._pidfd = -1
        self._signals = signals
        self._execs = Execs(self._loop, runtime.spawn, self._tell)
        self._exit: Message | None = None
        self._first: Connection | None = None
        self._id = ""
        self._is_lost = False
        self._listener: Listener | None = None
        self._log: JsonFile | None = None
        self._seccomp = (-1, 0)
        self._started = 0
        self._session = Session(self._loop, self._drained)
        self._status: tuple[int, int, int] | None = None
        self._undecided = True
        self._waiting: list[tuple[Connection, object]] = []
        self._report, self._shared = shared[0], shared
        self._helper = process.pidfd_open(helper) if helper else -1
        self._report.setblocking(False)

    def run(self) -> None:
        """Launch, and watch until nothing is left."""
        self._loop.add(self._signals, self._children_ready)
        if self._helper >= 0:
            self._loop.add(self._report.fileno(), self._report_ready)
            self._loop.add(self._helper, self._helper_gone)
            self._report_ready(0)
        else:
            self._helper_gone(0)
        while not self._is_over():
            self._loop.once()
        if self._listener is not None:
            _attempt("close the listener", self._listener.close)

    # What the helper reports

    def _report_ready(self, _events: int) -> None:
        """Read all there is: an engine that was told of the start may ask for an exec next."""
        while True:
            try:
                data = self._report.recv(MAX_REPORT)
            except BlockingIOError:
                return
            # marshal is safe here: the sender is a copy of this very process.
            self._hear(*loads(data))  # noqa: S302

    def _hear(self, word: str, content: Any) -> None:
        if word == "created":
            self._adopt(content)
        elif word == "started":
            self._begin(*content)
        else:
            control, event = content
            if not self._connections:
                self._connect(adopt(control))
            self._fail(event)

    def _helper_gone(self, _events: int) -> None:
        self._report_ready(0)  # its last words may be in the same batch of events
        self._loop.remove(self._report.fileno())
        for one in self._shared:
            one.close()
        if self._helper >= 0:
            self._loop.remove(self._helper)
            os.close(self._helper)
            self._helper = -1
        self._reap_strays()
        if self._undecided:
            # It ended without a verdict: of a launch that never came, or because it was killed.
            complain("launch: the helper died") if self._connections else None
            self._loop.stop()

    def _adopt(self, facts: Message) -> None:
        """The container is created: from now on it is ours."""
        self._id = facts["id"]
        self._directory = facts["directory"]
        self._pid, self._pidfd = facts["pid"], facts["pidfd"]
        self._container = facts["state"]
        self._seccomp = facts["seccomp"], facts["seccomp_flags"]
        self._listener = Listener(self._loop, facts["listener"], self._directory, self._accept)
        if facts["log"] is not None:
            self._log = JsonFile(*facts["log"])
        session = self._session
        session.configure(self._log, terminal=facts["master"] >= 0, once=facts["stdin_once"])
        if session.terminal:
            session.open_terminal(facts["master"], stdin=facts["wants_input"])
        else:
            session.open_pipes(*facts["stdio"])
        for fd, wish in facts["attach"]:
            session.attach(fd, wish)
        self._loop.add(self._pidfd, self._init_ready)
        self._first = self._connect(adopt(facts["control"]))
        if not facts["start"]:
            self._undecided = False
            self._tell({"event": "created", "pid": self._pid})

    def _begin(self, when: int, told: bool) -> None:
        """The container executes its program, or has done so already."""
        self._undecided = False
        self._started = when
        event = {"event": "started", "pid": self._pid, "time": when}
        for connection in tuple(self._connections):
            if not (told and connection is self._first):
                connection.send(event)
        self._answer_waiting({"ok": True, "pid": self._pid})
        if self._status is not None:
            self._session.end()

    def _fail(self, event: Message) -> None:
        """The container never came to be; the helper has undone it."""
        self._undecided = False
        if self._pidfd >= 0:
            self._loop.remove(self._pidfd)
        self._pid = -1
        self._session.abandon()
        self._exit = event
        self._tell(event)
        self._answer_waiting({key: event[key] for key in ("error", "errno", "operation")})
        self._loop.after("linger", LINGER, self._loop.stop)

    def _answer_waiting(self, answer: Message) -> None:
        waiting, self._waiting = self._waiting, []
        for connection, number in waiting:
            connection.send({"re": number, **answer})

    # Ending

    def _init_ready(self, _events: int) -> None:
        status = take_status(self._pidfd)
        if status is None:
            return
        self._loop.remove(self._pidfd)
        self._status = (*status, time_ns())
        self._is_lost = status is LOST
        if self._undecided:
            return  # whether it ran at all is the helper's to say
        if self._helper >= 0 and not self._started:
            process.pidfd_send_signal(self._helper, process.SIGKILL)
        self._session.end()

    def _drained(self) -> None:
        """Init has ended and its output is delivered: clean up, record, tell."""
        assert self._status is not None
        code, number, ended = self._status
        oom = self._clear_cgroup(self._runtime.cgroup(self._container))
        record = {
            "v": 1,
            "code": code,
            "signal": number,
            "oom": oom,
            "time": ended,
            "pid": self._pid,
            "lost": self._is_lost,
        }
        try:
            write_record(self._directory, EXIT, record, sync=True)
        except OSError as error:
            # Told all the same: the engine's row is then the only record.
            complain(f"write {EXIT} of {self._id}: {error}")
        self._exit = {"event": "exit", **record}
        self._tell(self._exit)
        self._answer_waiting({"error": "the container has ended", "errno": 3, "operation": ""})
        self._loop.after("linger", LINGER, self._loop.stop)

    def _clear_cgroup(self, cgroup: Cgroup) -> bool:
        oom = False
        try:
            oom = cgroup.oom_kills() > 0
        except OSError as error:
            complain(f"count oom kills of {self._id}: {error}")
        _attempt("kill what is left in the cgroup", lambda: _kill_left(cgroup))
        self._reap_strays()
        _attempt("remove the cgroup", cgroup.remove)
        return oom

    def _is_over(self) -> bool:
        if not self._loop.is_running:
            return True
        if self._exit is None or self._execs.running or self._session.peers:
            return False
        return all(connection.is_flushed for connection in self._connections)

    # Children

    def _children_ready(self, _events: int) -> None:
        try:
            os.read(self._signals, 1024)
        except BlockingIOError:
            pass
        self._reap_strays()

    def _reap_strays(self) -> None:
        """Take what was orphaned to us; what we track goes to whom it belongs."""
        if self._pid < 0 and self._exit is None and self._helper >= 0:
            return  # one of them may be the init that we have not heard of yet
        options = os.WEXITED | os.WNOHANG
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, options | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            if not self._reap_tracked(found.si_pid):
                os.waitid(os.P_PID, found.si_pid, options)

    def _reap_tracked(self, pid: int) -> bool:
        if pid == self._pid and self._status is None:
            self._init_ready(0)
            return True
        return self._execs.reap(pid)

    # Engines

    def _connect(self, sock: _socket.socket) -> Connection:
        connection = Connection(self._loop, sock, self._serve, self._connections.remove)
        self._connections.append(connection)
        return connection

    def _accept(self, sock: _socket.socket) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            self._connections[0].close()
        connection = self._connect(sock)
        connection.send({"event": "hello", "v": 1, "id": self._id, "state": self._describe()})
        if self._exit is not None:
            connection.send(self._exit)

    def _tell(self, event: Message) -> None:
        for connection in tuple(self._connections):
            connection.send(event)

    def _serve(self, connection: Connection, message: Message, fds: list[int]) -> Message | None:
        if self._undecided:
            self._report_ready(0)
        word = message.get("op")
        if word == "start":
            self._start(connection, message.get("re"))
            return None
        operation = _OPERATIONS.get(word) if isinstance(word, str) else None
        if operation is None:
            raise ValueError(f"unknown operation {word!r}")
        return operation(self, message, fds) or {}

    def _describe(self) -> Message:
        status = "running" if self._started else "created"
        return {
            "status": "exited" if self._exit or self._status else status,
            "pid": self._pid,
            "started": self._started,
            "terminal": self._session.terminal,
            "execs": [{"exec": one.name, "pid": one.pid} for one in self._execs.running.values()],
            "exec_exits": self._execs.finished,
            "peers": len(self._session.peers),
            "log_dropped": self._log.dropped if self._log is not None else 0,
            "exit": self._exit,
        }

    # Operations

    def _start(self, connection: Connection, number: object) -> None:
        """Answered when the helper has said how it went."""
        if self._started or self._undecided or self._exit is not None or self._status is not None:
            raise OSError(errno.EALREADY, "start: the container was started already")
        if self._helper < 0:
            raise OSError(errno.ESRCH, "start: the process that would do it is gone")
        self._report.send(b"1")
        self._undecided = True
        self._waiting.append((connection, number))

    def op_signal(self, message: Message, _fds: list[int]) -> Message | None:
        number = int(message["sig"])
        if self._status is not None or self._pid < 0:
            raise OSError(errno.ESRCH, "signal: the container has ended")
        if not message.get("all"):
            process.pidfd_send_signal(self._pidfd, number)
        elif number == process.SIGKILL:
            self._runtime.cgroup(self._container).kill()
        else:
            _signal_each(self._runtime.cgroup(self._container), number)
        return None

    def op_exec(self, message: Message, fds: list[int]) -> Message | None:
        if self._status is not None or not self._started:
            raise OSError(errno.ESRCH, "exec: the container is not running")
        return self._execs.start(
            message,
            fds,
            state=self._container,
            pidfd=self._pidfd,
            filter_program=self._exec_filter(message, fds),
        )

    def _exec_filter(self, message: Message, fds: list[int]) -> Filter | None:
        """The container's filter; an explicit false is none, true is one that came along."""
        wish = message.get("seccomp")
        if not wish:
            return None if wish is False else read_filter(*self._seccomp)
        own = fds.pop(0)
        try:
            return read_filter(own, int(message.get("seccomp_flags") or 0))
        finally:
            os.close(own)

    def op_exec_signal(self, message: Message, _fds: list[int]) -> Message | None:
        self._execs.signal(str(message["exec"]), int(message["sig"]))
        return None

    def op_attach(self, message: Message, fds: list[int]) -> Message | None:
        if self._exit is not None or self._status is not None:
            raise OSError(errno.ESRCH, "attach: the container has ended")
        if not fds:
            raise ValueError("attach: no descriptor came with it")
        self._which(message).attach(fds.pop(0), message)
        return None

    def op_resize(self, message: Message, _fds: list[int]) -> Message | None:
        self._which(message).resize(int(message["height"]), int(message["width"]))
        return None

    def op_close_stdin(self, message: Message, _fds: list[int]) -> Message | None:
        stdin = self._which(message).stdin
        if stdin is not None:
            stdin.end()
        return None

    def op_reopen_log(self, _message: Message, _fds: list[int]) -> Message | None:
        if self._log is not None:
            self._log.reopen()
        return None

    def op_pids(self, _message: Message, _fds: list[int]) -> Message | None:
        return {"pids": self._runtime.cgroup(self._container).pids()}

    def op_state(self, _message: Message, _fds: list[int]) -> Message | None:
        return {"state": self._describe()}

    def _which(self, message: Message) -> Session:
        name = message.get("exec")
        return self._execs.get(str(name)).session if name else self._session


_OPERATIONS: dict[str, Callable[[Monitor, Message, list[int]], Message | None]] = {
    "attach": Monitor.op_attach,
    "close-stdin": Monitor.op_close_stdin,
    "exec": Monitor.op_exec,
    "exec-signal": Monitor.op_exec_signal,
    "pids": Monitor.op_pids,
    "reopen-log": Monitor.op_reopen_log,
    "resize": Monitor.op_resize,
    "signal": Monitor.op_signal,
    "state": Monitor.op_state,
}


def _attempt(what: str, call: Callable[[], object]) -> None:
    """Clean-up goes on whatever fails; the failure is one line."""
    try:
        call()
    except (OSError, ValueError) as error:
        complain(f"{what}: {error}")


def _kill_left(cgroup: Cgroup) -> None:
    if cgroup.pids():
        cgroup.kill()


def _signal_each(cgroup: Cgroup, number: int) -> None:
    """Signal what is in the cgroup now; a pid that left it meanwhile is nobody of ours."""
    for pid in cgroup.pids():
        try:
            pidfd = process.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if pid in cgroup.pids():
                process.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)
