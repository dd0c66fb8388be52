"""Signals as a descriptor (signalfd(2)).

A loop that must not run handlers between bytecodes reads its signals from a descriptor.
"""

from __future__ import annotations

import _signal
import os

from sampan.kernel.libc import buffer, c_int, c_void_p, check, prototype

_signalfd = prototype("signalfd", c_int, c_int, c_void_p, c_int)
_SIGSET_BYTES = 128  # sizeof(sigset_t) of glibc and musl


def signal_fd(number: int) -> int:
    """Block signal `number` in this thread and return a descriptor that reads it instead.

    Non-blocking, close-on-exec. Children inherit the blocked mask; `process.reset_signals` undoes
    it.
    """
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (number,))
    mask = buffer((1 << (number - 1)).to_bytes(_SIGSET_BYTES, "little"))
    return check(_signalfd(-1, mask, os.O_NONBLOCK | os.O_CLOEXEC), "signalfd")
