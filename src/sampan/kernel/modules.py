"""Modules of the kernel, loaded by descriptor (finit_module(2))."""

from __future__ import annotations

import os

from sampan.kernel import numbers as n
from sampan.kernel.libc import c_char_p, c_int, check, syscall

_finit_module = syscall(n.SYS_finit_module, c_int, c_char_p, c_int)


def load_module(path: str) -> None:
    """Load the module in the file `path`, which is not compressed. Fine when it is there already.

    Raises OSError: the kernel refused.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        check(_finit_module(fd, b"", 0), "finit_module", path)
    except FileExistsError:
        pass
    finally:
        os.close(fd)
