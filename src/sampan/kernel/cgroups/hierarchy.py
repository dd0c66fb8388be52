"""Where cgroup file systems are mounted, and reading and writing beneath them.

A *hierarchy* is one mounted cgroup tree: on version 1 one for each controller or for a group of
them mounted together (`cpu,cpuacct`), on version 2 a single one. `mounted` finds them once in a
process and keeps an O_PATH descriptor of each root, so a cgroup costs no walk from `/` and no
parse of mountinfo. A forked child may have closed those descriptors: there the identity of each is
looked at when `mounted` is first called, and it is opened anew.

A cgroup path has the grammar of `parts`; no other path ever reaches a system call here.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

CONTROLLERS = frozenset(
    "blkio cpu cpuacct cpuset devices freezer hugetlb memory misc net_cls net_prio perf_event "
    "pids rdma name=systemd".split()
)
_READ_SIZE = 4096


class Hierarchy:
    """One mounted cgroup tree: its controllers, its version and a descriptor of its root."""

    __slots__ = ("_identity", "controllers", "fd", "mountpoint", "root", "version")

    def __init__(
        self, version: int, controllers: tuple[str, ...], mountpoint: str, root: str
    ) -> None:
        self.version = version
        self.controllers = controllers
        self.mountpoint = mountpoint
        self.root = root
        self.open()

    def open(self) -> None:
        """Open the root anew; a descriptor that was open before is not closed here."""
        self.fd = os.open(self.mountpoint, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        status = os.fstat(self.fd)
        self._identity = (status.st_dev, status.st_ino)

    def is_open(self) -> bool:
        """Whether the descriptor still is the one that was opened."""
        try:
            status = os.fstat(self.fd)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def name(self, path: str) -> str:
        """The absolute name of `path` for messages and for state that is written down."""
        return f"{self.mountpoint.rstrip('/')}/{path}"


_found: list[Hierarchy] = []
_seen_by = [0]
"""The process that has looked at the descriptors last."""


def mounted() -> list[Hierarchy]:
    """The hierarchies of this process, version 1 first, as mounted when first asked."""
    if _seen_by[0] != os.getpid():
        _seen_by[0] = os.getpid()
        for hierarchy in _found:
            # The number may belong to somebody else by now, so it is not closed.
            if not hierarchy.is_open():
                hierarchy.open()
    if not _found:
        with open("/proc/self/mountinfo", "rb") as stream:
            mounts = parse_mountinfo(os.fsdecode(stream.read()))
        for mount in mounts:
            try:
                _found.append(Hierarchy(*mount))
            except FileNotFoundError:
                continue  # something is mounted above it
    return _found


def forget() -> None:
    """Close the kept descriptors that still are ours; the next use finds the mounts again."""
    for hierarchy in _found:
        if hierarchy.is_open():
            os.close(hierarchy.fd)
    _found.clear()


def parse_mountinfo(text: str) -> list[tuple[int, tuple[str, ...], str, str]]:
    """The cgroup mounts of a mountinfo text as (version, controllers, mount point, root).

    The first mount of a hierarchy wins; later ones are bind mounts of it, in some container.
    """
    found: dict[tuple[str, ...], tuple[int, tuple[str, ...], str, str]] = {}
    for line in text.split("\n"):
        before, separator, after = line.partition(" - ")
        if not separator or not after.startswith("cgroup"):
            continue
        fields, tail = before.split(" "), after.split(" ")
        version = {"cgroup": 1, "cgroup2": 2}.get(tail[0])
        if version is None:
            continue
        controllers = tuple(x for x in tail[2].split(",") if version == 1 and x in CONTROLLERS)
        if controllers or version == 2:
            found.setdefault(
                controllers, (version, controllers, unescape(fields[4]), unescape(fields[3]))
            )
    return sorted(found.values(), key=lambda mount: mount[0])


def unescape(text: str) -> str:
    """A path as mountinfo writes it, in plain."""
    for escaped, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escaped, plain)
    return text


def names(
    trees: list[Hierarchy], path: str, own: dict[str, str] | None = None
) -> list[tuple[Hierarchy, str]]:
    """Where `path` is in each of `trees`: below its root, or below our own cgroup if relative.

    `own` is what `own_paths` told the process that made the cgroup, where that was another one.
    """
    name = "/".join(parts(path))
    if path.startswith("/"):
        return [(tree, name) for tree in trees]
    if own is None:
        own = own_paths()
    return [(tree, below_own(tree, name, own)) for tree in trees]


def own_paths() -> dict[str, str]:
    """The cgroup of this process in each hierarchy: controller, or "" for version 2, to path."""
    own: dict[str, str] = {}
    with open("/proc/self/cgroup", "rb") as stream:
        for line in os.fsdecode(stream.read()).split("\n"):
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            for controller in controllers.split(","):
                own[controller] = path
    return own


def parts(path: str) -> list[str]:
    """The components of a cgroup path; raises ValueError for anything that could leave it."""
    if len(path) > 4096 or "\0" in path or "\n" in path:
        raise ValueError("cgroup path is too long or has a control character")
    names = [name for name in path.split("/") if name not in {"", "."}]
    if not names or ".." in names or max(map(len, names)) > 255:
        raise ValueError(f"cgroup path {path!r} is not a path below a cgroup root")
    return names


def inside(path: str, sub: str) -> str:
    """The cgroup `sub` below `path`. Raises ValueError when it would leave that."""
    if ".." in sub.split("/") or "\0" in sub:
        raise ValueError(f"bad sub cgroup path: {sub}")
    return "/".join([path, *(part for part in sub.split("/") if part not in {"", "."})])


def below_own(hierarchy: Hierarchy, name: str, own: dict[str, str]) -> str:
    """`name` below the cgroup `own` of a process, without a leading slash.

    As runc does with relative paths: a runtime that itself runs in a container stays inside of it.
    On version 2 beside that cgroup, as one with processes cannot hand controllers down.
    """
    base = own.get(hierarchy.controllers[0] if hierarchy.controllers else "", "/")
    if hierarchy.version == 2:
        base = base.rpartition("/")[0]
    if hierarchy.root != "/" and base.startswith(hierarchy.root):
        base = base[len(hierarchy.root) :]
    return "/".join([*(part for part in base.split("/") if part not in {"", ".."}), name])


def read(hierarchy: Hierarchy, path: str) -> str:
    """The text of a cgroup file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=hierarchy.fd)
    try:
        text = chunk = os.read(fd, _READ_SIZE)
        # The kernel fills a page with lines before it answers: far less than that was the end.
        while len(chunk) > _READ_SIZE // 2:
            chunk = os.read(fd, _READ_SIZE)
            text += chunk
        return text.decode()
    finally:
        os.close(fd)


def look(hierarchy: Hierarchy, path: str) -> str | None:
    """The text of a cgroup file, or None where this kernel or this cgroup has no such file."""
    try:
        return read(hierarchy, path)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP}:
            return None
        raise


def write(hierarchy: Hierarchy, path: str, value: str) -> None:
    """Write one value; the OSError names the file and the value."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=hierarchy.fd)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        fail(error, f"write {value!r} to {hierarchy.name(path)}")


def fail(error: OSError, what: str) -> NoReturn:
    """Raise `error` again with the text that says what was tried."""
    code = error.errno or errno.EIO
    raise OSError(code, f"{what}: {os.strerror(code).lower()}") from error
