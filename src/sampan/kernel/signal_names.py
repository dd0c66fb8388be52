"""Signals by name."""

from __future__ import annotations

import _signal


def parse(text: str) -> int:
    """The number of a signal given as `TERM`, `SIGTERM`, `15` or `RTMIN+3`, in any case.

    Raises ValueError when there is no such signal.
    """
    name = text.upper().removeprefix("SIG")
    if name.isascii() and name.isdigit() and int(name) in _signal.valid_signals():
        return int(name)
    base, sign, offset = name.partition("+") if "+" in name else name.partition("-")
    number = getattr(_signal, f"SIG{base}", None) if base.isalnum() else None
    if not isinstance(number, int) or (sign and not offset.isdigit()):
        raise ValueError(f"unknown signal {text!r}")
    if sign:
        number += int(offset) if sign == "+" else -int(offset)
    return number
