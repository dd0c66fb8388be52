"""In the machine: its name, its loopback, and the addresses that the node has given to the pod.

By ioctls (netdevice(7)), for that needs no module of the standard library that is not there anyway.
"""

from __future__ import annotations

import _socket
import fcntl
import struct

from sampan.kernel import loopback, namespaces

INTERFACE = "eth0"
_SIOCADDRT = 0x890B
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFMTU = 0x8914, 0x8916, 0x891C, 0x8922
_UP = 0x1 | 0x40
_GATEWAY = 0x1 | 0x2  # RTF_UP | RTF_GATEWAY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def configure(facts: dict[str, Any]) -> None:
    """`facts`: hostname, and where there is a network mtu, and address, prefix and gateway of each
    family ("" where it has none).

    Raises OSError: the kernel refused.
    """
    namespaces.set_hostname(str(facts["hostname"]))
    loopback.bring_up()
    if not facts.get("mtu"):
        return
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        _ask(sock, _SIOCSIFMTU, struct.pack("i", int(facts["mtu"])))
        if facts.get("address"):
            mask = (0xFFFFFFFF << (32 - int(facts["prefix"]))) & 0xFFFFFFFF
            _ask(sock, _SIOCSIFADDR, _address(_socket.inet_aton(str(facts["address"]))))
            _ask(sock, _SIOCSIFNETMASK, _address(struct.pack(">I", mask)))
        _ask(sock, _SIOCSIFFLAGS, struct.pack("h", _UP))
        if facts.get("gateway"):
            _route(sock, _socket.inet_aton(str(facts["gateway"])))
    finally:
        sock.close()
    if facts.get("address6"):
        _configure6(facts)


def _configure6(facts: dict[str, Any]) -> None:
    # The node has seen to it that nobody else has the address.
    with open(f"/proc/sys/net/ipv6/conf/{INTERFACE}/accept_dad", "w", encoding="ascii") as file:
        file.write("0")
    index = _socket.if_nametoindex(INTERFACE)
    address = _socket.inet_pton(_socket.AF_INET6, str(facts["address6"]))
    sock = _socket.socket(_socket.AF_INET6, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        request = struct.pack("16sIi", address, int(facts["prefix6"]), index)
        fcntl.ioctl(sock.fileno(), _SIOCSIFADDR, request)
        if facts.get("gateway6"):
            gateway = _socket.inet_pton(_socket.AF_INET6, str(facts["gateway6"]))
            # The default route, a struct in6_rtmsg.
            route = (bytes(16), bytes(16), gateway, 0, 0, 0, 1, 0, _GATEWAY, index)
            fcntl.ioctl(sock.fileno(), _SIOCADDRT, struct.pack("16s16s16sIHHILIi", *route))
    finally:
        sock.close()


def _address(packed: bytes) -> bytes:
    """A struct sockaddr_in."""
    return struct.pack("=HH4s8x", _socket.AF_INET, 0, packed)


def _ask(sock: _socket.socket, request: int, value: bytes) -> None:
    fcntl.ioctl(sock.fileno(), request, struct.pack("16s24s", INTERFACE.encode(), value))


def _route(sock: _socket.socket, gateway: bytes) -> None:
    """The default route, a struct rtentry."""
    places = _address(bytes(4)) + _address(gateway) + _address(bytes(4))
    fcntl.ioctl(sock.fileno(), _SIOCADDRT, struct.pack("8x48sH62x", places, _GATEWAY))
