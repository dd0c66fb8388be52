"""PAX extended headers: `length key=value\\n`, taken literally or not at all.

Readers that disagree about one of these records show different files from the same archive, which
is how entries were hidden in the past. So every record must have exactly the length it says, each
key comes once (the GNU sparse 0.0 pair excepted, which repeats by design), numbers are plain ASCII
digits, and no text has a NUL. As in Go's reader an empty value leaves the ustar field as it is.
"""

from __future__ import annotations

from typing import Final

from sampan.layers.limits import LayerError, show

SPARSE_OFFSET: Final = b"GNU.sparse.offset"
SPARSE_LENGTH: Final = b"GNU.sparse.numbytes"
XATTR_PREFIX: Final = b"SCHILY.xattr."
_BINARY_PREFIXES: Final = (XATTR_PREFIX, b"LIBARCHIVE.xattr.", b"SCHILY.acl.", b"RHT.security.")
_SECOND: Final = 1_000_000_000
_DIGITS: Final = b"0123456789"
_MAX_TIME: Final = 1 << 40  # seconds either way; file systems clamp further

Records = dict[bytes, bytes]
Extents = list[tuple[int, int]]


def parse(data: bytes) -> tuple[Records, Extents]:
    """The records of one extended header, and the repeated sparse pairs of GNU sparse 0.0.

    Raises:
        LayerError: a record is malformed, or a key comes twice.
    """
    records: Records = {}
    offsets: list[int] = []
    extents: Extents = []
    position = 0
    while position < len(data):
        key, value, position = _record(data, position)
        if key == SPARSE_OFFSET:
            offsets.append(number(key, value))
        elif key == SPARSE_LENGTH:
            if len(offsets) != len(extents) + 1:
                raise LayerError("parse pax header: sparse pairs out of order")
            extents.append((offsets[-1], number(key, value)))
        elif key in records:
            raise LayerError(f"parse pax header: key {show(key)} twice")
        else:
            records[key] = value
    if len(offsets) != len(extents):
        raise LayerError("parse pax header: sparse pairs out of order")
    return {key: value for key, value in records.items() if value}, extents


def _record(data: bytes, position: int) -> tuple[bytes, bytes, int]:
    space = data.find(b" ", position, position + 8)
    digits = data[position:space] if space > 0 else b""
    if not digits or digits.strip(_DIGITS) or digits[0] == 48:
        raise LayerError("parse pax header: record without a length")
    end = position + int(digits)
    if end > len(data) or end <= space + 2 or data[end - 1] != 10:
        raise LayerError("parse pax header: record of the wrong length")
    key, equals, value = data[space + 1 : end - 1].partition(b"=")
    if not key or not equals or b"\0" in key:
        raise LayerError("parse pax header: record without a key")
    if b"\0" in value and not key.startswith(_BINARY_PREFIXES):
        raise LayerError(f"parse pax header: NUL in the value of {show(key)}")
    return key, value, end


def number(key: bytes, value: bytes) -> int:
    """`value` as a number of at most 63 bits, plain decimal digits only."""
    if not value or value.strip(_DIGITS) or len(value) > 19 or int(value) >= 1 << 63:
        raise LayerError(f"parse pax header: {show(key)} is no number: {show(value)}")
    return int(value)


def time(key: bytes, value: bytes) -> int:
    """`value`, decimal seconds with a fraction or not, as nanoseconds since the epoch."""
    whole, point, fraction = value.removeprefix(b"-").partition(b".")
    if not whole or (whole + fraction).strip(_DIGITS) or len(value) > 64:
        raise LayerError(f"parse pax header: {show(key)} is no time: {show(value)}")
    nanoseconds = int(whole) * _SECOND + int((fraction + b"000000000")[:9])
    if point and not fraction:
        nanoseconds = int(whole) * _SECOND
    return clamp_time(-nanoseconds if value.startswith(b"-") else nanoseconds)


def clamp_time(nanoseconds: int) -> int:
    """A time that utimensat(2) can be given."""
    bound = _MAX_TIME * _SECOND
    return max(-bound, min(bound, nanoseconds))
