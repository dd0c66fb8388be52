"""Networks of containers in Docker's words, both ways: pure functions, no engine, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import UNSET

from sampan.engine.joining import has_networks
from sampan.engine.links import parts
from sampan.network.model import EndpointRequest
from sampan.network.ports import binding, parse_port
from sampan.wire import containers as wire
from sampan.wire import hostconfig
from sampan.wire import networks as bodies

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sampan.engine.model import Container
    from sampan.network.model import Binding, Endpoint, Published


@dataclass(frozen=True, slots=True)
class Live:
    """What a container has of networks now. `ids` are the ids of networks by their names."""

    endpoints: Sequence[Endpoint] = ()
    published: Sequence[Published] = ()
    ids: Mapping[str, str] = field(default_factory=dict)


NOTHING = Live()


# requests


def wishes(config: bodies.NetworkingConfig | None) -> dict[str, EndpointRequest]:
    """What a new container asks of each network."""
    given = (config.endpoints_config if config else None) or {}
    return {name: wish(settings) for name, settings in given.items()}


def wish(settings: bodies.EndpointSettings | None) -> EndpointRequest:
    """What is asked of one network."""
    if settings is None:
        return EndpointRequest()
    ipam = settings.ipam_config or bodies.EndpointIPAM()
    return EndpointRequest(
        ipv4=ipam.ipv4_address or "",
        ipv6=ipam.ipv6_address or "",
        mac=settings.mac_address or "",
        aliases=tuple(settings.aliases or ()),
        links=tuple(settings.links or ()),
        options=settings.driver_opts or {},
        gateway_priority=settings.gw_priority or 0,
        link_local=tuple(ipam.link_local_ips or ()),
    )


def bindings(
    given: Mapping[str, Sequence[hostconfig.PortBinding] | None] | None,
) -> tuple[Binding, ...]:
    """The ports to publish. Raises InvalidArgument."""
    return tuple(
        binding(port, one.host_ip or "", one.host_port or "")
        for port, hosts in (given or {}).items()
        for one in hosts or ()
    )


# answers


def settings(container: Container, live: Live) -> wire.NetworkSettings:
    """`NetworkSettings` of inspect."""
    found = wire.NetworkSettings(networks=networks(container, live))
    if not container.status.is_running:
        return found
    found.ports = port_map(container, live)
    found.sandbox_id = container.id
    found.sandbox_key = f"/proc/{container.state.pid}/ns/net"
    return found


def networks(container: Container, live: Live) -> dict[str, wire.Endpoint]:
    """Each network of a container: what was asked of it, and what it has while it runs."""
    mode = container.host.network_mode
    if not has_networks(mode):
        return {mode: wire.Endpoint(network_id=live.ids.get(mode, ""))} if ":" not in mode else {}
    found = {name: _asked(one) for name, one in container.networks.items()}
    for endpoint in live.endpoints:
        if endpoint.network_name in found:
            _fill(found[endpoint.network_name], endpoint)
    for name, one in found.items():
        one.network_id = live.ids.get(name, "")
    return found


def _asked(request: EndpointRequest) -> wire.Endpoint:
    ipam: dict[str, object] = {
        "IPv4Address": request.ipv4,
        "IPv6Address": request.ipv6,
        "LinkLocalIPs": list(request.link_local),
    }
    return wire.Endpoint(
        ipam_config={key: value for key, value in ipam.items() if value} or None,
        links=list(request.links) or None,
        aliases=list(request.aliases) or None,
        mac_address=request.mac,
        driver_opts=dict(request.options) or None,
        gw_priority=request.gateway_priority,
    )


def _fill(answer: wire.Endpoint, endpoint: Endpoint) -> None:
    answer.endpoint_id = endpoint.id
    answer.mac_address = endpoint.mac
    answer.gateway = endpoint.gateway4
    answer.ip_address, answer.ip_prefix_len = endpoint.ipv4, endpoint.prefix4
    answer.ipv6_gateway = endpoint.gateway6
    answer.global_ipv6_address = endpoint.ipv6
    answer.global_ipv6_prefix_len = endpoint.prefix6
    answer.dns_names = list(endpoint.names) or None


def port_map(container: Container, live: Live) -> dict[str, list[hostconfig.PortBinding] | None]:
    """Exposed and published ports of a running container, as inspect has them."""
    found: dict[str, list[hostconfig.PortBinding] | None] = {
        "{}/{}".format(*parse_port(port)): None for port in container.config.exposed_ports
    }
    for one in live.published:
        bound = hostconfig.PortBinding(host_ip=one.host, host_port=str(one.host_port))
        key = f"{one.port}/{one.protocol}"
        found[key] = [*(found.get(key) or []), bound]
    return found


def port_list(container: Container, live: Live) -> list[wire.Port]:
    """The same, as `ps` has them."""
    if not container.status.is_running:
        return []
    found = []
    for key, bound in port_map(container, live).items():
        port, protocol = parse_port(key)
        if not bound:
            found.append(wire.Port(private_port=port, type=protocol))
        found += [
            wire.Port(
                ip=one.host_ip or UNSET,
                private_port=port,
                public_port=int(one.host_port or 0),
                type=protocol,
            )
            for one in bound or ()
        ]
    return found


def links(asked: Sequence[str], name: str) -> list[str] | None:
    """`HostConfig.Links`: `/db:/me/store` for `db:store` of the container `me`."""
    return [f"/{other}:/{name}/{alias}" for other, alias in map(parts, asked)] or None


def wanted_ports(asked: Sequence[Binding]) -> dict[str, list[hostconfig.PortBinding] | None]:
    """`HostConfig.PortBindings`: what was asked for."""
    found: dict[str, list[hostconfig.PortBinding] | None] = {}
    for one in asked:
        port = str(one.host_first) if one.host_first else ""
        if one.host_last > one.host_first:
            port = f"{one.host_first}-{one.host_last}"
        bound = hostconfig.PortBinding(host_ip=one.host, host_port=port)
        key = f"{one.port}/{one.protocol}"
        found[key] = [*(found.get(key) or []), bound]
    return found
