"""inotify(7): to be woken when a file of one directory changes."""

from __future__ import annotations

import asyncio
import ctypes
import os

_IN_MODIFY = 0x2
_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100
_IN_DELETE_SELF = 0x400
_MASK = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE_SELF

_libc = ctypes.CDLL(None, use_errno=True)
_init = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, use_errno=True)(("inotify_init1", _libc))
_add_watch = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32, use_errno=True
)(("inotify_add_watch", _libc))


class DirectoryWatch:
    """Wakes a task when something in a directory changes. Not exact: it may wake for nothing."""

    def __init__(self, path: str) -> None:
        """Raises OSError: the directory is not there, or the system's watches are used up."""
        self._fd = _init(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if _add_watch(self._fd, os.fsencode(path), _MASK) < 0:
            number = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(number, "inotify_add_watch", path)
        self.changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._ready)

    def close(self) -> None:
        """Stop watching."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _ready(self) -> None:
        try:
            os.read(self._fd, 65536)
        except BlockingIOError:
            return
        self.changed.set()
