"""Durations as Go writes them: `1m30s`, `1.5h`, `300ms`."""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART: Final = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,15}))?(ns|us|µs|ms|s|m|h)")
_MOST: Final = 2**63 - 1


def parse_duration(text: str) -> int | None:
    """Nanoseconds, or None when it is no duration (or a negative one)."""
    if text == "0":
        return 0
    total, at = 0, 0
    while match := _PART.match(text, at):
        whole, fraction, unit = match[1], match[2] or "", _UNITS[match[3]]
        total += int(whole) * unit
        if fraction:
            total += int(fraction) * unit // 10 ** len(fraction)
        at = match.end()
    return total if text and at == len(text) and total <= _MOST else None
