"""Putting a compiled seccomp filter into force (seccomp(2)).

Apart from the compiler, because a process that enters a container loads a program that was compiled
before, and every module costs its start.
"""

from __future__ import annotations

import os
import struct

from sampan.kernel.libc import address, buffer, c_uint, c_void_p, check, syscall

NOTIFY = "SCMP_ACT_NOTIFY"
"""The action that an agent answers, for which a filter has a listener."""
FLAG_NEW_LISTENER = 8
FLAG_SPEC_ALLOW = 4
_INSTRUCTION_SIZE = 8  # struct sock_filter
_NUMBERS = {"x86_64": 317, "aarch64": 277, "i686": 354, "armv7l": 383}
_SET_MODE_FILTER = 1
_seccomp = syscall(_NUMBERS.get(os.uname().machine, -1), c_uint, c_uint, c_void_p)


def load(program: bytes, flags: int = FLAG_SPEC_ALLOW) -> int:
    """Put a compiled program into force for this thread, for good.

    Needs CAP_SYS_ADMIN in its user namespace, or PR_SET_NO_NEW_PRIVS set before. Answers with the
    descriptor of the listener when `flags` have FLAG_NEW_LISTENER, else with 0.
    """
    code = buffer(program)
    # struct sock_fprog of linux/filter.h
    header = struct.pack("@HP", len(program) // _INSTRUCTION_SIZE, address(code))
    return check(_seccomp(_SET_MODE_FILTER, flags, header), "seccomp")
