"""The networks in memory: what there is, who is in it, and which addresses are free.

The engine is the only writer of its root, so this table is what everybody reads. `bridge`, `host`
and `none` are made at the first start; their ids stay.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from sampan.engine import netrecords
from sampan.engine.config import DEFAULT_ROOT
from sampan.engine.filters import has_labels, moment
from sampan.errors import InvalidArgument, NotFound
from sampan.ids import new_id
from sampan.network import ipam
from sampan.network.ipam import Leases
from sampan.network.model import (
    BINDING,
    BRIDGE,
    BRIDGE_NAME,
    HOST,
    MASQUERADE,
    MTU,
    NONE,
    TALK,
    Driver,
    Network,
    Pool,
)
from sampan.store import networks as rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sampan.engine.config import EngineConfig
    from sampan.engine.filters import Filters
    from sampan.network.ipam import Subnet
    from sampan.network.model import Endpoint, EndpointRequest
    from sampan.store.database import Connection

DEFAULT_BRIDGE = "sampan0"
_FILTERS = frozenset(("name", "id", "driver", "type", "label", "scope", "dangling"))
_PRUNE_FILTERS = frozenset(("until", "label", "label!"))


class Member:
    """One network with its addresses and endpoints."""

    __slots__ = ("endpoints", "leases", "network")

    def __init__(self, network: Network) -> None:
        self.network = network
        self.leases: dict[int, Leases] = {
            ipam.parse_subnet(pool.subnet).version: Leases(pool) for pool in network.pools
        }
        self.endpoints: dict[str, Endpoint] = {}

    def lease(self, version: int, wanted: str) -> str:
        """An address of an IP version, "" where the network has none of it."""
        leases = self.leases.get(version)
        if leases is None:
            if wanted:
                raise InvalidArgument(
                    f"invalid config for network {self.network.name}: it has no IPv{version} subnet"
                )
            return ""
        return str(leases.take(wanted))

    def release(self, endpoint: Endpoint) -> None:
        """Give an endpoint's addresses back."""
        for version, address in ((4, endpoint.ipv4), (6, endpoint.ipv6)):
            if address and version in self.leases:
                self.leases[version].release(address)

    def hold(self, endpoint: Endpoint) -> None:
        """Take in an endpoint that is there."""
        self.endpoints[endpoint.owner] = endpoint
        for version, address in ((4, endpoint.ipv4), (6, endpoint.ipv6)):
            if address and version in self.leases:
                self.leases[version].hold(address)


class Registry:
    """Every network, by id and by name."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._members.values()))

    def load(self, conn: Connection) -> None:
        """Read every network and every endpoint."""
        for row in rows.list(conn):
            self.enter(netrecords.network(row))
        for entry in rows.endpoints(conn):
            self._members[entry.network].hold(netrecords.endpoint(entry))

    def enter(self, network: Network) -> None:
        """Take in a network."""
        self._members[network.id] = Member(network)

    def drop(self, network: Network) -> None:
        """Forget a network."""
        self._members.pop(network.id, None)

    def find(self, ref: str) -> Member:
        """The network of an id, a name or a unique prefix of an id, in this order.

        Raises:
            NotFound: there is none; InvalidArgument: the prefix fits several.
        """
        if ref in self._members:
            return self._members[ref]
        for member in self._members.values():
            if member.network.name == ref:
                return member
        fitting = [key for key in self._members if ref and key.startswith(ref)]
        if len(fitting) > 1:
            raise InvalidArgument(f"network {ref} is ambiguous ({len(fitting)} matches found)")
        if not fitting:
            raise NotFound(f"network {ref} not found")
        return self._members[fitting[0]]

    def subnets(self) -> list[Subnet]:
        """The subnets of every network."""
        return [
            ipam.parse_subnet(pool.subnet) for member in self for pool in member.network.pools
        ]  # fmt: skip

    def is_missing(self, name: str) -> bool:
        """Whether no network has the name."""
        return all(member.network.name != name for member in self)

    def list(self, wanted: Filters | None) -> Sequence[Network]:
        """The networks that match, oldest first. Raises InvalidArgument for an unknown filter."""
        for key in wanted or {}:
            if key not in _FILTERS:
                raise InvalidArgument(f"invalid filter '{key}'")
        tests = [_test(key, tuple(values)) for key, values in (wanted or {}).items() if values]
        found = [member for member in self if all(test(member) for test in tests)]
        return [member.network for member in found]


def predefined(config: EngineConfig, taken: Sequence[Subnet]) -> list[Network]:
    """`bridge`, `host` and `none`, for the first start."""
    now = time.time_ns()
    if config.bridge_subnet:
        subnet = ipam.parse_subnet(config.bridge_subnet)
    else:
        subnet = ipam.choose_subnet(taken)
    options = {
        "com.docker.network.bridge.default_bridge": "true",
        TALK: "true",
        MASQUERADE: "true",
        BINDING: config.publish_address,
        BRIDGE_NAME: config.bridge or DEFAULT_BRIDGE,
        MTU: "1500",
    }
    if not config.bridge and config.root != DEFAULT_ROOT:
        del options[BRIDGE_NAME]  # several engines may live on one host
    pool = Pool(subnet=str(subnet), gateway=str(ipam.first_host(subnet)))
    return [
        Network(id=new_id(), name=BRIDGE, created_at=now, pools=(pool,), options=options),
        Network(id=new_id(), name=HOST, driver=Driver.HOST, created_at=now + 1),
        Network(id=new_id(), name=NONE, driver=Driver.NULL, created_at=now + 2),
    ]


def moved(network: Network, taken: Sequence[Subnet]) -> Network:
    """The default network with a subnet that overlaps none of `taken`; as it is, where it does not
    overlap."""
    subnet = ipam.parse_subnet(network.pools[0].subnet)
    if not any(subnet.overlaps(one) for one in taken if one.version == subnet.version):
        return network
    fresh = ipam.choose_subnet(taken)
    pool = Pool(subnet=str(fresh), gateway=str(ipam.first_host(fresh)))
    return replace(network, pools=(pool, *network.pools[1:]))


def prune_filter(wanted: Filters | None) -> Callable[[Network], bool]:
    """A test for what a prune removes. Raises InvalidArgument for an unknown filter."""
    filters = wanted or {}
    if unknown := filters.keys() - _PRUNE_FILTERS:
        raise InvalidArgument(f"invalid filter '{min(unknown)}'")
    labels, without = tuple(filters.get("label", ())), tuple(filters.get("label!", ()))
    until = min(map(moment, filters.get("until", ())), default=None)

    def test(network: Network) -> bool:
        if until is not None and network.created_at > until:
            return False
        return has_labels(network.labels, labels) and not (
            without and has_labels(network.labels, without)
        )

    return test


def _test(key: str, values: tuple[str, ...]) -> Callable[[Member], bool]:
    if key == "name":
        return lambda m: any(value in m.network.name for value in values)
    if key == "id":
        return lambda m: any(m.network.id.startswith(value) for value in values)
    if key == "driver":
        return lambda m: m.network.driver in values
    if key == "label":
        return lambda m: has_labels(m.network.labels, values)
    if key == "type":
        return lambda m: ("builtin" if m.network.is_predefined else "custom") in values
    if key == "scope":
        return lambda _: "local" in values
    wanted = {value.lower() in ("1", "true") for value in values}
    return lambda m: (not m.network.is_predefined and not m.endpoints) in wanted


def names_of(
    name: str, container_id: str, hostname: str, request: EndpointRequest
) -> tuple[str, ...]:  # fmt: skip
    """What a container is called: its name, its aliases, its short id and its host name."""
    own = (name, *request.aliases, container_id[:12], hostname)
    return tuple(dict.fromkeys(one for one in own if one))
