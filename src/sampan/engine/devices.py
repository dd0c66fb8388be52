"""Devices: what every container has, what a request adds, and what a privileged one sees.

Rules of the device cgroup are deny first. A device of the host is looked at when it is used, by its
type and numbers; a path that is no device is refused.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Any

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from sampan.engine.model import Device

_MAX_DEVICES = 4096
_RULE = re.compile(r"([acb]) ([0-9]{1,9}|\*):([0-9]{1,9}|\*) ([rwm]{1,3})", re.ASCII)
_SKIPPED = frozenset(("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"))


def _allow(kind: str, major: int, minor: int, access: str = "rwm") -> dict[str, Any]:
    rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
    if major >= 0:
        rule["major"] = major
    if minor >= 0:
        rule["minor"] = minor
    return rule


DEFAULT_RULES: list[dict[str, Any]] = [
    {"allow": False, "access": "rwm"},
    _allow("c", -1, -1, "m"),  # to make a node is not to use it
    _allow("b", -1, -1, "m"),
    _allow("c", 1, 3),  # null
    _allow("c", 1, 5),  # zero
    _allow("c", 1, 7),  # full
    _allow("c", 1, 8),  # random
    _allow("c", 1, 9),  # urandom
    _allow("c", 5, 0),  # tty
    _allow("c", 5, 2),  # ptmx
    _allow("c", 136, -1),  # pseudo terminals
]
EVERYTHING: list[dict[str, Any]] = [{"allow": True, "access": "rwm"}]


def rule(device: Device) -> dict[str, Any]:
    """The cgroup rule of a requested device. Raises InvalidArgument when it is none."""
    kind, major, minor = _numbers(device.host_path)
    return _allow(kind, major, minor, device.permissions)


def parse_rule(text: str) -> dict[str, Any]:
    """A `--device-cgroup-rule`: `c 1:3 rwm`, `b 8:* r`, `a *:* rwm`.

    Raises:
        InvalidArgument: it is none.
    """
    found = _RULE.fullmatch(text)
    if found is None:
        raise InvalidArgument(f"invalid device cgroup rule format: '{text}'")
    kind, major, minor, access = found.groups()
    numbers = [-1 if number == "*" else int(number) for number in (major, minor)]
    return _allow(kind, numbers[0], numbers[1], access)


def block_number(path: str) -> dict[str, int]:
    """The numbers of a block device of the host. Raises InvalidArgument when it is none."""
    kind, major, minor = _numbers(path)
    if kind != "b":
        raise InvalidArgument(f'"{path}" is not a block device')
    return {"major": major, "minor": minor}


def node(device: Device) -> dict[str, Any]:
    """The node of a requested device, with the host's mode and owner."""
    return _node(device.host_path, device.container_path)


def host_devices() -> tuple[dict[str, Any], ...]:
    """Every device below /dev, for a privileged container."""
    found: list[dict[str, Any]] = []
    for directory, folders, files in os.walk("/dev", followlinks=False):
        if directory == "/dev":
            folders[:] = [name for name in folders if name not in _SKIPPED]
        for name in files:
            if name in _SKIPPED and directory == "/dev":
                continue
            path = f"{directory}/{name}"
            if os.path.islink(path):
                continue
            try:
                found.append(_node(path, path))
            except InvalidArgument:
                continue  # a socket or a file
            if len(found) >= _MAX_DEVICES:
                return tuple(found)
    return tuple(found)


def _node(host_path: str, path: str) -> dict[str, Any]:
    kind, major, minor = _numbers(host_path)
    status = os.stat(host_path)
    return {
        "path": path,
        "type": kind,
        "major": major,
        "minor": minor,
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def _numbers(path: str) -> tuple[str, int, int]:
    try:
        status = os.stat(path)  # a link like /dev/disk/by-id/... names the device that it leads to
    except OSError as error:
        raise InvalidArgument(
            f'error gathering device information while adding custom device "{path}": '
            "no such file or directory"
        ) from error
    if not stat.S_ISCHR(status.st_mode) and not stat.S_ISBLK(status.st_mode):
        raise InvalidArgument(
            f'error gathering device information while adding custom device "{path}": '
            "not a device node"
        )
    kind = "c" if stat.S_ISCHR(status.st_mode) else "b"
    return kind, os.major(status.st_rdev), os.minor(status.st_rdev)
