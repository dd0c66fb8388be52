"""A directory as a layer: the reverse of `layers.apply`.

`write_layer` turns the upper directory of an overlay (or the difference of two trees) into the tar
of a layer. The same input gives the same bytes: entries are sorted, times are whole seconds and not
later than `newest`, owners are numbers, the second name of a file is a hard link to the first one
in the order. Whiteouts and opaque directories get the archive's own form back. Attributes are those
that `apply` would set: capabilities, ACLs and the user's.

Refused, because a layer cannot say it: a name that begins with `.wh.`, a directory that overlayfs
redirected, more than the bounds of `layers.limits`. Sockets are left out, as everywhere. A file is
read as far as it was long when it was looked at; one that became shorter since is an error.

`list_changes` gives the same difference as a list.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from sampan.errors import Conflict
from sampan.layers import header, tarwriter, whiteouts
from sampan.layers.apply import is_allowed_attribute
from sampan.layers.limits import MAX_LAYER_SIZE, MAX_NAME, LayerError, show
from sampan.layers.walk import READ_DIRECTORY, Found, Step, Walk, attribute_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_READ_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOATIME
_PIECE: Final = 1 << 20
# What a root without an entry becomes, and (sticky) what a snapshotter gives one that nobody set.
_UNSET_ROOTS: Final = ((stat.S_IFDIR | 0o755, 0, 0), (stat.S_IFDIR | 0o1755, 0, 0))
ADDED: Final = b"A"
CHANGED: Final = b"C"
DELETED: Final = b"D"


class Sink(Protocol):
    """Where the bytes of the tar go."""

    def write(self, data: bytes) -> None:
        """Take `data`, which nobody changes afterwards."""
        ...


class Written(NamedTuple):
    """What went into the archive: its bytes and its entries."""

    size: int
    entries: int


def write_layer(
    upper: int,
    sink: Sink,
    *,
    lower: int = -1,
    overlay: bool = True,
    newest: int | None = None,
    root: tuple[int, int, int] | None = None,
    without: frozenset[bytes] = frozenset(),
    limit: int = MAX_LAYER_SIZE,
) -> Written:
    """Write the tar of what `upper` changes to `sink`.

    Args:
        upper: a directory descriptor: an overlay's upper directory, or a whole tree.
        lower: the tree below it. An overlay needs none; without one, a whole tree is all new.
        overlay: whether `upper` is in overlayfs's own form.
        newest: seconds since 1970; what is later gets this time.
        root: mode, owner and group that the root has without this layer.
        without: paths that are left out where they are empty: mount points.
        limit: bytes of the tar, at most.

    Raises:
        LayerError: the tree has what no layer can say, or is beyond a bound.
        Conflict: a file became shorter while it was read.
        OSError: the tree cannot be read.
    """
    writer = _Writer(sink, newest, limit)
    writer.root(upper, root)
    for found in _needed(Walk(upper, lower, overlay=overlay)):
        if found.path not in without or not _is_empty(found):
            writer.add(found)
    writer.end()
    return Written(writer.size, writer.entries)


def _is_empty(found: Found) -> bool:
    """Whether it is a directory or a file with nothing in it."""
    if found.status is None or found.step is not Step.ENTRY:
        return False
    if stat.S_ISREG(found.status.st_mode):
        return found.status.st_size == 0
    if not stat.S_ISDIR(found.status.st_mode):
        return False
    fd = os.open(found.name, READ_DIRECTORY, dir_fd=found.parent)
    try:
        return not os.listdir(fd)
    finally:
        os.close(fd)


def list_changes(upper: int, *, lower: int = -1, overlay: bool = True) -> Iterator[bytes]:
    """The paths that `upper` changes, sorted, each with ADDED, CHANGED or DELETED in front."""
    for found in _needed(Walk(upper, lower, overlay=overlay)):
        if found.step is Step.GONE:
            yield DELETED + b"/" + found.path
        elif found.step is Step.ENTRY:
            yield (ADDED if found.below is None else CHANGED) + b"/" + found.path


def _needed(walk: Iterable[Found]) -> Iterator[Found]:
    """Without what is the same below; but the directories on the way to a change stay.

    A directory that a layer does not mention would be made anew, with a plain owner and mode.
    """
    waiting: list[Found] = []
    for found in walk:
        while waiting and not found.path.startswith(waiting[-1].path + b"/"):
            waiting.pop()
        if not found.same:
            yield from waiting
            waiting.clear()
            yield found
        elif found.status is not None and stat.S_ISDIR(found.status.st_mode):
            waiting.append(found)


class _Writer:
    """Turns steps into entries."""

    def __init__(self, sink: Sink, newest: int | None, limit: int) -> None:
        self.size = 0
        self.entries = 0
        self._sink = sink
        self._newest = newest
        self._limit = limit
        self._links: dict[tuple[int, int], bytes] = {}

    def root(self, upper: int, below: tuple[int, int, int] | None) -> None:
        """The root's own entry, when it is not as it would be without one."""
        status = os.fstat(upper)
        same = (below,) if below is not None else _UNSET_ROOTS
        if (status.st_mode, status.st_uid, status.st_gid) not in same:
            self._entry(b"./", header.DIRECTORY, status, attributes=_attributes(upper))

    def add(self, found: Found) -> None:
        """One step. Raises as `write_layer`."""
        if found.step is Step.OPAQUE:
            self._marker(found.path)
            return
        if found.name.startswith(whiteouts.PREFIX):
            raise LayerError(
                f"make layer: {show(found.path)} cannot be in a layer: the names that begin with "
                ".wh. say there what is gone"
            )
        if len(found.path) >= MAX_NAME:
            raise LayerError(f"make layer: the name {show(found.path)} is too long")
        if found.status is None:
            directory = found.path[: -len(found.name)]
            self._marker(directory + whiteouts.PREFIX + found.name)
            return
        self._add_entry(found, found.status)

    def end(self) -> None:
        """The end marker."""
        self._put(tarwriter.END)

    def _add_entry(self, found: Found, status: os.stat_result) -> None:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            attributes = _attributes_below(found)
            self._entry(found.path + b"/", header.DIRECTORY, status, attributes=attributes)
            return
        if kind == stat.S_IFSOCK:
            return
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), found.path)
            if first != found.path:
                self._entry(found.path, header.HARD_LINK, status, link=first)
                return
        if kind == stat.S_IFREG:
            self._file(found)
        elif kind == stat.S_IFLNK:
            target = os.readlink(found.name, dir_fd=found.parent)
            self._entry(found.path, header.SYMLINK, status, link=target)
        elif kind == stat.S_IFIFO:
            self._entry(found.path, header.FIFO, status)
        else:
            number = os.major(status.st_rdev), os.minor(status.st_rdev)
            device = header.CHARACTER if kind == stat.S_IFCHR else header.BLOCK_DEVICE
            self._entry(found.path, device, status, device=number)

    def _file(self, found: Found) -> None:
        fd = os.open(found.name, _READ_FILE, dir_fd=found.parent)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise Conflict(f"make layer: {show(found.path)} was replaced while it was read")
            self._entry(
                found.path,
                header.REGULAR,
                status,
                size=status.st_size,
                attributes=_attributes(fd),
            )
            self._copy(fd, found.path, status.st_size)
        finally:
            os.close(fd)

    def _copy(self, fd: int, path: bytes, size: int) -> None:
        left = size
        while left:
            data = os.read(fd, min(left, _PIECE))
            if not data:
                raise Conflict(f"make layer: {show(path)} became shorter while it was read")
            self._put(data)
            left -= len(data)
        self._put(tarwriter.padding(size))

    def _marker(self, path: bytes) -> None:
        self.entries += 1
        self._put(tarwriter.header(path, header.REGULAR))

    def _entry(
        self,
        name: bytes,
        kind: int,
        status: os.stat_result,
        *,
        size: int = 0,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        attributes: dict[bytes, bytes] | None = None,
    ) -> None:
        mtime = status.st_mtime_ns // 1_000_000_000
        if self._newest is not None:
            mtime = min(mtime, self._newest)
        self.entries += 1
        self._put(
            tarwriter.header(
                name,
                kind,
                mode=stat.S_IMODE(status.st_mode),
                uid=status.st_uid,
                gid=status.st_gid,
                size=size,
                mtime=mtime,
                link=link,
                device=device,
                attributes=attributes,
            )
        )

    def _put(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self._limit:
            raise LayerError(f"make layer: larger than {self._limit} bytes")
        self._sink.write(data)


def _attributes_below(found: Found) -> dict[bytes, bytes]:
    fd = os.open(found.name, READ_DIRECTORY, dir_fd=found.parent)
    try:
        return _attributes(fd)
    finally:
        os.close(fd)


def _attributes(fd: int) -> dict[bytes, bytes]:
    names = (os.fsencode(name) for name in attribute_names(fd))
    return {name: os.getxattr(fd, name) for name in names if is_allowed_attribute(name)}
