"""Bytes of streams taken apart: multiplexed output frames, and JSON values one to a line.

A frame has a head of eight bytes, `[stream, 0, 0, 0, length as four bytes, big end first]`; stream
1 is standard output, 2 standard error, 3 an error of the daemon itself. Both classes are fed pieces
cut anywhere and hand out what is complete. A frame's payload is handed out as it comes, so a large
frame is never held whole; a line has a bound.
"""

from __future__ import annotations

from sampan.errors import Unavailable
from sampan.jsontext import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

STDOUT, STDERR, SYSTEM_ERROR = 1, 2, 3
MAX_LINE = 4 << 20


class Frames:
    """Splits multiplexed output into (stream, bytes)."""

    __slots__ = ("_head", "_left", "_stream")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._stream = STDOUT

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The payload in `data`, each part with the number of its stream."""
        at = 0
        while at < len(data):
            if self._left:
                payload = data[at : at + self._left]
                at += len(payload)
                self._left -= len(payload)
                yield self._stream, payload
                continue
            need = 8 - len(self._head)
            self._head += data[at : at + need]
            at += need
            if len(self._head) == 8:
                self._begin()

    def _begin(self) -> None:
        stream = self._head[0]
        if stream > SYSTEM_ERROR or self._head[1:4] != b"\0\0\0":
            raise Unavailable(f"unrecognized stream: {stream}")
        self._stream = stream or STDOUT
        self._left = int.from_bytes(self._head[4:], "big")
        self._head = b""


class Lines:
    """Splits a body into the JSON values that stand one to a line."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[Any]:
        """The values whose lines are complete; no bytes mean the end of the body."""
        *lines, rest = (self._buffer + data).split(b"\n")
        if not data:
            lines, rest = [*lines, rest], b""
        self._buffer = rest
        if len(rest) > MAX_LINE:
            raise Unavailable(f"a line of more than {MAX_LINE} bytes from the daemon")
        for line in lines:
            if line.strip():
                yield decode(line)
