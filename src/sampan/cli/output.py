"""Bytes in and out of commands: a file or the standard streams."""

from __future__ import annotations

import os

from sampan.cli.session import Failed, write
from sampan.cli.targets import to_file as write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 1 << 20


def pieces_of(path: str) -> Iterator[bytes]:
    """The content of a file; of the standard input without a name."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path else 0
    try:
        while data := os.read(fd, _PIECE):
            yield data
    finally:
        if path:
            os.close(fd)


def refuse_terminal(target: str) -> None:
    """Raises Failed when an archive would go to a terminal."""
    if not target and os.isatty(1):
        raise Failed("cowardly refusing to save to a terminal. Use the -o flag or redirect")


def to_file(pieces: Iterator[bytes], target: str) -> None:
    """Write all of `pieces` to the file `target` or nothing; to the standard output without one.

    Raises:
        Failed: its directory does not exist.
    """
    if not target:
        for piece in pieces:
            write(1, piece)
        return
    write_file(pieces, target)
