"""The root file system as a detached mount, ready to be attached inside of a container.

The word `Mount` is shared with the snapshots: `{"type": "overlay", "lowers": [...], "upper": ...,
"work": ...}` or `{"type": "bind", "source": ...}`, either with `ids` for a user namespace
(`mappedroot`). The mount never appears in the mount namespace
of the host.
"""

from __future__ import annotations

import _socket
import errno
import os

from sampan.kernel import fds, mounts, process
from sampan.kernel import numbers as n

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Options = list[tuple[str, str | None]]

# fsconfig(2) takes values of at most 255 bytes; kernels since 6.8 take layers one by one. mount(2)
# takes a page.
_MAX_VALUE = 255
_MAX_PAGE = 4095
# What a layer means must not depend on how the kernel was configured: no copied file that is only
# metadata, no renamed directory that points at its old name, no index of hard links beside them.
_PLAIN: Options = [
    ("redirect_dir", "off"),
    ("metacopy", "off"),
    ("index", "off"),
]


def mount(word: dict[str, Any]) -> int:
    """The descriptor of the detached mount that `word` describes."""
    if "ids" in word:
        from sampan.runtime import mappedroot

        return mappedroot.mount(word, _overlay)
    if word["type"] == "overlay":
        return _overlay(word)
    if word["type"] == "bind":
        return _bound(word)
    raise ValueError(f"unknown root file system type {word['type']!r}")


def _bound(word: dict[str, Any]) -> int:
    root = bind(word["source"])
    if word.get("read_only"):
        mounts.set_attributes(root, on=n.MOUNT_ATTR_RDONLY, recursive=True)
    return root


def bind(source: str) -> int:
    """A detached recursive bind mount of the directory `source`."""
    fd = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return mounts.clone_tree(fd, recursive=True)
    finally:
        os.close(fd)


def _overlay(word: dict[str, Any]) -> int:
    lowers: list[str] = word["lowers"]
    attributes = 0 if word.get("upper") else n.MOUNT_ATTR_RDONLY
    # Marks of users exclude the three, which must not even be named then.
    options: Options = [("userxattr", None)] if word.get("userxattr") else [*_PLAIN]
    if word.get("upper"):
        options = [("upperdir", word["upper"]), ("workdir", word["work"]), *options]
    one_by_one = [("lowerdir+", path) for path in lowers]
    try:
        return mounts.new_mount(
            "overlay", [*one_by_one, *options], source="overlay", attributes=attributes
        )
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return _overlay_by_list(lowers, options, attributes)


def _overlay_by_list(lowers: list[str], options: Options, attributes: int) -> int:
    """For kernels before 6.8: all layers in one value, relative to their common directory."""
    base = os.path.commonpath([os.path.dirname(path) for path in lowers])
    value = ":".join(os.path.relpath(path, base) for path in lowers)
    if len(value) > _MAX_VALUE:
        return _overlay_by_page(base, [("lowerdir", value), *options], attributes)
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(base)
    try:
        named = [("lowerdir", value), *options]
        return mounts.new_mount("overlay", named, source="overlay", attributes=attributes)
    finally:
        os.fchdir(before)
        os.close(before)


def _overlay_by_page(base: str, options: Options, attributes: int) -> int:
    """The same when the value is too long for fsconfig: by mount(2), in a process with a mount
    namespace of its own, which hands the mount over and ends."""
    text = ",".join(key if value is None else f"{key}={value}" for key, value in options)
    if len(os.fsencode(text)) > _MAX_PAGE:
        count = text.count(":") + 1
        raise OSError(errno.E2BIG, f"mount overlay of {count} layers: this kernel takes fewer")
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    pid, pidfd = process.clone3(n.CLONE_NEWNS)
    if pid == 0:
        _mount_and_send(theirs, base, text)
    theirs.close()
    try:
        message, received = fds.receive(ours, _MAX_PAGE)
    finally:
        ours.close()
        os.waitpid(pid, 0)
        os.close(pidfd)
    if not received:
        code, _, text = message.decode("utf-8", "replace").partition(" ")
        raise OSError(int(code or errno.EIO), f"mount overlay of many layers: {text}")
    mounts.set_attributes(received[0], on=attributes)
    return received[0]


def _mount_and_send(sock: _socket.socket, base: str, options: str) -> None:
    """In the child: mount over `base`, which only this namespace sees, send a copy, and end."""
    try:
        os.chdir(base)
        mounts.set_propagation("/", n.MS_REC | n.MS_PRIVATE)
        mounts.mount_with_data("overlay", base, options)
        root = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        fds.send(sock, b"0", [mounts.clone_tree(root, recursive=False)])
    except OSError as error:
        fds.send(sock, f"{error.errno or 0} {error.strerror}".encode())
    finally:
        os._exit(0)
