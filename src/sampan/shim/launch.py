"""Making the container, in a helper process that shares the shim's descriptors and nothing else.

Everything a shim executes once stays in its memory for as long as the container runs: each object
that Python touches is a page that is no longer shared with the spawner. Creating a container
touches most of them (1.5 to 2 MiB). So a helper does it: it is cloned with CLONE_FILES, so what it
opens is open in the shim too; init becomes its sibling (CLONE_PARENT), a child of the shim; and
with the helper's end its memory is gone.

Shim and helper are there before their launch is: the spawner keeps such a pair ready, so that their
forks, and the namespaces that `prepare` makes, cost the container nothing. The helper gets the
launch message; the descriptors that come with it are in the shared table.

The helper speaks to the shim in marshalled tuples over a socket pair: `("created", facts)`, then
`("started", time)`, or at any time `("failed", (control, event))`. A container that is not to be
started at once waits in the helper for one byte from the shim.

Both share one table of descriptors: whoever closes a number closes it for both.
"""

from __future__ import annotations

import _socket
import fcntl
import marshal
import os
from time import time_ns

from sampan.kernel import fds as descriptors
from sampan.kernel import numbers as n
from sampan.kernel import process, terminal
from sampan.shim.control import SOCKET, failure, listen, parse
from sampan.shim.exits import STATE, write_record
from sampan.shim.loop import complain
from sampan.shim.stdio import close_ends, make_pipes

MAX_PROGRAM = 1024 * 1024
LARGEST = 4 * 1024 * 1024
"""Bytes of one launch message."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, Protocol

    Message = dict[str, Any]

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

        def start(self) -> None: ...
        def abort(self) -> None: ...

    class Spawned(Protocol):
        """What `runtime.exec.spawn` returns."""

        pid: int
        pidfd: int
        master: int


class Runtime:
    """The runtime's functions, handed in so that tests can bring their own.

    `prepare` makes what can be made before the launch is known and gives it to `create` as `blank`.
    `create` makes a sibling of its caller. `cgroup` finds the cgroup of a container by the state
    that `create` described.
    """

    __slots__ = ("cgroup", "create", "mount", "prepare", "spawn")

    def __init__(
        self,
        create: Callable[..., Created],
        spawn: Callable[..., Spawned],
        mount: Callable[[Message], int],
        cgroup: Callable[[Message], Cgroup],
        prepare: Callable[[], object],
    ) -> None:
        self.create = create
        self.spawn = spawn
        self.mount = mount
        self.cgroup = cgroup
        self.prepare = prepare


def start_helper(requests: int, runtime: Runtime, report: _socket.socket) -> int:
    """Clone the helper, which waits for its launch message on `requests`; its pidfd."""
    pid, pidfd = process.clone3(n.CLONE_FILES)
    if pid == 0:
        _help(requests, runtime, report)
    return pidfd


def _help(requests: int, runtime: Runtime, report: _socket.socket) -> NoReturn:
    try:
        process.set_parent_death_signal(process.SIGKILL)
        process.set_name("sampan-launch")
        blank = runtime.prepare()
        sock = _socket.socket(-1, -1, -1, requests)
        data, fds = descriptors.receive(sock, LARGEST)
        sock.close()
        if data:
            Launch(runtime, report, fds.pop(0)).attempt(data, fds, blank)
    except BaseException as error:
        complain(f"launch: {type(error).__name__}: {error}")
    finally:
        os._exit(0)


class Launch:
    """One launch, as far as it came."""

    __slots__ = ("_control", "_created", "_directory", "_report", "_runtime")

    def __init__(self, runtime: Runtime, report: _socket.socket, control: int) -> None:
        """`report` leads to the shim, `control` is the socket of the engine."""
        self._runtime = runtime
        self._report = report
        self._control = control
        self._created: Created | None = None
        self._directory = -1

    def attempt(self, data: bytes, fds: list[int], blank: object) -> None:
        """Do everything up to the container's execve; tell the shim how that went."""
        try:
            self._run(parse(data), fds, blank)
        except Exception as error:
            # One of the edges: whatever it is, the engine must hear of it.
            self._undo()
            self._say("failed", (self._control, {"event": "start-failed", **failure(error)}))

    def _run(self, request: Message, fds: list[int], blank: object) -> None:
        self._open_directory(request["dir"])
        facts: Message = {"id": str(request["id"]), "directory": self._directory}
        facts["control"] = self._control
        facts["log"] = _checked_log(request.get("log") or {})
        facts["listener"] = listen(self._directory)
        facts["seccomp"] = fds.pop(0) if request.get("seccomp") else -1
        facts["seccomp_flags"] = int(request.get("seccomp_flags") or 0)
        created = self._create(request, facts, blank)
        wishes = request.get("attach") or []
        facts["attach"] = [(fd, wish) for fd, wish in zip(fds, wishes, strict=True)]
        facts["stdin_once"] = bool(request.get("stdin_once"))
        at_once = bool(request.get("start", True))
        facts["start"] = at_once
        self._say("created", facts)
        if at_once or self._report.recv(1):
            created.start()
            self._say("started", time_ns())

    def _say(self, word: str, content: Any) -> None:
        self._report.send(marshal.dumps((word, content)))

    def _undo(self) -> None:
        """Leave nothing of a launch that failed."""
        created, self._created = self._created, None
        calls: list[Callable[[], None]] = [
            lambda: self._unlink(STATE),
            lambda: self._unlink(SOCKET),
        ]
        if created is not None:
            calls.append(created.abort)
        for call in calls:
            try:
                call()
            except OSError as error:
                complain(f"undo launch: {error}")

    def _open_directory(self, path: str) -> None:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._directory = os.open(path, flags)

    def _create(self, request: Message, facts: Message, blank: object) -> Created:
        spec, wants_input = request["spec"], bool(request.get("stdin"))
        with_terminal = bool((spec.get("process") or {}).get("terminal"))
        ends = ours = (-1, -1, -1)
        if not with_terminal:
            ends, ours = make_pipes(stdin=wants_input, stdout=True, stderr=True)
        word = request.get("rootfs")
        rootfs = self._runtime.mount(word) if word else None
        try:
            created = self._runtime.create(
                facts["id"],
                spec,
                stdio=ends,
                root=rootfs,
                attach_at=request["dir"],
                filter_program=read_filter(facts["seccomp"], facts["seccomp_flags"]),
                die_with_parent=True,
                blank=blank,
            )
        finally:
            close_ends(ends)
            if rootfs is not None:
                os.close(rootfs)
        self._created = created
        facts |= {"pid": created.pid, "pidfd": created.pidfd, "stdio": ours}
        facts |= {"master": created.master, "wants_input": wants_input, "state": created.state}
        if created.master >= 0 and request.get("console_size"):
            height, width = request["console_size"]
            terminal.set_size(created.master, height, width)
        self._write_state(facts["id"], created)
        # From here on the shim owns them; what an undo closes are copies.
        created.master = -1
        created.pidfd = fcntl.fcntl(created.pidfd, fcntl.F_DUPFD_CLOEXEC, 3)
        return created

    def _write_state(self, container_id: str, created: Created) -> None:
        shim = os.getppid()
        state = {
            "v": 1,
            "id": container_id,
            "pid": created.pid,
            "start_time": created.state["start_time"],
            "shim_pid": shim,
            "shim_start_time": process.start_time(shim),
            "runtime": created.state,
        }
        write_record(self._directory, STATE, state, sync=False)

    def _unlink(self, name: str) -> None:
        if self._directory >= 0:
            try:
                os.unlink(name, dir_fd=self._directory)
            except FileNotFoundError:
                pass


def read_filter(fd: int, flags: int) -> tuple[bytes, int] | None:
    """The compiled seccomp program behind a descriptor, and its flags; None for -1."""
    return None if fd < 0 else (descriptors.read_all(fd, MAX_PROGRAM), flags)


def _checked_log(wish: Message) -> tuple[str, int, int] | None:
    """The path, size and number of files of a log; None for no log."""
    if wish.get("driver", "none") == "none":
        return None
    if wish["driver"] != "json-file":
        raise ValueError(f"unknown log driver {wish['driver']!r}")
    return str(wish["path"]), int(wish.get("max_size") or 0), int(wish.get("max_file") or 1)
