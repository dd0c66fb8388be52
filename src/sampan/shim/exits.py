"""The records a shim leaves on disk: `state.json` while the container lives, `exit.json` after.

They are the truth that a restarted engine reads; messages only say that they changed. A record is
written beside its place, flushed where it must survive, and renamed, so a reader sees the whole
old one or the whole new one. Names are relative to the descriptor of the shim's own directory.
"""

from __future__ import annotations

import os
from json import JSONEncoder

STATE = "state.json"
EXIT = "exit.json"

encode = JSONEncoder(separators=(",", ":"), check_circular=False).encode
"""A JSON document as compact ASCII text."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def write_record(directory: int, name: str, document: dict[str, Any], *, sync: bool) -> None:
    """Put `document` in place as `name` below the directory descriptor.

    With `sync` the bytes and the name are on the disk when this returns.

    Raises:
        OSError: it could not be written; what was there before is untouched.
    """
    temporary = f".{name}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        _write_all(fd, encode(document).encode("ascii"))
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    if sync:
        os.fsync(directory)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
