"""Pure: which networks a container joins, by which interface, and under which names.

A container's `networks` map a network's name to what was asked of it; its network mode is one of
them, or none, host, or another container. The first network is eth0. The default route goes to the
network with the highest priority, by name where they are equal, and never to an internal one.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from sampan.engine.networks import names_of
from sampan.errors import InvalidArgument, NotFound
from sampan.ids import new_id
from sampan.network import egress, ipam, shaping
from sampan.network.model import (
    BRIDGE,
    HOST,
    NONE,
    Binding,
    Driver,
    Endpoint,
    EndpointRequest,
)
from sampan.network.ports import parse_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sampan.engine.model import Container, HostConfig
    from sampan.engine.networks import Member, Registry
    from sampan.network.model import Network

CONTAINER = "container:"
DEFAULTS = ("", "default")


def is_shared(mode: str) -> bool:
    """Whether a container of this network mode has no network namespace of its own making."""
    return mode == HOST or mode.startswith(CONTAINER)


def has_networks(mode: str) -> bool:
    """Whether a container of this network mode has endpoints."""
    return mode != NONE and not is_shared(mode)


def shared_with(container: Container, target: Container) -> Container:
    """A container in the network of another one, whatever that is called later, with its name."""
    return replace(
        container,
        config=replace(container.config, hostname=target.config.hostname),
        host=replace(container.host, network_mode=CONTAINER + target.id),
    )


def settle(
    host: HostConfig,
    wishes: Mapping[str, EndpointRequest],
    registry: Registry,
    default: str,
) -> tuple[HostConfig, dict[str, EndpointRequest]]:
    """The network mode and the requests by networks' names; what was left open is `default`.

    A network that is not there yet is taken as it is called: it must be there at the start, as with
    dockerd. Compose makes containers before their networks.

    Raises:
        NotFound: there is no such network for egress rules. InvalidArgument: requests contradict
            each other.
    """
    mode = default if host.network_mode in DEFAULTS else host.network_mode
    if host.egress is not None:
        egress.parse(host.egress)
        if is_shared(mode):
            raise InvalidArgument(f"egress rules need a network of the container's own, not {mode}")
    if is_shared(mode) or mode == NONE:
        others = [name for name in wishes if name not in (*DEFAULTS, mode)]
        if others:
            raise InvalidArgument(
                f"conflicting options: cannot attach the container to {others[0]} and to {mode}"
            )
        return replace(host, network_mode=mode), {}
    main = _known(registry, mode)
    mode = mode if main is None else main.name
    if mode in (HOST, NONE):  # by its id
        return replace(host, network_mode=mode), {}
    found = {mode: EndpointRequest()}
    for name, wish in wishes.items():
        network = _known(registry, default if name in DEFAULTS else name)
        if network is not None:
            check(network, wish)
        found[name if network is None else network.name] = wish
    if host.egress is not None:
        check_egress(registry.find(name).network for name in found)
    if host.links and (main is None or main.has_names):
        found[mode] = replace(found[mode], links=(*found[mode].links, *host.links))
    return replace(host, network_mode=mode), found


def _known(registry: Registry, ref: str) -> Network | None:
    try:
        return registry.find(ref).network
    except NotFound:
        return None


def check(network: Network, wish: EndpointRequest) -> None:
    """Refuse what a network cannot give.

    Raises:
        InvalidArgument: the message says what.
    """
    if network.driver in (Driver.HOST, Driver.NULL):
        raise InvalidArgument(
            f"container cannot be connected to network {network.name} beside other networks"
        )
    if network.name == BRIDGE and (wish.ipv4 or wish.ipv6):
        raise InvalidArgument(
            "user specified IP address is supported on user defined networks only"
        )
    if network.name == BRIDGE and wish.aliases:
        raise InvalidArgument("network-scoped aliases are only supported for user-defined networks")
    _check_addresses(network, wish)
    _check_options(network, wish)
    if wish.mac:
        ipam.parse_mac(wish.mac)
    for alias in wish.aliases:
        if not alias or any(letter.isspace() for letter in alias) or len(alias) > 255:
            raise InvalidArgument(f"invalid alias {alias!r}")


def _check_options(network: Network, wish: EndpointRequest) -> None:
    unknown = [name for name in wish.options if name.startswith("sampan.")
               and name not in shaping.OPTIONS]  # fmt: skip
    if unknown:
        raise InvalidArgument(f"unknown option {unknown[0]}: use {', '.join(shaping.OPTIONS)}")
    if shaping.parse(wish.options).rate_in and network.driver is Driver.MACVLAN:
        raise InvalidArgument(f"sampan.rate-in is not for macvlan, which {network.name} is")


def check_egress(networks: Iterable[Network]) -> None:
    """Refuse rules that could not be kept.

    Raises:
        InvalidArgument: a network is no bridge.
    """
    for network in networks:
        if network.driver is not Driver.BRIDGE:
            raise InvalidArgument(f"egress rules are for bridges: {network.name} is none")


def _check_addresses(network: Network, wish: EndpointRequest) -> None:
    for address in wish.link_local:
        if not ipam.parse_address(address).is_link_local:
            raise InvalidArgument(
                f"invalid config for network {network.name}: invalid endpoint settings: "
                f"invalid link-local IP address: {address}"
            )
    for version, address in ((4, wish.ipv4), (6, wish.ipv6)):
        if not address:
            continue
        subnets = [ipam.parse_subnet(pool.subnet) for pool in network.pools]
        fitting = [one for one in subnets if one.version == version]
        if not any(ipam.parse_address(address) in one for one in fitting):
            raise InvalidArgument(
                f"invalid config for network {network.name}: invalid endpoint settings: "
                f"no configured subnet contains IP address {address}"
            )


def ordered(container: Container) -> list[tuple[str, EndpointRequest]]:
    """A container's networks and what it asks of them, the network mode's first: it is eth0."""
    wishes = dict(container.networks)
    mode = container.host.network_mode
    first = [(mode, wishes.pop(mode))] if mode in wishes else []
    return [*first, *wishes.items()]


def bindings(container: Container) -> list[Binding]:
    """The ports to publish: those that were named, and with -P every other exposed one. First those
    that want a port of their own, which another one could be given."""
    found = list(container.host.ports)
    if container.host.publish_all:
        named = {(one.port, one.protocol) for one in found}
        for port, protocol in map(parse_port, container.config.exposed_ports):
            if (port, protocol) not in named:
                found.append(Binding(port=port, protocol=protocol))
    return sorted(found, key=lambda one: one.host_first == 0)


def versions(endpoint: Endpoint) -> set[int]:
    """The IP versions that an endpoint has addresses of."""
    return {version for version, one in ((4, endpoint.ipv4), (6, endpoint.ipv6)) if one}


def endpoint(
    member: Member, container: Container, wish: EndpointRequest, interface: str
) -> Endpoint:  # fmt: skip
    """An endpoint with addresses leased in `member`.

    Raises:
        InvalidArgument: a wanted address is taken. ResourceExhausted: there is none left.
    """
    network = member.network
    ipv4 = member.lease(4, wish.ipv4)
    try:
        ipv6 = member.lease(6, wish.ipv6)
    except BaseException:
        if ipv4:
            member.leases[4].release(ipv4)
        raise
    mac = wish.mac or (ipam.mac_of(IPv4Address(ipv4)) if ipv4 else "")
    return Endpoint(
        id=new_id(),
        network=network.id,
        network_name=network.name,
        owner=container.id,
        interface=interface,
        mac=mac,
        ipv4=ipv4,
        prefix4=_prefix(member, 4) if ipv4 else 0,
        gateway4=_gateway(member, 4) if ipv4 else "",
        ipv6=ipv6,
        prefix6=_prefix(member, 6) if ipv6 else 0,
        gateway6=_gateway(member, 6) if ipv6 else "",
        names=_names(container, wish) if network.has_names else (),
        link_local=wish.link_local,
        **asdict(shaping.parse(wish.options)),
    )


def _names(container: Container, wish: EndpointRequest) -> tuple[str, ...]:
    return names_of(container.name, container.id, container.config.hostname, wish)


def gateway_of(
    endpoints: Sequence[Endpoint], wishes: Mapping[str, EndpointRequest]
) -> Endpoint | None:
    """The endpoint that leads to everywhere else."""
    able = [one for one in endpoints if one.gateway4 or one.gateway6]
    if not able:
        return None
    empty = EndpointRequest()
    return min(
        able,
        key=lambda one: (
            -wishes.get(one.network_name, empty).gateway_priority,
            one.network_name,
        ),
    )


def next_interface(endpoints: Sequence[Endpoint]) -> str:
    """A name for one more interface."""
    taken = {one.interface for one in endpoints}
    return next(f"eth{n}" for n in range(len(taken) + 1) if f"eth{n}" not in taken)


def _prefix(member: Member, version: int) -> int:
    return member.leases[version].subnet.prefixlen


def _gateway(member: Member, version: int) -> str:
    gateway = member.leases[version].gateway
    return "" if member.network.internal or gateway is None else str(gateway)
