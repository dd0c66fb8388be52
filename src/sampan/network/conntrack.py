"""Forgets flows of datagrams that a change of published ports has made wrong.

The kernel decides once for a flow where it goes, and a client that goes on sending keeps the flow.
Without this, datagrams of a client who never pauses would go to the address that a container had
before it was started again, or past a port that has been published meanwhile.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from sampan.network.netlink import NESTED, NETFILTER, Message, Netlink, attribute, attributes

if TYPE_CHECKING:
    from collections.abc import Collection

_GET, _DELETE = 0x101, 0x102
_ORIGINAL, _REPLY, _ID = 1, 2, 12
_ADDRESSES, _PROTOCOL = 1, 2
_NUMBER, _TO_PORT = 1, 3


class Flow(NamedTuple):
    """One flow: who sends to which port of whom, and who answers whom."""

    source: bytes
    destination: bytes
    port: int
    answerer: bytes
    answered: bytes

    @property
    def is_plain(self) -> bool:
        """Whether nothing of it is rewritten."""
        return (self.source, self.destination) == (self.answered, self.answerer)


def forget(ports: Collection[tuple[int, str]]) -> None:
    """Forget the flows of datagrams to ports of the host, (port, address of the container), that
    are not rewritten, or are rewritten to that address.

    Raises:
        OSError: the kernel refused.
    """
    targets: dict[int, set[bytes]] = {}
    for port, target in ports:
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        targets.setdefault(port, set()).add(socket.inet_pton(family, target))
    netlink = Netlink(NETFILTER)
    try:
        for family in (socket.AF_INET, socket.AF_INET6):
            head = struct.pack(">BBH", family, 0, 0)
            doomed = [
                Message(_DELETE, head + key, 0, "forget a flow", (errno.ENOENT,))
                for flow, key in _flows(netlink, head)
                if flow.port in targets and (flow.is_plain or flow.answerer in targets[flow.port])
            ]
            netlink.run(doomed)
    finally:
        netlink.close()


def _flows(netlink: Netlink, head: bytes) -> list[tuple[Flow, bytes]]:
    """Every flow of datagrams, with the attributes that name it."""
    found = []
    for body in netlink.dump(_GET, head, "list flows"):
        values = dict(attributes(body, 4))
        if _ORIGINAL not in values or _REPLY not in values:
            continue
        original, reply = (dict(attributes(values[kind])) for kind in (_ORIGINAL, _REPLY))
        protocol = dict(attributes(original.get(_PROTOCOL, b"")))
        if protocol.get(_NUMBER) != bytes([socket.IPPROTO_UDP]):
            continue
        to, back = (list(dict(attributes(one[_ADDRESSES])).values()) for one in (original, reply))
        port = struct.unpack(">H", protocol[_TO_PORT])[0]
        key = attribute(_ORIGINAL | NESTED, values[_ORIGINAL]) + attribute(_ID, values[_ID])
        found.append((Flow(to[0], to[1], port, back[0], back[1]), key))
    return found
