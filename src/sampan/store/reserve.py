"""A little disk that is kept for the moment when there is none left.

On a full disk nothing can be removed, because a removal has to be written too. So a file of SIZE
bytes waits beside the database; it is given up when a change of something that exists cannot be
written, and made again when there is room. What would make something new never gets it.
"""

from __future__ import annotations

import os

SIZE = 1 << 20


class Reserve:
    """The reserve at `path`. `keep` and `release` never raise."""

    __slots__ = ("_kept", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._kept = False

    def keep(self) -> None:
        """Have it, if the disk has room."""
        if self._kept:
            return
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            os.posix_fallocate(fd, 0, SIZE)
            self._kept = True
        except OSError:
            os.ftruncate(fd, 0)  # a part of it would only be in the way
        finally:
            os.close(fd)

    def release(self) -> bool:
        """Give it up; whether there was something to give."""
        if not self._kept:
            return False
        self._kept = False
        try:
            os.unlink(self._path)
        except OSError:
            return False
        return True
