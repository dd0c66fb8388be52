"""`sampan-oci create` and `run` by the machine: what `create.begin` does, with `direct`."""

from __future__ import annotations

import os
import stat

from sampan.kernel import cgroups, fds, machine
from sampan.runtime import readiness, validate
from sampan.runtime.credentials import find_home, give
from sampan.runtime.direct import Direct, DirectAssembly, clear_of_report
from sampan.runtime.facts import facts_of, record
from sampan.runtime.failure import NeedsInterpreter
from sampan.runtime.plan import build, clone_flags, is_rare, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BIRTHPLACE = "version 2"  # beside the namespaces that are joined
_JOINABLE = frozenset(("cgroup", "ipc", "network", "pid", "uts"))


def is_possible(spec: dict[str, Any]) -> bool:
    """Whether it is worth a try: nothing that is known to need an interpreter."""
    process = spec["process"]
    return not (
        os.geteuid() != 0
        or not machine.is_available()
        or spec.get("hooks")
        or spec["root"].get("noPivot")
        or process.get("terminal")
        or process.get("preserveFds")
        or "username" in (process.get("user") or {})
        or is_rare(process, spec.get("linux") or {})
    )


def create(
    container_id: str,
    spec: dict[str, Any],
    *,
    attach_at: str,
    filter_program: tuple[bytes, int] | None,
    gate: int,
    bundle: str,
) -> Direct:
    """Make the container of `spec` up to its gate, the FIFO behind the descriptor `gate`.

    Raises:
        InvalidConfig: `spec` is refused, and nothing was made.
        NeedsInterpreter: the machine cannot, or something failed; everything was undone.
    """
    validate.check(spec)
    new, join = namespaces(spec)
    kinds = frozenset(new) - {"cgroup"}
    if not readiness.is_possible(kinds) or not _JOINABLE.issuperset(kind for kind, _ in join):
        raise NeedsInterpreter("namespaces that the machine does not make or join")
    created, group = None, None
    joined: dict[str, int] = {}
    try:
        made_by, is_hybrid = spec["linux"].get("scope"), bool(spec["linux"].get("hybrid"))
        group = cgroups.manager(spec["linux"]["cgroupsPath"], made_by, is_hybrid=is_hybrid)
        _open(joined, join, group.birthplace(make=True) if is_hybrid else -1)
        script = _script(spec, group, attach_at, joined, filter_program, gate)
        created = _begin(script, spec["process"]["args"][0], [gate, *joined.values()])
        _make_cgroup(created, group, spec["linux"])
        created.state = record(container_id, created.pid, bundle, group.path, spec)
        _hand_cgroup(created)
        created.await_ready()
        return created
    except BaseException as error:
        if created is not None:
            created.abort()
        if group is not None:
            group.leave_birthplace()
        if isinstance(error, OSError):
            raise NeedsInterpreter(str(error)) from error
        raise
    finally:
        fds.close_all(list(joined.values()))


def _begin(script: DirectAssembly, command: str, passed: list[int]) -> Direct:
    program = script.sealed()
    try:
        return Direct(script, program, command, passed)
    finally:
        os.close(program)


def _open(joined: dict[str, int], join: list[tuple[str, str]], born_in: int) -> None:
    """Into `joined`: what the process joins, and where it is born."""
    if born_in >= 0:
        joined[_BIRTHPLACE] = clear_of_report(born_in)
    for kind, path in join:
        joined[kind] = clear_of_report(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def _make_cgroup(created: Direct, group: cgroups.Cgroup, linux: dict[str, Any]) -> None:
    """Make it while the process is born; but systemd makes one around a process that is there."""
    resources = linux.get("resources") or {}
    if linux.get("scope"):
        created.await_birth()
        group.create(resources, created.pid)
        created.cgroup = group
        return
    group.create(resources)
    created.cgroup = group
    created.await_birth()


def _script(
    spec: dict[str, Any],
    group: cgroups.Cgroup,
    attach_at: str,
    joined: dict[str, int],
    filter_program: tuple[bytes, int] | None,
    gate: int,
) -> DirectAssembly:
    """The whole life of the first process; what the parent does for it beforehand is done."""
    script = DirectAssembly(attach_at)
    script.joins = dict(joined)
    root = script.open_root()
    find_home(root, spec["process"])
    os.close(root)
    flags = clone_flags(namespaces(spec)[0])
    script.be_born(flags, joined.get("pid"), joined.get(_BIRTHPLACE, -1))
    script.write(build(spec, facts_of(group, attach_at)), group.doors(), filter_program, gate)
    _prepare(attach_at, script.prepare)
    for fd in (0, 1, 2):
        give(fd, (spec["process"].get("user") or {}).get("uid") or 0)
    return script


def _hand_cgroup(created: Direct) -> None:
    assert created.cgroup is not None
    doors = [fd for _, fd in created.cgroup.procs_fds()]
    try:
        created.hand_cgroup(doors)
    finally:
        fds.close_all(doors)


def _prepare(root_path: str, wanted: list[tuple[str, bool]]) -> None:
    """Make the mount points that the root lacks. No link is followed: behind one, ask elsewhere."""
    for path, is_directory in wanted:
        try:
            os.stat(root_path + path)
        except FileNotFoundError:
            _make(root_path, path, is_directory=is_directory)


def _make(root_path: str, path: str, *, is_directory: bool) -> None:
    *directories, last = path.strip("/").split("/")
    if is_directory:
        directories.append(last)
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    current = os.open(root_path, flags)
    try:
        for name in directories:
            try:
                os.mkdir(name, 0o755, dir_fd=current)
            except FileExistsError:
                pass
            following = os.open(name, flags | os.O_NOFOLLOW, dir_fd=current)
            os.close(current)
            current = following
        if not is_directory:
            os.mknod(last, stat.S_IFREG | 0o644, dir_fd=current)
    finally:
        os.close(current)
