"""What a machine sees of the node: mounts below one directory, in QEMU's own mount namespace.

A container's root and its volumes are cloned where its shim has them, and moved to where QEMU looks
(move_mount(2) carries them from one mount namespace to the other). So a machine sees the files of
its own pod and no others, and they go with it whatever happens.
"""

from __future__ import annotations

import os
import stat

from sampan.kernel import mounts, namespaces, process
from sampan.kernel import numbers as n

SHARE = "share"
_ROOT_WORDS = ("rbind", "bind", "rprivate", "rslave", "rshared", "private", "slave", "shared")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def share(machine: str, qemu: int, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Show the root in the current directory, and all bind mounts of `spec`, to the machine of the
    directory `machine`; the specification that is good inside of it.

    Raises OSError: a source is missing, or the kernel refuses.
    """
    found = [(_clone("rootfs", read_only=True), "rootfs")]
    listed = []
    try:
        for number, mount in enumerate(spec.get("mounts") or []):
            if not _is_bind(mount):
                listed.append(mount)
            elif mount["destination"].rstrip("/") == "/dev/shm":
                options = ["nosuid", "noexec", "nodev", "mode=1777"]
                listed.append({**mount, "type": "tmpfs", "source": "shm", "options": options})
            else:
                read_only = bool({"ro", "rro"}.intersection(mount.get("options") or ()))
                place = f"mount{number}"
                found.append((_clone(mount["source"], read_only=read_only), place))
                listed.append({**mount, "type": "bind", "source": place})  # below the share
        _inside(qemu, lambda: _attach(f"{machine}/{SHARE}/{name}", found))
    finally:
        for fd, _ in found:
            os.close(fd)
    return _translated(spec, name, listed)


def withdraw(machine: str, qemu: int, name: str) -> None:
    """Take everything of a container away again; fine when the machine is gone."""
    place = f"{machine}/{SHARE}/{name}"
    try:
        _inside(qemu, lambda: _detach(place))
    except FileNotFoundError:
        pass  # with QEMU its mounts went
    try:
        parts = os.listdir(place)
    except FileNotFoundError:
        return
    for part in parts:
        path = f"{place}/{part}"
        if os.path.isdir(path):
            os.rmdir(path)
        else:
            os.unlink(path)
    os.rmdir(place)


def _translated(spec: dict[str, Any], name: str, listed: list[dict[str, Any]]) -> dict[str, Any]:
    linux = {**spec.get("linux", {}), "cgroupsPath": f"/{name}"}
    for word in ("devices", "sysctl", "rootfsPropagation", "mountLabel"):
        linux.pop(word, None)  # the machine is the wall here, and what it has is its own
    linux["namespaces"] = [{"type": kind} for kind in ("mount", "pid", "cgroup")]
    limits = dict(linux.get("resources") or {})
    for word in ("devices", "hugepageLimits", "unified"):
        limits.pop(word, None)
    linux["resources"] = limits
    process_ = {key: value for key, value in spec["process"].items() if key != "apparmorProfile"}
    process_.pop("selinuxLabel", None)
    found = {**spec, "linux": linux, "mounts": listed, "process": process_}
    found["root"] = {**spec.get("root", {}), "path": "rootfs"}
    for word in ("hooks", "hostname", "domainname"):
        found.pop(word, None)
    return found


def _is_bind(mount: dict[str, Any]) -> bool:
    return mount.get("type") == "bind" or bool({"bind", "rbind"} & set(mount.get("options") or ()))


def _clone(path: str, *, read_only: bool) -> int:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        mount = mounts.clone_tree(fd, recursive=True)
    finally:
        os.close(fd)
    if read_only:
        mounts.set_attributes(mount, on=n.MOUNT_ATTR_RDONLY, recursive=True)
    return mount


def _attach(place: str, found: list[tuple[int, str]]) -> None:
    os.mkdir(place, 0o700)
    for mount, part in found:
        path = f"{place}/{part}"
        if stat.S_ISDIR(os.fstat(mount).st_mode):
            os.mkdir(path, 0o700)
        else:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        target = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
        mounts.move_mount(mount, target)
        os.close(target)


def _detach(place: str) -> None:
    for part in os.listdir(place):
        mounts.unmount(f"{place}/{part}")


def _inside(qemu: int, work: Callable[[], None]) -> None:
    """Do `work` in a child that is in QEMU's mount namespace. Raises OSError."""
    entered = os.open(f"/proc/{qemu}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    ours, theirs = os.pipe()
    try:
        pid, pidfd = process.clone3(0)
        if pid == 0:
            try:
                namespaces.setns(entered, n.CLONE_NEWNS)
                work()
            except OSError as error:
                os.write(theirs, f"{error.errno or 5} {error.strerror or error}".encode()[:4000])
            finally:
                os._exit(0)
        os.close(theirs)
        theirs = -1
        said = os.read(ours, 4096).decode("utf-8", "replace")
        process.forget(pidfd)
    finally:
        os.close(entered)
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    if said:
        code, _, text = said.partition(" ")
        raise OSError(int(code), f"share with the machine: {text}")
