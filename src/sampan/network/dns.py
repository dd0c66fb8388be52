"""The little of DNS that we must read and write ourselves (RFC 1035). Pure.

A query has one question; what is asked is read, everything else is passed on as it came. Our own
answers are addresses (A, AAAA), a name (PTR), nothing, or an error. Names are text without the dot
at the end, in lower case.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

A, CNAME, PTR, AAAA, ANY = 1, 5, 12, 28, 255
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NO_SUCH_NAME, NOT_IMPLEMENTED = range(5)
REFUSED = 5
TTL = 30
"""Seconds that an answer of ours may be kept: containers come and go."""

MAX_UDP = 4096
_INTERNET = 1
_HEADER = struct.Struct(">HHHHHH")
_TAIL = struct.Struct(">HH")
_RECORD = struct.Struct(">HHIH")
_RESPONSE, _OPCODE, _TRUNCATED = 0x8000, 0x7800, 0x0200
_RECURSION_WANTED, _RECURSION = 0x0100, 0x0080
_MAX_NAME = 255
_MAX_JUMPS = 32


@dataclass(frozen=True, slots=True)
class Query:
    """A question. `question` are its bytes, and `flags` those of its header."""

    id: int
    flags: int
    name: str
    kind: int
    question: bytes

    @property
    def is_plain(self) -> bool:
        """Whether it is an ordinary query of the internet's class."""
        return not self.flags & _OPCODE and self.question[-2:] == b"\0\1"


def parse(data: bytes) -> Query:
    """The query in a message.

    Raises:
        InvalidArgument: it is none, or has not exactly one question.
    """
    if len(data) < _HEADER.size:
        raise InvalidArgument("read a DNS query: it is too short")
    number, flags, questions, *_ = _HEADER.unpack_from(data)
    if flags & _RESPONSE or questions != 1:
        raise InvalidArgument("read a DNS query: it is none")
    name, offset = _read_name(data, _HEADER.size, jumps=0)
    if offset + _TAIL.size > len(data):
        raise InvalidArgument("read a DNS query: it is cut off")
    kind, _ = _TAIL.unpack_from(data, offset)
    return Query(number, flags, name, kind, data[_HEADER.size : offset + _TAIL.size])


def answer(query: Query, addresses: Sequence[str]) -> bytes:
    """The addresses that are of the kind asked for; none of them is an answer too."""
    wanted = [packed for one in addresses if (packed := _packed(one, query.kind))]
    body = b"".join(
        b"\xc0\x0c"
        + _RECORD.pack(A if len(packed) == 4 else AAAA, _INTERNET, TTL, len(packed))
        + packed
        for packed in wanted
    )
    return _head(query, NO_ERROR, len(wanted)) + body


def pointer(query: Query, name: str) -> bytes:
    """The name of an address."""
    data = write_name(name)
    record = b"\xc0\x0c" + _RECORD.pack(PTR, _INTERNET, TTL, len(data)) + data
    return _head(query, NO_ERROR, 1) + record


def failure(query: Query, code: int) -> bytes:
    """An error."""
    return _head(query, code, 0)


def malformed(data: bytes) -> bytes:
    """The answer to what is no query; b"" when not even that can be said."""
    if len(data) < _HEADER.size:
        return b""
    number, flags, *_ = _HEADER.unpack_from(data)
    if flags & _RESPONSE:
        return b""
    return _HEADER.pack(number, _RESPONSE | FORMAT_ERROR, 0, 0, 0, 0)


def shorten(query: Query, message: bytes, size: int) -> bytes:
    """The message, or one that says that it did not fit into `size` bytes."""
    if len(message) <= size:
        return message
    flags = _RESPONSE | _RECURSION | _TRUNCATED | (query.flags & _RECURSION_WANTED)
    return _HEADER.pack(query.id, flags, 1, 0, 0, 0) + query.question


def reverse_address(name: str) -> str:
    """The address that `4.3.2.1.in-addr.arpa` asks about; "" when it asks about none."""
    labels = name.split(".")
    try:
        if name.endswith(".in-addr.arpa") and len(labels) == 6:
            return str(ip_address(".".join(labels[3::-1])))
        if name.endswith(".ip6.arpa") and len(labels) == 34:
            digits = "".join(labels[31::-1])
            return str(IPv6Address(int(digits, 16)))
    except ValueError:
        pass
    return ""


def with_id(message: bytes, number: int) -> bytes:
    """The message with another id."""
    return number.to_bytes(2, "big") + message[2:]


def answers(message: bytes, query: Query) -> bool:
    """Whether a message is an answer to the query, whatever its id."""
    if len(message) < _HEADER.size:
        return False
    _, flags, questions, *_ = _HEADER.unpack_from(message)
    asked = message[_HEADER.size : _HEADER.size + len(query.question)]
    return bool(flags & _RESPONSE) and questions == 1 and asked.lower() == query.question.lower()


def addresses(message: bytes) -> list[tuple[str, int]]:
    """(address, seconds) of every A and AAAA record of an answer.

    Raises:
        InvalidArgument: it is malformed.
    """
    if len(message) < _HEADER.size:
        raise InvalidArgument("read a DNS answer: it is too short")
    _, _, questions, count, _, _ = _HEADER.unpack_from(message)
    offset = _HEADER.size
    for _ in range(questions):
        offset = _read_name(message, offset, jumps=0)[1] + _TAIL.size
    return list(_records(message, offset, count))


def _records(message: bytes, offset: int, count: int) -> Iterator[tuple[str, int]]:
    for _ in range(count):
        offset = _read_name(message, offset, jumps=0)[1]
        if offset + _RECORD.size > len(message):
            raise InvalidArgument("read a DNS answer: it is cut off")
        kind, _, ttl, size = _RECORD.unpack_from(message, offset)
        offset += _RECORD.size
        data = message[offset : offset + size]
        offset += size
        if kind == A and len(data) == 4:
            yield str(IPv4Address(data)), ttl
        elif kind == AAAA and len(data) == 16:
            yield str(IPv6Address(data)), ttl


def write_name(name: str) -> bytes:
    """A name as it is in messages.

    Raises:
        InvalidArgument: a part of it is empty or too long.
    """
    parts = [part.encode("ascii", "replace") for part in name.split(".")]
    if any(not 0 < len(part) < 64 for part in parts) or len(name) > _MAX_NAME - 2:
        raise InvalidArgument(f"write a DNS name: {name!r}")
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def _read_name(data: bytes, offset: int, *, jumps: int) -> tuple[str, int]:
    """(name, offset behind it)."""
    labels: list[str] = []
    length = 0
    while True:
        if offset >= len(data):
            raise InvalidArgument("read a DNS name: it is cut off")
        size = data[offset]
        offset += 1
        if size == 0:
            return ".".join(labels), offset
        if size >= 0xC0:
            if jumps >= _MAX_JUMPS or offset >= len(data):
                raise InvalidArgument("read a DNS name: it goes in circles")
            rest, _ = _read_name(data, (size & 0x3F) << 8 | data[offset], jumps=jumps + 1)
            return ".".join([*labels, rest]), offset + 1
        length += size + 1
        if size >= 64 or length > _MAX_NAME or offset + size > len(data):
            raise InvalidArgument("read a DNS name: it is too long")
        labels.append(data[offset : offset + size].decode("ascii", "replace").lower())
        offset += size


def _head(query: Query, code: int, count: int) -> bytes:
    flags = _RESPONSE | _RECURSION | (query.flags & _RECURSION_WANTED) | code
    return _HEADER.pack(query.id, flags, 1, count, 0, 0) + query.question


def _packed(address: str, kind: int) -> bytes:
    found = ip_address(address)
    wanted = {A: 4, AAAA: 6}.get(kind)
    return found.packed if kind == ANY or found.version == wanted else b""
