"""A sandbox's namespaces, kept alive by files instead of a process.

A thread of its own leaves the engine's namespaces for new ones, sets them up, binds them to files
below the sandbox's directory, and ends; nothing else of the process changes (unshare(2) is the
calling thread's). Containers join by path. Blocking; for the disk's threads.

    <state>/pods/<id>/net  ipc  uts   namespaces        shm   a tmpfs, /dev/shm of the pod
"""

from __future__ import annotations

import errno
import os
from threading import Thread
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument
from sampan.kernel import loopback, mounts, namespaces
from sampan.kernel import numbers as n

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SHM_SIZE = 64 << 20
_FLAGS = {"net": n.CLONE_NEWNET, "ipc": n.CLONE_NEWIPC, "uts": n.CLONE_NEWUTS}
_IPC_SYSCTLS = frozenset(
    "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax "
    "kernel.shmmni kernel.shm_rmid_forced".split()
)


def make(
    directory: str,
    kinds: Sequence[str],
    *,
    hostname: str,
    sysctls: Mapping[str, str],
    network: str = "",
) -> None:
    """Make new namespaces of `kinds` (net, ipc, uts) and pin each in the existing `directory`.

    `network` is the path of a network namespace that is there already, to be pinned as net.

    Raises:
        OSError: the kernel refuses; what was pinned before stays for `remove`.
    """

    def work() -> None:
        flags = sum(_FLAGS[kind] for kind in kinds)
        if network:
            flags &= ~n.CLONE_NEWNET
            _join(network)
        namespaces.unshare(flags)
        if "net" in kinds and not network:
            loopback.bring_up()
        if "uts" in kinds and hostname:
            namespaces.set_hostname(hostname)
        for name, value in sysctls.items():
            _write_sysctl(name, value)
        for kind in kinds:
            _pin(f"/proc/thread-self/ns/{kind}", f"{directory}/{kind}")

    if kinds:
        in_thread(work)


def _join(path: str) -> None:
    """Let this thread be in the network namespace behind `path`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.setns(fd, n.CLONE_NEWNET)
    finally:
        os.close(fd)


def in_thread(work: Callable[[], None]) -> None:
    """Run `work` in a thread that is used for nothing else; raises what it raises."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = Thread(target=run, name="sampan-sandbox")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def make_shm(directory: str) -> None:
    """Mount the pod's /dev/shm."""
    path = f"{directory}/shm"
    os.mkdir(path, 0o700)
    attributes = n.MOUNT_ATTR_NOSUID | n.MOUNT_ATTR_NODEV | n.MOUNT_ATTR_NOEXEC
    options = [("mode", "1777"), ("size", str(SHM_SIZE))]
    mount = mounts.new_mount("tmpfs", options, source="shm", attributes=attributes)
    try:
        _attach(mount, path)
    finally:
        os.close(mount)


def is_pinned(path: str) -> bool:
    """Whether a namespace is still bound to the file `path`."""
    try:
        return os.stat(path).st_dev != os.stat(os.path.dirname(path)).st_dev
    except FileNotFoundError:
        return False


def remove(directory: str) -> None:
    """Let go of everything that is pinned or mounted in `directory`, and remove it.

    Removing the name also detaches copies of the mount in other mount namespaces.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        path = f"{directory}/{name}"
        _unmount(path)
        if name == "shm":
            os.rmdir(path)
        else:
            os.unlink(path)
    os.rmdir(directory)


def check_sysctls(sysctls: Mapping[str, str], kinds: Sequence[str]) -> dict[str, str]:
    """The settings with dots, where each belongs to a namespace of `kinds`.

    Raises:
        InvalidArgument: one does not; it would be the node's.
    """
    checked = {}
    for name, value in sysctls.items():
        key = name.replace("/", ".")
        parts = key.split(".")
        if not all(parts) or not key.isascii() or not key.isprintable():
            raise InvalidArgument(f"sysctl {name!r}: not a setting")
        if "\n" in value or "\0" in value:
            raise InvalidArgument(f"sysctl {name}: not a plain value")
        is_ipc = key in _IPC_SYSCTLS or key.startswith("fs.mqueue.")
        is_net = key.startswith("net.")
        if not (is_ipc and "ipc" in kinds) and not (is_net and "net" in kinds):
            raise InvalidArgument(f"sysctl {name}: it is not in a namespace of the pod's own")
        checked[key] = value
    return checked


def _write_sysctl(key: str, value: str) -> None:
    path = "/proc/sys/" + key.replace(".", "/")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise OSError(errno.ENOENT, f"set sysctl {key}: this kernel has no such setting") from error
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"set sysctl {key} to {value!r}: {error.strerror}") from error
    finally:
        os.close(fd)


def _pin(namespace: str, path: str) -> None:
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        mount = mounts.clone_tree(fd, recursive=False)
        try:
            _attach(mount, path)
        finally:
            os.close(mount)
    finally:
        os.close(fd)


def _attach(mount: int, path: str) -> None:
    target = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        mounts.move_mount(mount, target)
    finally:
        os.close(target)


def _unmount(path: str) -> None:
    try:
        mounts.unmount(path)
    except OSError as error:
        if error.errno != errno.EINVAL:  # it is no mount
            raise
