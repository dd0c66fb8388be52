"""The C library, loaded once, and the way every system call is declared.

A call gets one prototype, made when its module is imported and never changed afterwards: rewriting
`argtypes` inside a wrapper would be slow and, with two threads, wrong. `check` turns a negative
result into the OSError subclass of its errno, naming the call and the paths.

The handle is `CDLL(None)`: the symbols that the interpreter itself is linked with, so nothing is
looked up on disk.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_ulong, c_void_p

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "c_char_p",
    "c_int",
    "c_long",
    "c_size_t",
    "c_uint",
    "c_ulong",
    "c_void_p",
    "check",
    "prototype",
    "syscall",
]

libc = ctypes.CDLL(None, use_errno=True)


def prototype(name: str, result: type, *arguments: type) -> Callable[..., int]:
    """The C function `name` with fixed types; errno is kept for `check`."""
    function: Callable[..., int] = ctypes.CFUNCTYPE(result, *arguments, use_errno=True)(
        (name, libc)
    )
    return function


def syscall(number: int, *arguments: type) -> Callable[..., int]:
    """The system call `number` with fixed argument types, through syscall(2)."""
    raw = prototype("syscall", c_long, c_long, *arguments)

    def call(*values: object) -> int:
        return raw(number, *values)

    return call


def check(result: int, call: str, *paths: str | bytes) -> int:
    """Return `result`, or raise the OSError of errno that names `call` and `paths`."""
    if result < 0:
        code = ctypes.get_errno()
        where = " ".join(os.fsdecode(path) for path in paths)
        raise OSError(code, f"{call} {where}".rstrip() + f": {os.strerror(code).lower()}")
    return result
