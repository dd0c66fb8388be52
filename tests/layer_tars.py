"""Tar archives made by hand, a block at a time, so that tests can make wrong ones too."""

from __future__ import annotations

BLOCK = 512
END = bytes(2 * BLOCK)


def octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int) -> bytes:
    raw = bytearray((value & (1 << (8 * width)) - 1).to_bytes(width, "big"))
    if value >= 0:
        raw[0] |= 0x80
    return bytes(raw)


def pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def head(
    name: bytes,
    *,
    kind: bytes = b"0",
    size: int | bytes = 0,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 1_600_000_000,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    major: int | bytes = 0,
    minor: int | bytes = 0,
    rest: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """One header block; bytes for a number are put in as they are."""

    def number(value: int | bytes, width: int) -> bytes:
        return (octal(value, width) if isinstance(value, int) else value).ljust(width, b"\0")

    block = bytearray(
        name.ljust(100, b"\0")[:100]
        + number(mode, 8)
        + number(uid, 8)
        + number(gid, 8)
        + number(size, 12)
        + number(mtime, 12)
        + b" " * 8
        + kind
        + link.ljust(100, b"\0")[:100]
        + magic.ljust(8, b"\0")
        + bytes(64)
        + number(major, 8)
        + number(minor, 8)
        + rest.ljust(167, b"\0")
    )
    assert len(block) == BLOCK
    block[148:156] = b"%06o\0 " % sum(block) if checksum is None else checksum
    return bytes(block)


def file(name: bytes, data: bytes = b"data\n", **fields: object) -> bytes:
    fields.setdefault("size", len(data))
    return head(name, **fields) + pad(data)  # type: ignore[arg-type]


def directory(name: bytes, mode: int = 0o755, **fields: object) -> bytes:
    return head(name, kind=b"5", mode=mode, **fields)  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes, **fields: object) -> bytes:
    return head(name, kind=b"2", mode=0o777, link=target, **fields)  # type: ignore[arg-type]


def hard_link(name: bytes, target: bytes, **fields: object) -> bytes:
    return head(name, kind=b"1", link=target, **fields)  # type: ignore[arg-type]


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def pax(*records: tuple[bytes, bytes] | bytes, kind: bytes = b"x") -> bytes:
    """An extended header of (key, value) pairs, or of raw bytes."""
    data = b"".join(r if isinstance(r, bytes) else record(*r) for r in records)
    return file(b"PaxHeaders/x", data, kind=kind)


def long_name(text: bytes, kind: bytes = b"L") -> bytes:
    return file(b"././@LongLink", text + b"\0", kind=kind, magic=b"ustar  \0")


def gnu_sparse(
    name: bytes, pairs: list[tuple[int, int]], data: bytes, real: int, more: bytes = b""
) -> bytes:
    """A file in GNU's old sparse format: up to 4 pairs, then `more` extension blocks."""
    table = b"".join(octal(offset, 12) + octal(length, 12) for offset, length in pairs)
    rest = bytes(41) + table.ljust(96, b"\0") + (b"\1" if more else b"\0") + octal(real, 12)
    return head(name, kind=b"S", size=len(data), magic=b"ustar  \0", rest=rest) + more + pad(data)
