"""No import inside a container, and no writable interpreter behind /proc/self/exe.

CPython imports lazily: a codec, a traceback. With the container's root as `/`, that would run the
container's files with the runtime's privileges. So the import system is closed before a root is
entered.

The program file of a process can be reached from inside through /proc/PID/exe. What enters a
container is therefore a sealed copy of the interpreter in memory, which nobody can write to
(memfd_create(2)). The copy is made before any memory cgroup is joined.

One case needs no copy: the first process of a new pid namespace. Nobody else is inside to look at
it, and a sealed trampoline executes the container's program in its place (`kernel.trampoline`).
"""

from __future__ import annotations

import os
import sys

from sampan.kernel import fds, libc, process, trampoline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MARK = "sampan-sealed"


def close_imports() -> None:
    """From here on, importing what is not loaded yet fails."""
    libc.load()
    _ = os.PathLike  # the whole module, where a part of it stands in (`packed.stand_in`)
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()
    sys.path_importer_cache.clear()


def is_sealed() -> bool:
    """Whether this process runs from a sealed copy."""
    return os.readlink("/proc/self/exe").startswith(f"/memfd:{MARK}")


def needs_seal(spec: dict[str, Any]) -> bool:
    """Whether the container of `spec` must be entered from a sealed copy.

    Not when it has a pid namespace of its own and the trampoline can be executed: a filter could
    forbid what the trampoline calls.
    """
    linux = spec.get("linux") or {}
    spaces = linux.get("namespaces") or []
    hooks = spec.get("hooks") or {}
    if hooks.get("createContainer") or hooks.get("startContainer"):
        return True  # programs run inside while this one is still there
    own_pids = any(space.get("type") == "pid" and not space.get("path") for space in spaces)
    return not own_pids or bool(linux.get("seccomp")) or not trampoline.is_available()


def sealed_interpreter() -> int:
    """A descriptor of a sealed copy of the running interpreter's program file."""
    return fds.sealed_copy("/proc/self/exe", MARK)


def seal() -> None:
    """Go on from a sealed copy of the interpreter: the same command, from its start."""
    if not is_sealed():
        arguments = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sealed_interpreter(), arguments, dict(os.environ))
    process.set_not_dumpable()
