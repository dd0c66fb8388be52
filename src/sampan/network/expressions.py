"""Expressions of the packet filter's rules, as netlink attributes: for what is packed by ourselves.

Pure. A rule is a list of these: something is loaded into a register, compared, and used.
"""

from __future__ import annotations

import struct

from sampan.network.netlink import attribute, nested, text

NETWORK, TRANSPORT = 1, 2
"""Where a payload begins: at the header of the network, or of the transport."""

OIFNAME, NFPROTO, L4PROTO = 7, 15, 16
REG_1, REG_2 = 1, 2


def expression(name: str, *parts: bytes) -> bytes:
    """One expression."""
    return nested(1, text(1, name), nested(2, *parts))


def meta(key: int) -> bytes:
    """Load what the kernel knows of the packet."""
    return expression("meta", be32(1, REG_1), be32(2, key))


def payload(base: int, offset: int, size: int) -> bytes:
    """Load bytes of the packet."""
    return expression("payload", be32(1, REG_1), be32(2, base), be32(3, offset), be32(4, size))


def mask(bits: bytes) -> bytes:
    """Keep some bits of what was loaded."""
    parts = be32(1, REG_1), be32(2, REG_1), be32(3, len(bits))
    clear = nested(4, attribute(1, bits)), nested(5, attribute(1, bytes(len(bits))))
    return expression("bitwise", *parts, *clear)


def compare(value: bytes) -> bytes:
    """Go on if what was loaded is equal."""
    return expression("cmp", be32(1, REG_1), be32(2, 0), nested(3, attribute(1, value)))


def lookup(name: str) -> bytes:
    """Go on if what was loaded is in the table's set."""
    return expression("lookup", text(1, name), be32(2, REG_1))


def value(register: int, value: bytes) -> bytes:
    """Load a constant."""
    return expression("immediate", be32(1, register), nested(2, attribute(1, value)))


def be32(kind: int, value: int) -> bytes:
    """An attribute that is a number."""
    return attribute(kind, struct.pack(">I", value))
