"""Forwarding: switched on when the first network needs it, without making the host a router.

Who switches it on must keep the interfaces that the host had until then apart, as they were: their
names are remembered in a file beside the engine's state, and the rules drop what goes from one of
them to another. Where forwarding was on already, somebody else has decided that.

IPv6 has a trap: a host that forwards no longer listens to routers, and may lose its own way out.
Interfaces that listened so far are told to go on.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from sampan.errors import FailedPrecondition
from sampan.network import links
from sampan.network.spaces import get_sysctl, set_sysctl

if TYPE_CHECKING:
    from sampan.network.netlink import Netlink

VERSIONS = (4, 6)
_SWITCH = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


def is_on(version: int) -> bool:
    """Whether the host forwards, or has no such IP version at all."""
    return get_sysctl(_SWITCH[version]) != "0"


def remembered(marker: str) -> dict[int, tuple[str, ...]]:
    """The interfaces that are kept apart, by IP version, as an earlier engine left them."""
    found = {}
    for version in VERSIONS:
        try:
            with open(f"{marker}{version}", encoding="utf-8") as file:
                found[version] = tuple(file.read().split())
        except FileNotFoundError:
            continue
    return found


def remember(marker: str, version: int, netlink: Netlink) -> tuple[str, ...]:
    """Write down the interfaces that the host has now."""
    names = tuple(links.routable(netlink))
    path = f"{marker}{version}"
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write("\n".join(names))
    os.rename(path + ".new", path)
    return names


def switch_on(version: int) -> None:
    """Let the host forward.

    Raises:
        FailedPrecondition: /proc/sys may not be written.
    """
    try:
        if version == 6:
            for _, name in socket.if_nameindex():
                if get_sysctl(f"net/ipv6/conf/{name}/accept_ra") == "1":
                    set_sysctl(f"net/ipv6/conf/{name}/accept_ra", "2")
        set_sysctl(_SWITCH[version], "1")
    except OSError as error:
        raise FailedPrecondition(f"switch forwarding on: {error.strerror}") from error
