"""inotify(7): being woken when a file changes. Enough of it for the event files of cgroups."""

from __future__ import annotations

import os

from sampan.kernel.libc import c_char_p, c_int, c_uint, check, prototype

IN_MODIFY = 0x2
IN_DELETE_SELF = 0x400
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC

_init = prototype("inotify_init1", c_int, c_int)
_add = prototype("inotify_add_watch", c_int, c_int, c_char_p, c_uint)


def watch(paths: list[str]) -> int:
    """A descriptor that is readable once one of `paths` has been written or removed.

    Non-blocking, close-on-exec. Raises FileNotFoundError when one does not exist.
    """
    fd = check(_init(_FLAGS), "inotify_init1")
    try:
        for path in paths:
            mask = IN_MODIFY | IN_DELETE_SELF
            check(_add(fd, os.fsencode(path), mask), "inotify_add_watch", path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def drain(fd: int) -> None:
    """Forget what has been reported so far."""
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass
