"""The directory being filled, reached by descriptors only.

`Tree.parent` turns the directory part of an archive's name into an open directory. Every step is
one `openat` of one component with O_NOFOLLOW; a symbolic link in the way is read and resolved
inside the root (`/lib -> usr/lib`, absolute targets start at the root again, `..` never leaves it),
and a missing directory is made. No joined path reaches the kernel, so nothing outside of the root
can be named, also when somebody else changes the tree meanwhile.

Words: a *canonical* path is the slash-joined path from the root with all links resolved, b"" for
the root itself. Descriptors are cached by canonical path and the way from an archive's spelling to
the canonical path is cached too; both are dropped as soon as a directory or a link goes away.

`lowers` are the layers below, top first, when the caller has them: what the merged tree has at a
place decides then whether a parent is a link to follow or a directory whose mode, owner and
attributes a new one takes over.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from typing import Final

from sampan.kernel import overlaymarks
from sampan.layers.limits import (
    MAX_COMPONENT,
    MAX_DEPTH,
    MAX_LINKS,
    LayerError,
    show,
)

_CACHED: Final = 256  # descriptors; names are remembered for many more
_ALIASES: Final = 8192
_PATH: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOT: Final = b""

# Told of each directory that is made: its canonical path, its descriptor (O_PATH), and what a lower
# layer has there (O_PATH, closed afterwards) or -1.
MadeDirectory = Callable[[bytes, int, int], None]


def join(directory: bytes, name: bytes) -> bytes:
    """The canonical path of `name` in the canonical `directory`."""
    return directory + b"/" + name if directory else name


def split(name: bytes) -> list[bytes]:
    """The components of an archive's name; leading and doubled slashes and "." mean nothing.

    Raises:
        LayerError: a component is "..", has a NUL, or is too long.
    """
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    for part in parts:
        if part == b".." or len(part) > MAX_COMPONENT or b"\0" in part:
            raise LayerError(f"apply layer: bad name {show(name)}")
    return parts


class Tree:
    """The root directory `fd`, which stays the caller's, and what is cached of it."""

    __slots__ = ("_aliases", "_lowers", "_made", "_opaque", "_open", "_root")

    def __init__(self, fd: int, lowers: Sequence[int], made: MadeDirectory) -> None:
        self._root = fd
        self._lowers = tuple(lowers)
        self._made = made
        self._open: dict[bytes, int] = {}
        self._opaque: set[bytes] = set()
        self._aliases: dict[bytes, bytes] = {b"": _ROOT, b".": _ROOT}

    def close(self) -> None:
        """Close the cached descriptors."""
        self.forget()

    def forget(self) -> None:
        """Drop the caches: a directory or a symbolic link has gone."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()
        self._aliases = {b"": _ROOT, b".": _ROOT}

    def parent(self, directory: bytes) -> tuple[int, bytes]:
        """The open directory that the archive's `directory` means, and its canonical path.

        The descriptor is good until the next call. Missing directories are made.

        Raises:
            LayerError: the name is bad, too deep, loops, or runs through a file.
        """
        canonical = self._aliases.get(directory)
        if canonical is None:
            canonical = self._resolve(split(directory))
            if len(self._aliases) >= _ALIASES:
                self._aliases = {b"": _ROOT, b".": _ROOT}
            self._aliases[directory] = canonical
        return self.descriptor(canonical), canonical

    def descriptor(self, canonical: bytes) -> int:
        """The open directory at a canonical path, good until the next call."""
        if not canonical:
            return self._root
        fd = self._open.get(canonical)
        if fd is not None:
            return fd
        # From the deepest cached ancestor downwards.
        parts = canonical.split(b"/")
        have = len(parts) - 1
        while have and b"/".join(parts[:have]) not in self._open:
            have -= 1
        path = b"/".join(parts[:have])
        fd = self._open[path] if have else self._root
        for part in parts[have:]:
            path = join(path, part)
            fd = self._remember(path, os.open(part, _PATH, dir_fd=fd))
        return fd

    def _remember(self, canonical: bytes, fd: int) -> int:
        if len(self._open) >= _CACHED:
            oldest = next(iter(self._open))
            os.close(self._open.pop(oldest))
        self._open[canonical] = fd
        return fd

    def _resolve(self, parts: list[bytes]) -> bytes:
        """Walk `parts` from the root, links resolved in it: the canonical path reached."""
        waiting = parts[::-1]
        path = _ROOT
        links = depth = 0
        while waiting:
            part = waiting.pop()
            if part == b"..":
                path = path.rpartition(b"/")[0]
                depth = max(0, depth - 1)
                continue
            target = self._step(path, part)
            if target is None:
                path = join(path, part)
                depth += 1
                if depth > MAX_DEPTH:
                    raise LayerError(f"apply layer: more than {MAX_DEPTH} directories deep")
                continue
            links += 1
            if links > MAX_LINKS:
                raise LayerError(f"apply layer: too many links on the way to {show(parts[-1])}")
            if target.startswith(b"/"):
                path, depth = _ROOT, 0
            waiting.extend(p for p in reversed(target.split(b"/")) if p not in (b"", b"."))
        return path

    def _step(self, path: bytes, part: bytes) -> bytes | None:
        """Make `part` in the canonical `path` an open directory, or give its link's target."""
        canonical = join(path, part)
        if canonical in self._open:
            return None
        parent = self.descriptor(path)
        try:
            self._remember(canonical, os.open(part, _PATH, dir_fd=parent))
        except FileNotFoundError:
            return self._make(parent, canonical, part, whiteout=False)
        except NotADirectoryError:
            # A link too: O_DIRECTORY with O_NOFOLLOW says ENOTDIR before ELOOP.
            return self._through(parent, canonical, part)
        return None

    def _through(self, parent: int, canonical: bytes, part: bytes) -> bytes | None:
        status = os.stat(part, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(part, dir_fd=parent)
        if overlaymarks.is_gone(parent, part, status):
            os.unlink(part, dir_fd=parent)
            return self._make(parent, canonical, part, whiteout=True)
        raise LayerError(f"apply layer: {show(canonical)} is a file, not a directory")

    def _make(self, parent: int, canonical: bytes, part: bytes, *, whiteout: bool) -> bytes | None:
        """Make an implied directory, or give the target of the link that a lower layer has here."""
        below = -1 if whiteout else self._below(canonical)
        try:
            if below >= 0 and stat.S_ISLNK(os.fstat(below).st_mode):
                return os.readlink(b"", dir_fd=below)
            os.mkdir(part, 0o755, dir_fd=parent)
            fd = self._remember(canonical, os.open(part, _PATH, dir_fd=parent))
            if whiteout:
                self.hide_lowers(canonical, fd)
            self._made(canonical, fd, below)
        finally:
            if below >= 0:
                os.close(below)
        return None

    def hide_lowers(self, canonical: bytes, directory: int) -> None:
        """Make the directory `directory` at `canonical` opaque."""
        fd = os.open(b".", _READ, dir_fd=directory)
        try:
            overlaymarks.make_opaque(fd)
        finally:
            os.close(fd)
        if self._lowers:
            self._opaque.add(canonical)

    def _below(self, canonical: bytes) -> int:
        """What the layers below have at a canonical path: an O_PATH descriptor of a directory or a
        link, or -1."""
        if not self._lowers:
            return -1
        parts = canonical.split(b"/")
        if self._opaque and any(b"/".join(parts[:n]) in self._opaque for n in range(len(parts))):
            return -1
        for lower in self._lowers:
            fd, ends = _look(lower, parts)
            if fd >= 0 or ends:
                return fd
        return -1


def _look(lower: int, parts: list[bytes]) -> tuple[int, bool]:
    """`parts` in one lower layer, and whether the layers under it cannot count any more."""
    current = os.dup(lower)
    opaque = False
    for index, part in enumerate(parts):
        try:
            child = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
        except (FileNotFoundError, NotADirectoryError):
            return -1, opaque
        finally:
            os.close(current)
        status = os.fstat(child)
        last = index == len(parts) - 1
        if stat.S_ISDIR(status.st_mode):
            opaque = opaque or _is_opaque(child)
        elif not (last and stat.S_ISLNK(status.st_mode)):
            os.close(child)
            return -1, True  # a whiteout or a file hides the rest
        current = child
    return current, True


def _is_opaque(directory: int) -> bool:
    try:
        fd = os.open(b".", _READ, dir_fd=directory)
    except OSError:
        return False
    try:
        return overlaymarks.is_opaque(fd)
    finally:
        os.close(fd)


def remove(parent: int, name: bytes, status: os.stat_result) -> None:
    """Remove `name` in `parent`, with everything in it when it is a directory. No link followed."""
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent)
        return
    # One descriptor and the subdirectories still to do per level; MAX_DEPTH bounds the levels.
    stack = [_enter(parent, name)]
    try:
        while stack:
            above, child, fd, inner = stack[-1]
            if inner:
                stack.append(_enter(fd, inner.pop()))
            else:
                os.rmdir(child, dir_fd=above)
                stack.pop()
                os.close(fd)
    finally:
        for _, _, fd, _ in stack:
            os.close(fd)


def _enter(parent: int, name: bytes) -> tuple[int, bytes, int, list[bytes]]:
    """Open a directory, unlink its files, and list its subdirectories."""
    fd = os.open(name, _READ, dir_fd=parent)
    inner: list[bytes] = []
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                raw = os.fsencode(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    inner.append(raw)
                else:
                    os.unlink(raw, dir_fd=fd)
    except BaseException:
        os.close(fd)
        raise
    return parent, name, fd, inner
