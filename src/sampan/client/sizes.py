"""Sizes as people write them: `64m`, `1.5g`, `512kib`, `1000`."""

from __future__ import annotations

_BINARY = "kmgtpe"


def parse_bytes(text: str) -> int:
    """A size in bytes; units are always powers of 1024. `-1` stands for no limit.

    Raises:
        ValueError: it is not a size; docker's sentence.
    """
    if text == "-1":
        return -1
    lowered = text.lower().replace(" ", "")
    for suffix in ("ib", "b"):
        if lowered.endswith(suffix):
            lowered = lowered[: -len(suffix)]
            break
    power = 0
    if lowered[-1:] and lowered[-1] in _BINARY:
        power = _BINARY.index(lowered[-1]) + 1
        lowered = lowered[:-1]
    if not lowered.isascii() or not lowered.replace(".", "", 1).isdigit():
        raise ValueError(f"invalid size: '{text}'")
    return int(float(lowered) * 1024**power) if "." in lowered else int(lowered) * 1024**power
