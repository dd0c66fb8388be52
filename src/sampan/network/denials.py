"""Hears what the packet filter denied: packets that its rules give to a log group (NFLOG)."""

from __future__ import annotations

import socket
import struct
import zlib
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from sampan.network.netlink import NETFILTER, REQUEST, attribute, attributes, split

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKET, _CONFIG = 0x400, 0x401
_CMD, _MODE = 1, 2
_BIND = 1
_COPY_PACKET = 2
_PAYLOAD = 9
_COPIED = 64
_PORTS = {6: "tcp", 17: "udp"}
_OTHERS = {1: "icmp", 58: "icmp"}


class Denied(NamedTuple):
    """A packet that did not pass; `port` 0 where there is none."""

    source: str
    destination: str
    protocol: str
    port: int


def group_of(table: str) -> int:
    """The log group of a table: two engines in one namespace have two."""
    return 1024 + zlib.crc32(table.encode()) % 60000


class Denials:
    """The log group `group`, for an event loop's reader."""

    def __init__(self, group: int) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._sock = socket.socket(socket.AF_NETLINK, kind, NETFILTER)
        self._sock.bind((0, 0))
        self._send(group, attribute(_CMD, bytes([_BIND])))
        self._send(group, attribute(_MODE, struct.pack(">IBx", _COPIED, _COPY_PACKET)))

    def fileno(self) -> int:
        """The descriptor."""
        return self._sock.fileno()

    def read(self) -> Iterator[Denied]:
        """What was denied since the last call; what was lost in between is lost."""
        while True:
            try:
                data = self._sock.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS
                continue
            for kind, _, body in split(data):
                if kind == _PACKET:
                    found = parse(dict(attributes(body, 4)).get(_PAYLOAD, b""))
                    if found is not None:
                        yield found

    def close(self) -> None:
        """Stop listening."""
        self._sock.close()

    def _send(self, group: int, body: bytes) -> None:
        content = struct.pack(">BBH", socket.AF_UNSPEC, 0, group) + body
        head = struct.pack("=IHHII", 16 + len(content), _CONFIG, REQUEST, 0, 0)
        self._sock.send(head + content)


def parse(packet: bytes) -> Denied | None:
    """Who sent a packet where; None when it is neither IPv4 nor IPv6."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        protocol, rest = packet[9], packet[(packet[0] & 0xF) * 4 :]
        source, destination = packet[12:16], packet[16:20]
    elif version == 6 and len(packet) >= 40:
        protocol, rest = packet[6], packet[40:]
        source, destination = packet[8:24], packet[24:40]
    else:
        return None
    word = _PORTS.get(protocol, "")
    port = struct.unpack_from(">H", rest, 2)[0] if word and len(rest) >= 4 else 0
    return Denied(
        str(ip_address(source)),
        str(ip_address(destination)),
        word or _OTHERS.get(protocol, f"protocol {protocol}"),
        port,
    )
