"""Lists that a kubelet asks for every second: each line is encoded once, until it changes.

A repeated field of protobuf is the concatenation of its items, so a list is its lines joined. The
answer is bytes already and goes out as it is (`calls.py`). A whole list is kept as well, for most
of the time nothing in it has changed since the last second.
"""

from __future__ import annotations

from operator import is_
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from google.protobuf.message import Message

MAX_LINES = 8192
MAX_ITEMS = 1000
"""Items in one message of a streamed list."""

_FIRST_FIELD = b"\x0a"  # field 1, a message: every list of the interface has its items there


class Lines:
    """Encoded lines by id. A line is good as long as what it was made of is the same object."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, object, bytes]] = {}

    def get(self, key: str, source: object, state: object, make: Callable[[], Message]) -> bytes:
        """The line of `key`, made again when `source` or `state` is another than before."""
        known = self._known.get(key)
        if known is not None and known[0] is source and known[1] == state:
            return known[2]
        if len(self._known) >= MAX_LINES:
            self._known.clear()
        line = item(make())
        self._known[key] = source, state, line
        return line


class Whole:
    """The last answer. It is good as long as what it was made of are the same objects."""

    __slots__ = ("_answer", "_sources")

    def __init__(self) -> None:
        self._sources: Sequence[object] = ()
        self._answer = b""

    def get(self, sources: Sequence[object], make: Callable[[], bytes]) -> bytes:
        """The answer for `sources`, made again when one of them is another than before."""
        known = self._sources
        if len(known) != len(sources) or not all(map(is_, known, sources)):
            self._answer = make()
            self._sources = sources
        return self._answer


def item(message: Message) -> bytes:
    """One item of the first field."""
    data = message.SerializeToString()
    size, head = len(data), bytearray(_FIRST_FIELD)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + data


def pieces(lines: Sequence[bytes]) -> Iterator[bytes]:
    """The messages of a streamed list."""
    for start in range(0, len(lines), MAX_ITEMS):
        yield b"".join(lines[start : start + MAX_ITEMS])
