"""The system calls of containers, as records of a script: what `kernel.mounts` and others do at
once, `Calls` writes down for the machine (`kernel.machine`)."""

from __future__ import annotations

import errno
import os
import struct

from sampan.kernel import numbers as n
from sampan.kernel.machine import SYS, Script, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.kernel.machine import Label

BENEATH = n.RESOLVE_IN_ROOT | n.RESOLVE_NO_MAGICLINKS
PLAIN = n.RESOLVE_IN_ROOT | n.RESOLVE_NO_SYMLINKS
MISSING = (errno.ENOENT, errno.ENOTDIR)
_MSG_CMSG_CLOEXEC = 0x40000000
_CMSG_HEADER = 16
_MAX_PASSED = 253


class Passed:
    """The descriptors of a message, by their number in it."""

    __slots__ = ("_first",)

    def __init__(self, first: int) -> None:
        self._first = first

    def __getitem__(self, index: int) -> Value:
        return Value(self._first + 4 * index)


class Calls(Script):
    """A script with the calls that containers are made of."""

    __slots__ = ()

    def receive(self) -> Passed:
        """Take a message of the socket; its descriptors, as many as may come.

        A descriptor that did not come is -1, which every later call refuses.
        """
        size = _CMSG_HEADER + 4 * _MAX_PASSED
        control = self.data(b"\xff" * size)
        vector = self.data(struct.pack("<QQ", self.data(bytes(16)), 16))
        header = self.data(struct.pack("<QIIQQQQQ", 0, 0, 0, vector, 1, control, size, 0))
        self.call(SYS["recvmsg"], 3, header, _MSG_CMSG_CLOEXEC)
        return Passed(control + _CMSG_HEADER)

    def say(self, message: bytes) -> None:
        """Send `message` to the socket."""
        self.call(SYS["write"], 3, message, len(message))

    def open(
        self,
        directory: Value,
        path: str,
        flags: int,
        resolve: int,
        *,
        tolerate: tuple[int, ...] = (),
        at: Label | None = None,
    ) -> Value:
        """openat2(2) of `path` below `directory`."""
        how = self.data(struct.pack("<QQQ", flags | os.O_CLOEXEC, 0, resolve))
        raw = os.fsencode(path)
        return self.call(n.SYS_openat2, directory, raw, how, 24, tolerate=tolerate, at=at)

    def open_host(self, path: str, flags: int) -> Value:
        """openat(2) of a path of the host, no link at its end."""
        raw = os.fsencode(path)
        return self.call(SYS["openat"], n.AT_FDCWD, raw, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0)

    def new_mount(
        self, kind: str, options: Sequence[tuple[str, str | None]], source: str, attributes: int
    ) -> Value:
        """As `kernel.mounts.new_mount`."""
        context = self.call(n.SYS_fsopen, kind.encode(), n.FSOPEN_CLOEXEC)
        for key, value in [("source", source or kind), *options]:
            name = key.encode()
            if value is None:
                self.call(n.SYS_fsconfig, context, n.FSCONFIG_SET_FLAG, name, 0, 0)
            else:
                raw = os.fsencode(value)
                self.call(n.SYS_fsconfig, context, n.FSCONFIG_SET_STRING, name, raw, 0)
        self.call(n.SYS_fsconfig, context, n.FSCONFIG_CMD_CREATE, 0, 0, 0)
        mount = self.call(n.SYS_fsmount, context, n.FSMOUNT_CLOEXEC, attributes)
        self.call(SYS["close"], context)
        return mount

    def clone_tree(self, of: Value | int, path: str = "", *, recursive: bool = False) -> Value:
        """open_tree(2): a detached bind mount of a descriptor, or of a path of the host."""
        flags = n.OPEN_TREE_CLONE | n.OPEN_TREE_CLOEXEC
        flags |= (0 if path else n.AT_EMPTY_PATH) | (n.AT_RECURSIVE if recursive else 0)
        return self.call(n.SYS_open_tree, of, os.fsencode(path), flags)

    def set_attributes(
        self,
        mount: Value,
        *,
        on: int = 0,
        off: int = 0,
        propagation: int = 0,
        recursive: bool = False,
    ) -> None:
        """mount_setattr(2)."""
        attributes = self.data(struct.pack("<QQQQ", on, off, propagation, 0))
        flags = n.AT_EMPTY_PATH | (n.AT_RECURSIVE if recursive else 0)
        self.call(n.SYS_mount_setattr, mount, b"", flags, attributes, 32)

    def move_mount(
        self, mount: Value, target: Value, name: str = "", *, then: Label | None = None
    ) -> None:
        """Attach `mount` on `target`, or on `name` in that directory."""
        flags = n.MOVE_MOUNT_F_EMPTY_PATH | (0 if name else n.MOVE_MOUNT_T_EMPTY_PATH)
        raw = os.fsencode(name)
        self.call(n.SYS_move_mount, mount, b"", target, raw, flags, then=then)

    def make_directories(self, directory: Value, path: str) -> None:
        """mkdir -p of a relative `path` below `directory`."""
        made = ""
        for part in path.split("/"):
            made = f"{made}/{part}" if made else part
            name = made.encode()
            self.call(SYS["mkdirat"], directory, name, 0o755, tolerate=(errno.EEXIST,))

    def make_node(self, directory: Value, name: str, mode: int, device: int) -> None:
        """mknodat(2)."""
        self.call(SYS["mknodat"], directory, name.encode(), mode, device)

    def make_link(self, directory: Value, name: str, target: str) -> None:
        """symlinkat(2)."""
        self.call(SYS["symlinkat"], target.encode(), directory, name.encode())

    def prctl(self, option: int, value: int = 0, third: int = 0) -> None:
        """prctl(2) with unused arguments zero."""
        self.call(SYS["prctl"], option, value, third, 0, 0)

    def close_at_execve(self) -> None:
        """Set close-on-exec on every descriptor but the standard ones."""
        self.call(n.SYS_close_range, 3, 0xFFFFFFFF, n.CLOSE_RANGE_CLOEXEC)

    def make_read_only(self, root: Value, path: str) -> None:
        """Make the mount at `path` below `root` read-only."""
        mount = self.open(root, path, os.O_PATH, PLAIN)
        self.set_attributes(mount, on=n.MOUNT_ATTR_RDONLY)

    def strings(self, words: list[bytes]) -> int:
        """The address of an array of pointers to `words`, as execve(2) wants it."""
        pointers = [self.data(word + b"\0") for word in words]
        return self.data(struct.pack(f"<{len(pointers) + 1}Q", *pointers, 0))
