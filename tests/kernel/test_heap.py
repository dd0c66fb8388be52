"""Whose memory a thread takes from; each case in a process of its own, for it cannot be undone."""

from __future__ import annotations

import subprocess
import sys

import pytest

TAKE = """
import ctypes, sys, threading
from sampan.kernel import heap
if sys.argv[1] == "shared":
    heap.share()
malloc = ctypes.CDLL(None).malloc
malloc.restype = ctypes.c_size_t
taken = []
thread = threading.Thread(target=lambda: taken.append(malloc(1000)))
thread.start()
thread.join()
line = next(line for line in open("/proc/self/maps") if line.endswith("[heap]\\n"))
first, last = (int(end, 16) for end in line.split()[0].split("-"))
print(first <= taken[0] < last)
"""


@pytest.mark.parametrize(("how", "is_common"), [("shared", "True"), ("apart", "False")])
def test_threads_share_a_heap_when_told_to(how, is_common):
    ran = subprocess.run(
        [sys.executable, "-c", TAKE, how], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == is_common
