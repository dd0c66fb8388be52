"""No import inside a container, and no writable interpreter behind /proc/self/exe.

CPython imports lazily: a codec, a traceback. With the container's root as `/`, that would run the
container's files with the runtime's privileges. So the import system is closed before a root is
entered.

The program file of a process can be reached from inside through /proc/PID/exe. What enters a
container is therefore a sealed copy of the interpreter in memory, which nobody can write to
(memfd_create(2)). The copy is made before any memory cgroup is joined.
"""

from __future__ import annotations

import os
import sys

from sampan.kernel import fds

MARK = "sampan-sealed"


def close_imports() -> None:
    """From here on, importing what is not loaded yet fails."""
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()
    sys.path_importer_cache.clear()


def is_sealed() -> bool:
    """Whether this process runs from a sealed copy."""
    return os.readlink("/proc/self/exe").startswith(f"/memfd:{MARK}")


def sealed_interpreter() -> int:
    """A descriptor of a sealed copy of the running interpreter's program file."""
    return fds.sealed_copy("/proc/self/exe", MARK)


def reexecute(arguments: list[str]) -> None:
    """Replace this process by the same interpreter, sealed, with `arguments` after its name."""
    fd = sealed_interpreter()
    os.set_inheritable(fd, False)
    os.execve(fd, [sys.executable, *arguments], dict(os.environ))
