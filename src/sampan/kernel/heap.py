"""How much unused memory the C library keeps for the process, mallopt(3).

It gives a thread a heap of its own, whose holes no other thread fills. Where Python's lock lets one
thread run at a time, those heaps save no waiting and cost memory.

glibc gives the top of its heap back to the kernel as soon as 128 KiB of it are unused, and has a
mapping of its own made for each larger piece. Who takes and leaves a few pieces over and over then
gets the same pages again each time, cleared, one fault for each: that can cost more than all that
is done with them.
"""

from __future__ import annotations

from sampan.kernel import libc
from sampan.kernel.libc import c_int

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_mallopt = libc.prototype("mallopt", c_int, c_int, c_int)


def keep(size: int) -> None:
    """Give nothing back before `size` bytes at the top of the heap are unused, and take what is
    smaller from there."""
    _mallopt(_M_TRIM_THRESHOLD, size)
    _mallopt(_M_MMAP_THRESHOLD, size)


def share() -> None:
    """Let all threads that begin from now on take from one heap."""
    _mallopt(_M_ARENA_MAX, 1)
