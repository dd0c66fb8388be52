"""Signals: by name, and as a descriptor (signalfd(2)).

A loop that must not run handlers between bytecodes reads its signals from a descriptor.
"""

from __future__ import annotations

import _signal
import ctypes
import os

from sampan.kernel.libc import c_int, c_void_p, check, prototype

_signalfd = prototype("signalfd", c_int, c_int, c_void_p, c_int)
_SIGSET_BYTES = 128  # sizeof(sigset_t) of glibc and musl


def signal_fd(number: int) -> int:
    """Block signal `number` in this thread and return a descriptor that reads it instead.

    Non-blocking, close-on-exec. Children inherit the blocked mask; `process.reset_signals` undoes
    it.
    """
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (number,))
    mask = ctypes.create_string_buffer(
        (1 << (number - 1)).to_bytes(_SIGSET_BYTES, "little"), _SIGSET_BYTES
    )
    return check(_signalfd(-1, ctypes.addressof(mask), os.O_NONBLOCK | os.O_CLOEXEC), "signalfd")


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
