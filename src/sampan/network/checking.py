"""What a new network may be: a request, checked and completed. Pure.

Sentences are dockerd's where it has one. A subnet that is left open is chosen among the predefined
ones, clear of `taken`: of every other network and of what the host itself uses.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument, NotFound, PermissionDenied
from sampan.ids import new_id
from sampan.network import ipam
from sampan.network.cni import check_ifname
from sampan.network.links import MACVLAN_MODES
from sampan.network.model import (
    BRIDGE_NAME,
    CONFLIST,
    MTU,
    PREDEFINED,
    Driver,
    Network,
    NetworkConfig,
    Pool,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.network.ipam import Subnet

_NAME = re.compile(r"[a-zA-Z0-9_-](?:[a-zA-Z0-9_. -]{0,253}[a-zA-Z0-9_.-])?", re.ASCII)
_KNOWN = {Driver.BRIDGE.value, Driver.MACVLAN.value, Driver.CNI.value}


def complete(
    config: NetworkConfig, others: Sequence[Subnet], taken: Sequence[Subnet]
) -> Network:  # fmt: skip
    """The network that `config` asks for. `others` are other networks' subnets, which it must not
    overlap; `taken` is what else is avoided where it leaves the choice to us.

    Raises:
        InvalidArgument: a value is wrong. NotFound: there is no such driver.
        PermissionDenied: the name is predefined, or its subnet belongs to another network.
    """
    _check_kind(config)
    network_id = new_id()
    pools = [_pool(pool) for pool in config.pools]
    _check_pools(pools, config)
    versions = {ipam.parse_subnet(pool.subnet).version for pool in pools}
    is_foreign = config.driver == Driver.CNI  # its plugins give the addresses
    if config.ipv4 and 4 not in versions and not is_foreign:
        subnet = ipam.choose_subnet([*others, *taken])
        pools.insert(0, _pool(Pool(subnet=str(subnet))))
    if config.ipv6 and 6 not in versions and not is_foreign:
        pools.append(_pool(Pool(subnet=str(ipam.local_subnet6(network_id)))))
    for pool in pools:
        if any(ipam.parse_subnet(pool.subnet).overlaps(other) for other in others
               if other.version == ipam.parse_subnet(pool.subnet).version):  # fmt: skip
            raise PermissionDenied(
                "invalid pool request: Pool overlaps with other one on this address space: "
                f"{pool.subnet}"
            )
    return Network(
        id=network_id,
        name=config.name,
        driver=Driver(config.driver),
        created_at=time.time_ns(),
        pools=tuple(pools),
        ipv4=config.ipv4,
        ipv6=config.ipv6,
        internal=config.internal,
        attachable=config.attachable,
        options=dict(config.options),
        ipam_options=dict(config.ipam_options),
        labels=dict(config.labels),
    )


def _check_kind(config: NetworkConfig) -> None:
    if config.name in PREDEFINED:
        raise PermissionDenied(
            f"operation is not permitted on predefined {config.name} network"
        )  # fmt: skip
    if not _NAME.fullmatch(config.name):
        raise InvalidArgument(
            f"invalid network name {config.name!r}: only [a-zA-Z0-9_-][a-zA-Z0-9_.-] are allowed, "
            "and spaces inside"
        )
    if config.driver in (Driver.HOST, Driver.NULL):
        raise PermissionDenied(f'only one instance of "{config.driver}" network is allowed')
    if config.driver not in _KNOWN:
        raise NotFound(
            f"could not find driver {config.driver!r}: there are {', '.join(sorted(_KNOWN))}"
        )
    if not config.ipv4 and not config.ipv6:
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    if name := config.options.get(BRIDGE_NAME):
        check_ifname(name)
    if (mtu := config.options.get(MTU)) and (not mtu.isdigit() or not 68 <= int(mtu) <= 65535):
        raise InvalidArgument(f"invalid MTU: {mtu}")
    if config.driver == Driver.MACVLAN:
        _check_macvlan(config)
    if config.driver == Driver.CNI:
        _check_cni(config)


def _check_cni(config: NetworkConfig) -> None:
    if not config.options.get(CONFLIST, "").startswith("/"):
        raise InvalidArgument(
            "a network of CNI plugins needs the path of its configuration: -o conflist=/PATH"
        )
    if config.pools or config.internal:
        raise InvalidArgument("a network of CNI plugins has the subnets of its configuration")


def _check_macvlan(config: NetworkConfig) -> None:
    parent = config.options.get("parent", "")
    if not parent:
        raise InvalidArgument("a macvlan network needs an interface of the host: -o parent=NAME")
    check_ifname(parent)
    mode = config.options.get("macvlan_mode", "bridge")
    if mode not in MACVLAN_MODES:
        raise InvalidArgument(f"invalid macvlan mode: {mode}")


def _pool(pool: Pool) -> Pool:
    """A pool in canonical words, with its gateway."""
    subnet = ipam.parse_subnet(pool.subnet)
    gateway = pool.gateway.partition("/")[0]
    address = ipam.parse_address(gateway) if gateway else ipam.first_host(subnet)
    if address not in subnet:
        raise InvalidArgument(f"no matching subnet for gateway {pool.gateway}")
    if pool.ip_range:
        span = ipam.parse_subnet(pool.ip_range)
        if span.version != subnet.version or not (
            span.network_address in subnet and span.broadcast_address in subnet
        ):
            raise InvalidArgument(f"no matching subnet for range {pool.ip_range}")
    for text in pool.reserved.values():
        if ipam.parse_address(text) not in subnet:
            raise InvalidArgument(f"no matching subnet for aux-address {text}")
    smallest = 31 if subnet.version == 4 else 127
    if subnet.prefixlen >= smallest:
        raise InvalidArgument(f"subnet {subnet} is too small for a network")
    return replace(pool, subnet=str(subnet), gateway=str(address))


def _check_pools(pools: Sequence[Pool], config: NetworkConfig) -> None:
    found = [ipam.parse_subnet(pool.subnet) for pool in pools]
    for version, wanted in ((4, config.ipv4), (6, config.ipv6)):
        count = sum(subnet.version == version for subnet in found)
        if count > 1:
            raise InvalidArgument(f"a network has one subnet of IPv{version} here, not {count}")
        if count and not wanted:
            raise InvalidArgument(f"IPv{version} is not enabled for a network with such a subnet")
