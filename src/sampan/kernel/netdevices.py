"""Network devices: their addresses, and moving one into another network namespace (rtnetlink(7)).

The few messages that a runtime needs; networks are made elsewhere.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import struct

from sampan.kernel.loopback import IFF_UP, SIOCSIFFLAGS

_NETLINK_ROUTE = 0
_RTM_NEWLINK, _RTM_NEWADDR, _RTM_GETADDR = 16, 20, 22
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLM_F_CREATE, _NLM_F_EXCL = 0x400, 0x200
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_IFLA_IFNAME, _IFLA_NET_NS_FD = 3, 28
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_IFA_F_PERMANENT = 0x80
_SCOPE_UNIVERSE = 0
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBi")
_ATTRIBUTE = struct.Struct("=HH")
_BUFFER = 1 << 16


class Route:
    """A netlink socket of the network namespace that it was made in. Close it."""

    __slots__ = ("_sock",)

    def __init__(self) -> None:
        kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
        self._sock = _socket.socket(_socket.AF_NETLINK, kind, _NETLINK_ROUTE)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def permanent_addresses(self, index: int) -> list[tuple[bytes, list[tuple[int, bytes]]]]:
        """The lasting addresses of global scope of a device: (header, attributes) of each."""
        found = []
        body = _ADDRESS.pack(0, 0, 0, 0, 0)
        for kind, content in self._ask(_RTM_GETADDR, _NLM_F_DUMP, body):
            if kind != _RTM_NEWADDR:
                continue
            *_, flags, scope, of = _ADDRESS.unpack_from(content)
            if of == index and flags & _IFA_F_PERMANENT and scope == _SCOPE_UNIVERSE:
                wanted = (_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST)
                rest = _attributes(content[_ADDRESS.size :])
                found.append((content[: _ADDRESS.size], [one for one in rest if one[0] in wanted]))
        return found

    def move(self, index: int, name: str, namespace: int) -> None:
        """Move a device to the network namespace behind a descriptor, where it is called `name`."""
        body = _LINK.pack(0, 0, index, 0, 0)
        body += _attribute(_IFLA_IFNAME, os.fsencode(name) + b"\0")
        body += _attribute(_IFLA_NET_NS_FD, struct.pack("=I", namespace))
        self._ask(_RTM_NEWLINK, _NLM_F_ACK, body)

    def add_address(self, index: int, header: bytes, attributes: list[tuple[int, bytes]]) -> None:
        """Give a device an address that another socket's `permanent_addresses` told of."""
        family, length, *_ = _ADDRESS.unpack(header)
        body = _ADDRESS.pack(family, length, 0, _SCOPE_UNIVERSE, index)
        body += b"".join(_attribute(kind, value) for kind, value in attributes)
        self._ask(_RTM_NEWADDR, _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL, body)

    def _ask(self, kind: int, flags: int, body: bytes) -> list[tuple[int, bytes]]:
        size = _HEADER.size + len(body)
        self._sock.send(_HEADER.pack(size, kind, _NLM_F_REQUEST | flags, 1, 0) + body)
        found: list[tuple[int, bytes]] = []
        while True:
            for answer, content in _messages(self._sock.recv(_BUFFER)):
                if answer == _NLMSG_DONE:
                    return found
                if answer == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", content)[0]
                    if code:
                        raise OSError(code, os.strerror(code).lower())
                    return found
                found.append((answer, content))


def _messages(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while len(data) >= _HEADER.size:
        size, kind, _, _, _ = _HEADER.unpack_from(data)
        if size < _HEADER.size:
            raise OSError(errno.EBADMSG, "netlink: a message without a length")
        found.append((kind, data[_HEADER.size : size]))
        data = data[(size + 3) & ~3 :]
    return found


def _attributes(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        if size < _ATTRIBUTE.size:
            break
        found.append((kind, data[_ATTRIBUTE.size : size]))
        data = data[(size + 3) & ~3 :]
    return found


def _attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def index_of(name: str) -> int:
    """The number of a device of this network namespace. Raises OSError (ENODEV)."""
    try:
        return _socket.if_nametoindex(name)
    except OSError as error:
        raise OSError(errno.ENODEV, f"there is no network device {name}") from error


def set_up(name: str, *, up: bool) -> None:
    """Set a device of this network namespace up or down; its other flags are the kernel's."""
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        request = struct.pack("16sh22x", os.fsencode(name), IFF_UP if up else 0)
        fcntl.ioctl(sock.fileno(), SIOCSIFFLAGS, request)
    finally:
        sock.close()
