"""What a new program inherits of signals: nothing."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

import pytest

from sampan.kernel import numbers, process
from sampan.kernel.signal_names import parse


def test_nothing_is_ignored_or_blocked_any_more():
    """Also of the two that the C library keeps to itself; handlers do not survive an execve."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        ignore = (ctypes.c_ulong * 4)(1, 0, 0, 0)  # SIG_IGN
        libc = ctypes.CDLL(None)
        for number in (32, 33, signal.SIGQUIT, signal.SIGUSR1):
            libc.syscall(numbers.SYS_rt_sigaction, number, ctypes.byref(ignore), None, 8)
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        process.reset_signals()
        os.write(write_end, Path("/proc/self/status").read_bytes())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as report:
        status = dict(line.split(":\t", 1) for line in report.read().splitlines() if ":\t" in line)
    os.waitpid(child, 0)
    assert status["SigIgn"] == status["SigBlk"] == "0" * 16


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", 15),
        ("SIGKILL", 9),
        ("sigint", 2),
        ("9", 9),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMAX-1", 63),
    ],
)
def test_signals_by_name_and_number(text: str, number: int):
    assert parse(text) == number


@pytest.mark.parametrize(
    "text", ["", "0", "65", "SIGNOPE", "-1", "1_0", "\u0661", "TERM+x", "_IGN", "32x"]
)
def test_what_is_no_signal_is_refused(text: str):
    with pytest.raises(ValueError, match="unknown signal"):
        parse(text)
