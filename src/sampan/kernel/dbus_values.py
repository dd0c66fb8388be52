"""Values as D-Bus writes them: marshalling by signature.

A struct is a tuple, a dictionary an array of pairs, a variant a pair (signature, value). Numbers
are in the byte order of this machine, which is that of both ends.
"""

from __future__ import annotations

import errno
from struct import Struct
from struct import error as StructError  # noqa: N812

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_DEPTH = 16
NUMBERS = {
    "y": Struct("=B"),
    "b": Struct("=I"),
    "n": Struct("=h"),
    "q": Struct("=H"),
    "i": Struct("=i"),
    "u": Struct("=I"),
    "x": Struct("=q"),
    "t": Struct("=Q"),
    "d": Struct("=d"),
}
_ALIGNMENT = {"s": 4, "o": 4, "g": 1, "v": 1, "a": 4, "(": 8, "{": 8}
_ALIGNMENT.update((kind, one.size) for kind, one in NUMBERS.items())
_CLOSING = {"(": ")", "{": "}"}


def split(signature: str) -> list[str]:
    """The complete types of a signature. Raises ValueError for one that is malformed."""
    found = []
    start = 0
    while start < len(signature):
        end = _end_of(signature, start, 0)
        found.append(signature[start:end])
        start = end
    return found


def _end_of(signature: str, at: int, depth: int) -> int:
    kind = signature[at : at + 1]
    if kind not in _ALIGNMENT or depth > _MAX_DEPTH:
        raise ValueError(f"malformed D-Bus signature {signature!r}")
    if kind == "a":
        return _end_of(signature, at + 1, depth + 1)
    if kind not in _CLOSING:
        return at + 1
    at += 1
    while signature[at : at + 1] != _CLOSING[kind]:
        at = _end_of(signature, at, depth + 1)
    return at + 1


class Writer:
    """Values as they are in a message."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, size: int) -> None:
        """Zeros up to a multiple of `size`."""
        self.data += bytes(-len(self.data) % size)

    def put(self, signature: str, value: Any) -> None:
        """One value of one complete type."""
        kind = signature[0]
        self.align(_ALIGNMENT[kind])
        if kind in NUMBERS:
            self.data += NUMBERS[kind].pack(value)
        elif kind == "g":
            self.data += bytes((len(value),)) + value.encode() + b"\0"
        elif kind in "so":
            raw = value.encode("utf-8", "surrogateescape")
            self.data += NUMBERS["u"].pack(len(raw)) + raw + b"\0"
        elif kind == "v":
            self.put("g", value[0])
            self.put(*value)
        elif kind == "a":
            self._put_array(signature[1:], value)
        else:
            for part, one in zip(split(signature[1:-1]), value, strict=True):
                self.put(part, one)

    def _put_array(self, element: str, values: Any) -> None:
        place = len(self.data)
        self.data += bytes(4)
        self.align(_ALIGNMENT[element[0]])
        start = len(self.data)
        for one in values:
            self.put(element, one)
        NUMBERS["u"].pack_into(self.data, place, len(self.data) - start)


class Reader:
    """The values of a message that came, from `at` on. A malformed one is an OSError."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def all(self, signature: str) -> list[Any]:
        """The values of a whole signature."""
        try:
            return [self.take(part) for part in split(signature)]
        except (ValueError, IndexError, StructError) as error:
            raise OSError(errno.EBADMSG, f"malformed D-Bus message: {error}") from error

    def take(self, signature: str, depth: int = 0) -> Any:
        """One value of one complete type."""
        kind = signature[0]
        self.at += -self.at % _ALIGNMENT[kind]
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deep")
        if kind in NUMBERS:
            (value,) = self._unpack(kind)
            return bool(value) if kind == "b" else value
        if kind in "sog":
            (length,) = self._unpack("y" if kind == "g" else "u")
            return self._text(length)
        if kind == "v":
            inner = self.take("g")
            (part,) = split(inner)
            return (inner, self.take(part, depth + 1))
        if kind == "a":
            return self._array(signature[1:], depth)
        return tuple(self.take(part, depth + 1) for part in split(signature[1:-1]))

    def _unpack(self, kind: str) -> tuple[Any, ...]:
        packer = NUMBERS[kind]
        values = packer.unpack_from(self.data, self.at)
        self.at += packer.size
        return values

    def _text(self, length: int) -> str:
        raw = self.data[self.at : self.at + length]
        if len(raw) != length:
            raise ValueError("a text ends too early")
        self.at += length + 1
        return raw.decode("utf-8", "surrogateescape")

    def _array(self, element: str, depth: int) -> list[Any]:
        (length,) = self._unpack("u")
        self.at += -self.at % _ALIGNMENT[element[0]]
        end = self.at + length
        if end > len(self.data):
            raise ValueError("an array ends too late")
        values = []
        while self.at < end:
            values.append(self.take(element, depth + 1))
        return values
