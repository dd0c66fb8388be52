"""Frames on a port of the serial line: a letter, a length, and so many bytes.

From the node:  C a call, JSON   I input   E its end   S a signal, JSON   W a size, JSON
From within:    R an answer, JSON   O and X what it says on stdout and stderr   Q its end, JSON

A port belongs to one conversation at a time, which begins when the node connects and ends when it
leaves; what was called by it and still runs is killed then.
"""

from __future__ import annotations

import struct
from json import dumps, loads

HEADER = struct.Struct(">BI")
LARGEST = 4 << 20
PIECE = 1 << 15

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def pack(letter: str, data: bytes = b"") -> bytes:
    """One frame."""
    return HEADER.pack(ord(letter), len(data)) + data


def document(letter: str, **fields: Any) -> bytes:
    """One frame with an object."""
    return pack(letter, dumps(fields).encode())


def read_document(data: bytes) -> dict[str, Any]:
    """The object of a frame. Raises ValueError when it is none."""
    found = loads(data)
    if not isinstance(found, dict):
        raise ValueError("a frame without an object")  # noqa: TRY004 - it came from outside
    return found


class Splitter:
    """Bytes as they come become frames."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        """(letter, content) of every frame that is whole now. Raises ValueError at a huge one."""
        self._pending += data
        while len(self._pending) >= HEADER.size:
            letter, size = HEADER.unpack_from(self._pending)
            if size > LARGEST:
                raise ValueError(f"a frame of {size} bytes")
            end = HEADER.size + size
            if len(self._pending) < end:
                return
            content = bytes(self._pending[HEADER.size : end])
            del self._pending[:end]
            yield chr(letter), content
