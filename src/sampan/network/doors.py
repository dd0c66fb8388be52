"""Where a container asks for names: sockets at 127.0.0.11 in its own network namespace.

The sockets are ours, on ports that the kernel chose; two rules of the packet filter in that
namespace lead port 53 of 127.0.0.11 to them. So a name server that runs in the container may have
port 53 of every other address, and 0.0.0.0 too. A host's firewall has no say in this, for no packet
leaves the namespace.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from sampan.network import spaces
from sampan.network.expressions import (
    L4PROTO,
    NETWORK,
    REG_1,
    REG_2,
    TRANSPORT,
    be32,
    compare,
    expression,
    meta,
    payload,
    value,
)
from sampan.network.netlink import CREATE, NETFILTER, Message, Netlink, attribute, nested, text
from sampan.network.resolv import OWN_SERVER

if TYPE_CHECKING:
    from sampan.network.spaces import Space

Doors = tuple[socket.socket, socket.socket]
"""A datagram socket, and one that listens for streams."""

TABLE = "sampan-names"
BACKLOG = 64
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0xA00, 0xA02, 0xA03, 0xA06
_INET4 = struct.pack(">BBH", socket.AF_INET, 0, 0)
_LOCAL_OUT, _BEFORE = 3, -100
_APPEND = 0x800


def open_doors(space: Space) -> Doors:
    """Open the sockets and lead port 53 to them.

    Raises:
        OSError: the kernel refused.
    """
    with spaces.entered(space.fd):
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        streams = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            for sock in (datagrams, streams):
                sock.bind((OWN_SERVER, 0))
            streams.listen(BACKLOG)
            filters = Netlink(NETFILTER)
            try:
                filters.batch(_rules(datagrams.getsockname()[1], streams.getsockname()[1]))
            finally:
                filters.close()
        except BaseException:
            datagrams.close()
            streams.close()
            raise
    return datagrams, streams


def _rules(datagrams: int, streams: int) -> list[Message]:
    """The whole table, made anew."""
    table = _INET4 + text(1, TABLE)
    hook = nested(4, be32(1, _LOCAL_OUT), attribute(2, struct.pack(">i", _BEFORE)))
    chain = _INET4 + text(1, TABLE) + text(3, "output") + hook + text(7, "nat")
    return [
        Message(_NEWTABLE, table, CREATE, "make table of names"),
        Message(_DELTABLE, table, 0, "remove table of names"),
        Message(_NEWTABLE, table, CREATE, "make table of names"),
        Message(_NEWCHAIN, chain, CREATE, "make chain of names"),
        _rule(socket.IPPROTO_UDP, datagrams),
        _rule(socket.IPPROTO_TCP, streams),
    ]


def _rule(protocol: int, port: int) -> Message:
    """`ip daddr 127.0.0.11 PROTOCOL dport 53 dnat to 127.0.0.11:PORT`."""
    address = IPv4Address(OWN_SERVER).packed
    expressions = (
        payload(NETWORK, 16, 4),
        compare(address),
        meta(L4PROTO),
        compare(bytes([protocol])),
        payload(TRANSPORT, 2, 2),
        compare(struct.pack(">H", 53)),
        value(REG_1, address),
        value(REG_2, struct.pack(">H", port)),
        expression("nat", be32(1, 1), be32(2, socket.AF_INET), be32(3, REG_1), be32(5, REG_2)),
    )
    body = _INET4 + text(1, TABLE) + text(2, "output") + nested(4, *expressions)
    return Message(_NEWRULE, body, CREATE | _APPEND, "make rule of names")
