"""The records a shim leaves on disk: `state.json` while the container lives, `exit.json` after.

They are the truth that a restarted engine reads; messages only say that they changed. A record is
written beside its place, flushed where it must survive, and renamed, so a reader sees the whole
old one or the whole new one. Names are relative to the descriptor of the shim's own directory.

A keeper (keeper.py) cannot write JSON. Its record is what the kernel said: `siginfo_t` of waitid,
`timespec` of the end, and the text of the file that counts the kills for want of memory. A monitor
hears the same over a socket, without the text.
"""

from __future__ import annotations

import os
import struct
from json import JSONEncoder

STATE = "state.json"
EXIT = "exit.json"
KEPT_EXIT = "exit"
KEPT_TEXT = 256
"""Bytes of what the kernel counts about memory, with which a keeper's record ends."""

# si_code, si_pid and si_status of siginfo_t on 64 bits; then struct timespec
_KEPT = struct.Struct("<8xi4xi4xi100xqq")

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


def parse_kept(record: bytes) -> dict[str, Any]:
    """A keeper's record, as `EXIT` would have it. Raises ValueError when it is none."""
    if len(record) != _KEPT.size + KEPT_TEXT:
        raise ValueError(f"a record of {len(record)} bytes")
    how, pid, status, seconds, nanoseconds = _KEPT.unpack_from(record)
    killed = how != os.CLD_EXITED
    kills = record[_KEPT.size :].partition(b"oom_kill ")[2].split(b"\n")[0]
    return {
        "v": 1,
        "code": 128 + status if killed else status,
        "signal": status if killed else 0,
        "oom": bool(kills.isdigit() and int(kills)),
        "time": seconds * 1_000_000_000 + nanoseconds,
        "pid": pid,
        "lost": False,
    }


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
