"""The packet filter's rules, as text for `nft`. Pure.

One table of our own; no rule, chain or policy of anybody else is touched. The rules do not change
with containers: what changes are the elements of its sets (which interfaces are our bridges, which
of them are internal, which ports are published), so that a start costs one element and not a
program. What every packet of an established connection passes is as short as it can be: one rule
where it is forwarded; the rules about restricted containers and internal networks are there only
while there are such. Laws:

* To a container come only answers, what was published and so rewritten (`ct status dnat`), and
  what its own network sends. A neighbour that routes to its address through us is not let in,
  whether the port is published or not.
* Networks do not reach each other, except through a published port.
* Internal networks reach nothing but themselves and their bridge's own address, and nothing
  reaches them but the host. Published ports whose connections we carry ourselves, because the
  container has no IPv6 (`carried`), are closed to them there, too.
* Loopback addresses come from loopback alone: the bridges accept them after rewriting only
  (CVE-2020-8558), so that a port published on 127.0.0.1 stays the host's own.
* Restricted containers reach what their rules allow, see `egress`.
* Where we switched forwarding on, the interfaces that the host had then (`uplinks`) do not reach
  each other: it was no router before. What others make later is theirs.

Rewriting (dnat) happens for the host's own addresses alone, in two steps: a port published on one
address first, then those on every address. The client's address is kept, but for what comes from
127.0.0.0/8 or goes back into the network that it came from: there the answer would not pass by us.
(What is bridged back has no incoming interface; there only the way of a container to itself,
`selves`, must be hidden.) What comes from 127.0.0.0/8 gets a port that the host's own connections
do not use (`free_ports`), always the same one for the same: a server that has closed a connection
remembers the client's port for a minute, and takes whoever comes from it with another clock for a
ghost of the first, which costs that one a second.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from sampan.network.expressions import (
    L4PROTO,
    NETWORK,
    NFPROTO,
    OIFNAME,
    REG_1,
    REG_2,
    be32,
    compare,
    expression,
    lookup,
    mask,
    meta,
    payload,
    value,
)
from sampan.network.netlink import nested

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SETS = {
    "bridges": "type ifname",
    "outbound": "type ifname",
    "internal": "type ifname",
    "same": "type ifname . ifname",
    "selves4": "type ipv4_addr . ipv4_addr",
    "selves6": "type ipv6_addr . ipv6_addr",
    "restricted4": "type ipv4_addr",
    "restricted6": "type ipv6_addr",
    "current4": "type ipv4_addr . mark",
    "current6": "type ipv6_addr . mark",
    "allowed4": "type ipv4_addr . ipv4_addr; flags interval, timeout",
    "allowed6": "type ipv6_addr . ipv6_addr; flags interval, timeout",
    "uplinks4": "type ifname",
    "uplinks6": "type ifname",
    "carried": "type inet_proto . inet_service",
}
MAPS = {
    "generation4": "type ipv4_addr : mark",
    "generation6": "type ipv6_addr : mark",
    "ports4": "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
    "every4": "type inet_proto . inet_service : ipv4_addr . inet_service",
    "ports6": "type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service",
    "every6": "type inet_proto . inet_service : ipv6_addr . inet_service",
}

_ENOUGH = 8192
"""Ports that are worth a range of their own."""

_BY_OFFSET = 0x2 | 0x20  # NF_NAT_RANGE_PROTO_SPECIFIED, NF_NAT_RANGE_PROTO_OFFSET

_REWRITE = """\
    fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @ports4
    fib daddr type local dnat ip to meta l4proto . th dport map @every4
    fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6
    fib daddr type local dnat ip6 to meta l4proto . th dport map @every6
"""
# Every packet passes the chain of loopback addresses, so it asks first what few packets are: the
# first byte of an IPv4 destination. IPv6 needs no rule: the kernel itself takes ::1 from no other
# interface.
_CHAINS = """\
  chain loopback {{
    type filter hook prerouting priority raw; policy accept;
    @nh,128,8 127 meta nfproto ipv4 iif != "lo" drop
  }}
  chain published {{
    type nat hook prerouting priority dstnat; policy accept;
{rewrite}  }}
  chain published_here {{
    type nat hook output priority -100; policy accept;
    ip6 daddr ::1 return
{rewrite}  }}
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 127.0.0.0/8 oifname @bridges masquerade
    iifname . oifname @same ct status dnat masquerade
    ip saddr . ip daddr @selves4 ct status dnat masquerade
    ip6 saddr . ip6 daddr @selves6 ct status dnat masquerade
    iifname @outbound oifname != @bridges masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
{restricted}    ct state established,related accept
    iifname @bridges jump from_bridge
    oifname @bridges jump to_bridge
    meta nfproto ipv4 iifname @uplinks4 oifname @uplinks4 drop
    meta nfproto ipv6 iifname @uplinks6 oifname @uplinks6 drop
  }}
  chain from_bridge {{
    iifname . oifname @same return
    iifname @internal drop
    oifname @internal drop
    ct status dnat accept
    oifname @bridges drop
    accept
  }}
  chain to_bridge {{
    iifname . oifname @same accept
    oifname @internal drop
    ct status dnat accept
    drop
  }}
{guards}"""
_EGRESS = """\
  chain egress {{
    ct direction reply return
    ip saddr . ct mark @current4 return
    ip6 saddr . ct mark @current6 return
    ip saddr . ip daddr @allowed4 ct mark set ip saddr map @generation4 return
    ip6 saddr . ip6 daddr @allowed6 ct mark set ip6 saddr map @generation6 return
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} return
    limit rate 20/second log group {group}
    drop
  }}
"""
_RESTRICTED = """\
    ip saddr @restricted4 jump egress
    ip6 saddr @restricted6 jump egress
"""
_INTERNAL = """\
    iifname @internal meta nfproto ipv6 meta l4proto . th dport @carried drop
    iifname @internal fib daddr . iif type != { local, broadcast, multicast } drop
"""
_HOST = """\
  chain host {{
    type filter hook input priority filter; policy accept;
{rules}  }}
"""


def free_ports(local: str) -> tuple[int, int] | None:
    """The ports for what comes from 127.0.0.0/8: the larger side of those that the host takes for
    connections of its own (`ip_local_port_range`); None where both sides are too small.
    """
    words = local.split()
    if len(words) != 2:
        return None
    first, last = int(words[0]), int(words[1])
    found = max((1024, first - 1), (last + 1, 65535), key=lambda one: one[1] - one[0])
    return found if found[1] - found[0] >= _ENOUGH else None


def hide_loopback(ports: tuple[int, int]) -> bytes:
    """The expressions of a rule that nft has no word for, of `leaving`:

    `ip saddr 127.0.0.0/8 oifname @bridges meta l4proto tcp masquerade to :PORTS`, where a client's
    port always becomes the same other one, unless that is taken.
    """
    first, last = (struct.pack(">H", port) for port in ports)
    return nested(
        4,
        meta(NFPROTO),
        compare(bytes([socket.AF_INET])),
        payload(NETWORK, 12, 4),
        mask(b"\xff\0\0\0"),
        compare(b"\x7f\0\0\0"),
        meta(OIFNAME),
        lookup("bridges"),
        meta(L4PROTO),
        compare(bytes([socket.IPPROTO_TCP])),
        value(REG_1, first),
        value(REG_2, last),
        expression("masq", be32(1, _BY_OFFSET), be32(2, REG_1), be32(3, REG_2)),
    )


def table(name: str, elements: Mapping[str, Iterable[str]], *, group: int) -> str:
    """The whole table, replaced as one transaction.

    `elements` maps sets and maps to their elements in nft's words; what a restricted container
    is denied is told to the log group `group`.
    """
    known = {word: list(dict.fromkeys(found)) for word, found in elements.items()}
    parts = [f"add table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n"]
    for kind, declared in (("set", SETS), ("map", MAPS)):
        for word, types in declared.items():
            found = ", ".join(known.get(word, ()))
            content = f" elements = {{ {found} }};" if found else ""
            parts.append(f"  {kind} {word} {{ {types};{content} }}\n")
    restricted = _RESTRICTED if known.get("restricted4") or known.get("restricted6") else ""
    internal = _INTERNAL if known.get("internal") else ""
    guards = _HOST.format(rules=restricted + internal) if restricted or internal else ""
    egress = _EGRESS.format(group=group) if restricted else ""
    parts.append(egress)
    parts.append(_CHAINS.format(rewrite=_REWRITE, restricted=restricted, guards=guards))
    parts.append("}\n")
    return "".join(parts)
