"""One launch, carried out by the spawner: from the engine's message to a container that runs.

The shim was forked before, and sleeps; its child, a blank in fresh namespaces, waits for its order.
The spawner is warm: what it executes it has executed before, so a launch copies no page of memory,
and a shim that is never woken keeps sharing all of its own. Only kernel calls that cannot hang on
somebody's file system are made here; what may wait (mounts below the root, the execve) happens in
the blank, and the spawner polls for its word.

    begun -> ready (at the gate) -> executed -> handed over
      `--------`-- failed: undone, the engine is told, the shim ends by the end of its socket

What the shim will need is sent to it unread: a marshalled tuple and descriptors wait in its socket
until something stirs. Then the spawner puts what can stir into the epoll that the shim sleeps on,
tells the engine, and closes its own copies.
"""

from __future__ import annotations

import _socket
import marshal
import os
import select
from time import time_ns

from sampan.kernel import fds as descriptors
from sampan.kernel import process
from sampan.kernel.identity import start_time
from sampan.runtime.failure import NeedsInterpreter
from sampan.shim import keeper
from sampan.shim.control import SOCKET, STIRS, failure, listen, parse
from sampan.shim.exits import STATE, encode, write_record
from sampan.shim.logs import DRIVERS
from sampan.shim.loop import complain
from sampan.shim.spares import Kept
from sampan.shim.stdio import close_ends, make_pipes

MAX_PROGRAM = 1024 * 1024
DYING = 100
"""Milliseconds that a killed process may take from the end of its sockets to its own."""
_LONGEST = 1024  # of the texts in what a keeper is sent
_SEND = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL
_STIRS = select.EPOLLIN | select.EPOLLRDHUP
_STIRRING = ("stdout", "stderr", "master", "pidfd", "listener")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from sampan.kernel.cgroups.hierarchy import Hierarchy
    from sampan.shim.spares import Keepers, Spare, Spares

    Message = dict[str, Any]

    class Cgroup(Protocol):
        """What the monitor and the keeper need of kernel.cgroups."""

        def places(self) -> list[tuple[Hierarchy, str]]: ...
        def open_counts(self) -> int: ...
        def pids(self) -> list[int]: ...
        def kill(self) -> None: ...
        def oom_kills(self) -> int: ...
        def remove(self) -> None: ...

    class Blank(Protocol):
        """What `runtime.blank.make_blank` returns."""

        pid: int
        pidfd: int

        @property
        def sync(self) -> _socket.socket: ...

    class Created(Protocol):
        """What `runtime.create.begin` returns."""

        pid: int
        pidfd: int
        master: int
        program: str
        state: Message

        def step(self) -> bool: ...
        def fileno(self) -> int: ...
        def give_up_gate(self) -> tuple[int, int]: ...
        def release(self) -> None: ...
        def abort(self) -> None: ...

    class Spawned(Protocol):
        """What `runtime.exec.spawn` returns."""

        pid: int
        pidfd: int
        master: int


class Runtime:
    """The runtime's functions, handed in so that tests can bring their own.

    `prepare(kinds, pid_namespace, interpreted)` makes a blank that is a child of its caller,
    `adopt` makes one again of its parts in the spawner. `begin` gives it its order. `kinds` says
    which namespaces a configuration needs: new ones, and the path of the pid namespace that is
    joined. `resume` opens the gate of a container, `signal` reaches its first process by pidfd.
    `cgroup` finds the cgroup by the state that `begin` described. `keepers` makes the parents of
    quiet containers, where there are such; it is given the socket that leads to the nursery.
    """

    __slots__ = (
        "adopt",
        "begin",
        "cgroup",
        "keepers",
        "kinds",
        "mount",
        "prepare",
        "resume",
        "signal",
        "spawn",
    )

    def __init__(
        self,
        *,
        adopt: Callable[[list[str], int, int, int, bool], Any],
        begin: Callable[..., Created],
        cgroup: Callable[[Message], Cgroup],
        kinds: Callable[[Message], tuple[list[str], Any]],
        mount: Callable[[Message], int],
        prepare: Callable[[list[str], str, bool], Blank],
        resume: Callable[[int, int, str], None],
        spawn: Callable[..., Spawned],
        keepers: Callable[[int], list[Keepers]] | None = None,
        signal: Callable[[int, int], None] = process.pidfd_send_signal,
    ) -> None:
        self.adopt = adopt
        self.begin = begin
        self.cgroup = cgroup
        self.keepers = keepers
        self.kinds = kinds
        self.mount = mount
        self.prepare = prepare
        self.resume = resume
        self.signal = signal
        self.spawn = spawn


class Launch:
    """One launch, as far as it came."""

    __slots__ = (
        "_attached",
        "_control",
        "_created",
        "_facts",
        "_fds",
        "_request",
        "_runtime",
        "_spare",
        "_spares",
    )

    def __init__(self, runtime: Runtime, spares: Spares, control: int) -> None:
        """Own `control`, which leads to the engine."""
        self._runtime = runtime
        self._spares = spares
        self._spare: Spare | None = None
        self._control = _socket.socket(-1, -1, -1, control)
        self._created: Created | None = None
        self._request: Message = {}
        self._facts: Message = {}
        self._fds: dict[str, int] = {}
        self._attached: list[int] = []

    def fileno(self) -> int:
        """What is readable when `step` has something to do."""
        assert self._created is not None
        return self._created.fileno()

    def begin(self, data: bytes, fds: list[int]) -> bool:
        """Give the blank its order; whether there is more to come. Owns `fds`."""
        self._attached = fds
        try:
            self._request = parse(data)
            self._begin(self._request)
            self._order()
        except Exception as error:
            # One of the edges: whatever it is, the engine must hear of it.
            self._fail(error)
            return False
        return True

    def step(self) -> bool:
        """Hear the blank's next word; whether there is more to come."""
        assert self._created is not None
        try:
            more = self._created.step()
            if more:
                self._ready()
            if more and self._facts["start"]:
                return True
            self._hand_over()
        except NeedsInterpreter:
            return self._repeat()
        except Exception as error:  # as above
            self._fail(error)
        return False

    def _begin(self, request: Message) -> None:
        # The engine makes it, and an engine that recovers removes it: a launch that is overtaken by
        # a recovery must come to nothing, so it is never made here.
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fds["directory"] = directory = os.open(request["dir"], flags)
        if request.get("seccomp"):
            self._fds["seccomp"] = self._attached.pop(0)
        wishes = request.get("attach") or []
        if len(wishes) != len(self._attached):
            raise ValueError("attach: not as many descriptors as entries")
        self._facts = {
            "id": str(request["id"]),
            "log": checked_log(request.get("log") or {}),
            "seccomp_flags": int(request.get("seccomp_flags") or 0),
            "attach": wishes,
            "stdin_once": bool(request.get("stdin_once")),
            "stdin": bool(request.get("stdin")),
            "start": bool(request.get("start", True)),
            "started": 0,
        }
        self._fds["listener"] = listen(directory)

    def _choose(self, kinds: list[str], pid_namespace: str, *, interpreted: bool) -> Spare:
        """The parent: a keeper where one will do."""
        if interpreted and isinstance(self._spare, Kept):
            self._let_go()
        if self._spare is None and not interpreted and not pid_namespace and self._is_quiet():
            self._spare = self._spares.kept(kinds)
        if self._spare is None:
            self._spare = self._spares.shim()
        return self._spare

    def _is_quiet(self) -> bool:
        """Whether it starts at once, with nobody attached, and its facts fit a keeper's buffer."""
        facts, spec = self._facts, self._request["spec"]
        container = spec.get("process") or {}
        if facts["stdin"] or facts["attach"] or not facts["start"] or container.get("terminal"):
            return False
        path = (spec.get("linux") or {}).get("cgroupsPath") or ""
        log = facts["log"][1] if facts["log"] else ""
        texts = [facts["id"], log, (container.get("args") or [""])[0]]
        return len(os.fsencode(path)) < keeper.PATH_SIZE and max(map(len, texts)) < _LONGEST

    def _let_go(self) -> None:
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _repeat(self) -> bool:
        """What the machine could not do is an interpreter's; whether there is more to come."""
        try:
            if self._created is not None:
                self._created.abort()
            self._created = None
            self._order(interpreted=True)
        except Exception as error:  # as above
            self._fail(error)
            return False
        return True

    def _order(self, *, interpreted: bool = False) -> None:
        """Give an order, to an interpreter where the machine refuses it."""
        try:
            self._give_order(interpreted=interpreted)
        except NeedsInterpreter:
            self._give_order(interpreted=True)

    def _give_order(self, *, interpreted: bool) -> None:
        request, spec = self._request, self._request["spec"]
        if request.get("console_size"):
            height, width = request["console_size"]
            spec["process"]["consoleSize"] = {"height": height, "width": width}
        ends = ours = (-1, -1, -1)
        if not (spec.get("process") or {}).get("terminal"):
            ends, ours = make_pipes(stdin=self._facts["stdin"], stdout=True, stderr=True)
        for name, fd in zip(("stdin", "stdout", "stderr"), ours, strict=True):
            if name in self._fds:  # of an order before this one
                os.close(self._fds.pop(name))
            if fd >= 0:
                self._fds[name] = fd
        word = request.get("rootfs")
        root = self._runtime.mount(word) if word else None
        try:
            kinds, pid_namespace = self._runtime.kinds(spec)
            spare = self._choose(kinds, pid_namespace, interpreted=interpreted)
            self._created = self._runtime.begin(
                self._facts["id"],
                spec,
                stdio=ends,
                root=root,
                attach_at=request["dir"],
                filter_program=read_filter(
                    self._fds.get("seccomp", -1), self._facts["seccomp_flags"]
                ),
                use_gate=not self._facts["start"],
                die_with_parent=True,
                blank=spare.blank(self._runtime, kinds, pid_namespace, interpreted=interpreted),
            )
        finally:
            close_ends(ends)
            if root is not None:
                os.close(root)
        self._write_state(self._created)

    def _ready(self) -> None:
        """It stands at its gate, or is about to execute: its terminal is here now."""
        created = self._created
        assert created is not None
        if created.master >= 0:
            self._fds["master"], created.master = created.master, -1

    def _hand_over(self) -> None:
        """Everything to the shim, then the word to the engine."""
        created, facts, spare = self._created, self._facts, self._spare
        assert created is not None
        assert spare is not None
        facts |= {"pid": created.pid, "state": created.state, "program": created.program}
        self._fds["pidfd"] = created.pidfd
        if facts["start"]:
            facts["started"] = time_ns()
        else:
            self._fds["gate"], self._fds["sync"] = map(os.dup, created.give_up_gate())
        if isinstance(spare, Kept):
            self._send_kept(spare)
        else:
            self._send(spare)
        if facts["start"]:
            self._arm(spare)
            # Only now: were we killed before, the end of our socket would still wake the shim.
            spare.bell.unregister(spare.shim_end.fileno())
            event = {"event": "started", "pid": created.pid, "time": facts["started"]}
            self._tell(event)
        created.release()
        self._close()

    def _send(self, spare: Spare) -> None:
        names = ["control", *self._fds]
        # A container that is not started at once is the awake shim's to start.
        spare.bell.modify(spare.shim_end.fileno(), 0 if self._facts["start"] else select.EPOLLIN)
        text = marshal.dumps(("launched", (self._facts, names)))
        fds = [self._control.fileno(), *self._fds.values(), *self._attached]
        descriptors.send(spare.sock, text, fds)

    def _send_kept(self, spare: Kept) -> None:
        """As a keeper needs it: the cgroup's path in front, and a fixed list of descriptors."""
        cgroup = self._runtime.cgroup(self._facts["state"])
        self._fds["oom"] = cgroup.open_counts()
        fds = {**self._fds, "control": self._control.fileno()}
        names = [name if name in fds else "" for name in keeper.PASSED]
        path = os.fsencode(cgroup.places()[0][1]).ljust(keeper.PATH_SIZE, b"\0")
        passed = [fds.get(name, fds["directory"]) for name in keeper.PASSED]
        descriptors.send(spare.sock, path + marshal.dumps((self._facts, names)), passed)

    def _arm(self, spare: Spare) -> None:
        """Let the shim sleep until one of these has something.

        An epoll holds files, not numbers: what is registered here stays so when our copies are
        closed, for the shim's copies wait in its socket.
        """
        for name in _STIRRING:
            fd = self._fds.get(name, -1)
            if fd >= 0:
                spare.bell.register(fd, select.EPOLLIN)
        spare.bell.register(self._control.fileno(), STIRS)
        for fd, wish in zip(self._attached, self._facts["attach"], strict=True):
            spare.bell.register(fd, _STIRS if wish.get("stdin") else 0)

    def _tell(self, event: Message) -> None:
        """Tell the engine ourselves, for the shim would have to wake up for it."""
        try:
            self._control.send(encode(event).encode("ascii"), _SEND)
        except OSError:
            pass  # it is gone, or full of what it did not read; the state on disk says the same

    def _fail(self, error: Exception) -> None:
        """Undo, tell the engine; the shim ends with its socket."""
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
            except OSError as problem:
                complain(f"undo launch: {problem}")
        # One that is killed closes its sockets first and has ended a moment later. When it has, our
        # silence lets the engine try again.
        is_cut = isinstance(error, ConnectionError)
        if self._spare is None or not self._spare.has_ended(DYING if is_cut else 0):
            self._tell({"event": "start-failed", **failure(error)})
        self._close()

    def _close(self) -> None:
        self._control.close()
        descriptors.close_all([*self._fds.values(), *self._attached])
        self._fds, self._attached = {}, []
        self._let_go()

    def _write_state(self, created: Created) -> None:
        assert self._spare is not None
        state = {
            "v": 1,
            "id": self._facts["id"],
            "pid": created.pid,
            "start_time": created.state["start_time"],
            "shim_pid": self._spare.pid,
            "shim_start_time": start_time(self._spare.pid),
            "runtime": created.state,
        }
        write_record(self._fds["directory"], STATE, state, sync=False)

    def _unlink(self, name: str) -> None:
        if "directory" in self._fds:
            try:
                os.unlink(name, dir_fd=self._fds["directory"])
            except FileNotFoundError:
                pass


def read_filter(fd: int, flags: int) -> tuple[bytes, int] | None:
    """The compiled seccomp program behind a descriptor, and its flags; None for -1."""
    return None if fd < 0 else (descriptors.read_all(fd, MAX_PROGRAM), flags)


def checked_log(wish: Message) -> tuple[str, str, int, int, bool, str] | None:
    """The arguments of `open_log`; None for no log.

    Raises:
        ValueError: nobody knows the driver.
    """
    driver = wish.get("driver", "none")
    if driver == "none":
        return None
    if driver not in DRIVERS:
        raise ValueError(f"unknown log driver {driver!r}")
    size, count = int(wish.get("max_size") or 0), int(wish.get("max_file") or 1)
    packed, attributes = bool(wish.get("packed")), str(wish.get("attributes") or "")
    return driver, str(wish["path"]), size, count, packed, attributes
