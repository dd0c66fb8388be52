"""Netlink: messages packed, sent in batches, and their errors told.

A batch is one system call: the kernel takes the messages in order, answers each that fails, and
acknowledges the last one. Attributes are packed by hand, because a start waits for this: a library
that models every message takes some milliseconds to say what this says in a tenth of one.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROUTE = 0
NETFILTER = 12

REQUEST, ACK = 0x1, 0x4
DUMP = 0x300
CREATE, EXCL, REPLACE = 0x400, 0x200, 0x100
NESTED = 0x8000

_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE = 1 << 17
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Message:
    """One request. `what` says in errors what was tried; errors in `forgiven` count as success."""

    kind: int
    body: bytes
    flags: int = 0
    what: str = ""
    forgiven: tuple[int, ...] = ()


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    size = 4 + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def u32(kind: int, value: int) -> bytes:
    """An attribute of a number."""
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    """An attribute of a string that ends with a zero."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute of attributes."""
    return attribute(kind | NESTED, b"".join(parts))


def attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(kind, value) of each attribute from `offset` on."""
    while offset + 4 <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        if size < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + size]
        offset += (size + 3) & ~3


class Netlink:
    """A socket of the network namespace in which it is made."""

    def __init__(self, protocol: int = ROUTE, groups: int = 0) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._sock = socket.socket(socket.AF_NETLINK, kind, protocol)
        self._sock.bind((0, groups))
        self._sock.settimeout(_PATIENCE)
        self._sequence = 0

    def fileno(self) -> int:
        """The descriptor."""
        return self._sock.fileno()

    def close(self) -> None:
        """Let go of it."""
        self._sock.close()

    def run(self, messages: Sequence[Message]) -> None:
        """Send the messages as one batch and wait until the kernel has done them.

        Raises:
            OSError: of the first that failed; those behind it were tried all the same.
        """
        if not messages:
            return
        sent: dict[int, Message] = {}
        parts = []
        for message in messages:
            self._sequence += 1
            sent[self._sequence] = message
            flags = message.flags | REQUEST | (ACK if message is messages[-1] else 0)
            parts.append(_pack(message, flags, self._sequence))
        self._sock.send(b"".join(parts))
        failed: OSError | None = None
        for sequence, code in self._answers(self._sequence):
            request = sent.get(sequence)
            if request is not None and code and code not in request.forgiven and failed is None:
                failed = OSError(code, f"{request.what}: {os.strerror(code).lower()}")
        if failed is not None:
            raise failed

    def batch(self, messages: Sequence[Message]) -> None:
        """Like `run`, for netfilter, which does all of the messages or none."""
        begin = Message(0x10, struct.pack(">BBH", 0, 0, 10), 0)
        end = Message(0x11, struct.pack(">BBH", 0, 0, 10), 0)
        first = self._sequence + 1
        parts = []
        for number, message in enumerate((begin, *messages, end)):
            last = ACK if number == len(messages) else 0
            parts.append(_pack(message, message.flags | REQUEST | last, first + number))
        self._sequence = first + len(messages) + 1
        self._sock.send(b"".join(parts))
        for sequence, code in self._answers(first + len(messages)):
            request = messages[sequence - first - 1] if sequence > first else begin
            if code and code not in request.forgiven:
                raise OSError(code, f"{request.what}: {os.strerror(code).lower()}")

    def dump(self, kind: int, body: bytes, what: str) -> list[bytes]:
        """Everything of a kind: the bodies of the answers."""
        self._sequence += 1
        self._sock.send(_pack(Message(kind, body), REQUEST | DUMP, self._sequence))
        found: list[bytes] = []
        while True:
            for answer, sequence, content in split(self._sock.recv(_RECEIVE)):
                if sequence != self._sequence:
                    continue
                if answer == _DONE:
                    return found
                if answer == _ERROR:
                    code = -struct.unpack_from("=i", content)[0]
                    raise OSError(code, f"{what}: {os.strerror(code).lower()}")
                found.append(content)

    def _answers(self, last: int) -> Iterator[tuple[int, int]]:
        """(sequence, error) until the last message is acknowledged."""
        while True:
            try:
                data = self._sock.recv(_RECEIVE)
            except TimeoutError as error:
                raise OSError(errno.ETIMEDOUT, "netlink: the kernel does not answer") from error
            for kind, sequence, content in split(data):
                if kind != _ERROR:
                    continue
                yield sequence, -struct.unpack_from("=i", content)[0]
                if sequence == last:
                    return


def split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(kind, sequence, body) of each message in what was received."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        size, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        if size < _HEADER.size:
            return
        yield kind, sequence, data[offset + _HEADER.size : offset + size]
        offset += (size + 3) & ~3


def _pack(message: Message, flags: int, sequence: int) -> bytes:
    size = _HEADER.size + len(message.body)
    return _HEADER.pack(size, message.kind, flags, sequence, 0) + message.body + bytes(-size % 4)
