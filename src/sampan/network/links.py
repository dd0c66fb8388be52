"""Interfaces, addresses and routes, as netlink messages.

Pure: each function gives a message for `Netlink.run`. Addresses are `ipaddress` objects; an index
of 0 means that the name says which interface.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_interface
from typing import TYPE_CHECKING

from sampan.network.netlink import (
    CREATE,
    EXCL,
    Message,
    Netlink,
    attribute,
    attributes,
    nested,
    u32,
)
from sampan.network.netlink import text as string

if TYPE_CHECKING:
    from ipaddress import IPv6Address

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWQDISC, DELQDISC = 36, 37

ADDRESS, IFNAME, MTU, LINK, MASTER, LINKINFO, NET_NS_FD = 1, 3, 4, 5, 10, 18, 28
INFO_KIND, INFO_DATA, INFO_SLAVE_KIND, INFO_SLAVE_DATA = 1, 2, 4, 5
VETH_PEER, MACVLAN_MODE, BRPORT_MODE, BRPORT_ISOLATED = 1, 1, 4, 33
UP = 0x1
_OURS = re.compile(r"sv[0-9a-f]{10}", re.ASCII)

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}

_LINK = struct.Struct("=BxHiII")
_ADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NODAD = 0x02
_NO_ROUTE = errno.ESRCH, errno.ENETUNREACH, errno.ENOENT


def info(index: int = 0, *, up: bool | None = None, family: int = 0) -> bytes:
    """The header of a message about an interface; `up` None leaves its state alone."""
    return _LINK.pack(family, 0, index, UP if up else 0, 0 if up is None else UP)


def new_bridge(name: str, mac: bytes, mtu: int) -> Message:
    """A bridge that is up. It keeps its address whatever joins it."""
    body = info(up=True) + string(IFNAME, name) + attribute(ADDRESS, mac) + u32(MTU, mtu)
    body += nested(LINKINFO, string(INFO_KIND, "bridge"))
    return Message(NEWLINK, body, CREATE | EXCL, f"make bridge {name}")


def new_veth(
    name: str, netns: int, peer: str, mtu: int, *, bridge: int = 0, index: int = 0
) -> Message:
    """A pair: `name` here, up, on a bridge if one is given, and `peer` in the namespace behind
    `netns`, down, with the index that is asked for, if it is free."""
    other = info(index) + string(IFNAME, peer) + u32(NET_NS_FD, netns) + u32(MTU, mtu)
    body = info(up=True) + string(IFNAME, name) + u32(MTU, mtu)
    if bridge:
        body += u32(MASTER, bridge)
    body += nested(
        LINKINFO, string(INFO_KIND, "veth"), nested(INFO_DATA, attribute(VETH_PEER, other))
    )
    return Message(NEWLINK, body, CREATE | EXCL, f"make interface pair {name}")


def new_macvlan(name: str, parent: int, netns: int, mode: str) -> Message:
    """An interface with an address of its own on `parent`, in the namespace behind `netns`."""
    body = info() + string(IFNAME, name) + u32(LINK, parent) + u32(NET_NS_FD, netns)
    data = nested(INFO_DATA, u32(MACVLAN_MODE, MACVLAN_MODES[mode]))
    body += nested(LINKINFO, string(INFO_KIND, "macvlan"), data)
    return Message(NEWLINK, body, CREATE | EXCL, f"make macvlan {name}")


def join_bridge(name: str, bridge: int) -> Message:
    """Put an interface on a bridge."""
    body = info(up=True) + string(IFNAME, name) + u32(MASTER, bridge)
    return Message(NEWLINK, body, 0, f"put interface {name} on its bridge")


def configure_port(name: str, *, isolated: bool = False, hairpin: bool = False) -> Message:
    """An isolated interface of a bridge reaches no other isolated one; a hairpin one may reach
    itself."""
    data = attribute(BRPORT_ISOLATED, bytes([isolated])) + attribute(BRPORT_MODE, bytes([hairpin]))
    body = info() + string(IFNAME, name)
    body += nested(LINKINFO, string(INFO_SLAVE_KIND, "bridge"), nested(INFO_SLAVE_DATA, data))
    return Message(NEWLINK, body, 0, f"configure port {name} of its bridge")


def change(name: str, *, mac: bytes = b"", mtu: int = 0, up: bool | None = None) -> Message:
    """Change an interface by its name."""
    body = info(up=up) + string(IFNAME, name)
    if mac:
        body += attribute(ADDRESS, mac)
    if mtu:
        body += u32(MTU, mtu)
    return Message(NEWLINK, body, 0, f"configure interface {name}")


def delete(name: str) -> Message:
    """Remove an interface; one that is gone already is fine."""
    return Message(
        DELLINK, info() + string(IFNAME, name), 0, f"remove interface {name}", (errno.ENODEV,)
    )


def add_address(index: int, address: IPv4Interface | IPv6Interface) -> Message:
    """Give an interface an address; the same one again is fine."""
    ip = address.ip.packed
    family, flags = _family(address.ip), 0 if isinstance(address, IPv4Interface) else _NODAD
    body = _ADDR.pack(family, address.network.prefixlen, flags, 0, index)
    body += attribute(1, ip) + attribute(2, ip)
    if isinstance(address, IPv4Interface) and address.network.prefixlen < 31:
        body += attribute(4, address.network.broadcast_address.packed)
    return Message(NEWADDR, body, CREATE | EXCL, f"add address {address}", (errno.EEXIST,))


def default_route(index: int, gateway: IPv4Address | IPv6Address, *, metric: int = 0) -> Message:
    """The default route through `gateway`; there already is fine."""
    body = _ROUTE.pack(_family(gateway), 0, 0, 0, 254, 3, 0, 1, 0)
    body += u32(4, index) + attribute(5, gateway.packed)
    if metric:
        body += u32(6, metric)
    what = f"add default route by {gateway}"
    return Message(NEWROUTE, body, CREATE | EXCL, what, (errno.EEXIST,))


def drop_default_route(version: int) -> Message:
    """Remove the default route of an IP version; none is fine."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    body = _ROUTE.pack(family, 0, 0, 0, 254, 0, 255, 0, 0)
    return Message(DELROUTE, body, 0, "remove default route", _NO_ROUTE)


def addresses(netlink: Netlink, index: int = 0) -> list[IPv4Interface | IPv6Interface]:
    """The addresses of one interface, or of all."""
    found = []
    for body in netlink.dump(GETADDR, _ADDR.pack(0, 0, 0, 0, 0), "list addresses"):
        _, prefix, _, _, owner = _ADDR.unpack_from(body)
        values = dict(attributes(body, _ADDR.size))
        packed = values.get(2) or values.get(1)
        if packed and index in (0, owner):
            host = socket.inet_ntop(_family_of(packed), packed)
            found.append(ip_interface(f"{host}/{prefix}"))
    return found


def routes(netlink: Netlink) -> list[tuple[str, int]]:
    """(destination as address/prefix, index of the interface) of the main table."""
    found = []
    for body in netlink.dump(GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0), "list routes"):
        _, length, _, _, table, _, _, _, _ = _ROUTE.unpack_from(body)
        values = dict(attributes(body, _ROUTE.size))
        if table == 254 and 1 in values and length:
            host = socket.inet_ntop(_family_of(values[1]), values[1])
            owner = struct.unpack("=I", values[4])[0] if 4 in values else 0
            found.append((f"{host}/{length}", owner))
    return found


def peer_of(netlink: Netlink, name: str) -> int:
    """The index of the other end of an interface pair, in the namespace that it is in; 0: none."""
    for body in netlink.dump(GETLINK, info(), "list interfaces"):
        values = dict(attributes(body, _LINK.size))
        if values[IFNAME] == name.encode() + b"\0" and LINK in values:
            return int(struct.unpack("=I", values[LINK])[0])
    return 0


def mac_of(netlink: Netlink, name: str) -> str:
    """The address of an interface, "" when there is none."""
    for body in netlink.dump(GETLINK, info(), "list interfaces"):
        values = dict(attributes(body, _LINK.size))
        if values[IFNAME] == name.encode() + b"\0":
            return ":".join(f"{byte:02x}" for byte in values.get(ADDRESS, b""))
    return ""


def new_name() -> str:
    """The name of the host's end of a pair of ours."""
    return f"sv{os.urandom(5).hex()}"


def routable(netlink: Netlink) -> list[str]:
    """The interfaces that packets may be routed over: no loopback, no bridge, no bridge's port.

    Ours are ports as well, but one that is on its way out may have left its bridge already.
    """
    found = []
    for body in netlink.dump(GETLINK, info(), "list interfaces"):
        values = dict(attributes(body, _LINK.size))
        inner = dict(attributes(values.get(LINKINFO, b"")))
        name = values[IFNAME].rstrip(b"\0").decode("utf-8", "replace")
        if name == "lo" or _OURS.fullmatch(name):
            continue
        if MASTER not in values and inner.get(INFO_KIND) != b"bridge\0":
            found.append(name)
    return found


def index_of(name: str) -> int:
    """The index of an interface in this thread's namespace; 0 when there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def _family(address: object) -> int:
    return socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6


def _family_of(packed: bytes) -> int:
    return socket.AF_INET if len(packed) == 4 else socket.AF_INET6
