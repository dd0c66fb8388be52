"""ELF programs made of a few bytes of code: one segment, nothing to load or link."""

from __future__ import annotations

import struct

_HEADERS = 64 + 56  # the ELF header and one program header
_MACHINES = {"x86_64": 62}


def program(code: bytes, machine: str, base: int = 0x400000) -> bytes:
    """A static program that begins with the first byte of `code`, for a machine of uname(2)."""
    size = _HEADERS + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",  # 64 bits, little endian, version 1
        2,  # ET_EXEC
        _MACHINES[machine],
        1,
        base + _HEADERS,  # entry
        64,  # program headers follow
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    # PT_LOAD, readable and executable, the whole file
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return header + segment + code
