"""Parent side of a new container: cgroup, clone3, the messages of the child, what is undone.

`create` returns when the child stands at the start gate (or, without a gate, when it has executed
the program); `Created.start` opens the gate. Everything made on the way is released in reverse
order when a step fails, so a failed create leaves nothing.
"""

from __future__ import annotations

import _socket
import marshal
import os

from sampan.kernel import cgroups, fds, machine
from sampan.kernel.filters import FLAG_NEW_LISTENER
from sampan.kernel.paths import Root
from sampan.runtime import freeze, init, readiness, rootfs, sources, users, validate, written
from sampan.runtime.blank import Blank, make_blank, reap
from sampan.runtime.credentials import give
from sampan.runtime.facts import facts_of, record
from sampan.runtime.failure import NeedsInterpreter, RuntimeFailure, reason
from sampan.runtime.plan import Facts, build
from sampan.runtime.plan import namespaces as plan_namespaces
from sampan.runtime.stage import ASKS_FOR_HOOKS, ASKS_FOR_SOURCE, CGROUP_READY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.kernel.cgroups import Cgroup


class Created:
    """A container whose first process exists.

    `pid` and `pidfd` are of that process, `master` is its terminal or -1, `state` is what
    state.json holds. The owner closes `pidfd` and `master`, reaps the process, and removes the
    cgroup afterwards.
    """

    __slots__ = (
        "_gate",
        "_sync",
        "blank",
        "cgroup",
        "hooks",
        "is_ready",
        "master",
        "pid",
        "pidfd",
        "program",
        "sources",
        "state",
    )

    def __init__(self, blank: Blank) -> None:
        self.blank = blank
        self.pid, self.pidfd = blank.pid, blank.pidfd
        self.cgroup: Cgroup | None = None
        self.is_ready = False
        self.master = -1
        self.program = ""
        self.state: dict[str, Any] = {}
        self.hooks: Callable[[], None] | None = None
        self.sources: sources.Sources | None = None  # of a child that asks for them
        self._sync = blank.sync
        self._gate = -1

    def make_gate(self, given: int | None) -> int:
        """The descriptor that the child waits on: the caller's FIFO, or a pipe of our own."""
        if given is not None:
            return os.dup(given)
        read_end, self._gate = os.pipe2(os.O_CLOEXEC)
        return read_end

    def send(self, message: bytes, passed: list[int]) -> None:
        """A message to the child. Raises its report instead if it has failed already."""
        try:
            fds.send(self._sync, message, passed)
        except BrokenPipeError:
            self.await_ready()

    def step(self) -> bool:
        """Take one message of the child: True when it is ready, False when it has executed.

        Raises RuntimeFailure with what the child reports, or when it ended too early, and
        NeedsInterpreter when the child is the machine.
        """
        message, received = fds.receive(self._sync, init.MAX_MESSAGE)
        while self.sources is not None and message[:1] == ASKS_FOR_SOURCE:
            self.sources.answer(self._sync, message, self.pid)
            message, received = fds.receive(self._sync, init.MAX_MESSAGE)
        if message == init.READY:
            self.is_ready = True
            self.master = received[0] if received else -1
            return True
        if message == ASKS_FOR_HOOKS and self.hooks is not None:
            self.hooks()
            fds.send(self._sync, message)
            return self.step()
        if (message or not self.is_ready) and self.blank.ready is not None:
            said = machine.failure_of(message) if message else "it ended"
            raise NeedsInterpreter(f"the machine failed: {said}")
        if message:
            raise init.read_report(message, self.program)
        if not self.is_ready:
            said = "the process ended before it was ready"
            raise RuntimeFailure(0, said, "create the container")
        self._sync.close()
        return False

    def await_ready(self) -> None:
        """Wait for the child to stand at its gate. Raises RuntimeFailure if it failed before."""
        if not self.is_ready:
            self.step()

    def start(self) -> None:
        """Open the gate and wait until execve has succeeded.

        Raises:
            RuntimeFailure: an operation or the execve failed; the process has ended.
        """
        if self._gate >= 0:
            try:
                os.write(self._gate, b"1")
            except BrokenPipeError:
                pass  # it has failed already; the report says why
            os.close(self._gate)
            self._gate = -1
        self.finish()

    def finish(self) -> None:
        """Wait for the end of the child's messages: success, or the failure it reports."""
        try:
            self.step()
        finally:
            self._sync.close()

    def fileno(self) -> int:
        """What is readable when `step` would not wait."""
        return self._sync.fileno()

    def give_up_gate(self) -> tuple[int, int]:
        """(write end of the gate, messages): for `resume` in another process. Ours stay open."""
        return self._gate, self._sync.fileno()

    def release(self) -> None:
        """Close what belongs to this object alone; the container goes on."""
        self._sync.close()
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1

    def abort(self) -> None:
        """Kill the process, reap it, and remove its cgroup; also closes the descriptors."""
        self.release()
        reap(self.pidfd)
        if self.master >= 0:
            os.close(self.master)
            self.master = -1
        if self.cgroup is not None:
            self.cgroup.kill()
            self.cgroup.remove()


def create(
    container_id: str,
    spec: dict[str, Any],
    *,
    stdio: tuple[int, int, int],
    root: int | None = None,
    attach_at: str,
    filter_program: tuple[bytes, int] | None = None,
    gate: int | None = None,
    use_gate: bool = True,
    die_with_parent: bool = False,
    bundle: str = "/",
    blank: Blank | None = None,
    in_order: bool = False,
) -> Created:
    """Make the container of `spec` up to its start gate.

    The arguments are those of `begin`.

    Raises:
        InvalidConfig: `spec` is refused, and nothing was made.
        RuntimeFailure: something failed, and everything was undone.
    """
    created = begin(
        container_id,
        spec,
        stdio=stdio,
        root=root,
        attach_at=attach_at,
        filter_program=filter_program,
        gate=gate,
        use_gate=use_gate,
        die_with_parent=die_with_parent,
        bundle=bundle,
        blank=blank,
        in_order=in_order,
    )
    try:
        created.await_ready()
        if not use_gate:
            created.finish()
    except BaseException:
        created.abort()
        raise
    return created


def begin(
    container_id: str,
    spec: dict[str, Any],
    *,
    stdio: tuple[int, int, int],
    root: int | None = None,
    attach_at: str,
    filter_program: tuple[bytes, int] | None = None,
    gate: int | None = None,
    use_gate: bool = True,
    die_with_parent: bool = False,
    bundle: str = "/",
    blank: Blank | None = None,
    in_order: bool = False,
) -> Created:
    """Tell a child to become the container of `spec`; `Created.step` says how that goes.

    Args:
        container_id: also the default name of its cgroup.
        spec: config.json as parsed; `process.user.username` may be Docker's user string.
        stdio: descriptors that become 0, 1 and 2 where the process has no terminal.
        root: a detached mount of the root file system; else `root.path` (from `bundle`) is bound.
        attach_at: an existing directory of the host, where the root is attached in the container's
            own mount namespace.
        filter_program: the compiled seccomp filter and its flags; else `linux.seccomp` is compiled.
        gate: the descriptor of a FIFO to wait on in place of a pipe of our own.
        use_gate: False executes the program at once; then a return means that execve succeeded.
        die_with_parent: the first process gets SIGKILL when the caller's process dies.
        blank: a child kept ready by `make_blank`; used if its namespaces fit, ended if not.
        in_order: number the mounts in the order of the configuration; needs `await_ready` next.

    Raises:
        InvalidConfig: `spec` is refused, and nothing was made.
        NeedsInterpreter: `blank` is a machine, which cannot do it; everything was undone.
        RuntimeFailure: something failed, and everything was undone.
    """
    validate.check(spec)
    builder = _Builder(container_id, spec, bundle, in_order=in_order)
    created = None
    try:
        builder.open(root)
        assert builder.cgroup is not None
        facts = facts_of(builder.cgroup, attach_at)
        facts.die_with_parent = die_with_parent
        facts.sealed = freeze.is_sealed()
        facts.root_path, facts.has_score = builder.bound_inside, builder.has_birth
        if spec.get("hooks"):
            from sampan.runtime import hooks

            facts.described = hooks.state(spec, container_id, bundle)
        created, blank = Created(builder.blank(blank)), None
        created.program = spec["process"]["args"][0]
        created.sources = builder.binds if in_order else None
        gate_end = created.make_gate(gate) if use_gate else None
        try:
            builder.order(created, facts, stdio, gate_end, filter_program)
        finally:
            if gate_end is not None:
                os.close(gate_end)
        created.state = record(container_id, created.pid, bundle, builder.cgroup_path, spec)
        if facts.described:
            from sampan.runtime import hooks

            created.hooks = hooks.beside(spec, facts.described, created.pid)
        builder.make_cgroup(created)
        return created
    except BaseException as error:
        if created is not None:
            created.abort()
        elif blank is not None:
            blank.discard()
        if isinstance(error, OSError) and not isinstance(error, RuntimeFailure):
            raise RuntimeFailure(error.errno or 0, reason(error), "create the container") from error
        raise
    finally:
        builder.close()


class _Builder:
    """What the parent holds while it makes a container."""

    def __init__(
        self, container_id: str, spec: dict[str, Any], bundle: str, *, in_order: bool
    ) -> None:
        self.spec, self.bundle, self.container_id = spec, bundle, container_id
        self.in_order = in_order
        self.linux: dict[str, Any] = spec.get("linux") or {}
        self.binds = sources.Sources(spec, self.linux, self._root_path())
        self.cgroup_path = self.linux.get("cgroupsPath") or f"/sampan/{container_id}"
        self.cgroup: Cgroup | None = None
        self.new, self.join = plan_namespaces(spec)
        self._owned: list[int] = []
        self._root = self._born_in = -1
        self._is_made = False
        self._join_fds: list[int] = []
        self._sources: list[int] = []
        self.bound_inside = ""
        self.has_birth = False
        if "time" in self.new or "user" in {*self.new, *dict(self.join)}:
            self.has_birth = True
            if os.geteuid() != 0:
                self.bound_inside = self._root_path()

    def open(self, root: int | None) -> None:
        """The descriptors that the child will need, and the identity in the container's files."""
        if root is None and self.bound_inside:
            root = os.open(self.bound_inside, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._owned.append(root)
        elif root is None:
            root = rootfs.bind(self._root_path())
            self._owned.append(root)
        self._root = root
        users.resolve_user(Root(root), self.spec["process"])
        for _, path in self.join:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._owned.append(fd)
            self._join_fds.append(fd)
        if self.bound_inside:
            self.binds.check_inside()
        elif not self.in_order:
            self._sources = self.binds.all(self._owned)
        made_by, is_hybrid = self.linux.get("scope"), bool(self.linux.get("hybrid"))
        self.cgroup = cgroups.manager(self.cgroup_path, made_by, is_hybrid=is_hybrid)
        if is_hybrid and (born_in := self.cgroup.birthplace(make=True)) >= 0:
            self._owned.append(born_in)
            self._born_in = born_in

    def _root_path(self) -> str:
        path: str = self.spec["root"]["path"]
        return path if path.startswith("/") else f"{self.bundle}/{path}"

    def blank(self, offered: Blank | None) -> Blank:
        """The blank that was kept ready, if its namespaces are those we need; else a new one."""
        kinds = frozenset(self.new) - {"cgroup"}
        fits = offered is not None and offered.kinds == kinds
        if offered is not None and fits and (not self.has_birth or "user" in kinds):
            blank = offered
        else:
            if offered is not None:
                offered.discard()
            blank = self._make_blank(kinds)
        if self.has_birth:  # all but the mount namespace was joined then
            kept = dict(zip((kind for kind, _ in self.join), self._join_fds, strict=True))
            self.join = [one for one in self.join if one[0] == "mount"]
            self._join_fds = [kept[kind] for kind, _ in self.join]
        return blank

    def _make_blank(self, kinds: frozenset[str]) -> Blank:
        kept = dict(zip((kind for kind, _ in self.join), self._join_fds, strict=True))
        if not self.has_birth:
            return make_blank(sorted(kinds), kept.get("pid"), cgroup=self._born_in)
        from sampan.runtime import birth

        score = self.spec["process"].get("oomScoreAdj")
        wanted = (self.new, list(kept.items()), self.linux, score, self._born_in)
        return birth.make_blank(birth.Birth(*wanted))

    def order(
        self,
        created: Created,
        facts: Facts,
        stdio: tuple[int, int, int],
        gate: int | None,
        given: tuple[bytes, int] | None,
    ) -> None:
        """Tell the child what it becomes."""
        if self.linux.get("netDevices"):
            from sampan.runtime import netdevices

            netdevices.move(self.linux, created.pid, self.join, self._join_fds)
        program = self._filter(given)
        if program and program[1] & FLAG_NEW_LISTENER:
            self._find_agent(created, facts)
        if created.blank.ready is not None:
            self._order_machine(created, facts, stdio, gate, program)
            return
        order = {
            "plan": build(self.spec, facts).pack(),
            "gate": gate is not None,
            "filter": program,
            "join": [kind for kind, _ in self.join],
            "sources": len(self._sources),
            "asks": self.in_order,
        }
        text = fds.sealed_memfd("sampan-order", marshal.dumps(order))
        passed = [text, self._root, *(fd if fd >= 0 else text for fd in stdio)]
        passed += [*([] if gate is None else [gate]), *self._join_fds]
        try:
            # What does not fit into one message of descriptors follows in further ones.
            created.send(init.ORDER, passed)
            for start in range(0, len(self._sources), fds.MAX_PASSED):
                created.send(init.SOURCES, self._sources[start : start + fds.MAX_PASSED])
        finally:
            os.close(text)

    def _find_agent(self, created: Created, facts: Facts) -> None:
        from sampan.runtime import listener

        state = {"id": self.container_id, "bundle": self.bundle}
        facts.listener = listener.attach(created.blank, self.spec, state, self._sources)
        self._owned.append(self._sources[-1])

    def _order_machine(
        self,
        created: Created,
        facts: Facts,
        stdio: tuple[int, int, int],
        gate: int | None,
        program: tuple[bytes, int] | None,
    ) -> None:
        assert created.blank.ready is not None
        if gate is not None or min(stdio) < 0:
            raise NeedsInterpreter("a start gate, or a terminal")
        assert self.cgroup is not None
        joins, doors = [kind for kind, _ in self.join], self.cgroup.doors()
        wanted = (self.container_id, self.spec, facts, joins, doors, self._sources, program)
        script, points = written.script(created.blank.ready, written.Order(*wanted), self._root)
        readiness.make_mount_points(self._root, points)
        uid = self.spec["process"].get("user", {}).get("uid") or 0
        for fd in stdio:
            give(fd, uid)
        text = fds.memfd("sampan-order", script)
        try:
            created.send(init.ORDER, [text, self._root, *stdio, *self._join_fds, *self._sources])
        finally:
            os.close(text)

    def _filter(self, given: tuple[bytes, int] | None) -> tuple[bytes, int] | None:
        if given is None and self.linux.get("seccomp"):
            from sampan.kernel import seccomp

            compiled = seccomp.compile(self.linux["seccomp"])
            given = (compiled.program, compiled.flags)
        if given is not None:
            self.spec.setdefault("linux", self.linux).setdefault("seccomp", True)
        return given

    def make_cgroup(self, created: Created) -> None:
        """Make the cgroup while the child mounts, and hand it over."""
        assert self.cgroup is not None
        try:
            self.cgroup.create(self.linux.get("resources") or {}, created.pid)
        except OSError as error:
            from sampan.runtime import rootless

            rootless.check_may_go_without(error, self.linux)
            created.state["cgroup"] = ""
            created.send(CGROUP_READY, [])
            return
        created.cgroup, self._is_made = self.cgroup, True
        joining = [fd for _, fd in self.cgroup.procs_fds()]
        try:
            created.send(CGROUP_READY, joining)
        finally:
            fds.close_all(joining)

    def close(self) -> None:
        """Close the descriptors of the parent; the place of birth goes if nothing else was made."""
        if self._born_in >= 0 and self.cgroup is not None and not self._is_made:
            self.cgroup.leave_birthplace()
        fds.close_all(self._owned)


def resume(gate: int, messages: int, program: str) -> None:
    """Open the gate of a container that another process has made, and wait for its execve.

    Raises:
        RuntimeFailure: as `Created.start`.
    """
    sync = _socket.socket(-1, -1, -1, messages)
    try:
        os.write(gate, b"1")
    except BrokenPipeError:
        pass  # it has failed already; the report says why
    finally:
        os.close(gate)
    try:
        message, _ = fds.receive(sync, init.MAX_MESSAGE)
    finally:
        sync.close()
    if message:
        raise init.read_report(message, program)
