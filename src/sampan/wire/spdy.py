"""SPDY/3.1 frames, as far as Kubernetes' streams use them: bytes in, frames out, and back.

Control frames open a stream, refuse or reset one, ask for a sign of life, and say goodbye; data
frames carry bytes and the end of one direction (FIN). There is no flow control of SPDY's own here:
its window updates are ignored, as by every client of Kubernetes. Header blocks are compressed by
one zlib stream for the life of a connection in each direction, which starts from the draft's
dictionary.

Every frame is bounded: a control frame and an uncompressed header block to MAX_CONTROL bytes. The
payload of a data frame is given out as it arrives, so a frame of 16 MiB needs no such buffer.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_CONTROL = 64 << 10
FIN = 1
REFUSED, CANCEL = 3, 5
"""Status words of RST_STREAM."""

SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
_VERSION = 0x8003
_HEADER = struct.Struct(">II")
_WORD = struct.Struct(">I")
_SYN_FIXED = 10

# The words of the draft's dictionary, each after its length, and then the texts that follow them.
_WORDS = """
options head post put delete trace accept accept-charset accept-encoding accept-language
accept-ranges age allow authorization cache-control connection content-base content-encoding
content-language content-length content-location content-md5 content-range content-type date etag
expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since
last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer
retry-after server te trailer transfer-encoding upgrade user-agent vary via warning
www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin
"""
_TEXTS = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, "
    "Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch"
    "charset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = (
    b"".join(_WORD.pack(len(word)) + word.replace("_", " ").encode() for word in _WORDS.split())
    + _TEXTS.encode()
)


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream was opened by the other side; `is_ended` when it sends nothing on it."""

    stream: int
    headers: Mapping[str, str]
    is_ended: bool


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes on a stream; with `is_ended` the last ones of that direction."""

    stream: int
    payload: bytes
    is_ended: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """The other side is done with a stream, in both directions."""

    stream: int


@dataclass(frozen=True, slots=True)
class Ping:
    """To be sent back as it is."""

    number: int


@dataclass(frozen=True, slots=True)
class Goaway:
    """No new streams will come."""


Frame = Opened | Data | Reset | Ping | Goaway


class Decoder:
    """Takes one direction of a connection apart. After an error it is of no use."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._inflater = zlib.decompressobj(zdict=DICTIONARY)
        self._stream = self._left = 0
        self._is_last = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames, and pieces of data frames, that are whole with `data`.

        Raises:
            InvalidArgument: this is not SPDY/3.1, or a frame is larger than it may be.
        """
        self._pending += data
        while self._pending:
            if self._left:
                yield self._piece()
                continue
            if len(self._pending) < _HEADER.size:
                return
            first, second = _HEADER.unpack_from(self._pending)
            flags, size = second >> 24, second & 0xFFFFFF
            if not first & 0x80000000:
                del self._pending[: _HEADER.size]
                self._stream, self._left, self._is_last = first, size, bool(flags & FIN)
                if not size:
                    yield Data(first, b"", self._is_last)
                continue
            self._check(first, size)
            if len(self._pending) < _HEADER.size + size:
                return
            body = bytes(self._pending[_HEADER.size : _HEADER.size + size])
            del self._pending[: _HEADER.size + size]
            frame = self._control(first & 0xFFFF, flags, body)
            if frame is not None:
                yield frame

    def _piece(self) -> Data:
        payload = bytes(self._pending[: self._left])
        del self._pending[: len(payload)]
        self._left -= len(payload)
        return Data(self._stream, payload, self._is_last and not self._left)

    def _check(self, first: int, size: int) -> None:
        if first >> 16 != _VERSION:
            raise InvalidArgument(f"read SPDY: a frame begins with {first:#x}, not version 3")
        if size > MAX_CONTROL:
            raise InvalidArgument(f"read SPDY: a control frame of {size} bytes")

    def _control(self, kind: int, flags: int, body: bytes) -> Frame | None:
        """None for the kinds that mean nothing here."""
        needed = {SYN_STREAM: _SYN_FIXED, RST_STREAM: 8, PING: 4}.get(kind, 0)
        if len(body) < needed:
            raise InvalidArgument(f"read SPDY: a control frame {kind} of {len(body)} bytes")
        if kind == SYN_STREAM:
            stream = _WORD.unpack_from(body)[0] & 0x7FFFFFFF
            return Opened(stream, self._headers(body[_SYN_FIXED:]), bool(flags & FIN))
        if kind == SYN_REPLY:
            self._headers(body[4:])  # read, for the compression goes on from it
        if kind == RST_STREAM:
            return Reset(_WORD.unpack_from(body)[0] & 0x7FFFFFFF)
        if kind == PING:
            return Ping(_WORD.unpack_from(body)[0])
        return Goaway() if kind == GOAWAY else None

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            text = self._inflater.decompress(block, MAX_CONTROL)
        except zlib.error as error:
            raise InvalidArgument(f"read SPDY: headers: {error}") from error
        if self._inflater.unconsumed_tail:
            raise InvalidArgument(f"read SPDY: headers of more than {MAX_CONTROL} bytes")
        return _unpack(text)


class Encoder:
    """Makes the frames of one direction of a connection."""

    def __init__(self) -> None:
        self._deflater = zlib.compressobj(zdict=DICTIONARY)

    def reply(self, stream: int) -> bytes:
        """The stream is accepted."""
        return control(SYN_REPLY, 0, _WORD.pack(stream) + self.headers({}))

    def headers(self, pairs: Mapping[str, str]) -> bytes:
        """A header block."""
        words = [part for pair in pairs.items() for part in pair]
        text = _WORD.pack(len(pairs)) + b"".join(
            _WORD.pack(len(raw)) + raw for raw in (word.encode() for word in words)
        )
        return self._deflater.compress(text) + self._deflater.flush(zlib.Z_SYNC_FLUSH)


def data(stream: int, payload: bytes, *, fin: bool = False) -> bytes:
    """A data frame; the payload is below 16 MiB."""
    return _HEADER.pack(stream, (FIN if fin else 0) << 24 | len(payload)) + payload


def reset(stream: int, status: int) -> bytes:
    """The stream is refused, or of no use any more."""
    return control(RST_STREAM, 0, struct.pack(">II", stream, status))


def ping(number: int) -> bytes:
    """A sign of life."""
    return control(PING, 0, _WORD.pack(number))


def goaway(last: int) -> bytes:
    """No more streams after `last` are served."""
    return control(GOAWAY, 0, struct.pack(">II", last, 0))


def control(kind: int, flags: int, body: bytes) -> bytes:
    """A control frame."""
    return _HEADER.pack(_VERSION << 16 | kind, flags << 24 | len(body)) + body


def _unpack(text: bytes) -> dict[str, str]:
    """The pairs of a block; several values of one name are separated by NUL."""
    found: dict[str, str] = {}
    try:
        (count,) = _WORD.unpack_from(text)
        at = _WORD.size
        for _ in range(count):
            name, at = _text(text, at)
            value, at = _text(text, at)
            found[name.lower()] = value
    except (struct.error, UnicodeDecodeError) as error:
        raise InvalidArgument(f"read SPDY: headers: {error}") from error
    return found


def _text(block: bytes, at: int) -> tuple[str, int]:
    (size,) = _WORD.unpack_from(block, at)
    start, end = at + _WORD.size, at + _WORD.size + size
    if end > len(block):
        raise InvalidArgument("read SPDY: headers end in the middle")
    return block[start:end].decode(), end
