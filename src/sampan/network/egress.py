"""What a restricted container may reach: names and networks, everything else is denied.

A rule is a network (`10.0.0.0/8`, `2001:db8::1`) or a name (`example.org`; `*.example.org` is
every name below it). Networks are elements of the packet filter from the beginning; a name's
addresses become such when our name server gives them to the container, for as long as the answer
lasts and a while longer. Pure.

A connection that was allowed once stays allowed until the rules change, by the mark that it got
(`generation`); then it is judged anew. What a container sends must bear its own addresses, and go
to the bridge and not past it: that is checked where its interface leaves it, so raw sockets
do not help.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

ALL, NONE = "all", "none"
LEAST_SECONDS = 120
"""How long a name's address may be connected to at least, whatever its answer says."""

_NAME = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,62})\.)*[a-z0-9_][a-z0-9_-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Policy:
    """Checked rules."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    names: tuple[str, ...] = ()

    def permits(self, name: str) -> bool:
        """Whether a name may be asked for."""
        return any(
            name.endswith(rule[1:]) if rule.startswith("*.") else name == rule
            for rule in self.names
        )


def parse(rules: Sequence[str]) -> Policy:
    """The policy of rules.

    Raises:
        InvalidArgument: one is neither a network nor a name.
    """
    networks, names = [], []
    for rule in rules:
        word = rule.strip().lower().rstrip(".")
        try:
            networks.append(ip_network(word, strict=False))
        except ValueError:
            if not _NAME.fullmatch(word) or word.replace(".", "").isdigit() or "/" in word:
                raise InvalidArgument(
                    f"invalid egress rule {rule!r}: give a network or a name, as 10.0.0.0/8, "
                    "example.org or *.example.org"
                ) from None
            names.append(word)
    return Policy(tuple(networks), tuple(names))


@dataclass(slots=True)
class Restricted:
    """One container in the packet filter. `doors` are its interfaces on the host's side and the
    MAC of the bridge behind each."""

    policy: Policy
    generation: int
    addresses: tuple[str, ...]
    doors: tuple[tuple[str, str], ...]
    learned: dict[str, float] = field(default_factory=dict)

    def learn(self, address: str, seconds: int) -> float:
        """Remember an address of a permitted name; until when, on the monotonic clock."""
        until = time.monotonic() + max(seconds, LEAST_SECONDS)
        self.learned[address] = until = max(until, self.learned.get(address, 0.0))
        return until

    def allowed(self) -> list[tuple[str, str, float]]:
        """(own address, network or address, seconds or 0) of everything that is allowed now."""
        now = time.monotonic()
        self.learned = {one: until for one, until in self.learned.items() if until > now}
        found = [(str(one), one.version, 0.0) for one in self.policy.networks]
        found += [
            (one, ip_address(one).version, until - now) for one, until in self.learned.items()
        ]
        return [
            (own, where, seconds)
            for own in self.addresses
            for where, version, seconds in found
            if ip_address(own).version == version
        ]


def elements(restricted: Sequence[Restricted]) -> dict[str, list[str]]:
    """The elements of the table's sets and maps, in nft's words."""
    found: dict[str, list[str]] = {}
    for one in restricted:
        for own in one.addresses:
            version = ip_address(own).version
            found.setdefault(f"restricted{version}", []).append(own)
            found.setdefault(f"current{version}", []).append(f"{own} . {one.generation}")
            found.setdefault(f"generation{version}", []).append(f"{own} : {one.generation}")
        for own, where, seconds in one.allowed():
            word = f"allowed{ip_address(own).version}"
            found.setdefault(word, []).append(allowed_element(own, where, seconds))
    return found


def allowed_element(own: str, where: str, seconds: float) -> str:
    """One element of `allowed`."""
    limit = f" timeout {max(int(seconds), 1)}s" if seconds else ""
    return f"{own} . {where}{limit}"


def doors_table(name: str, restricted: Sequence[Restricted]) -> str:
    """The table that sees what leaves the containers' interfaces, made anew; nothing of it stays
    where nobody is restricted."""
    parts = [f"add table netdev {name}\ndelete table netdev {name}\n"]
    chains = [
        _CHAIN.format(link=link, sources=_sources(one.addresses, mac))
        for one in restricted
        for link, mac in one.doors
    ]
    if chains:
        parts += [f"table netdev {name} {{\n", *chains, "}\n"]
    return "".join(parts)


def _sources(addresses: Sequence[str], mac: str) -> str:
    lines = []
    for own in addresses:
        family, arp = ("ip", f"    arp saddr ip {own} accept\n") if ":" not in own else ("ip6", "")
        lines.append(arp + f"    ether daddr {mac} {family} saddr {own} accept\n")
    return "".join(lines)


_CHAIN = """\
  chain {link} {{
    type filter hook ingress device "{link}" priority -300; policy drop;
{sources}    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
  }}
"""
