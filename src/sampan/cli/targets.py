"""Files that a command writes: whole, or not at all."""

from __future__ import annotations

import os

from sampan.cli.session import Failed, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def to_file(pieces: Iterator[bytes], target: str) -> None:
    """Write `pieces` to the file `target`, which is there when all of it is.

    Raises:
        Failed: its directory does not exist.
    """
    if not os.path.isdir(os.path.dirname(target) or "."):
        raise Failed(f'invalid output path: directory "{os.path.dirname(target)}" does not exist')
    if os.path.exists(target) and not os.path.isfile(target):  # a FIFO, /dev/stdout
        fd = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for piece in pieces:
                write(fd, piece)
        finally:
            os.close(fd)
        return
    unfinished = f"{target}.unfinished-{os.getpid()}"
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            for piece in pieces:
                write(fd, piece)
        finally:
            os.close(fd)
        os.rename(unfinished, target)
    except BaseException:
        os.unlink(unfinished)
        raise
