"""The kernel's side of networks: bridges, interfaces, namespaces, the packet filter.

Everything here blocks, and belongs to one thread. What is made is found again by its name, so each
step may be repeated after a kill: a bridge that is there is taken as it is.

A start should not wait for interfaces to be made. So spares are kept: a namespace with `eth0` in
it, its other end on the bridge that was asked for last. A start then only sets the addresses.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING

from sampan.errors import FailedPrecondition
from sampan.network import conntrack, forwarding, ipam, links, shaping, spaces
from sampan.network.egress import Restricted
from sampan.network.firewall import Firewall, Port
from sampan.network.model import EVERY4, EVERY6, Driver
from sampan.network.netlink import Message, Netlink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

    from sampan.network.egress import Policy
    from sampan.network.model import Endpoint, Network, Published
    from sampan.network.spaces import Space

SPARES = 5
"""Namespaces that wait: a handful, as one project's containers are."""

_MARKS = 0x5A000000
"""The high byte of the marks of allowed connections; others have their own."""

_FILTERED = "net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"


@dataclass(frozen=True, slots=True)
class Spare:
    """A namespace with an interface that waits for its addresses."""

    space: Space
    link: str
    bridge: str


_SPARE_INDEX = 2
"""The index of a spare's interface: the first one behind loopback."""


class Plumber:
    """Makes and removes what networks are made of."""

    def __init__(self, marker: str) -> None:
        self.firewall = Firewall()
        self._marker = marker
        self._host: Netlink | None = None
        self._spares: list[Spare] = []
        self._bridges: dict[str, int] = {}
        self._generation = int.from_bytes(os.urandom(3), "big")

    # the host

    def prepare(self) -> None:
        """Make the rules, once, before the first bridge.

        Raises:
            FailedPrecondition: this host cannot do it; the message says why.
        """
        if self.firewall.is_made:
            return
        self.firewall.uplinks = forwarding.remembered(self._marker)
        self.firewall.apply()
        self._forward(4)

    def _forward(self, version: int) -> None:
        """Let the host forward; the rules that keep it from becoming a router come first."""
        if forwarding.is_on(version):
            return
        if version not in self.firewall.uplinks:
            self.firewall.uplinks[version] = forwarding.remember(self._marker, version, self.host)
            self.firewall.apply()
        forwarding.switch_on(version)

    def reassert(self) -> None:
        """Make the rules again if somebody has removed some."""
        if self.firewall.is_made and not self.firewall.is_whole():
            self.firewall.apply()

    def subnets(self) -> list[IPv4Network | IPv6Network]:
        """The subnets that this host uses."""
        found = [address.network for address in links.addresses(self.host)]
        return found + [ipam.parse_subnet(text) for text, _ in links.routes(self.host)]

    @property
    def host(self) -> Netlink:
        """A socket in the host's namespace."""
        if self._host is None:
            self._host = Netlink()
        return self._host

    # bridges

    def make_bridge(self, network: Network) -> None:
        """Make the network's bridge unless it is there, and let the rules know it.

        Raises:
            FailedPrecondition: this host cannot do it.
        """
        name = network.interface
        if name in self._bridges:
            return
        self.prepare()
        index = links.index_of(name)
        if not index:
            self.host.run([links.new_bridge(name, _mac_of_bridge(network), network.mtu)])
            index = links.index_of(name)
        self._set_sysctls(network, own=self._is_own(network))
        messages = [links.change(name, up=True)]
        for pool in network.pools:
            if pool.gateway:
                length = ipam.parse_subnet(pool.subnet).prefixlen
                messages.append(links.add_address(index, ip_interface(f"{pool.gateway}/{length}")))
        self.host.run(messages)
        self.firewall.add_bridge(name, masquerade=network.masquerades, internal=network.internal)
        self._bridges[name] = index

    def remove_bridge(self, network: Network) -> None:
        """Remove a network's bridge and its rules; what is gone is fine, and what was there before
        us stays."""
        name = network.interface
        for spare in [one for one in self._spares if one.bridge == name]:
            self._spares.remove(spare)
            spare.space.close()
        self._bridges.pop(name, None)
        self.firewall.drop_bridge(name)
        if self._is_own(network):
            self.host.run([links.delete(name)])

    def _is_own(self, network: Network) -> bool:
        """Whether a bridge was made by us and for this network: its address says so."""
        mac = ":".join(f"{byte:02x}" for byte in _mac_of_bridge(network))
        return links.mac_of(self.host, network.interface) == mac

    def _set_sysctls(self, network: Network, *, own: bool) -> None:
        """No router's word; IPv6 only where the network has it; loopback for publishing."""
        v6, v4 = (f"net/{kind}/conf/{network.interface}" for kind in ("ipv6", "ipv4"))
        if own:
            spaces.set_sysctl(f"{v6}/accept_ra", "0")
            spaces.set_sysctl(f"{v6}/disable_ipv6", "0" if network.ipv6 else "1")
        spaces.set_sysctl(f"{v4}/route_localnet", "0" if network.internal else "1")
        if network.ipv6:
            self._forward(6)

    def restore(
        self,
        networks: Sequence[Network],
        busy: set[str],
        ports: Sequence[tuple[Endpoint, Sequence[Published]]],
    ) -> bool:
        """After a restart: know what is there, and make the rules once; whether there is anything.

        `busy` are the ids of networks with endpoints: their bridges are made if they are gone.
        """
        there = [one for one in networks if one.id in busy or links.index_of(one.interface)]
        if not there:
            return False
        for endpoint, published in ports:
            self.publish(endpoint, published)  # known, and not yet made
        for network in there:
            self.firewall.add_bridge(
                network.interface, masquerade=network.masquerades, internal=network.internal
            )
        self.prepare()
        for network in there:
            self.make_bridge(network)
        return True

    # spares

    def take(self, bridge: str) -> Spare:
        """A namespace with an interface, on that bridge if one was kept there."""
        best = next((one for one in self._spares if one.bridge == bridge), None)
        if best is None and self._spares:
            best = self._spares[0]
        if best is None:
            return self._make_spare("")
        self._spares.remove(best)
        return best

    def has_spare(self, bridge: str) -> bool:
        """Whether one is left for a bridge."""
        return any(one.bridge == bridge for one in self._spares)

    def refill(self, bridge: str) -> bool:
        """Make one spare on `bridge` unless there are enough; whether there was one to make."""
        if bridge not in self._bridges:
            return False
        if sum(one.bridge == bridge for one in self._spares) >= SPARES:
            return False
        while len(self._spares) >= 2 * SPARES:
            self._spares.pop(0).space.close()
        self._spares.append(self._make_spare(bridge))
        return True

    def _make_spare(self, bridge: str) -> Spare:
        space = spaces.make()
        try:
            link = links.new_name()
            index = self._bridges[bridge] if bridge else 0
            pair = links.new_veth(link, space.fd, "eth0", 1500, bridge=index, index=_SPARE_INDEX)
            self.host.run([pair, *self._port(link)] if bridge else [pair])
            spaces.set_sysctl(f"net/ipv6/conf/{link}/disable_ipv6", "1")
            # Up before it is needed: a bridge may hear of it a moment later.
            space.netlink.run([links.change("eth0", up=True)])
        except BaseException:
            space.close()
            raise
        return Spare(space, link, bridge)

    def _join_bridge(self, link: str, bridge: str, *, isolated: bool = False) -> None:
        joined = links.join_bridge(link, self._bridges[bridge])
        self.host.run([joined, *self._port(link, isolated=isolated)])

    @staticmethod
    def _port(link: str, *, isolated: bool = False) -> list[Message]:
        """Where the packet filter sees what stays on a bridge, a rewritten packet may go back
        through the port that it came from."""
        hairpin = "1" in (spaces.get_sysctl(name) for name in _FILTERED)
        if not (isolated or hairpin):
            return []
        return [links.configure_port(link, isolated=isolated, hairpin=hairpin)]

    def _make_pair(self, space: Space, interface: str) -> str:
        """A pair of interfaces, one end in the namespace; the name of ours."""
        link = links.new_name()
        self.host.run([links.new_veth(link, space.fd, interface, 1500)])
        spaces.set_sysctl(f"net/ipv6/conf/{link}/disable_ipv6", "1")
        space.netlink.run([links.change(interface, up=True)])
        return link

    # endpoints

    def attach(
        self, space: Space, network: Network, endpoint: Endpoint, *, routed: bool, link: str = "",
        bridge: str = "",
    ) -> str:  # fmt: skip
        """Give the namespace its interface in a network; the name of our end.

        `link` is a pair's end that is there already, on `bridge`. `routed` makes the network the
        way to everywhere else.
        """
        if network.driver is Driver.CNI:
            return ""  # its plugins do everything
        index = 0
        if network.driver is Driver.MACVLAN:
            self._make_macvlan(space, network, endpoint)
        else:
            index = _SPARE_INDEX if link else 0
            link = link or self._make_pair(space, endpoint.interface)
            if bridge != network.interface or not network.talks:
                self._join_bridge(link, network.interface, isolated=not network.talks)
        self._configure(space, network, endpoint, routed=routed, index=index)
        if endpoint.rate_in:
            index = links.index_of(link)
            self.host.run([shaping.limit(index, endpoint.rate_in, endpoint.burst_in)])
        return link

    def _configure(
        self, space: Space, network: Network, endpoint: Endpoint, *, routed: bool, index: int
    ) -> None:
        name = endpoint.interface
        if not index or endpoint.ipv6:
            with spaces.entered(space.fd):
                index = links.index_of(name)
                if endpoint.ipv6:
                    spaces.set_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "0")
        mac = ipam.parse_mac(endpoint.mac) if endpoint.mac else b""
        mtu = network.mtu if network.mtu != 1500 and network.driver is Driver.BRIDGE else 0
        messages = [links.change(name, mac=mac, mtu=mtu, up=True)]
        messages += [links.add_address(index, address) for address in addresses(endpoint)]
        if routed:
            messages += _default_routes(endpoint, index)
        if endpoint.rate_out:
            messages.append(shaping.limit(index, endpoint.rate_out, endpoint.burst_out))
        space.netlink.run(messages)

    def _make_macvlan(self, space: Space, network: Network, endpoint: Endpoint) -> None:
        parent = network.options.get("parent", "")
        index = links.index_of(parent)
        if not index:
            raise FailedPrecondition(f"join network {network.name}: no interface {parent!r} here")
        mode = network.options.get("macvlan_mode") or "bridge"
        self.host.run([links.new_macvlan(endpoint.interface, index, space.fd, mode)])

    def route(self, space: Space, endpoint: Endpoint | None) -> None:
        """Make an endpoint's gateway the way to everywhere else; None: no way."""
        space.netlink.run([links.drop_default_route(4), links.drop_default_route(6)])
        if endpoint is None:
            return
        with spaces.entered(space.fd):
            index = links.index_of(endpoint.interface)
        space.netlink.run(_default_routes(endpoint, index))

    def detach(self, space: Space, endpoint: Endpoint) -> None:
        """Take an interface out of a namespace; both ends are gone then."""
        space.netlink.run([links.delete(endpoint.interface)])

    def restrict(
        self,
        owner: str,
        space: Space,
        endpoints: Sequence[tuple[Endpoint, Network]],
        policy: Policy | None,
    ) -> None:
        """Let a container reach what `policy` permits; None: everything again."""
        if policy is None:
            self.firewall.restrict(owner, None)
            return
        doors = []
        for endpoint, network in endpoints:
            name = socket.if_indextoname(links.peer_of(space.netlink, endpoint.interface))
            doors.append((name, links.mac_of(self.host, network.interface)))
        own = tuple(one for e, _ in endpoints for one in (e.ipv4, e.ipv6) if one)
        self._generation += 1
        mark = _MARKS | (self._generation & 0xFFFFFF)
        self.firewall.restrict(owner, Restricted(policy, mark, own, tuple(doors)))

    def publish(self, endpoint: Endpoint, published: Sequence[Published]) -> None:
        """Let published ports lead to the endpoint."""
        ports = firewall_ports(endpoint, published)
        self.firewall.add_ports(ports)
        _forget_flows(ports)

    def withdraw(self, endpoint: Endpoint, published: Sequence[Published]) -> None:
        """Undo `publish`."""
        ports = firewall_ports(endpoint, published)
        self.firewall.drop_ports(ports)
        _forget_flows(ports)

    def move(self, old: Endpoint, new: Endpoint | None, published: Sequence[Published]) -> None:
        """Let published ports lead to another endpoint, or to none."""
        ports = firewall_ports(new, published) if new is not None else ()
        before = firewall_ports(old, published)
        self.firewall.move_ports(before, ports)
        _forget_flows(before)

    def close(self, idle: Sequence[Network]) -> None:
        """Let go of the spares and sockets. Bridges of `idle` networks go, and with the last one
        the rules; what containers use stays."""
        for network in idle:
            if network.interface in self._bridges:
                self.remove_bridge(network)
        if self.firewall.is_made and not self._bridges:
            self.firewall.drop()
        for spare in self._spares:
            spare.space.close()
        self._spares.clear()
        self.firewall.forget()
        if self._host is not None:
            self._host.close()
            self._host = None


def _forget_flows(ports: Sequence[Port]) -> None:
    """Streams end by themselves; datagrams go on. A kernel that cannot list flows forgets them when
    their clients pause."""
    rewritten = (port for port in ports if port.target and port.protocol == "udp")
    datagrams = [(port.host_port, port.target) for port in rewritten]
    if datagrams:
        with suppress(OSError):
            conntrack.forget(datagrams)


def _mac_of_bridge(network: Network) -> bytes:
    return b"\x02\x42" + bytes.fromhex(network.id[:8])


def firewall_ports(endpoint: Endpoint, published: Sequence[Published]) -> tuple[Port, ...]:
    """What the packet filter must rewrite: a port goes to the address of its own version. Where the
    container has none, what comes is carried by us, and the filter only says who may come."""
    found = []
    for one in published:
        target = endpoint.ipv6 if ":" in one.host else endpoint.ipv4
        host = "" if one.host in (EVERY4, EVERY6) else one.host
        if target or (one.protocol != "sctp" and endpoint.ipv4):
            found.append(Port(one.protocol, host, one.host_port, target, one.port))
    return tuple(found)


def addresses(endpoint: Endpoint) -> list[IPv4Interface | IPv6Interface]:
    """The endpoint's addresses with their prefix lengths."""
    pairs = [(endpoint.ipv4, endpoint.prefix4), (endpoint.ipv6, endpoint.prefix6)]
    pairs += [(one, 64 if ":" in one else 16) for one in endpoint.link_local]
    return [ip_interface(f"{address}/{length}") for address, length in pairs if address]


def _default_routes(endpoint: Endpoint, index: int) -> list[Message]:
    gateways = (endpoint.gateway4, endpoint.gateway6)
    return [links.default_route(index, ip_address(gateway)) for gateway in gateways if gateway]
