"""The monitor of one container: it watches init and leaves its exit on the disk.

    created -> running -> ended (init reaped, stdio drained) -> recorded -> gone

The order at the end is fixed: init is reaped, its output drained, what is left in the cgroup
killed, the cgroup removed, `exit.json` flushed to the disk, and only then are engines told. Nothing
that an engine or a client does (or fails to do) can delay the record by more than the drain.

The spawner has made the container and hands it over (launch.py). The monitor is the parent of init,
unless a keeper is (keeper.py), which then tells it how init ended; and of every exec, and the
subreaper of what they orphan. Codes are taken by pidfd; strays are looked at without being taken
first, so that none is ever stolen.
"""

from __future__ import annotations

import _socket
import errno
import os
from time import time_ns

from sampan.kernel import process
from sampan.shim.control import Connection, Listener, failure
from sampan.shim.execs import LOST, Execs, take_status
from sampan.shim.exits import EXIT, STATE, parse_kept, write_record
from sampan.shim.launch import read_filter
from sampan.shim.logs import JsonFile, open_log
from sampan.shim.loop import Loop, complain
from sampan.shim.peers import adopt
from sampan.shim.stdio import Session

LINGER = 10.0
MAX_REPORT = 256 * 1024
MAX_CONNECTIONS = 16

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
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
        "_gate",
        "_id",
        "_is_lost",
        "_keeper",
        "_listener",
        "_log",
        "_loop",
        "_pid",
        "_pidfd",
        "_runtime",
        "_seccomp",
        "_session",
        "_signals",
        "_started",
        "_status",
    )

    def __init__(self, signals: int, runtime: Runtime) -> None:
        """`signals` reads SIGCHLD."""
        self._runtime = runtime
        self._loop = Loop()
        self._connections: list[Connection] = []
        self._container: Message = {}
        self._directory = self._pid = self._pidfd = -1
        self._signals = signals
        self._execs = Execs(self._loop, runtime.spawn, self._tell)
        self._exit: Message | None = None
        self._gate = (-1, -1, "")
        self._id = ""
        self._is_lost = False
        self._keeper = -1
        self._listener: Listener | None = None
        self._log: JsonFile | None = None
        self._seccomp = (-1, 0)
        self._started = 0
        self._session = Session(self._loop, self._drained)
        self._status: tuple[int, int, int] | None = None

    def run(self, facts: Message, names: list[str], fds: list[int]) -> None:
        """Take the container over and watch until nothing is left.

        `names` say what the first of `fds` are; the others are of the attached peers.
        """
        self._loop.add(self._signals, self._children_ready)
        self._adopt(facts, dict(zip(names, fds, strict=False)), fds[len(names) :])
        self._reap_strays()
        while not self._is_over():
            self._loop.once()
        if self._listener is not None:
            _attempt("close the listener", self._listener.close)

    def _adopt(self, facts: Message, fds: dict[str, int], attached: list[int]) -> None:
        """The container is ours from now on."""
        self._id, self._container = facts["id"], facts["state"]
        self._pid, self._pidfd = facts["pid"], fds["pidfd"]
        self._started = facts["started"]
        self._directory = fds["directory"]
        self._gate = fds.get("gate", -1), fds.get("sync", -1), facts["program"]
        self._seccomp = fds.get("seccomp", -1), facts["seccomp_flags"]
        self._listener = Listener(self._loop, fds["listener"], self._directory, self._accept)
        if facts["log"] is not None:
            self._log = open_log(*facts["log"])
        session = self._session
        session.configure(self._log, terminal="master" in fds, once=facts["stdin_once"])
        if session.terminal:
            session.open_terminal(fds["master"], stdin=facts["stdin"])
        else:
            session.open_pipes(*(fds.get(name, -1) for name in ("stdin", "stdout", "stderr")))
        for fd, wish in zip(attached, facts["attach"], strict=True):
            session.attach(fd, wish)
        self._keeper = fds.get("keeper", -1)
        if self._keeper >= 0:
            self._loop.add(self._keeper, self._keeper_ended)
        else:
            self._loop.add(self._pidfd, self._init_ready)
        self._connect(adopt(fds["control"]))
        if not self._started:
            self._tell({"event": "created", "pid": self._pid})

    # Ending

    def _init_ready(self, _events: int) -> None:
        status = take_status(self._pidfd)
        if status is None:
            return
        self._loop.remove(self._pidfd)
        self._status = (*status, time_ns())
        self._is_lost = status is LOST
        self._session.end()

    def _keeper_ended(self, _events: int) -> None:
        """Our container's parent says how init ended, or was killed before it could."""
        self._loop.remove(self._keeper)
        try:
            record = parse_kept(os.read(self._keeper, 4096))
        except (ConnectionResetError, ValueError):
            # The keeper was killed, and init with it, by the signal for its parent's end.
            self._is_lost = True
            self._status = 128 + process.SIGKILL, process.SIGKILL, time_ns()
        else:
            self._status = record["code"], record["signal"], record["time"]
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

    def _serve(self, _connection: Connection, message: Message, fds: list[int]) -> Message | None:
        word = message.get("op")
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

    def op_start(self, _message: Message, _fds: list[int]) -> Message | None:
        if self._started or self._exit is not None or self._status is not None:
            raise OSError(errno.EALREADY, "start: the container was started already")
        gate, self._gate = self._gate, (-1, -1, "")
        try:
            self._runtime.resume(*gate)
        except OSError as error:
            self._fail(error)
            raise
        self._started = time_ns()
        self._tell({"event": "started", "pid": self._pid, "time": self._started})
        return {"pid": self._pid}

    def _fail(self, error: OSError) -> None:
        """The program could not be executed: undo what the launch made."""
        self._loop.remove(self._pidfd)
        _attempt("end the process", lambda: process.pidfd_send_signal(self._pidfd, process.SIGKILL))
        take_status(self._pidfd, block=True)
        self._pid = -1
        self._session.abandon()
        self._clear_cgroup(self._runtime.cgroup(self._container))
        _attempt("remove the state", lambda: os.unlink(STATE, dir_fd=self._directory))
        self._exit = {"event": "start-failed", **failure(error)}
        self._tell(self._exit)
        self._loop.after("linger", LINGER, self._loop.stop)

    def op_signal(self, message: Message, _fds: list[int]) -> Message | None:
        number = int(message["sig"])
        if self._status is not None or self._pid < 0:
            raise OSError(errno.ESRCH, "signal: the container has ended")
        if not message.get("all"):
            self._runtime.signal(self._pidfd, number)
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
        name = str(message["exec"])
        if message.get("all"):
            self._execs.kill_session(name, self._runtime.cgroup(self._container).pids)
        else:
            self._execs.signal(name, int(message["sig"]))
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
            self._log.renew()
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
    "start": Monitor.op_start,
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
