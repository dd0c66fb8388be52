"""Addresses: which subnets are free, and which address is whose. Pure.

Addresses are given in turn, so that one that was given back is not somebody else's at once; what is
still on its way to it must not reach a stranger.
"""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Interface, IPv6Interface

    from sampan.network.model import Pool

Subnet = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

POOLS4: tuple[tuple[str, int], ...] = (
    *((f"172.{second}.0.0/16", 16) for second in range(17, 32)),
    ("192.168.0.0/16", 20),
    ("10.128.0.0/9", 24),
)
"""(network, prefix length of the subnets taken from it): Docker's, and one for many networks."""


class Leases:
    """The addresses of one pool."""

    def __init__(self, pool: Pool) -> None:
        self.subnet = parse_subnet(pool.subnet)
        self.gateway: Address | None = ip_address(pool.gateway) if pool.gateway else None
        span = parse_subnet(pool.ip_range) if pool.ip_range else self.subnet
        self._first, self._last = int(span.network_address), int(span.broadcast_address)
        self._next = self._first
        never = {int(self.subnet.network_address)}
        if self.subnet.version == 4 and self.subnet.prefixlen < 31:
            never.add(int(self.subnet.broadcast_address))
        never.update(int(ip_address(text)) for text in pool.reserved.values())
        if self.gateway is not None:
            never.add(int(self.gateway))
        self._taken = never
        self._never = frozenset(never)

    def take(self, wanted: str = "") -> Address:
        """A free address, or `wanted`.

        Raises:
            InvalidArgument: `wanted` is not of this subnet, or taken.
            ResourceExhausted: there is no free one.
        """
        if wanted:
            return self._take_one(wanted)
        size = self._last - self._first + 1
        for step in range(min(size, len(self._taken) + 1)):
            number = self._first + (self._next - self._first + step) % size
            if number not in self._taken:
                self._taken.add(number)
                self._next = number + 1
                return self._of(number)
        raise ResourceExhausted(f"no available addresses left in {self.subnet}")

    def hold(self, address: str) -> None:
        """Mark an address as taken, as an earlier engine gave it."""
        self._taken.add(int(ip_address(address)))

    def release(self, address: str) -> None:
        """Give an address back."""
        number = int(ip_address(address))
        if number not in self._never:
            self._taken.discard(number)

    def with_prefix(self, address: str) -> IPv4Interface | IPv6Interface:
        """The address with the subnet's prefix length."""
        return ip_interface(f"{address}/{self.subnet.prefixlen}")

    def _take_one(self, wanted: str) -> Address:
        address = parse_address(wanted)
        if address not in self.subnet:
            raise InvalidArgument(
                f"no configured subnet or ip-range contain the IP address {wanted}"
            )
        if int(address) in self._taken:
            raise InvalidArgument(f"Address already in use: {wanted}")
        self._taken.add(int(address))
        return address

    def _of(self, number: int) -> Address:
        return IPv4Address(number) if self.subnet.version == 4 else IPv6Address(number)


def choose_subnet(taken: Iterable[Subnet]) -> IPv4Network:
    """A subnet for a new network that overlaps none of `taken`.

    Raises:
        ResourceExhausted: there is none left.
    """
    busy = [one for one in taken if one.version == 4]
    for text, length in POOLS4:
        for subnet in IPv4Network(text).subnets(new_prefix=length):
            if not any(subnet.overlaps(other) for other in busy):
                return subnet
    raise ResourceExhausted("all predefined address pools have been fully subnetted")


def local_subnet6(network_id: str) -> IPv6Network:
    """A unique local subnet of a network's own (RFC 4193), from its random id."""
    return IPv6Network(f"fd{network_id[:2]}:{network_id[2:6]}:{network_id[6:10]}::/64")


def first_host(subnet: Subnet) -> Address:
    """The first address that an interface may have."""
    return subnet.network_address + 1


def parse_subnet(text: str) -> Subnet:
    """`10.0.0.0/24`.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        if "/" not in text:
            raise ValueError("no prefix length")
        return ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidArgument(f"invalid subnet {text}: {error}") from error


def parse_address(text: str) -> Address:
    """`10.0.0.1`.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        return ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {text}") from None


def mac_of(address: IPv4Address) -> str:
    """A locally administered MAC that an address has always: no neighbour remembers a wrong one."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in address.packed)


def parse_mac(text: str) -> bytes:
    """`02:42:ac:11:00:02` as bytes.

    Raises:
        InvalidArgument: it is none, or a group's.
    """
    parts = text.replace("-", ":").split(":")
    try:
        found = bytes(int(part, 16) for part in parts if len(part) == 2)
    except ValueError:
        found = b""
    if len(found) != 6 or len(parts) != 6 or found[0] & 1:
        raise InvalidArgument(f"invalid MAC address: {text}")
    return found
