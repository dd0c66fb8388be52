"""Tar archives out: one entry as the blocks that stand for it.

ustar where its fields are wide enough, one PAX extended header in front of the entry where they are
not: the form that every reader of layers takes. Nothing of the host gets in (no user or group
names, no access or change times, times in whole seconds), records and attributes are sorted, so the
same entry is always the same bytes.
"""

from __future__ import annotations

import struct
from typing import Final

from sampan.layers.header import BLOCK
from sampan.layers.pax import XATTR_PREFIX

END: Final = bytes(2 * BLOCK)

_HEADER: Final = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_MAGIC: Final = b"ustar\x0000"
_NAME: Final = 100
_PREFIX: Final = 155
_MAX_7: Final = 0o7777777
_MAX_11: Final = 0o77777777777


def header(
    name: bytes,
    kind: int,
    *,
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    attributes: dict[bytes, bytes] | None = None,
) -> bytes:
    """The header blocks of one entry; its data and their padding follow them.

    Args:
        name: as it is to be in the archive, with a slash at the end for a directory.
        kind: one of `layers.header`'s types.
        mtime: in seconds.
        attributes: extended attributes by their full names.
    """
    records: dict[bytes, bytes] = {}
    prefix, base = _split(name)
    if base is None:
        records[b"path"] = name
        prefix, base = b"", name[:_NAME]
    if len(link) > _NAME:
        records[b"linkpath"] = link
    for key, number, most in (
        (b"uid", uid, _MAX_7),
        (b"gid", gid, _MAX_7),
        (b"size", size, _MAX_11),
        (b"mtime", mtime, _MAX_11),
    ):
        if not 0 <= number <= most:
            records[key] = b"%d" % number
    for key, value in (attributes or {}).items():
        records[XATTR_PREFIX + key] = value
    block = _block(
        base, kind, mode, uid, gid, size, mtime, link[:_NAME], device=device, prefix=prefix
    )
    return _extended(records, name) + block if records else block


def padding(size: int) -> bytes:
    """The zeros that follow `size` bytes of data."""
    return bytes(-size % BLOCK)


def _split(name: bytes) -> tuple[bytes, bytes | None]:
    """Prefix and name of the ustar header; no name when they cannot hold it."""
    if len(name) <= _NAME:
        return b"", name
    # The cut is a slash; what follows it must not be empty and must fit.
    cut = name.find(b"/", max(0, len(name) - _NAME - 1))
    if 0 < cut <= _PREFIX and cut < len(name) - 1:
        return name[:cut], name[cut + 1 :]
    return b"", None


def _extended(records: dict[bytes, bytes], name: bytes) -> bytes:
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    title = (b"PaxHeaders/" + name.rstrip(b"/").rpartition(b"/")[2])[:_NAME]
    block = _block(title, ord("x"), 0o644, 0, 0, len(data), 0, b"")
    return block + data + padding(len(data))


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value\\n`, where the length counts itself."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def _block(
    name: bytes,
    kind: int,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    link: bytes,
    *,
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
) -> bytes:
    block = _HEADER.pack(
        name,
        _octal(mode, _MAX_7, 7),
        _octal(uid, _MAX_7, 7),
        _octal(gid, _MAX_7, 7),
        _octal(size, _MAX_11, 11),
        _octal(mtime, _MAX_11, 11),
        b" " * 8,
        bytes((kind,)),
        link,
        _MAGIC,
        b"",
        b"",
        _octal(device[0], _MAX_7, 7),
        _octal(device[1], _MAX_7, 7),
        prefix,
    )
    checksum = b"%06o\0 " % sum(block)
    return block[:148] + checksum + block[156:]


def _octal(value: int, most: int, digits: int) -> bytes:
    """What does not fit is 0 here and stands in the extended header."""
    return b"%0*o\0" % (digits, value if 0 <= value <= most else 0)
