"""Labels of mandatory access control: AppArmor profiles and SELinux contexts.

A label is written to a file of the process's own /proc entry, through the host's /proc, before
anything of the container could stand in the way; the file must be the kernel's, and what it says
afterwards must be what was written (SECURITY: a write that went elsewhere would leave the
container without its confinement). The label holds from the execve on.

A kernel without the module refuses the field, as no runtime can keep that promise. Imported only
where a configuration has a label.
"""

from __future__ import annotations

import ctypes
import errno
import os

from sampan.kernel.libc import c_int, c_void_p, check, prototype
from sampan.runtime.failure import InvalidConfig
from sampan.runtime.operations import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.runtime.stage import Stage

_PROC_SUPER_MAGIC = 0x9FA0
_APPARMOR = "/sys/module/apparmor/parameters/enabled"
_UNCONFINED = "unconfined"
_MAX_LABEL = 4096
# File systems whose files have labels of their own, whatever the mount says, as under runc.
_UNLABELLED = frozenset(("proc", "sysfs", "mqueue", "cgroup", "cgroup2"))
_fstatfs = prototype("fstatfs", c_int, c_int, c_void_p)


def has_apparmor() -> bool:
    """Whether AppArmor confines processes on this kernel."""
    try:
        with open(_APPARMOR, encoding="utf-8") as file:
            return file.read(1) == "Y"
    except OSError:
        return False


def has_selinux() -> bool:
    """Whether SELinux is there and has a policy."""
    with open("/proc/filesystems", encoding="utf-8") as file:
        if "selinuxfs" not in file.read().split():
            return False
    try:
        with open("/proc/thread-self/attr/current", encoding="utf-8") as file:
            return file.read(_MAX_LABEL).rstrip("\0\n") not in ("", "kernel")
    except OSError:
        return False


def check_process(process: dict[str, Any]) -> None:
    """The rules of the labels of a process. Raises InvalidConfig."""
    profile, label = process.get("apparmorProfile") or "", process.get("selinuxLabel") or ""
    _check_text(profile, "process.apparmorProfile")
    _check_text(label, "process.selinuxLabel")
    if profile not in ("", _UNCONFINED) and not has_apparmor():
        problem = f"AppArmor is not enabled on this kernel, so {profile!r} would not confine"
        raise InvalidConfig(f"process.apparmorProfile: {problem}")
    if label and not has_selinux():
        problem = f"SELinux is not enabled on this kernel, so {label!r} would not hold"
        raise InvalidConfig(f"process.selinuxLabel: {problem}")


def check_mounts(linux: dict[str, Any]) -> None:
    """The rules of `linux.mountLabel`. Raises InvalidConfig."""
    label = linux.get("mountLabel") or ""
    _check_text(label, "linux.mountLabel")
    if label and not has_selinux():
        raise InvalidConfig("linux.mountLabel: SELinux is not enabled on this kernel")


def _check_text(label: object, field: str) -> None:
    good = isinstance(label, str) and len(label) < _MAX_LABEL and label.isprintable()
    if not good:
        raise InvalidConfig(f"{field}: not a label")


def mount_options(kind: str, options: list[str], label: str) -> list[str]:
    """The options of a new file system whose files are to have `label`. Without the quotes that
    mount(8) wants: each option is given to the kernel by itself, and a level may have commas."""
    return options if kind in _UNLABELLED else [*options, f"context={label}"]


class Label(Operation):
    """Ask for a label that holds from the execve on."""

    __slots__ = ("label", "module")

    def __init__(self, module: str, label: str) -> None:
        self.module, self.label = module, label

    def execute(self, stage: Stage) -> None:
        text = f"exec {self.label}" if self.module == "AppArmor" else self.label
        fd = _open_attribute(stage, self.module)
        try:
            os.write(fd, text.encode())
            said = os.pread(fd, _MAX_LABEL, 0).decode("utf-8", "replace").rstrip("\0\n")
        finally:
            os.close(fd)
        if said.removesuffix(" (enforce)").removesuffix(" (complain)") != self.label:
            raise OSError(errno.EPERM, f"the kernel has {said!r} in place of the label")

    def describe(self) -> str:
        return f"set the {self.module} label {self.label}"


def _open_attribute(stage: Stage, module: str) -> int:
    """The file that takes the label for the next execve, checked to be the kernel's."""
    names = ["thread-self/attr/exec"]
    if module == "AppArmor":  # its own directory is there since 5.1, with other modules beside
        names.insert(0, "thread-self/attr/apparmor/exec")
    top = stage.proc if stage.proc >= 0 else os.open("/proc", os.O_PATH | os.O_CLOEXEC)
    try:
        fd = _open_first(top, names)
    finally:
        if top != stage.proc:
            os.close(top)
    if _type_of(fd) != _PROC_SUPER_MAGIC:
        os.close(fd)
        raise OSError(errno.EXDEV, "/proc is not the kernel's")
    return fd


def _open_first(top: int, names: list[str]) -> int:
    for name in names[:-1]:
        try:
            return os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=top)
        except FileNotFoundError:
            pass
    return os.open(names[-1], os.O_RDWR | os.O_CLOEXEC, dir_fd=top)


def _type_of(fd: int) -> int:
    found = ctypes.create_string_buffer(256)  # struct statfs begins with its type
    check(_fstatfs(fd, ctypes.addressof(found)), "fstatfs")
    return ctypes.c_long.from_buffer(found).value


def operations(process: dict[str, Any]) -> list[Operation]:
    """What is written while /proc is the host's."""
    found: list[Operation] = []
    profile = process.get("apparmorProfile") or ""
    if profile and (profile != _UNCONFINED or has_apparmor()):
        found.append(Label("AppArmor", profile))
    if process.get("selinuxLabel"):
        found.append(Label("SELinux", process["selinuxLabel"]))
    return found
