"""How noisy the machine is: load average, a fixed loop of computing, a fixed loop of processes.

Taken before the first figure, between figures and after the last one. Figures of two runs may be
compared when these agree; within one run only the ratios to the peers should be believed on a busy
machine.
"""

from __future__ import annotations

import os
import time
from typing import Any

_STEPS = 1_000_000
_PROCESSES = 50


def cpu_loop() -> float:
    """Milliseconds of a fixed number of additions in this interpreter."""
    begin = time.perf_counter()
    total = 0
    for step in range(_STEPS):
        total += step
    return (time.perf_counter() - begin) * 1e3


def fork_loop() -> float:
    """Milliseconds of one start and end of /bin/true, the mean over 50."""
    begin = time.perf_counter()
    for _ in range(_PROCESSES):
        pid = os.posix_spawn("/bin/true", ["true"], {})
        os.waitpid(pid, 0)
    return (time.perf_counter() - begin) * 1e3 / _PROCESSES


def sample(when: str) -> dict[str, Any]:
    """All of it, with the moment it stands for."""
    return {
        "when": when,
        "load": [round(value, 2) for value in os.getloadavg()],
        "cpu_ms": round(min(cpu_loop() for _ in range(3)), 1),
        "cpu_ms_max": round(max(cpu_loop() for _ in range(3)), 1),
        "fork_ms": round(fork_loop(), 2),
    }
