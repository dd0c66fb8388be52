"""A pod's network for its machine: its addresses move from the interface on the node into it.

In the pod's network namespace a bridge connects the interface that CNI or the engine made with a
tap of the machine's. The interface loses its addresses; whoever asks for them finds the machine.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, IPv6Interface

from sampan.kernel import namespaces
from sampan.kernel import numbers as n
from sampan.network import links
from sampan.network.netlink import Message, Netlink

INTERFACE = "eth0"
_TAP, _BRIDGE = "vmtap", "vmbridge"
_TUNSETIFF, _SIOCGIFMTU = 0x400454CA, 0x8921
_IFF_TAP, _IFF_NO_PI = 0x2, 0x1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """`tap` is a descriptor; an address is "" where the pod has none of its kind."""

    tap: int
    mac: str
    mtu: int
    address: str = ""
    prefix: int = 0
    gateway: str = ""
    address6: str = ""
    prefix6: int = 0
    gateway6: str = ""


def prepare(namespace: str) -> Link | None:
    """Enter the pod's namespace and hand over its addresses; None where it has no interface.

    The calling process stays in the namespace. Raises OSError.
    """
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.setns(fd, n.CLONE_NEWNET)
    finally:
        os.close(fd)
    index = links.index_of(INTERFACE)
    if not index:
        return None
    netlink = Netlink()
    try:
        return _bridge(netlink, index)
    finally:
        netlink.close()


def _bridge(netlink: Netlink, index: int) -> Link:
    addresses = links.addresses(netlink, index)
    gateway, gateway6 = _gateway(), _gateway6()
    mac = links.mac_of(netlink, INTERFACE)
    tap, mtu = _open_tap(), _mtu()
    netlink.run([_drop_address(index, one) for one in addresses])
    netlink.run([links.new_bridge(_BRIDGE, _random_mac(), mtu)])
    bridge = links.index_of(_BRIDGE)
    # The machine takes the interface's hardware address along, which the node may know it by.
    netlink.run([links.change(INTERFACE, mac=_random_mac()), links.change(_TAP, mtu=mtu, up=True)])
    netlink.run([links.join_bridge(name, bridge) for name in (INTERFACE, _TAP)])
    link = Link(tap=tap, mac=mac, mtu=mtu)
    for one in addresses:
        if isinstance(one, IPv6Interface):
            if not one.is_link_local:
                link = replace(link, address6=str(one.ip), prefix6=one.network.prefixlen)
        elif not link.address:
            link = replace(link, address=str(one.ip), prefix=one.network.prefixlen)
    return replace(link, gateway=gateway, gateway6=gateway6)


def _random_mac() -> bytes:
    return b"\x02" + os.urandom(5)


def _mtu() -> int:
    """Of the interface, as the namespace that this thread is in has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        found = fcntl.ioctl(sock, _SIOCGIFMTU, struct.pack("16s24x", INTERFACE.encode()))
    return int(struct.unpack_from("i", found, 16)[0])


def _gateway() -> str:
    """Where the default route of IPv4 leads, "" without one."""
    with open("/proc/thread-self/net/route", encoding="ascii") as file:
        for line in file.read().splitlines()[1:]:
            words = line.split()
            if words[1] == "00000000" and int(words[3], 16) & 2:
                return ".".join(str(byte) for byte in struct.pack("<I", int(words[2], 16)))
    return ""


def _gateway6() -> str:
    """Where the default route of IPv6 leads, "" without one."""
    try:
        with open("/proc/thread-self/net/ipv6_route", encoding="ascii") as file:
            routes = [line.split() for line in file.read().splitlines()]
    except FileNotFoundError:
        return ""  # a kernel without IPv6
    for words in routes:
        if words[1] == "00" and words[9] == INTERFACE and int(words[8], 16) & 2:
            return str(IPv6Address(bytes.fromhex(words[4])))
    return ""


def _open_tap() -> int:
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", _TAP.encode(), _IFF_TAP | _IFF_NO_PI))
    return tap


def _drop_address(index: int, address: object) -> Message:
    """The opposite of `links.add_address`."""
    added = links.add_address(index, address)  # type: ignore[arg-type]
    return Message(links.DELADDR, added.body, 0, f"remove address {address}")
