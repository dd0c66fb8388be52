"""Limits of bandwidth: a token bucket on each end of a container's interface.

What goes to the container is limited where it leaves the host, what comes from it where it leaves
the container; a container with CAP_NET_ADMIN could lift the latter. Rates are asked for in tc's
words, in bits (`10mbit`, `1.5gbit`), bursts in bytes (`256k`).
"""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument
from sampan.network.links import NEWQDISC
from sampan.network.netlink import CREATE, REPLACE, Message, attribute, nested, text, u32

if TYPE_CHECKING:
    from collections.abc import Mapping

OPTIONS = ("sampan.rate-in", "sampan.rate-out", "sampan.burst-in", "sampan.burst-out")
LATENCY = 0.05
"""Seconds that a packet waits at most for its turn."""

_SMALLEST_BURST = 16 << 10
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(k|m|g|)bit", re.ASCII)
_BURST = re.compile(r"([0-9]+)(k|m|)b?", re.ASCII)
_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_BINARY = {"": 1, "k": 1 << 10, "m": 1 << 20}
_MESSAGE = struct.Struct("=BxxxiIII")
_SPEC = struct.Struct("=BBHhHI")
_ROOT = 0xFFFFFFFF
_ETHERNET = 1
_MAX32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes a second, and bytes at once, to the container and from it; 0 is no limit."""

    rate_in: int = 0
    burst_in: int = 0
    rate_out: int = 0
    burst_out: int = 0


def parse(options: Mapping[str, str]) -> Rates:
    """The limits in the options of an endpoint.

    Raises:
        InvalidArgument: one is wrong, or a burst is given without its rate.
    """
    values = {}
    for way in ("in", "out"):
        rate = options.get(f"sampan.rate-{way}", "")
        burst = options.get(f"sampan.burst-{way}", "")
        if burst and not rate:
            raise InvalidArgument(f"sampan.burst-{way} is given without sampan.rate-{way}")
        if not rate:
            continue
        values[f"rate_{way}"] = speed = parse_rate(rate)
        values[f"burst_{way}"] = _parse_burst(burst) if burst else max(speed // 50, _SMALLEST_BURST)
    return Rates(**values)


def parse_rate(word: str) -> int:
    """`10mbit` in bytes a second.

    Raises:
        InvalidArgument: it is no rate.
    """
    found = _RATE.fullmatch(word.lower())
    speed = int(float(found[1]) * _DECIMAL[found[2]] / 8) if found else 0
    if speed <= 0:
        raise InvalidArgument(f"invalid rate {word!r}: give bits a second, as 10mbit")
    return speed


def _parse_burst(word: str) -> int:
    found = _BURST.fullmatch(word.lower())
    size = int(found[1]) * _BINARY[found[2]] if found else 0
    if not _SMALLEST_BURST <= size <= _MAX32:
        raise InvalidArgument(f"invalid burst {word!r}: give bytes, at least 16k")
    return size


def limit(index: int, rate: int, burst: int) -> Message:
    """Let an interface send `rate` bytes a second, and `burst` bytes at once."""
    spec = _SPEC.pack(0, _ETHERNET, 0, 0, 0, min(rate, _MAX32))
    queue = min(int(rate * LATENCY) + burst, _MAX32)
    parameters = spec + _SPEC.pack(0, 0, 0, 0, 0, 0) + struct.pack("=III", queue, 0, 0)
    parts = [attribute(1, parameters), u32(6, burst)]
    if rate > _MAX32:
        parts.append(attribute(4, struct.pack("=Q", rate)))
    body = _MESSAGE.pack(socket.AF_UNSPEC, index, 1 << 16, _ROOT, 0)
    body += text(1, "tbf") + nested(2, *parts)
    return Message(NEWQDISC, body, CREATE | REPLACE, "limit an interface's bandwidth")
