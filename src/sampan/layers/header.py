"""One 512-byte tar header, decoded strictly, and the `Entry` that it describes.

ustar, GNU, star and the old format without a magic are read as Go's archive/tar reads them, which
is what docker and containerd unpack with. Where readers are known to disagree (a size on an entry
that has no data, a sign or an underscore in a number, a regular file whose name ends in a slash)
the header is refused instead of guessed.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Final

from sampan.layers.limits import LayerError, show
from sampan.layers.pax import clamp_time

BLOCK: Final = 512
ZERO_BLOCK: Final = bytes(BLOCK)

REGULAR: Final = 48
HARD_LINK: Final = 49
SYMLINK: Final = 50
CHARACTER: Final = 51
BLOCK_DEVICE: Final = 52
DIRECTORY: Final = 53
FIFO: Final = 54
CONTIGUOUS: Final = 55
PAX: Final = 120
PAX_GLOBAL: Final = 103
GNU_LONG_NAME: Final = 76
GNU_LONG_LINK: Final = 75
GNU_SPARSE: Final = 83

META: Final = frozenset((PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK))
DATA: Final = frozenset((REGULAR, GNU_SPARSE))
KNOWN: Final = frozenset(
    (REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO, GNU_SPARSE)
)

MAX_ID: Final = 0xFFFFFFFE  # 2^32 - 1 means "leave it" to chown(2)
MAX_DEVICE: Final = 0xFFFFF
_FIELDS: Final = struct.Struct("100s8s8s8s12s12s8sB100s8s64x8s8s167s")
_OCTAL: Final = b"01234567 \0"
_PLAIN: Final = re.compile(rb".{100}(?:[0-7]{7}[ \0]){3}(?:[0-7]{11}[ \0]){2}", re.DOTALL).match
_SECOND: Final = 1_000_000_000


class Entry:
    """What the archive says about one file. Numbers are checked, names are not yet."""

    __slots__ = (
        "atime",
        "extents",
        "gid",
        "kind",
        "link",
        "major",
        "minor",
        "mode",
        "mtime",
        "name",
        "old_sparse",
        "size",
        "stored",
        "uid",
        "xattrs",
    )

    name: bytes
    link: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    major: int
    minor: int
    size: int  # of the file
    stored: int  # bytes in the archive; less than size when sparse
    mtime: int  # nanoseconds
    atime: int
    xattrs: dict[bytes, bytes] | None
    extents: list[tuple[int, int]] | None  # of a sparse file: (offset, length)
    old_sparse: bytes | None  # the raw GNU map in the header


def checksum_holds(block: bytes) -> bool:
    """Whether the header's checksum is right, unsigned or (as old writers had it) signed."""
    field = block[148:156]
    if field.strip(_OCTAL):
        return False
    try:
        said = int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        return False
    # adler32 keeps the plain sum of up to 257 bytes in its lower half: far quicker than sum().
    total = (
        (zlib.adler32(block[:256]) & 0xFFFF)
        + (zlib.adler32(block[256:]) & 0xFFFF)
        - 2
        - sum(field)
        + 8 * 32
    )
    if said == total:
        return True
    high = sum(1 for byte in block[:148] + block[156:] if byte > 127)
    return said == total - 256 * high


def number(field: bytes, what: str) -> int:
    """A numeric field: octal, or base 256 for what octal cannot hold. May be negative."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = len(field) * 8
        if field[0] & 0x40:
            value -= 1 << bits
        else:
            value &= (1 << (bits - 1)) - 1
        if not -(1 << 63) <= value < 1 << 63:
            raise LayerError(f"parse tar header: {what} does not fit")
        return value
    text = field.strip(b" \0")
    if text.strip(b"01234567"):
        raise LayerError(f"parse tar header: {what} is no octal number: {show(field)}")
    return int(text or b"0", 8)


def _ranged(field: bytes, what: str, top: int) -> int:
    value = number(field, what)
    if not 0 <= value <= top:
        raise LayerError(f"parse tar header: {what} {value} is out of range")
    return value


def decode(block: bytes) -> Entry:
    """The entry that a header block describes, before any extended header is applied.

    Raises:
        LayerError: the checksum, a number or the format is wrong.
    """
    if not checksum_holds(block):
        raise LayerError("parse tar header: wrong checksum")
    name, mode, uid, gid, size, mtime, _, kind, link, magic, major, minor, rest = _FIELDS.unpack(
        block
    )
    entry = Entry()
    entry.name = name.partition(b"\0")[0]
    entry.link = link.partition(b"\0")[0]
    if _PLAIN(block):  # nearly every header: seven octal digits or eleven, nothing to check
        entry.mode = int(mode[:7], 8) & 0o7777
        entry.uid = int(uid[:7], 8)
        entry.gid = int(gid[:7], 8)
        entry.size = entry.stored = int(size[:11], 8)
        entry.mtime = entry.atime = int(mtime[:11], 8) * _SECOND
    else:
        entry.mode = number(mode, "mode") & 0o7777
        entry.uid = _ranged(uid, "uid", MAX_ID)
        entry.gid = _ranged(gid, "gid", MAX_ID)
        entry.size = entry.stored = _ranged(size, "size", (1 << 63) - 1)
        entry.mtime = entry.atime = clamp_time(number(mtime, "mtime") * _SECOND)
    entry.xattrs = entry.extents = entry.old_sparse = None
    entry.kind = kind
    entry.major = entry.minor = 0
    _apply_format(entry, magic, rest)
    if kind in (CHARACTER, BLOCK_DEVICE):
        entry.major = _ranged(major, "device major", MAX_DEVICE)
        entry.minor = _ranged(minor, "device minor", MAX_DEVICE)
    return entry


def _apply_format(entry: Entry, magic: bytes, rest: bytes) -> None:
    if magic.startswith(b"ustar\0"):
        if rest[0]:
            star = rest[163:167] == b"tar\0"
            prefix = rest[: 131 if star else 155].partition(b"\0")[0]
            entry.name = prefix + b"/" + entry.name
    elif magic == b"ustar  \0":
        if entry.kind == GNU_SPARSE:
            entry.old_sparse = rest
    elif magic.strip(b"\0"):
        raise LayerError(f"parse tar header: unknown format {show(magic)}")
    if entry.kind == GNU_SPARSE and entry.old_sparse is None:
        raise LayerError("parse tar header: sparse entry outside of the GNU format")
