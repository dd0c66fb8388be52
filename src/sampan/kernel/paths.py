"""Paths below a root that somebody else controls.

`Root` holds one descriptor. Every look-up goes through openat2(2) with RESOLVE_IN_ROOT: symbolic
links, absolute ones too, and `..` stay inside, links of /proc never work, and the answer is a
descriptor, so that what was checked is what is used. No joined string ever reaches a system call.

Directories that are missing are made one by one below the descriptor of their parent.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from sampan.kernel import numbers as n
from sampan.kernel.libc import c_char_p, c_int, c_size_t, check, last_errno, syscall

_openat2 = syscall(n.SYS_openat2, c_int, c_char_p, c_char_p, c_size_t)

_SCOPED = n.RESOLVE_IN_ROOT | n.RESOLVE_NO_MAGICLINKS
_MAX_DEPTH = 64  # names of a path with the links in it followed
_RACE_RETRIES = 128  # openat2 answers EAGAIN when a rename races with `..`


def openat2(directory: int, path: str, flags: int, mode: int, resolve: int) -> int:
    """openat2(2), close-on-exec, repeated while a rename race asks for it."""
    # struct open_how of linux/openat2.h
    how = struct.pack("<QQQ", flags | os.O_CLOEXEC, mode, resolve)
    raw = os.fsencode(path)
    fd = _openat2(directory, raw, how, len(how))
    for _ in range(_RACE_RETRIES):
        if fd >= 0 or last_errno() != errno.EAGAIN:
            break
        fd = _openat2(directory, raw, how, len(how))
    return check(fd, "openat2", path)


class Root:
    """A directory that is `/` for every path given to it. It borrows `fd`; the caller closes it."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """Open `path` inside of this root. Raises FileNotFoundError, NotADirectoryError ..."""
        return openat2(self.fd, path, flags, mode, _SCOPED)

    def open_path(self, path: str) -> int:
        """An O_PATH descriptor of `path`, links followed inside of the root."""
        return self.open(path, os.O_PATH)

    def parent(self, path: str) -> tuple[int, str]:
        """(descriptor of the directory of `path`, made if missing; last name).

        Raises InvalidInput (ValueError) when the last name is empty, `.` or `..`.
        """
        head, _, name = path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            raise ValueError(f"not a file name below a root: {path!r}")
        return self.make_directories(head), name

    def make_directories(self, path: str, mode: int = 0o755) -> int:
        """An O_PATH descriptor of the directory `path`; what is missing of it is made."""
        try:
            return self.open(path or "/", os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            pass
        made = ""
        current = os.dup(self.fd)
        for part in path.split("/"):
            if part in ("", "."):
                continue
            made += "/" + part
            following = self._step(current, made, part, mode)
            os.close(current)
            current = following
        return current

    def _step(self, parent: int, path: str, name: str, mode: int) -> int:
        """The directory `path`, made as `name` below `parent` if nothing is there."""
        try:
            return self.open(path, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            if name == "..":
                raise
        try:
            os.mkdir(name, mode, dir_fd=parent)
        except FileExistsError:
            # A link whose target is missing is there: make the target's place, inside of the root.
            return self._through_link(parent, path, name, mode)
        return openat2(parent, name, os.O_PATH | os.O_DIRECTORY, 0, n.RESOLVE_NO_SYMLINKS)

    def _through_link(self, parent: int, path: str, name: str, mode: int) -> int:
        fd = self.make_directories(_behind(parent, path, name), mode)
        os.close(fd)
        return self.open(path, os.O_PATH | os.O_DIRECTORY)

    def make_file(self, path: str, mode: int = 0o644) -> int:
        """An O_PATH descriptor of the file `path`; an empty one is made if nothing is there."""
        try:
            return self.open_path(path)
        except FileNotFoundError:
            pass
        parent, name = self.parent(path)
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC
            try:
                os.close(os.open(name, flags, mode, dir_fd=parent))
            except FileExistsError:
                # A link whose target is missing: that is made, inside of the root.
                return self.make_file(_behind(parent, path, name), mode)
            return openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, 0, n.RESOLVE_NO_SYMLINKS)
        finally:
            os.close(parent)

    def read_file(self, path: str, limit: int) -> bytes:
        """The regular file `path`, `limit` bytes at most.

        Raises OSError (EINVAL) when it is no regular file, (EFBIG) when it is larger.
        """
        fd = self.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, f"read {path}: not a regular file")
            content = os.read(fd, limit + 1)
            if len(content) > limit:
                raise OSError(errno.EFBIG, f"read {path}: larger than {limit} bytes")
            return content
        finally:
            os.close(fd)


def _behind(parent: int, path: str, name: str) -> str:
    """The path below a root that the link `path`, which is `name` below `parent`, leads to."""
    target = os.readlink(name, dir_fd=parent)
    base = "" if target.startswith("/") else path.rpartition("/")[0]
    if path.count("/") + target.count("/") > _MAX_DEPTH or target == "":
        raise OSError(errno.ELOOP, f"make {path}: too many links")
    return f"{base}/{target}"
