"""`sampan-oci create` and `run`: a container from a bundle, with its directory of state.

The order of writes makes a crash at any line recoverable by `delete --force`: the directory and the
name of the cgroup are on disk before the cgroup exists, and the process stays at its gate until its
pid is on disk.
"""

from __future__ import annotations

import os

from sampan.kernel import cgroups
from sampan.kernel.capabilities import BITS
from sampan.runtime import bundle, direct_create, passing, shapes, variants
from sampan.runtime.arguments import Parsed, UsageError
from sampan.runtime.calling import forward_signals, tell, use_every_cpu, wait, write_pid
from sampan.runtime.direct import Direct, clear_of_report
from sampan.runtime.failure import NeedsInterpreter
from sampan.runtime.plan import is_bind, shares_mounts
from sampan.runtime.state import StateDirectory, remove_mounts
from sampan.runtime.validate import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.runtime.create import Created

    Filter = tuple[bytes, int]


def create_command(root: str, container_id: str, options: Parsed) -> None:
    """`create`: everything but the execve."""
    created = _create(root, container_id, options, detached=True)
    created.release()
    os.close(created.pidfd)


def run_command(root: str, container_id: str, options: Parsed) -> int:
    """`run`: create, start, and unless detached wait and delete. Returns the exit code."""
    detached = options.on("detach")
    created = _create(root, container_id, options, detached=detached)
    if not detached:
        forward_signals(created.pidfd)
    directory = StateDirectory(root, container_id)
    try:
        _open_gate(directory, created)
        if created.hooks is not None:
            _run_started_hooks(created)
    except OSError:
        created.abort()
        _remove(directory, created)
        raise
    if detached:
        os.close(created.pidfd)
        return 0
    if created.master >= 0:
        from sampan.runtime import console

        console.relay(created.master, created.pidfd)
    code = wait(created.pidfd)
    os.close(created.pidfd)
    if not options.on("keep"):
        if created.cgroup is not None:
            created.cgroup.kill()
            created.cgroup.remove()
        _remove(directory, created)
    return code


def _run_started_hooks(created: Created | Direct) -> None:
    """The poststart hooks: the command has been executed."""
    from sampan.runtime import hooks

    state = created.state
    described = hooks.state(state["config"], state["id"], state["bundle"], "running", created.pid)
    hooks.run(state["config"], "poststart", described, state["bundle"])


def _remove(directory: StateDirectory, created: Created | Direct) -> None:
    """The last of a container; its poststop hooks come after that."""
    remove_mounts(created.state)
    directory.remove()
    if created.hooks is not None:
        _run_stopped_hooks(created.state["config"], directory, created.state["bundle"])


def _run_stopped_hooks(spec: dict[str, Any], directory: StateDirectory, bundle: str) -> None:
    from sampan.runtime import hooks

    hooks.run_stopped(spec, directory.container_id, bundle)


def _open_gate(directory: StateDirectory, created: Created | Direct) -> None:
    gate = os.open(directory.fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(gate, b"1")
    os.close(gate)
    os.unlink(directory.fifo)
    created.finish()


def _create(root: str, container_id: str, options: Parsed, *, detached: bool) -> Created | Direct:
    """The machine is tried first, and the interpreter makes what that cannot."""
    where = bundle.directory(options.text("bundle"))
    spec = bundle.load(where)
    shapes.check(spec, shapes.CONFIG)
    check(spec)
    settle_mounts(spec, where)
    check_terminal(spec, options, detached=detached)
    use_every_cpu()
    _warn_of_capabilities(spec)
    _apply_flags(spec, container_id, options)
    record = first_record(spec, container_id, where, options)
    if os.geteuid() == 0 and not record.get("scope") and cgroups.mode() == "hybrid":
        record["hybrid"] = spec["linux"]["hybrid"] = True  # a word of ours as well
    directory = StateDirectory(root, container_id)
    if direct_create.is_possible(spec):
        tell(options, "nsexec container setup: by a list of system calls")
        try:
            return _make(directory, record, spec, options, _directly, detached=detached)
        except NeedsInterpreter:
            pass
    from sampan.runtime import freeze

    if freeze.needs_seal(spec):
        freeze.seal()
    tell(options, "nsexec container setup: by an interpreter")
    if shares_mounts(spec["linux"]):
        return _make_among_ours(directory, record, spec, options, detached=detached)
    return _make(directory, record, spec, options, _interpreted, detached=detached)


def _make_among_ours(
    directory: StateDirectory,
    record: dict[str, Any],
    spec: dict[str, Any],
    options: Parsed,
    *,
    detached: bool,
) -> Created | Direct:
    """In our own mount namespace: the mount for its root is in the record before it is attached."""
    from sampan.runtime import sharedmounts

    root = sharedmounts.RootMount(_attach_point(spec, record["bundle"]))
    record["root_mount"] = root.record

    def maker(
        container_id: str, spec: dict[str, Any], where: str, gate: int, compiled: Filter | None
    ) -> Created:
        return _interpreted(container_id, spec, where, gate, compiled, root.fd)

    try:
        return _make(directory, record, spec, options, maker, detached=detached)
    finally:
        os.close(root.fd)


def settle_mounts(spec: dict[str, Any], where: str) -> None:
    """A relative source lies in the bundle; a destination may begin with the root's own path."""
    root = os.path.join(where, spec["root"]["path"]) + "/"
    for mount in spec.get("mounts") or []:
        source, destination = mount.get("source") or "", mount["destination"]
        if source and not source.startswith("/") and is_bind(mount):
            mount["source"] = os.path.join(where, source)
        if destination.startswith(root):
            mount["destination"] = destination[len(root) - 1 :]


def first_record(
    spec: dict[str, Any], container_id: str, where: str, options: Parsed
) -> dict[str, Any]:
    """What is on the disk before anything is made, so that all of it can be found and removed."""
    linux = spec.setdefault("linux", {})
    linux["scope"] = None  # a word of ours, that no configuration has to say
    if options.on("systemd-cgroup"):
        from sampan.runtime import scopes

        scopes.claim(spec, container_id)
    cgroup = linux["cgroupsPath"] = linux.get("cgroupsPath") or container_id
    record = {"v": 1, "id": container_id, "pid": 0, "bundle": where, "cgroup": cgroup}
    if linux["scope"]:
        record["scope"] = linux["scope"]
    elif (own := cgroups.own_paths(cgroup)) is not None:
        record["cgroup_own"] = own
    return record


def _make(
    directory: StateDirectory,
    record: dict[str, Any],
    spec: dict[str, Any],
    options: Parsed,
    maker: Callable[[str, dict[str, Any], str, int, Filter | None], Created | Direct],
    *,
    detached: bool,
) -> Created | Direct:
    """Make the container by `maker`, on the disk before it is there; a failure leaves nothing."""
    directory.make()
    created = None
    try:
        directory.save(record)
        compiled = _compile(directory, spec)
        if compiled:
            tell(options, f"seccomp filter flags: {compiled[1]}")
        gate = clear_of_report(directory.make_fifo())
        try:
            created = maker(directory.container_id, spec, record["bundle"], gate, compiled)
        finally:
            os.close(gate)
        tell(options, f"child process in init(): {created.pid} waits at its gate")
        created.state = {**record, **created.state}
        _hand_out(directory, created, spec, options, detached=detached)
    except BaseException as error:
        if created is not None:
            created.abort()
        remove_mounts(record)
        directory.remove()
        if spec.get("hooks") and not isinstance(error, NeedsInterpreter):
            _run_stopped_hooks(spec, directory, record["bundle"])
        raise
    return created


def _compile(directory: StateDirectory, spec: dict[str, Any]) -> Filter | None:
    profile = (spec.get("linux") or {}).get("seccomp")
    if not profile:
        return None
    from sampan.kernel import seccomp

    compiled = seccomp.compile(profile)
    directory.save_filter(compiled.program, compiled.flags)
    return compiled.program, compiled.flags


def _directly(
    container_id: str, spec: dict[str, Any], where: str, gate: int, compiled: Filter | None
) -> Direct:
    return direct_create.create(
        container_id,
        spec,
        attach_at=_attach_point(spec, where),
        filter_program=compiled,
        gate=gate,
        bundle=where,
    )


def _interpreted(
    container_id: str,
    spec: dict[str, Any],
    where: str,
    gate: int,
    compiled: Filter | None,
    root: int | None = None,
) -> Created:
    from sampan.kernel import process
    from sampan.runtime.create import create

    process.set_not_dumpable()
    return create(
        container_id,
        spec,
        stdio=_streams(spec),
        root=root,
        attach_at=_attach_point(spec, where),
        filter_program=compiled,
        gate=gate,
        bundle=where,
        in_order=True,
    )


def _warn_of_capabilities(spec: dict[str, Any]) -> None:
    """What cannot be granted is told and left out (runtime-spec, config.md, "capabilities").

    Not of ambient ones where nothing is inheritable: runc's `spec` wrote them so into each bundle
    up to 1.1, which gave nothing and said nothing. Newer versions tell of each.
    """
    sets = spec["process"].get("capabilities") or {}
    granted = frozenset(sets.get("inheritable") or []).intersection(sets.get("permitted") or [])
    refused = sorted({name for names in sets.values() for name in names if name not in BITS})
    lines = [f"ignoring the unknown capability {name}" for name in refused]
    lines += [
        f"can't raise ambient capability {name}: it is not inheritable and permitted"
        for name in sets.get("ambient") or []
        if name in BITS and name not in granted and sets.get("inheritable")
    ]
    for line in lines:
        os.write(2, f"sampan-oci: warning: {line}\n".encode("utf-8", "replace"))


def _apply_flags(spec: dict[str, Any], container_id: str, options: Parsed) -> None:
    """What the command line says of the container; words that `plan` reads beside OCI's own."""
    passing.preserve(spec["process"], options, listen=True)
    spec["root"]["noPivot"] = options.on("no-pivot")
    spec["process"]["relayed"] = not options.text("console-socket")
    spec["process"]["keyring"] = variants.keyring(container_id, options)


def _hand_out(
    directory: StateDirectory,
    created: Created | Direct,
    spec: dict[str, Any],
    options: Parsed,
    *,
    detached: bool,
) -> None:
    """Terminal to its socket, state to disk, pid to its file: in this order."""
    if created.master >= 0 and options.text("console-socket"):
        from sampan.runtime import console

        console.hand_over(options.text("console-socket"), created.master)
        created.master = -1
    root_path = spec["root"]["path"]
    group = created.cgroup
    paths = group.names() if group is not None else {}
    state = created.state = {**created.state, "cgroup_paths": paths, "config": spec}
    state["rootfs"] = os.path.join(state["bundle"], root_path)
    directory.save(state)
    if options.text("pidfd-socket"):
        passing.hand_pidfd(options.text("pidfd-socket"), created.pidfd)
    if options.text("pid-file"):
        write_pid(options.text("pid-file"), created.pid)
    tell(options, "init: closing the pipe to signal completion")
    if detached:
        from sampan.runtime import shortcut

        shortcut.write(directory, state)


def check_terminal(spec: dict[str, Any], options: Parsed, *, detached: bool) -> None:
    """Raises UsageError where there is a terminal and nobody to give it to, or the reverse."""
    terminal = bool((spec.get("process") or {}).get("terminal"))
    if terminal and detached and not options.text("console-socket"):
        raise UsageError(
            "cannot allocate tty if sampan-oci will detach without setting console socket"
        )
    if not terminal and options.text("console-socket"):
        raise UsageError("cannot use console socket if sampan-oci will not detach or allocate tty")


def _streams(spec: dict[str, Any]) -> tuple[int, int, int]:
    """Ours, or none where a terminal takes their place.

    A container at its gate must not hold what its caller reads to the end: containerd gives
    `create` a pipe then.
    """
    return (-1, -1, -1) if spec["process"].get("terminal") else (0, 1, 2)


def _attach_point(spec: dict[str, Any], where: str) -> str:
    """The root file system's own path, as a place that exists and that nobody else looks at."""
    path = (spec.get("root") or {}).get("path") or ""
    return os.path.join(where, path)
