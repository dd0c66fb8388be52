"""What a layer changes, found by walking directories.

Two kinds of trees are walked by the same code: the *upper* directory of an overlay, where overlayfs
has written down what is gone (a character device 0:0, an attribute on an opaque directory), and two
whole trees that are compared. The order is sorted by name, a directory before what is in it, so it
does not depend on the file system.

The tree belongs to a container and may be changed while it is walked: every step is one component
below an open directory, no link is followed, and a file that turned into something else is an
error, not a way out.
"""

from __future__ import annotations

import errno
import os
import stat
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from sampan.kernel import overlaymarks
from sampan.layers import whiteouts
from sampan.layers.limits import MAX_DEPTH, MAX_ENTRIES, LayerError, show

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME
_REDIRECT: Final = "trusted.overlay.redirect"
_METACOPY: Final = "trusted.overlay.metacopy"


class Step(Enum):
    """What was found."""

    ENTRY = "entry"  # it is there; `below` tells what the lower tree has, `same` that they agree
    GONE = "gone"  # the lower tree has it, and it is to be removed
    OPAQUE = "opaque"  # nothing of the lower tree's directory counts; follows its entry


class Found(NamedTuple):
    """One step. `parent` is open until the next step; `path` is relative, b"" for the root."""

    step: Step
    path: bytes
    parent: int
    name: bytes
    status: os.stat_result | None = None
    below: os.stat_result | None = None
    same: bool = False


class _Level:
    """One directory on the way down. `lower` is -1 where the lower tree has none."""

    __slots__ = ("gone", "lower", "names", "path", "upper")

    def __init__(self, upper: int, lower: int, path: bytes, *, compare: bool) -> None:
        self.upper = upper
        self.lower = lower
        self.path = path
        names = _names(upper)
        hidden = _names(lower) - names if compare and lower >= 0 else frozenset()
        self.gone = hidden
        self.names = iter(sorted(names | hidden))

    def close(self) -> None:
        os.close(self.upper)
        if self.lower >= 0:
            os.close(self.lower)


class Walk:
    """Iterate over it once. `upper` and `lower` stay the caller's."""

    def __init__(self, upper: int, lower: int = -1, *, overlay: bool) -> None:
        """`overlay`: `upper` is the upper directory of an overlay above `lower`, which need not be
        given; otherwise both are whole trees."""
        self._overlay = overlay
        self._stack: list[_Level] = []
        self._entries = 0
        self._root = (upper, lower)

    def __iter__(self) -> Iterator[Found]:
        upper, lower = self._root
        try:
            self._enter(_reopen(upper), _reopen(lower) if lower >= 0 else -1, b"")
            while self._stack:
                level = self._stack[-1]
                name = next(level.names, None)
                if name is None:
                    self._stack.pop().close()
                    continue
                yield from self._step(level, name)
        finally:
            for level in self._stack:
                level.close()
            self._stack.clear()

    def _enter(self, upper: int, lower: int, path: bytes) -> bool:
        """Go down into a directory; whether it is opaque."""
        opaque = self._overlay and _is_opaque(upper, path)
        if len(self._stack) >= MAX_DEPTH:
            raise LayerError(f"make layer: more than {MAX_DEPTH} directories deep")
        compare = opaque or not self._overlay
        self._stack.append(_Level(upper, lower, path, compare=compare))
        return opaque

    def _step(self, level: _Level, name: bytes) -> Iterator[Found]:
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise LayerError(f"make layer: more than {MAX_ENTRIES} entries")
        path = level.path + b"/" + name if level.path else name
        if name in level.gone:
            yield Found(Step.GONE, path, level.upper, name)
            return
        status = os.stat(name, dir_fd=level.upper, follow_symlinks=False)
        if self._overlay and overlaymarks.is_whiteout(status):
            yield Found(Step.GONE, path, level.upper, name)
            return
        below = _below(level.lower, name)
        same = below is not None and self._agree(level, name, status, below)
        yield Found(Step.ENTRY, path, level.upper, name, status, below, same)
        if stat.S_ISDIR(status.st_mode):
            child = os.open(name, READ_DIRECTORY, dir_fd=level.upper)
            if self._enter(child, _open_below(level.lower, name, below), path):
                yield Found(Step.OPAQUE, path + b"/" + whiteouts.OPAQUE, child, whiteouts.OPAQUE)

    def _agree(
        self, level: _Level, name: bytes, status: os.stat_result, below: os.stat_result
    ) -> bool:
        """Whether the lower tree has the same. In an overlay every file was copied up to change."""
        if stat.S_ISDIR(status.st_mode):
            return _facts(status)[:-1] == _facts(below)[:-1]
        if self._overlay or _facts(status) != _facts(below):
            return False
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(name, dir_fd=level.upper)
            return target == os.readlink(name, dir_fd=level.lower)
        return True


def _facts(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        status.st_rdev,
        status.st_size,
    )


def _names(fd: int) -> frozenset[bytes]:
    return frozenset(map(os.fsencode, os.listdir(fd)))


def _reopen(fd: int) -> int:
    """Our own position in the directory behind `fd`."""
    return os.open(b".", READ_DIRECTORY, dir_fd=fd)


def _below(lower: int, name: bytes) -> os.stat_result | None:
    if lower < 0:
        return None
    try:
        return os.stat(name, dir_fd=lower, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _open_below(lower: int, name: bytes, below: os.stat_result | None) -> int:
    if below is None or not stat.S_ISDIR(below.st_mode):
        return -1
    return os.open(name, READ_DIRECTORY, dir_fd=lower)


def attribute_names(fd: int) -> list[str]:
    """The names of the extended attributes of the file behind `fd`."""
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return []


def _is_opaque(directory: int, path: bytes) -> bool:
    """Whether overlayfs hides what is below.

    Raises:
        LayerError: overlayfs put here what only the whole overlay can be read for.
    """
    names = attribute_names(directory)
    if _REDIRECT in names or _METACOPY in names:
        raise LayerError(
            f"make layer: the directory {show(path)} was renamed by redirection, which a layer "
            "cannot say: mount overlays with redirect_dir=off"
        )
    return overlaymarks.is_opaque(directory)
