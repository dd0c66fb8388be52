"""User namespaces: which ids of the host the ids inside are (user_namespaces(7)).

A mapping is `{"containerID": n, "hostID": n, "size": n}` as in config.json. The maps of a process
are written by its parent: straight into /proc where it is privileged, by newuidmap and newgidmap
(which ask /etc/subuid) where it is not. Imported only where a configuration has mappings.
"""

from __future__ import annotations

import errno
import os

from sampan.kernel import mounts, namespaces, process
from sampan.kernel import numbers as n
from sampan.runtime.failure import InvalidConfig, RuntimeFailure, reason
from sampan.runtime.operations import Operation
from sampan.runtime.stage import Stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Mappings = list[dict[str, int]]

_KEYS = ("containerID", "hostID", "size")
_MAX_LINES = 340  # of the kernel, since 4.15
_HELPERS = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin"


def check_container(linux: dict[str, Any]) -> None:
    """The rules of `linux.uidMappings` and `linux.gidMappings`. Raises InvalidConfig."""
    users = [one for one in linux.get("namespaces") or [] if one.get("type") == "user"]
    for field in ("uidMappings", "gidMappings"):
        entries = linux.get(field) or []
        check(entries, f"linux.{field}")
        if entries and not users:
            problem = "user namespace mappings specified, but no user namespace is configured"
            raise InvalidConfig(f"linux.{field}: {problem}")
        if users and not users[0].get("path") and not entries:
            problem = "a new user namespace needs mappings"
            raise InvalidConfig(f"linux.{field}: {problem}")


def check(entries: object, field: str) -> None:
    """The rules of one list. Raises InvalidConfig."""
    if not isinstance(entries, list) or len(entries) > _MAX_LINES:
        raise InvalidConfig(f"{field}: must be a list of at most {_MAX_LINES} mappings")
    for index, entry in enumerate(entries):
        numbers = [entry.get(key, 0) for key in _KEYS] if isinstance(entry, dict) else []
        good = numbers and all(type(one) is int and 0 <= one < 2**32 for one in numbers)
        if not good or not numbers[2] or max(numbers[:2]) + numbers[2] > 2**32 - 1:
            raise InvalidConfig(f"{field}[{index}]: not a mapping of ids: {entry!r}")


def write(pid: int, uids: Mappings, gids: Mappings) -> None:
    """Write the maps of the process `pid`, which has just made its user namespace.

    Raises RuntimeFailure when neither we nor the helpers may do that.
    """
    _write(pid, "uid_map", "newuidmap", uids)
    if os.geteuid() != 0 and not _is_delegated(gids):
        # An unprivileged process may map its own group only when groups cannot be dropped then.
        _put(f"/proc/{pid}/setgroups", "deny")
    _write(pid, "gid_map", "newgidmap", gids)


def _is_delegated(gids: Mappings) -> bool:
    """Whether the map needs newgidmap, which leaves setgroups(2) allowed."""
    only_own = len(gids) == 1 and gids[0].get("size") == 1 and gids[0].get("hostID") == os.getegid()
    return not only_own and bool(find_helper("newgidmap"))


def _write(pid: int, name: str, helper: str, entries: Mappings) -> None:
    rows = [[str(entry.get(key, 0)) for key in _KEYS] for entry in entries]
    path = f"/proc/{pid}/{name}"
    try:
        _put(path, "".join(" ".join(row) + "\n" for row in rows))
    except PermissionError as error:
        program = find_helper(helper)
        where = f"write {path}"
        if not program:
            problem = f"operation not permitted, and {helper} is not installed"
            raise RuntimeFailure(errno.EPERM, problem, where) from error
        _call(program, [helper, str(pid), *(word for row in rows for word in row)])
    except OSError as error:
        raise RuntimeFailure(error.errno or 0, reason(error), f"write {path}") from error


def _put(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def find_helper(name: str) -> str:
    """Where one of the programs that may write maps is; "" when it is not installed."""
    for directory in _HELPERS.split(":"):
        if os.access(f"{directory}/{name}", os.X_OK):
            return f"{directory}/{name}"
    return ""


def _call(program: str, words: list[str]) -> None:
    """Run a helper; what it says goes into the error."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, writer, 2)]
        pid = os.posix_spawn(program, words, dict(os.environ), file_actions=actions)
        os.close(writer)
        writer = -1
        said = os.read(reader, 4096).decode("utf-8", "replace").strip()
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    if status:
        raise RuntimeFailure(errno.EPERM, said or "it failed", " ".join(words))


def namespace_of(uids: Mappings, gids: Mappings) -> int:
    """A descriptor of a user namespace with these maps, for an idmapped mount."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    ready, tell = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = process.clone3(n.CLONE_NEWUSER)
    if pid == 0:
        try:
            process.set_dumpable()
            os.close(theirs)
            os.write(tell, b"1")
            os.read(ours, 1)  # until the parent has what it wants
        finally:
            os._exit(0)
    try:
        os.read(ready, 1)
        write(pid, uids, gids)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for fd in (ours, theirs, ready, tell):
            os.close(fd)
        process.forget(pidfd)


def describe(entries: Mappings) -> str:
    """`0:100000:65536`, for people."""
    return ",".join(":".join(str(entry.get(key, 0)) for key in _KEYS) for entry in entries)


def become_root() -> None:
    """Be the root of this user namespace, where that is mapped; else go on as nobody with rights.

    The groups of before are dropped where the namespace allows it.
    """
    for change in (_no_groups, _root_group, _root_user):
        try:
            change()
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise


def _no_groups() -> None:
    os.setgroups([])


def _root_group() -> None:
    os.setresgid(0, 0, 0)


def _root_user() -> None:
    os.setresuid(0, 0, 0)


def enter(fd: int) -> None:
    """Join the user namespace behind `fd`."""
    namespaces.setns(fd, n.CLONE_NEWUSER)


class BecomeRoot(Operation):
    """Change to the ids of the new user namespace: to its root, if there is one."""

    __slots__ = ("gids", "uids")

    def __init__(self, uids: Mappings, gids: Mappings) -> None:
        self.uids, self.gids = uids, gids

    def execute(self, stage: Stage) -> None:
        become_root()

    def describe(self) -> str:
        maps = f" (uids {describe(self.uids)}, gids {describe(self.gids)})" if self.uids else ""
        return f"become root of the user namespace{maps}"


class BindRoot(Operation):
    """Bind the root file system inside, where the parent has no right to do it."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def execute(self, stage: Stage) -> None:
        fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            stage.take_root(mounts.clone_tree(fd, recursive=True))
        finally:
            os.close(fd)

    def describe(self) -> str:
        return f"bind the root file system {self.path}"
