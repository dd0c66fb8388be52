"""The monitor of one container: it starts init, watches it, and leaves its exit on the disk.

    launch -> created -> running -> ended (init reaped, stdio drained) -> recorded -> gone

The order at the end is fixed: init is reaped, its output drained, what is left in the cgroup
killed, the cgroup removed, `exit.json` flushed to the disk, and only then are engines told. Nothing
that an engine or a client does (or fails to do) can delay the record by more than the drain.

The monitor is the parent of init and of every exec, and the subreaper of what they orphan. Codes
are taken by pidfd; strays are looked at without being taken first, so that none is ever stolen.
"""

from __future__ import annotations

import errno
import os
from time import time_ns

from sampan.kernel import fds as descriptors
from sampan.kernel import process
from sampan.kernel.signals import signal_fd
from sampan.shim.control import Connection, Listener, failure
from sampan.shim.execs import Execs
from sampan.shim.exits import EXIT, STATE, encode, write_record
from sampan.shim.logs import JsonFile
from sampan.shim.loop import Loop, complain
from sampan.shim.peers import adopt
from sampan.shim.stdio import Session, close_ends

LINGER = 10.0
MAX_PROGRAM = 1024 * 1024
MAX_CONNECTIONS = 16

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any, Protocol

    from sampan.shim.execs import Spawned

    Message = dict[str, Any]
    Filter = tuple[bytes, int]

    class Cgroup(Protocol):
        """What the monitor needs of kernel.cgroups."""

        def pids(self) -> list[int]: ...
        def kill(self) -> None: ...
        def oom_kills(self) -> int: ...
        def remove(self) -> None: ...

    class Created(Protocol):
        """What `runtime.create.create` returns."""

        pid: int
        pidfd: int
        master: int
        state: Message

        @property
        def cgroup(self) -> Cgroup | None: ...
        def start(self) -> None: ...
        def abort(self) -> None: ...


class Runtime:
    """The runtime's functions, handed in so that tests can bring their own."""

    __slots__ = ("create", "mount", "spawn")

    def __init__(
        self,
        create: Callable[..., Created],
        spawn: Callable[..., Spawned],
        mount: Callable[[Message], int],
    ) -> None:
        self.create = create
        self.spawn = spawn
        self.mount = mount


class Monitor:
    """One container's monitor."""

    __slots__ = (
        "_connections",
        "_created",
        "_directory",
        "_execs",
        "_exit",
        "_id",
        "_listener",
        "_log",
        "_loop",
        "_operations",
        "_runtime",
        "_seccomp",
        "_seccomp_flags",
        "_session",
        "_signals",
        "_started",
        "_status",
    )

    def __init__(self, request: Message, control: _socket.socket, runtime: Runtime) -> None:
        """`request` is a launch message, `control` the socket of the engine that sent it."""
        self._id = str(request["id"])
        self._runtime = runtime
        self._loop = Loop()
        self._log = _open_log(request.get("log") or {})
        self._session = Session(
            self._loop,
            self._drained,
            log=self._log,
            terminal=bool((request["spec"].get("process") or {}).get("terminal")),
            stdin_once=bool(request.get("stdin_once")),
        )
        self._execs = Execs(self._loop, runtime.spawn, self._tell)
        self._connections: list[Connection] = []
        self._created: Created | None = None
        self._directory = -1
        self._exit: Message | None = None
        self._listener: Listener | None = None
        self._seccomp = -1
        self._seccomp_flags = 0
        self._signals = -1
        self._started = 0
        self._status: tuple[int, int, int] | None = None
        self._operations = {
            "attach": self._op_attach,
            "close-stdin": self._op_close_stdin,
            "exec": self._op_exec,
            "exec-signal": self._op_exec_signal,
            "pids": self._op_pids,
            "reopen-log": self._op_reopen_log,
            "resize": self._op_resize,
            "signal": self._op_signal,
            "start": self._op_start,
            "state": self._op_state,
        }
        self._connect(control)

    def run(self, request: Message, fds: list[int]) -> None:
        """Launch, and watch until nothing is left. `fds` are the launch's, without the control."""
        try:
            self._launch(request, fds)
        except Exception as error:
            # One of the edges: whatever it is, the engine must hear of it.
            self._fail(error)
        request.clear()
        while not self._is_over():
            self._loop.once()
        self._leave()

    # Starting

    def _launch(self, request: Message, fds: list[int]) -> None:
        self._open_directory(request["dir"])
        if request.get("seccomp"):
            self._seccomp = fds.pop(0)
            self._seccomp_flags = int(request.get("seccomp_flags") or 0)
        self._create(request)
        for wish in request.get("attach") or ():
            self._session.attach(fds.pop(0), wish)
        if request.get("start", True):
            self._start()
        else:
            self._tell({"event": "created", "pid": self._init.pid})
        self._signals = signal_fd(process.SIGCHLD)
        self._loop.add(self._signals, self._children_ready)
        self._reap_strays()

    @property
    def _init(self) -> Created:
        if self._created is None:
            raise OSError(errno.ESRCH, "the container is not running")
        return self._created

    def _open_directory(self, path: str) -> None:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._directory = os.open(path, flags)
        self._listener = Listener(self._loop, self._directory, self._accept)

    def _create(self, request: Message) -> None:
        ends = (-1, -1, -1)
        if not self._session.terminal:
            ends = self._session.open_pipes(
                stdin=bool(request.get("stdin")), stdout=True, stderr=True
            )
        word = request.get("rootfs")
        rootfs = self._runtime.mount(word) if word else None
        try:
            created = self._runtime.create(
                self._id,
                request["spec"],
                stdio=ends,
                root=rootfs,
                attach_at=request["dir"],
                filter_program=self._filter(),
                die_with_parent=True,
            )
        finally:
            close_ends(ends)
            if rootfs is not None:
                os.close(rootfs)
        self._created = created
        if created.master >= 0:
            master, created.master = created.master, -1
            self._session.open_terminal(master, stdin=bool(request.get("stdin")))
            if request.get("console_size"):
                self._session.resize(*request["console_size"])
        self._write_state()
        self._loop.add(created.pidfd, self._init_ready)

    def _filter(self) -> Filter | None:
        if self._seccomp < 0:
            return None
        return descriptors.read_all(self._seccomp, MAX_PROGRAM), self._seccomp_flags

    def _write_state(self) -> None:
        shim, init = os.getpid(), self._init
        state = {
            "v": 1,
            "id": self._id,
            "pid": init.pid,
            "start_time": init.state["start_time"],
            "shim_pid": shim,
            "shim_start_time": process.start_time(shim),
            "runtime": init.state,
        }
        write_record(self._directory, STATE, state, sync=False)

    def _start(self) -> None:
        self._init.start()
        self._started = time_ns()
        self._tell({"event": "started", "pid": self._init.pid, "time": self._started})

    def _fail(self, error: Exception) -> None:
        """The container never came to be: undo, tell, end."""
        created, self._created = self._created, None
        if created is not None:
            self._loop.remove(created.pidfd)
            _attempt("abort", created.abort)
        self._session.abandon()
        _attempt("remove the state", self._forget_state)
        self._exit = {"event": "start-failed", **failure(error)}
        self._tell(self._exit)
        self._loop.after("linger", LINGER, self._loop.stop)

    def _forget_state(self) -> None:
        try:
            if self._directory >= 0:
                os.unlink(STATE, dir_fd=self._directory)
        except FileNotFoundError:
            pass

    # Ending

    def _init_ready(self, _events: int) -> None:
        init = self._init
        status = process.wait_pidfd(init.pidfd, block=False)
        if status is None:
            return
        self._loop.remove(init.pidfd)
        self._status = (*status, time_ns())
        self._session.end()

    def _drained(self) -> None:
        """Init has ended and its output is delivered: clean up, record, tell."""
        assert self._status is not None
        code, number, ended = self._status
        init = self._init
        oom = self._clear_cgroup(init.cgroup)
        record = {
            "v": 1,
            "code": code,
            "signal": number,
            "oom": oom,
            "time": ended,
            "pid": init.pid,
            "lost": False,
        }
        try:
            write_record(self._directory, EXIT, record, sync=True)
        except OSError as error:
            # Told all the same: the engine's row is then the only record.
            complain(f"write {EXIT} of {self._id}: {error}")
        self._exit = {"event": "exit", **record}
        self._tell(self._exit)
        self._loop.after("linger", LINGER, self._loop.stop)

    def _clear_cgroup(self, cgroup: Cgroup | None) -> bool:
        if cgroup is None:
            return False
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

    def _leave(self) -> None:
        if self._listener is not None:
            _attempt("close the listener", self._listener.close)

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
        created = self._created
        if created is not None and pid == created.pid and self._status is None:
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
        connection.send({"event": "hello", "v": 1, "id": self._id, "state": self._state()})
        if self._exit is not None:
            connection.send(self._exit)

    def _tell(self, event: Message) -> None:
        for connection in tuple(self._connections):
            connection.send(event)

    def _serve(self, _connection: Connection, message: Message, fds: list[int]) -> Message | None:
        operation = self._operations.get(str(message.get("op")))
        if operation is None:
            raise ValueError(f"unknown operation {message.get('op')!r}")
        return operation(message, fds) or {}

    def _state(self) -> Message:
        created = self._created
        status = "running" if self._started else "created"
        return {
            "status": "exited" if self._exit or self._status else status,
            "pid": created.pid if created is not None else 0,
            "started": self._started,
            "terminal": self._session.terminal,
            "execs": [{"exec": one.name, "pid": one.pid} for one in self._execs.running.values()],
            "exec_exits": self._execs.finished,
            "peers": len(self._session.peers),
            "log_dropped": self._log.dropped if self._log is not None else 0,
            "exit": self._exit,
        }

    # Operations

    def _op_start(self, _message: Message, _fds: list[int]) -> Message | None:
        if self._started:
            raise OSError(errno.EALREADY, "start: the container was started already")
        try:
            self._start()
        except OSError as error:
            self._fail(error)
            raise
        return {"pid": self._init.pid}

    def _op_signal(self, message: Message, _fds: list[int]) -> Message | None:
        number = int(message["sig"])
        if self._status is not None:
            raise OSError(errno.ESRCH, "signal: the container has ended")
        cgroup = self._init.cgroup
        if not message.get("all") or cgroup is None:
            process.pidfd_send_signal(self._init.pidfd, number)
        elif number == process.SIGKILL:
            cgroup.kill()
        else:
            _signal_each(cgroup, number)
        return None

    def _op_exec(self, message: Message, fds: list[int]) -> Message | None:
        if self._status is not None or not self._started:
            raise OSError(errno.ESRCH, "exec: the container is not running")
        init = self._init
        return self._execs.start(
            message,
            fds,
            state=init.state,
            pidfd=init.pidfd,
            filter_program=self._exec_filter(message, fds),
        )

    def _exec_filter(self, message: Message, fds: list[int]) -> Filter | None:
        """The container's filter; an explicit false is none, true is one that came along."""
        wish = message.get("seccomp")
        if not wish:
            return None if wish is False else self._filter()
        own = fds.pop(0)
        try:
            return descriptors.read_all(own, MAX_PROGRAM), int(message.get("seccomp_flags") or 0)
        finally:
            os.close(own)

    def _op_exec_signal(self, message: Message, _fds: list[int]) -> Message | None:
        self._execs.signal(str(message["exec"]), int(message["sig"]))
        return None

    def _op_attach(self, message: Message, fds: list[int]) -> Message | None:
        if self._exit is not None or self._status is not None:
            raise OSError(errno.ESRCH, "attach: the container has ended")
        if not fds:
            raise ValueError("attach: no descriptor came with it")
        self._which(message).attach(fds.pop(0), message)
        return None

    def _op_resize(self, message: Message, _fds: list[int]) -> Message | None:
        self._which(message).resize(int(message["height"]), int(message["width"]))
        return None

    def _op_close_stdin(self, message: Message, _fds: list[int]) -> Message | None:
        stdin = self._which(message).stdin
        if stdin is not None:
            stdin.end()
        return None

    def _op_reopen_log(self, _message: Message, _fds: list[int]) -> Message | None:
        if self._log is not None:
            self._log.reopen()
        return None

    def _op_pids(self, _message: Message, _fds: list[int]) -> Message | None:
        cgroup = self._init.cgroup
        return {"pids": cgroup.pids() if cgroup is not None else [self._init.pid]}

    def _op_state(self, _message: Message, _fds: list[int]) -> Message | None:
        return {"state": self._state()}

    def _which(self, message: Message) -> Session:
        name = message.get("exec")
        return self._execs.get(str(name)).session if name else self._session


def _open_log(wish: Message) -> JsonFile | None:
    if wish.get("driver", "none") == "none":
        return None
    if wish["driver"] != "json-file":
        raise ValueError(f"unknown log driver {wish['driver']!r}")
    return JsonFile(wish["path"], int(wish.get("max_size") or 0), int(wish.get("max_file") or 1))


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


def become_shim(request: Message, fds: list[int], runtime: Runtime) -> None:
    """Turn this fresh fork into the shim of `request`; returns when the container is gone.

    The first descriptor is the engine's control socket.
    """
    sock = adopt(fds.pop(0))
    try:
        os.setsid()
        process.set_child_subreaper()
        process.set_name("sampan-shim")
        monitor = Monitor(request, sock, runtime)
    except Exception as error:
        _refuse(sock, error)
        raise
    monitor.run(request, fds)


def _refuse(sock: _socket.socket, error: Exception) -> None:
    event = encode({"event": "start-failed", **failure(error)}).encode("ascii")
    _attempt("tell the engine", lambda: descriptors.send(sock, event))
