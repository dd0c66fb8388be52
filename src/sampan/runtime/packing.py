"""Writing the pack: the compiled modules of `sampan-oci` in one file, for `packed`.

`python -m sampan.runtime.packing` writes it beside the compiled modules, as an installation does;
`sampan-oci` itself does when it found modules that were not packed, or changed since, and may write
there. The pack is a cache like those: it may be removed at any time.
"""

from __future__ import annotations

import marshal
import os
import sys

_ROOMS = ("kernel", "kernel/cgroups", "runtime")
_TOP = ("__init__", "errors", "ids", "jsontext", "version")
_FOREIGN = ("__future__", "ctypes", "ctypes._endian", "stat", "struct", "types")
_EXTENSIONS = ("_ctypes", "_json", "_socket", "_struct", "fcntl", "resource", "select")
_OPTIMIZE = 2  # neither docstrings nor assertions


def place() -> str:
    """Where the pack is: the launcher looks there."""
    return f"{os.path.dirname(__file__)}/__pycache__/packed.{sys.implementation.cache_tag}"


def write() -> None:
    """Write the pack, whole or not at all. Raises OSError."""
    index: dict[str, tuple[str, bool, int, int, int, int]] = {}
    blobs: list[bytes] = []
    offset = 0
    for name, source in _modules().items():
        status = os.stat(source)
        code = _compiled(source)
        is_package = source.endswith("/__init__.py")
        index[name] = source, is_package, status.st_mtime_ns, status.st_size, offset, len(code)
        blobs.append(code)
        offset += len(code)
    finder = _compiled(f"{os.path.dirname(__file__)}/packed.py")
    temporary = f"{place()}.{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            found = marshal.dumps(index), marshal.dumps(_extensions())
            file.write(b"".join([finder, *found, *blobs]))
        os.rename(temporary, place())
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def refresh() -> None:
    """Write it if that is possible: a command does not fail for its cache."""
    try:
        write()
    except OSError:
        pass


def _modules() -> dict[str, str]:
    """Every module that may be wanted, by name: its source."""
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    found = {_name("", stem): f"{top}/{stem}.py" for stem in _TOP}
    for room in _ROOMS:
        for entry in sorted(os.listdir(f"{top}/{room}")):
            stem, dot, ending = entry.rpartition(".")
            if dot and ending == "py":
                found[_name(room, stem)] = f"{top}/{room}/{entry}"
    for name in _FOREIGN:
        __import__(name)
        source = getattr(sys.modules[name], "__file__", None)
        if source and source.endswith(".py"):
            found[name] = source
    return found


def _extensions() -> dict[str, str]:
    """Where the interpreter finds the modules that are libraries, for want of which it would list
    its directories. What is built into it is not among them."""
    found = {}
    for name in _EXTENSIONS:
        __import__(name)
        origin = getattr(sys.modules[name], "__file__", None)
        if origin:
            found[name] = origin
    return found


def _name(room: str, stem: str) -> str:
    parts = ["sampan", *(part for part in room.split("/") if part)]
    return ".".join(parts if stem == "__init__" else [*parts, stem])


def _compiled(source: str) -> bytes:
    with open(source, "rb") as file:
        return marshal.dumps(compile(file.read(), source, "exec", optimize=_OPTIMIZE))


if __name__ == "__main__":
    write()
