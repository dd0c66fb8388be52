"""The C library, loaded at the first call of it, and the way every system call is declared.

A call gets one prototype, which is bound once and never changed afterwards: rewriting `argtypes`
inside a wrapper would be slow and, with two threads, wrong. `check` turns a negative result into
the OSError subclass of its errno, naming the call and the paths.

Nothing is loaded at import: most starts of `sampan-oci` make no call at all, and ctypes costs as
much as a third of the interpreter. A process that closes its import system calls `load` before.
The handle is `CDLL(None)`: the symbols that the interpreter itself is linked with, so nothing is
looked up on disk.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable

    Buffer = ctypes.Array[ctypes.c_char]

# Names in ctypes, for the prototypes.
c_char_p = "c_char_p"
c_int = "c_int"
c_long = "c_long"
c_size_t = "c_size_t"
c_uint = "c_uint"
c_ulong = "c_ulong"
c_void_p = "c_void_p"

_library: list[ctypes.CDLL] = []
_declared: list[Callable[[], object]] = []


def load() -> ctypes.CDLL:
    """The library; from here on no call imports anything."""
    if not _library:
        import ctypes

        _library.append(ctypes.CDLL(None, use_errno=True))
    return _library[0]


def bind_all() -> None:
    """Bind every prototype now, in a process whose children are to share the memory of it."""
    for bind in _declared:
        bind()
    _declared.clear()


def _bind(name: str, result: str, arguments: tuple[str, ...]) -> Callable[..., int]:
    library = load()
    import ctypes

    types = [getattr(ctypes, word) for word in (result, *arguments)]
    function: Callable[..., int] = ctypes.CFUNCTYPE(*types, use_errno=True)((name, library))
    return function


def prototype(name: str, result: str, *arguments: str) -> Callable[..., int]:
    """The C function `name` with fixed types; errno is kept for `check`."""
    bound: Callable[..., int] | None = None

    def bind() -> Callable[..., int]:
        nonlocal bound
        bound = _bind(name, result, arguments)
        return bound

    def call(*values: object) -> int:
        return (bound or bind())(*values)

    _declared.append(bind)
    return call


def syscall(number: int, *arguments: str) -> Callable[..., int]:
    """The system call `number` with fixed argument types, through syscall(2)."""
    raw = prototype("syscall", c_long, c_long, *arguments)

    def call(*values: object) -> int:
        return raw(number, *values)

    return call


def last_errno() -> int:
    """The errno of this thread's last call."""
    import ctypes

    return ctypes.get_errno()


def buffer(content: bytes) -> Buffer:
    """Memory with `content` that a call may write to; its address is an argument by itself."""
    import ctypes

    return ctypes.create_string_buffer(content, len(content))


def address(of: Buffer) -> int:
    """Where a buffer lies, to be written into a structure."""
    import ctypes

    return ctypes.addressof(of)


def check(result: int, call: str, *paths: str | bytes) -> int:
    """Return `result`, or raise the OSError of errno that names `call` and `paths`."""
    if result < 0:
        code = last_errno()
        where = " ".join(os.fsdecode(path) for path in paths)
        raise OSError(code, f"{call} {where}".rstrip() + f": {os.strerror(code).lower()}")
    return result
