"""What is mended in CRIU's images: what they say of the parent that a container had.

A container of the engine gets SIGKILL when its shim dies. CRIU would give that wish to what it
restores, whose parent is the runtime, and that ends when it has restored it.
"""

from __future__ import annotations

import struct

from sampan.runtime.criu_words import BYTES, VARINT, walk

_HEADER = 8  # two magic numbers
_SIZE = struct.Struct("<I")
_THREAD_CORE, _PARENT_DEATH = 5, 8  # fields of core_entry and thread_core_entry (images/core.proto)


def forget_parent(images: str, pid: int) -> None:
    """Take the signal at its parent's death from the process `pid`, a number of its own namespace.

    Raises ValueError when its image is malformed.
    """
    with open(f"{images}/core-{pid}.img", "r+b") as file:
        data = file.read()
        start = _HEADER + _SIZE.size
        (size,) = _SIZE.unpack(data[_HEADER:start])
        for begin, end in _within(data, start, start + size):
            file.seek(begin)
            file.write(b"\x80" * (end - begin - 1) + b"\0")  # zero, in as many bytes


def _within(data: bytes, start: int, end: int) -> list[tuple[int, int]]:
    """Where the numbers of the signal are."""
    return [
        (first, last)
        for number, kind, begin, beyond in walk(data, start, end)
        if (number, kind) == (_THREAD_CORE, BYTES)
        for inner, form, first, last in walk(data, begin, beyond)
        if (inner, form) == (_PARENT_DEATH, VARINT)
    ]
