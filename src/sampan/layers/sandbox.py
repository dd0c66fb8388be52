"""What a process gives up before it reads a hostile layer, or a hostile tree.

The destination becomes its root (a mount namespace of its own, where the old tree is unmounted; a
plain chroot where pivot_root is impossible), the import system is closed, the address space, core
dumps and processes are bounded, only the capabilities that its work needs are left, and it dies
with its parent. CAP_SYS_ADMIN stays because `trusted.overlay.opaque` needs it, also to be read; so
the system calls that would make something of it, and all that start programs or open sockets, are
taken away by a seccomp filter in `layers.syscalls`.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import Final

from sampan.kernel import capabilities, mounts, namespaces, process
from sampan.kernel import numbers as n
from sampan.layers import syscalls

MEMORY_LIMIT: Final = 1 << 30  # bytes of address space: buffers, window, threads, 2M directories
_KILL: Final = 9
_OPEN_FILES: Final = 8192
_READING: Final = "CAP_DAC_READ_SEARCH CAP_FOWNER CAP_SYS_ADMIN".split()
_KEPT: Final = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_MKNOD CAP_SETFCAP CAP_SYS_ADMIN"
).split()


def enter(destination: int, parent: int, *, read_only: bool = False) -> int:
    """Give up what work below `destination` does not need; the descriptor to work with.

    `read_only` is for reading a tree: no file of it can be changed then. Everything that will be
    used must be imported before. `parent` is the process to die with.
    Raises OSError naming the call.
    """
    depend_on(parent)
    clone = mounts.clone_tree(destination, recursive=False)  # in the namespace it belongs to
    if read_only:
        mounts.set_attributes(clone, on=n.MOUNT_ATTR_RDONLY)
    root = become_root(clone)
    lock_up(read_only=read_only)
    return root


def depend_on(parent: int) -> None:
    """Die with `parent`, leave no core, and let nobody look inside."""
    process.set_parent_death_signal(_KILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    process.set_not_dumpable()


def lock_up(*, read_only: bool = False) -> None:
    """Give up imports, memory, capabilities and system calls; files can still be worked on."""
    _close_imports()
    _bound()
    process.prctl(n.PR_SET_NO_NEW_PRIVS, 1)
    kept = capabilities.mask(_READING if read_only else _KEPT) & capabilities.get()[1]
    capabilities.set_sets(kept, kept, 0)
    syscalls.load()


def become_root(clone: int) -> int:
    """Make the detached mount `clone`, which is closed, the root of a mount namespace of our own.

    The descriptor of the new root, readable. Raises OSError naming the call.
    """
    namespaces.unshare(n.CLONE_NEWNS)
    mounts.set_propagation("/", n.MS_REC | n.MS_PRIVATE)
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mounts.move_mount(clone, old)
    finally:
        os.close(old)
    try:
        mounts.pivot_into(clone)
    except OSError:  # the root is the initial ramfs
        os.fchdir(clone)
        os.chroot(".")
    os.close(clone)
    return os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _close_imports() -> None:
    """Nothing is ever imported from the new root."""
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()
    sys.path_importer_cache.clear()


def _bound() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _OPEN_FILES if most == resource.RLIM_INFINITY else min(most, _OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
