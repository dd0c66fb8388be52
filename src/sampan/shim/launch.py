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
`("started", (time, told))`, or at any time `("failed", (control, event))`. When all went well the
shim need not read them yet: the helper tells the engine, and puts what can stir into the epoll that
the shim sleeps on. A container that is not to be started at once waits in the helper for one byte
from the shim.

Both share one table of descriptors: whoever closes a number closes it for both.
"""

from __future__ import annotations

import _socket
import fcntl
import marshal
import os
import select
from time import time_ns

from sampan.kernel import fds as descriptors
from sampan.kernel import process, terminal
from sampan.shim.control import SOCKET, failure, listen, parse
from sampan.shim.exits import STATE, encode, write_record
from sampan.shim.loop import complain
from sampan.shim.stdio import close_ends, make_pipes

MAX_PROGRAM = 1024 * 1024
IDLE = 3
_SEND = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL
_STIRS = select.EPOLLIN | select.EPOLLRDHUP
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


def help_shim(requests: int, runtime: Runtime, report: tuple[int, int], bell: int) -> NoReturn:
    """Be the helper: wait for the launch message on `requests`, obey it, end.

    `report` are the shim's end and our end of a socket pair, `bell` the epoll that the shim waits
    on. The exit status is IDLE when the shim may sleep until something stirs.
    """
    status = 1
    try:
        process.set_parent_death_signal(process.SIGKILL)
        process.set_name("sampan-launch")
        blank = runtime.prepare()
        sock = _socket.socket(-1, -1, -1, requests)
        data, fds = descriptors.receive(sock, LARGEST)
        sock.close()
        if data:
            launch = Launch(runtime, report, bell, fds.pop(0))
            status = IDLE if launch.attempt(data, fds, blank) else 1
    except BaseException as error:
        complain(f"launch: {type(error).__name__}: {error}")
    finally:
        os._exit(status)


class Launch:
    """One launch, as far as it came."""

    __slots__ = (
        "_bell",
        "_control",
        "_created",
        "_directory",
        "_report",
        "_runtime",
        "_shim_end",
        "_voice",
    )

    def __init__(self, runtime: Runtime, report: tuple[int, int], bell: int, control: int) -> None:
        """See `help_shim`; `control` leads to the engine."""
        self._bell = select.epoll.fromfd(bell)
        self._runtime = runtime
        self._shim_end = report[0]
        self._report = _socket.socket(-1, -1, -1, report[1])
        self._control = control
        # A copy: the number above is the shim's as soon as it hears of it.
        self._voice = _socket.socket(-1, -1, -1, os.dup(control))
        self._created: Created | None = None
        self._directory = -1

    def attempt(self, data: bytes, fds: list[int], blank: object) -> bool:
        """Do everything up to the container's execve; whether the shim may sleep on."""
        try:
            return self._run(parse(data), fds, blank)
        except Exception as error:
            # One of the edges: whatever it is, the engine must hear of it.
            self._undo()
            self._say("failed", (self._control, {"event": "start-failed", **failure(error)}))
            self._wake()
            return False

    def _run(self, request: Message, fds: list[int], blank: object) -> bool:
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
        if at_once:
            created.start()
            when = time_ns()
            # The shim first: what the engine asks for next presumes that it has started.
            self._say("started", (when, True))
            self._tell({"event": "started", "pid": created.pid, "time": when})
            self._release(created)
            return self._arm(facts)
        self._wake()
        if self._report.recv(1):
            created.start()
            self._say("started", (time_ns(), False))
            self._release(created)
        return False

    def _release(self, created: Created) -> None:
        """Close our copies: the end of this process would leave them open in the shim."""
        self._voice.close()
        os.close(created.pidfd)

    def _tell(self, event: Message) -> None:
        """Tell the engine ourselves, for the shim would have to wake up for it."""
        try:
            self._voice.send(encode(event).encode("ascii"), _SEND)
        except OSError:
            pass  # it is gone, or full of what it did not read; the state on disk says the same

    def _arm(self, facts: Message) -> bool:
        """Let the shim sleep until one of these has something; false when it is up already.

        An init that has ended wakes the shim by itself, and then these numbers are the shim's.
        """
        fds = (*facts["stdio"][1:], *(facts[key] for key in ("master", "pidfd", "listener")))
        try:
            for fd in (*fds, self._control):
                if fd >= 0:
                    self._bell.register(fd, select.EPOLLIN)
            for fd, wish in facts["attach"]:
                self._bell.register(fd, _STIRS if wish.get("stdin") else 0)
        except OSError:
            return False
        return True

    def _wake(self) -> None:
        """Let the shim read our report now."""
        try:
            self._bell.register(self._shim_end, select.EPOLLIN)
        except FileExistsError:
            pass  # it was woken before, for a container that waited for its start

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
        # The engine makes it, and an engine that recovers removes it: a launch that is overtaken by
        # a recovery must come to nothing, so it is never made here.
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
