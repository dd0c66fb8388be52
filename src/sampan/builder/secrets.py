"""Secrets of a build, as files in memory for the time of one command; and sockets of agents.

They lie on a tmpfs (the state directory when it is one, else /dev/shm), in a directory of mode 0700
whose name belongs to this root; the files of a command go when it has ended, and what a killed
engine left is swept at the next start.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sampan.errors import FailedPrecondition
from sampan.ids import new_id
from sampan.kernel.filesystems import magic

if TYPE_CHECKING:
    from collections.abc import Iterator

_MODE: Final = 0o400
_MEMORY: Final = frozenset((0x01021994, 0x858458F6))  # tmpfs, ramfs


class Vault:
    """Files in memory that have names only as long as a command needs them."""

    def __init__(self, state: str, *, shared: str = "/dev/shm") -> None:
        self._places = (state, shared)
        name = hashlib.sha256(os.fsencode(state)).hexdigest()[:16]
        self._name = f"sampan-build-{name}"
        self._users = 0

    def sweep(self) -> None:
        """Remove what an engine that was killed left."""
        for place in self._places:
            directory = f"{place}/{self._name}"
            try:
                for name in os.listdir(directory):
                    os.unlink(f"{directory}/{name}")
                os.rmdir(directory)
            except FileNotFoundError:
                continue

    def has_files(self) -> bool:
        """Whether an engine that was killed left some."""
        return any(os.path.exists(f"{place}/{self._name}") for place in self._places)

    @contextmanager
    def file(self, content: bytes, mode: int = _MODE, uid: int = 0, gid: int = 0) -> Iterator[str]:
        """A file of `content` for the block; its path.

        Raises:
            FailedPrecondition: there is no memory file system to put it on.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with self.place() as directory:
            path = f"{directory}/{new_id()[:32]}"
            fd = os.open(path, flags, 0)
            try:
                try:
                    view = memoryview(content)
                    while view:
                        view = view[os.write(fd, view) :]
                    os.fchown(fd, uid, gid)
                    os.fchmod(fd, mode)
                finally:
                    os.close(fd)
                yield path
            finally:
                os.unlink(path)

    @contextmanager
    def place(self) -> Iterator[str]:
        """The directory, for things of a name of their own that are gone behind the block.

        Raises:
            FailedPrecondition: there is no memory file system to put it on.
        """
        directory = self._directory()
        self._users += 1
        try:
            yield directory
        finally:
            self._users -= 1
            if not self._users:
                os.rmdir(directory)

    def _directory(self) -> str:
        for place in self._places:
            if _is_memory(place):
                directory = f"{place}/{self._name}"
                try:
                    os.mkdir(directory, 0o700)
                except FileExistsError:
                    status = os.stat(directory, follow_symlinks=False)
                    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                        continue
                return directory
        raise FailedPrecondition(
            "keep a secret: neither the state directory nor /dev/shm is in memory; a secret must "
            "not reach a disk"
        )


def _is_memory(path: str) -> bool:
    """Whether the file system of `path` keeps nothing on a disk."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return magic(fd) in _MEMORY
    finally:
        os.close(fd)
