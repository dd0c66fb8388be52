"""Mounts by descriptor: make a mount detached, shape it, then move it onto a descriptor.

No wrapper here takes a path below a container's root. `fsopen` and `open_tree` give a detached
mount as a descriptor, `set_attributes` shapes it while nobody can see it, `move_mount` attaches it
to a directory or file that the caller resolved (mount_setattr(2), fsopen(2), open_tree(2),
move_mount(2)).
"""

from __future__ import annotations

import os
import struct

from sampan.kernel import numbers as n
from sampan.kernel.libc import (
    address,
    buffer,
    c_char_p,
    c_int,
    c_size_t,
    c_uint,
    c_ulong,
    c_void_p,
    check,
    last_errno,
    prototype,
    syscall,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_fsopen = syscall(n.SYS_fsopen, c_char_p, c_uint)
_fsconfig = syscall(n.SYS_fsconfig, c_int, c_uint, c_char_p, c_char_p, c_int)
_fsmount = syscall(n.SYS_fsmount, c_int, c_uint, c_uint)
_open_tree = syscall(n.SYS_open_tree, c_int, c_char_p, c_uint)
_move_mount = syscall(n.SYS_move_mount, c_int, c_char_p, c_int, c_char_p, c_uint)
_mount_setattr = syscall(n.SYS_mount_setattr, c_int, c_char_p, c_uint, c_char_p, c_size_t)
_statx = syscall(n.SYS_statx, c_int, c_char_p, c_int, c_uint, c_void_p)
_mount = prototype("mount", c_int, c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_umount2 = prototype("umount2", c_int, c_char_p, c_int)
_pivot_root = prototype("pivot_root", c_int, c_char_p, c_char_p)

# struct mount_attr of linux/mount.h: set, clear, propagation, user namespace
_MOUNT_ATTR = struct.Struct("<QQQQ")
_STATX_SIZE, _MOUNT_NUMBER = 256, slice(144, 152)  # struct statx of linux/stat.h, its stx_mnt_id


def _context_message(context: int) -> str:
    """What the kernel logged about the last failure on a context, one line for each read."""
    lines: list[str] = []
    while len(lines) < 4:
        try:
            lines.append(os.read(context, 256).decode("utf-8", "replace").strip())
        except OSError:
            break
    return "; ".join(lines)


def new_mount(
    kind: str, options: Sequence[tuple[str, str | None]], *, source: str = "", attributes: int = 0
) -> int:
    """A detached mount of a new file system: its descriptor.

    Args:
        kind: the file system type: proc, tmpfs, overlay ...
        options: (key, value), or (key, None) for a flag.
        source: what /proc/mounts shows, and the device where the type has one.
        attributes: MOUNT_ATTR_* of the mount.
    """
    context = check(_fsopen(kind.encode(), n.FSOPEN_CLOEXEC), "fsopen", kind)
    try:
        for key, value in [("source", source or kind), *options]:
            command = n.FSCONFIG_SET_FLAG if value is None else n.FSCONFIG_SET_STRING
            raw = None if value is None else os.fsencode(value)
            _configure(context, kind, command, key, raw)
        _configure(context, kind, n.FSCONFIG_CMD_CREATE, None, None)
        return check(_fsmount(context, n.FSMOUNT_CLOEXEC, attributes), "fsmount", kind)
    finally:
        os.close(context)


def _configure(context: int, kind: str, command: int, key: str | None, value: bytes | None) -> None:
    name = None if key is None else key.encode()
    if _fsconfig(context, command, name, value, 0) < 0:
        code = last_errno()
        said = _context_message(context)
        what = f"fsconfig {kind}" + (f" {key}" if key else "")
        raise OSError(code, f"{what}: {os.strerror(code).lower()}" + (f" ({said})" if said else ""))


def clone_tree(fd: int, *, recursive: bool) -> int:
    """A detached bind mount of the file or directory behind `fd`; submounts too if `recursive`."""
    flags = n.OPEN_TREE_CLONE | n.OPEN_TREE_CLOEXEC | n.AT_EMPTY_PATH
    return check(_open_tree(fd, b"", flags | (n.AT_RECURSIVE if recursive else 0)), "open_tree")


def clones_detached(release: str = os.uname().release) -> bool:
    """Whether the kernel clones a mount that is not attached anywhere (Linux 6.15)."""
    major, minor = (int(word) for word in release.split("-", 1)[0].split(".")[:2])
    return (major, minor) >= (6, 15)


def set_attributes(
    mount: int, *, on: int = 0, off: int = 0, propagation: int = 0, recursive: bool = False
) -> None:
    """Change MOUNT_ATTR_* and propagation of a mount, and of those below it if `recursive`."""
    attributes = _MOUNT_ATTR.pack(on, off, propagation, 0)
    flags = n.AT_EMPTY_PATH | (n.AT_RECURSIVE if recursive else 0)
    check(_mount_setattr(mount, b"", flags, attributes, _MOUNT_ATTR.size), "mount_setattr")


def map_ids(mount: int, user_namespace: int, *, recursive: bool) -> None:
    """Show the files of a detached mount with the ids that `user_namespace` maps (idmapped)."""
    attributes = _MOUNT_ATTR.pack(n.MOUNT_ATTR_IDMAP, 0, 0, user_namespace)
    flags = n.AT_EMPTY_PATH | (n.AT_RECURSIVE if recursive else 0)
    check(_mount_setattr(mount, b"", flags, attributes, _MOUNT_ATTR.size), "mount_setattr idmap")


def move_mount(mount: int, target: int) -> None:
    """Attach the detached `mount` on the directory or file behind the descriptor `target`."""
    flags = n.MOVE_MOUNT_F_EMPTY_PATH | n.MOVE_MOUNT_T_EMPTY_PATH
    check(_move_mount(mount, b"", target, b"", flags), "move_mount")


def set_propagation(path: str, propagation: int) -> None:
    """Set the propagation (MS_PRIVATE, MS_SLAVE ... with MS_REC) of the mount at `path`."""
    check(_mount(None, os.fsencode(path), None, propagation, None), "mount propagation", path)


def mount_with_data(kind: str, target: str, options: str) -> None:
    """Mount a new file system at `target`, a path of the host, with mount(2): its options may fill
    a page, where fsconfig(2) takes 255 bytes for each."""
    kind_name = kind.encode()
    result = _mount(kind_name, os.fsencode(target), kind_name, 0, os.fsencode(options))
    check(result, f"mount {kind}", target)


def number(mount: int) -> int:
    """The number of the mount behind a descriptor: one that no other mount will have since Linux
    6.8, else the one of mountinfo."""
    found = buffer(bytes(_STATX_SIZE))
    wanted = n.STATX_MNT_ID | n.STATX_MNT_ID_UNIQUE
    check(_statx(mount, b"", n.AT_EMPTY_PATH, wanted, address(found)), "statx")
    return int.from_bytes(found.raw[_MOUNT_NUMBER], "little")


def pivot_into(root: int) -> None:
    """Make the mount behind `root` the root of this mount namespace and drop the old one.

    Both arguments of pivot_root(2) may be "." : the old root is then stacked on the new one, where
    it is detached at once. No directory of the container takes part.
    """
    os.fchdir(root)
    check(_pivot_root(b".", b"."), "pivot_root")
    check(_umount2(b".", n.MNT_DETACH), "umount2 old root")
    os.chdir("/")


def move_to_root() -> None:
    """Move the mount that is the working directory over the root of this mount namespace."""
    check(_mount(b".", b"/", None, n.MS_MOVE, None), "mount --move", "/")


def unmount(path: str) -> None:
    """Detach the mount at `path`, a path of the host."""
    check(_umount2(os.fsencode(path), n.MNT_DETACH), "umount2", path)
