"""Trees that a COPY takes files from: an indexed archive, or directories behind a descriptor.

Both give the same view: `node` tells what a canonical path is (no link is followed), `names` what a
directory has in it, `data` writes a file's bytes to a descriptor. Paths are bytes without a leading
slash, b"" is the root. `resolve` follows links, inside of the tree only, whatever they say.

An archive is never unpacked: a file's data are read from where the index says that they are.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from sampan.layers.limits import MAX_COMPONENT, MAX_DEPTH, MAX_LINKS, LayerError, show

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE, DIRECTORY, LINK, FIFO, CHARACTER, BLOCK = "f", "d", "l", "p", "c", "b"
_KINDS: Final = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: LINK,
    stat.S_IFIFO: FIFO,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK,
}
_PATH: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE: Final = 1 << 20


class Node(NamedTuple):
    """One file. `data` is where an archive has the bytes; `same` is equal for names of one file."""

    kind: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0  # nanoseconds
    link: bytes = b""
    rdev: int = 0
    digest: bytes = b""
    data: int = 0
    extents: tuple[tuple[int, int], ...] | None = None
    same: tuple[int, int] | None = None
    xattrs: dict[bytes, bytes] | None = None


class Lookup(Protocol):
    """What can say what is where."""

    def node(self, path: bytes) -> Node | None:
        """What is at a canonical path; None when nothing is."""


class Source(Lookup, Protocol):
    """What both kinds of trees do."""

    def names(self, path: bytes) -> list[bytes]:
        """The names in a directory, sorted."""

    def data(self, path: bytes, node: Node, target: int) -> None:
        """Write a file's bytes to the descriptor `target`."""

    def hashed(self, path: bytes, node: Node) -> Node:
        """The node with everything in its digest or link that a copy of it takes along."""


def join(directory: bytes, name: bytes) -> bytes:
    """The path of `name` in `directory`."""
    return directory + b"/" + name if directory else name


def resolve(source: Lookup, path: bytes, *, follow: bool = True) -> tuple[bytes, Node | None]:
    """The canonical path that `path` leads to, and what is there.

    What is missing is taken literally, so the answer may be used as the place of a new file.
    `follow` False leaves a link in the last place alone.

    Raises:
        LayerError: too many links, or a component is too long.
    """
    waiting = [part for part in path.split(b"/")[::-1] if part not in (b"", b".")]
    reached, links = b"", 0
    node = source.node(b"")
    while waiting:
        part = waiting.pop()
        if part == b"..":
            reached = reached.rpartition(b"/")[0]
            node = source.node(reached)
            continue
        if len(part) > MAX_COMPONENT or b"\0" in part:
            raise LayerError(f"copy: bad name {show(part)}")
        step = join(reached, part)
        node = source.node(step) if node is not None and node.kind == DIRECTORY else None
        if node is None or node.kind != LINK or not (waiting or follow):
            reached = step
            continue
        links += 1
        if links > MAX_LINKS:
            raise LayerError(f"copy: too many links on the way to {show(path)}")
        if node.link.startswith(b"/"):
            reached = b""
        node = source.node(reached)
        waiting += [part for part in node_parts(step, source) if part not in (b"", b".")]
    return reached, node


def node_parts(path: bytes, source: Lookup) -> list[bytes]:
    """The components of the link at `path`, last one first."""
    node = source.node(path)
    return node.link.split(b"/")[::-1] if node is not None else []


class Archive:
    """A tar, as its index describes it; `fd` is the file of the tar."""

    def __init__(self, fd: int, nodes: Mapping[bytes, Node]) -> None:
        self._fd = fd
        self._nodes = nodes
        self._names: dict[bytes, list[bytes]] = {}
        for path in nodes:
            if path:
                directory, _, name = path.rpartition(b"/")
                self._names.setdefault(directory, []).append(name)

    def hashed(self, path: bytes, node: Node) -> Node:
        """See Source: the index has the hash; whose the files were does not count."""
        return node

    def node(self, path: bytes) -> Node | None:
        """See Source."""
        return self._nodes.get(path)

    def names(self, path: bytes) -> list[bytes]:
        """See Source."""
        return sorted(self._names.get(path, ()))

    def data(self, path: bytes, node: Node, target: int) -> None:
        """See Source."""
        offset = node.data
        for start, length in node.extents if node.extents is not None else ((0, node.size),):
            if node.extents is not None:
                os.lseek(target, start, os.SEEK_SET)
            self._copy(path, offset, length, target)
            offset += length
        if node.extents is not None:
            os.ftruncate(target, node.size)

    def _copy(self, path: bytes, offset: int, count: int, target: int) -> None:
        while count:
            piece = os.pread(self._fd, min(count, _PIECE), offset)
            if not piece:
                raise LayerError(f"copy: the archive ends inside of {show(path)}")
            write_all(target, piece)
            offset += len(piece)
            count -= len(piece)


class Directory:
    """A tree of directories behind `fd`, which stays the caller's. Somebody may change it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._last: tuple[bytes, int] | None = None

    def close(self) -> None:
        """Close what is kept open."""
        if self._last is not None:
            os.close(self._last[1])
            self._last = None

    def node(self, path: bytes) -> Node | None:
        """See Source."""
        directory, _, name = path.rpartition(b"/")
        try:
            parent = self._parent(directory) if path else self._fd
            fd = os.open(name, _PATH, dir_fd=parent) if path else os.dup(self._fd)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            status = os.fstat(fd)
            kind = _KINDS.get(stat.S_IFMT(status.st_mode))
            if kind is None:
                return None  # a socket means nothing to anybody else
            link = os.readlink(b"", dir_fd=fd) if kind == LINK else b""
        finally:
            os.close(fd)
        return Node(
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            size=status.st_size if kind == FILE else 0,
            mtime=status.st_mtime_ns,
            link=link,
            rdev=status.st_rdev,
            same=(status.st_dev, status.st_ino) if status.st_nlink > 1 else None,
        )

    def names(self, path: bytes) -> list[bytes]:
        """See Source."""
        fd = os.open(b".", _LIST, dir_fd=self._parent(path))
        try:
            return sorted(os.fsencode(name) for name in os.listdir(fd))
        finally:
            os.close(fd)

    def data(self, path: bytes, node: Node, target: int) -> None:
        """See Source. The attributes that a layer may have come along."""
        directory, _, name = path.rpartition(b"/")
        fd = os.open(name, _READ, dir_fd=self._parent(directory))
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise LayerError(f"copy: {show(path)} was replaced while it was read")
            left = node.size
            while left and (piece := os.read(fd, min(left, _PIECE))):
                write_all(target, piece)
                left -= len(piece)
            for attribute in filter(_travels, os.listxattr(fd)):
                os.setxattr(target, attribute, os.getxattr(fd, attribute))
        finally:
            os.close(fd)

    def hashed(self, path: bytes, node: Node) -> Node:
        """See Source: the bytes, the owner, and the attributes that a layer may have."""
        owner = f"{node.uid}:{node.gid}".encode()
        if node.kind == LINK:
            return node._replace(link=node.link + b"\0" + owner)
        if node.kind != FILE:
            return node._replace(digest=owner)
        total = hashlib.sha256(owner)
        directory, _, name = path.rpartition(b"/")
        fd = os.open(name, _READ, dir_fd=self._parent(directory))
        try:
            while piece := os.read(fd, _PIECE):
                total.update(piece)
            for attribute in filter(_travels, sorted(os.listxattr(fd))):
                total.update(attribute.encode() + b"\0" + os.getxattr(fd, attribute))
        finally:
            os.close(fd)
        return node._replace(digest=total.digest())

    def _parent(self, path: bytes) -> int:
        """The open directory at a canonical path, one component at a time."""
        if self._last is not None and self._last[0] == path:
            return self._last[1]
        parts = path.split(b"/") if path else []
        if len(parts) > MAX_DEPTH:
            raise LayerError(f"copy: more than {MAX_DEPTH} directories deep")
        current = os.dup(self._fd)
        for part in parts:
            try:
                following = os.open(part, _PATH | os.O_DIRECTORY, dir_fd=current)
            finally:
                os.close(current)
            current = following
        self.close()
        self._last = (path, current)
        return current


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _travels(attribute: str) -> bool:
    """Whether an extended attribute goes along with its file."""
    return attribute == "security.capability" or attribute.startswith("user.")
