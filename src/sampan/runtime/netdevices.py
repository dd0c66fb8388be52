"""`linux.netDevices`: devices of the host's network that move into the container's (runtime-spec
1.3, config-linux.md, "Network Devices").

The parent moves them as soon as the container's network namespace is there. A device keeps its
settings and its lasting addresses of global scope, and is up inside. The namespace's end gives a
physical device back to the host, as the kernel does it; a virtual one ends with it.
"""

from __future__ import annotations

import errno
import os

from sampan.kernel import namespaces
from sampan.kernel import numbers as n
from sampan.runtime.failure import InvalidConfig, RuntimeFailure, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_NAME = 15  # IFNAMSIZ without its NUL


def check(linux: dict[str, Any]) -> None:
    """The rules of the field. Raises InvalidConfig."""
    field = "linux.netDevices"
    devices = linux["netDevices"]
    if not isinstance(devices, dict):
        raise InvalidConfig(f"{field}: must be an object")
    kinds = {one.get("type") for one in linux.get("namespaces") or []}
    if "network" not in kinds:
        problem = "unable to move network devices without a NET namespace"
        raise InvalidConfig(f"{field}: {problem}")
    inside: set[str] = set()
    for name, device in devices.items():
        if not isinstance(device, dict):
            raise InvalidConfig(f"{field}.{name}: must be an object")
        new = device.get("name") or name
        for one in (name, new):
            if not _is_name(one):
                raise InvalidConfig(f"{field}: invalid network device name {one!r}")
        if new in inside:
            raise InvalidConfig(f"{field}.{name}: two devices would be called {new!r} inside")
        inside.add(new)


def _is_name(name: object) -> bool:
    """As the kernel has it (dev_valid_name)."""
    if not isinstance(name, str) or not 0 < len(os.fsencode(name)) <= _MAX_NAME:
        return False
    return name not in (".", "..") and not any(c in "/:\0" or c.isspace() for c in name)


def move(linux: dict[str, Any], pid: int, join: list[tuple[str, str]], join_fds: list[int]) -> None:
    """Move the devices of the configuration to the container's network namespace.

    That is the one of the process `pid`, unless `pid` will still join it: (kind, path) and
    descriptor of each. Raises RuntimeFailure with the device that did not move.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC
    kinds = (kind for kind, _ in join)
    joined = dict(zip(kinds, join_fds, strict=True)).get("network", -1)
    namespace = os.dup(joined) if joined >= 0 else os.open(f"/proc/{pid}/ns/net", flags)
    try:
        _move_all(linux, namespace)
    finally:
        os.close(namespace)


def _move_all(linux: dict[str, Any], namespace: int) -> None:
    for name, device in linux["netDevices"].items():
        new = device.get("name") or name
        try:
            _move(name, new, namespace)
        except OSError as error:
            where = f"move the network device {name} into the container as {new}"
            raise RuntimeFailure(error.errno or errno.EIO, reason(error), where) from error


def _move(name: str, new: str, namespace: int) -> None:
    from sampan.kernel import netdevices

    index = netdevices.index_of(name)
    netdevices.set_up(name, up=False)
    route = netdevices.Route()
    try:
        addresses = route.permanent_addresses(index)
        route.move(index, new, namespace)
    finally:
        route.close()
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.setns(namespace, n.CLONE_NEWNET)
        try:
            _restore(new, addresses)
        finally:
            namespaces.setns(own, n.CLONE_NEWNET)
    finally:
        os.close(own)


def _restore(name: str, addresses: list[tuple[bytes, list[tuple[int, bytes]]]]) -> None:
    from sampan.kernel import netdevices

    route = netdevices.Route()
    try:
        index = netdevices.index_of(name)
        for header, attributes in addresses:
            route.add_address(index, header, attributes)
    finally:
        route.close()
    netdevices.set_up(name, up=True)
