"""/networks/*: one function per endpoint, each a translation around one call of the engine."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from sampan.api.docker import ages, answers, endpoints, oldrequests, versions
from sampan.errors import InvalidArgument, NotFound, NotImplementedHere
from sampan.network.model import NetworkConfig, Pool
from sampan.wire import networks as wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call
    from sampan.engine.engine import Engine
    from sampan.engine.model import Container
    from sampan.network.model import Endpoint, Network

_IPV6 = "com.docker.network.enable_ipv6"
"""The option by which it was asked for, before there was a member."""

_decode_create = msgspec.json.Decoder(wire.NetworkCreate)
_decode_connect = msgspec.json.Decoder(wire.NetworkConnect)
_decode_disconnect = msgspec.json.Decoder(wire.NetworkDisconnect)


def live(
    engine: Engine, container: Container, ids: Mapping[str, str] | None = None
) -> endpoints.Live:
    """What a container has of networks now; `ids` of all networks, where they are known already."""
    return endpoints.Live(
        engine.networks.endpoints(container.id),
        engine.networks.published(container.id),
        engine.networks.ids() if ids is None else ids,
    )


def network(value: Network) -> wire.Network:
    """A network in Docker's shape."""
    return wire.Network(
        name=value.name,
        id=value.id,
        created=ages.rfc3339(value.created_at),
        driver=value.driver.value,
        enable_ipv4=value.ipv4,
        enable_ipv6=value.ipv6,
        ipam=wire.IPAM(
            options=dict(value.ipam_options) or None,
            config=[_pool(pool) for pool in value.pools] or (None if value.is_predefined else []),
        ),
        internal=value.internal,
        attachable=value.attachable,
        options=dict(value.options),
        labels=dict(value.labels),
    )


def config(body: wire.NetworkCreate) -> NetworkConfig:
    """What is asked of a new network.

    Raises:
        NotImplementedHere: it is of swarm. InvalidArgument: a member is wrong.
    """
    for asked, word in (
        (body.ingress, "Ingress"),
        (body.config_only, "ConfigOnly"),
        (body.config_from is not None and body.config_from.network, "ConfigFrom"),
        (body.scope not in (None, "", "local"), f"Scope {body.scope}"),
    ):
        if asked:
            raise NotImplementedHere(f"create network: {word} is of swarm, which is not here")
    ipam = body.ipam or wire.IPAM()
    if ipam.driver not in (None, "", "default"):
        raise NotFound(f"could not find an ipam driver {ipam.driver!r}: there is only default")
    return NetworkConfig(
        name=body.name or "",
        driver=body.driver or "bridge",
        pools=tuple(
            Pool(
                subnet=one.subnet or "",
                gateway=one.gateway or "",
                ip_range=one.ip_range or "",
                reserved=one.auxiliary_addresses or {},
            )
            for one in ipam.config or ()
            if one.subnet or one.gateway or one.ip_range or one.auxiliary_addresses
        ),
        ipv4=body.enable_ipv4 is not False,
        ipv6=bool(body.enable_ipv6) or (body.options or {}).get(_IPV6) == "true",
        internal=bool(body.internal),
        attachable=bool(body.attachable),
        options=body.options or {},
        ipam_options=ipam.options or {},
        labels=body.labels or {},
    )


async def create(call: Call) -> StreamResponse:
    """POST /networks/create"""
    body = await call.needed_json(_decode_create)
    if not body.name:
        raise InvalidArgument("invalid network name: a network needs a name")
    oldrequests.network_create(body, call.minor)
    made = await call.engine.networks.create(config(body))
    return answers.json(wire.NetworkCreated(id=made.id), 201)


async def listing(call: Call) -> StreamResponse:
    """GET /networks?filters"""
    found = call.engine.networks.list(call.filters())
    lines = [network(one) for one in found]
    for line, one in zip(lines, found, strict=True):
        if call.minor < versions.NETWORKS_WITHOUT_MEMBERS:
            line.containers = _members(call.engine, one)
        elif call.minor >= versions.NETWORK_STATUS:
            line.containers = UNSET
    return answers.json(lines)


async def inspect(call: Call) -> StreamResponse:
    """GET /networks/{id}?verbose&scope"""
    found = call.engine.networks.find(call.name)
    answer = network(found)
    answer.containers = _members(call.engine, found)
    answer.status = _status(found, call.engine.networks.members(found))
    versions.network(answer, call.minor)
    return answers.json(answer)


async def check(call: Call) -> StreamResponse:
    """GET /networks/{id}/check"""
    found = await call.engine.networks.check(call.engine.networks.find(call.name))
    return answers.json(
        [
            wire.MemberCheck(container=owner, name=_name(call.engine, owner), problem=problem)
            for owner, problem in found.items()
        ]
    )


async def remove(call: Call) -> StreamResponse:
    """DELETE /networks/{id}"""
    await call.engine.networks.remove(call.name)
    return answers.empty()


async def connect(call: Call) -> StreamResponse:
    """POST /networks/{id}/connect"""
    body = await call.needed_json(_decode_connect)
    wish = endpoints.wish(body.endpoint_config)
    await call.engine.connect(call.name, body.container or "", wish)
    return answers.empty(200)


async def disconnect(call: Call) -> StreamResponse:
    """POST /networks/{id}/disconnect"""
    body = await call.needed_json(_decode_disconnect)
    # `Force` is for containers that another node has; not being in the network stays an error.
    await call.engine.disconnect(call.name, body.container or "")
    return answers.empty(200)


async def prune(call: Call) -> StreamResponse:
    """POST /networks/prune?filters"""
    removed = await call.engine.prune_networks(call.filters())
    return answers.json(wire.NetworksPruned(networks_deleted=list(removed) or None))


def _pool(pool: Pool) -> wire.IPAMConfig:
    return wire.IPAMConfig(
        subnet=pool.subnet,
        ip_range=pool.ip_range or UNSET,
        gateway=pool.gateway or UNSET,
        auxiliary_addresses=dict(pool.reserved) or UNSET,
    )


def _members(engine: Engine, network: Network) -> dict[str, wire.Member]:
    return {one.owner: _member(engine, one) for one in engine.networks.members(network)}


def _status(network: Network, members: Iterable[Endpoint]) -> wire.NetworkStatus:
    addresses = [ip_address(text) for one in members for text in (one.ipv4, one.ipv6) if text]
    subnets = {pool.subnet: _fullness(pool, addresses) for pool in network.pools if pool.subnet}
    return wire.NetworkStatus(ipam=wire.IPAMStatus(subnets=subnets))


def _fullness(pool: Pool, addresses: Sequence[IPv4Address | IPv6Address]) -> wire.SubnetStatus:
    """What is taken: addresses of members, the gateway, what is reserved, and of IPv4 the first
    and the last one; and how many may still be given away."""
    subnet, span = ip_network(pool.subnet), ip_network(pool.ip_range or pool.subnet)
    taken = {one for one in addresses if one in subnet}
    taken |= {ip_address(text) for text in (pool.gateway, *pool.reserved.values()) if text}
    taken.add(subnet.network_address)
    if subnet.version == 4:
        taken.add(subnet.broadcast_address)
    free = span.num_addresses - sum(one in span for one in taken)
    most = (1 << 64) - 1
    return wire.SubnetStatus(
        ips_in_use=min(len(taken), most), dynamic_ips_available=min(max(0, free), most)
    )


def _name(engine: Engine, owner: str) -> str:
    try:
        return engine.get(owner).name
    except NotFound:
        return owner  # a pod


def _member(engine: Engine, one: Endpoint) -> wire.Member:
    return wire.Member(
        name=_name(engine, one.owner),
        endpoint_id=one.id,
        mac_address=one.mac,
        ipv4_address=f"{one.ipv4}/{one.prefix4}" if one.ipv4 else "",
        ipv6_address=f"{one.ipv6}/{one.prefix6}" if one.ipv6 else "",
    )


PATHS = {
    ("GET", "/networks"): listing,
    ("POST", "/networks/create"): create,
    ("POST", "/networks/prune"): prune,
}
NAMED = {
    ("GET", "networks", ""): inspect,
    ("GET", "networks", "check"): check,
    ("DELETE", "networks", ""): remove,
    ("POST", "networks", "connect"): connect,
    ("POST", "networks", "disconnect"): disconnect,
}
