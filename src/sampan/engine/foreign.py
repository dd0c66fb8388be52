"""Networks of CNI plugins: a configuration list of the host as a network of the engine.

The namespace is ours, the interface is the plugins' work: ADD before the start, DEL after the end,
behind which the namespace goes. The list is read at each start; a DEL gets the one of its ADD. What
an earlier engine added is in the plugins' cache, so that nothing is lost by a kill.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from sampan.errors import InvalidArgument, SampanError
from sampan.network.cni import Plugins
from sampan.network.conflist import parse
from sampan.network.model import CONFLIST, EVERY4, EVERY6, Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sampan.engine.networks import Registry
    from sampan.engine.wiring import Joined
    from sampan.network.cni import Result
    from sampan.network.conflist import Conflist
    from sampan.network.model import Endpoint, Network, Published

log = logging.getLogger(__name__)

DIRECTORIES = ("/opt/cni/bin", "/usr/lib/cni")
MAX_FILE = 1 << 20


class Foreign:
    """Joins and leaves networks whose driver is `cni`."""

    def __init__(self, cache: str, registry: Registry) -> None:
        """`cache` is where the plugins' results are kept; it outlives a boot, as theirs do."""
        self._plugins = Plugins(DIRECTORIES, cache)
        self._registry = registry
        self._leaving: dict[str, asyncio.Task[None]] = {}

    async def join(self, joined: Joined) -> list[tuple[Endpoint, Endpoint]]:
        """Let the plugins connect the namespace; pairs of endpoints, before and after.

        Raises:
            CniError: a plugin failed. NotFound: one is not here. InvalidArgument: the list is
            wrong, or has nobody who publishes ports.
        """
        assert joined.space is not None
        changed = []
        for endpoint in joined.endpoints:
            network = self._network(endpoint)
            if network.driver is not Driver.CNI:
                continue
            conf = read(network)
            mappings = port_mappings(joined.published)
            if mappings and not _declares(conf, "portMappings"):
                raise InvalidArgument(
                    f"publish ports: network {network.name} has no plugin that does it"
                )
            result = await self._plugins.add(
                conf,
                joined.space.path,
                joined.owner,
                endpoint.interface,
                capabilities={"portMappings": mappings} if mappings else {},
            )
            changed.append((endpoint, filled(endpoint, result)))
        return changed

    async def settled(self, owner: str) -> None:
        """Wait until what `owner` had before is disconnected."""
        task = self._leaving.get(owner)
        if task is not None:
            await asyncio.wait([task])

    def leave(self, joined: Joined, let_go: Callable[[Joined], None]) -> None:
        """Disconnect, and then let the namespace go; nobody waits for it."""
        mine = [one for one in joined.endpoints if self._network(one).driver is Driver.CNI]
        if not mine:
            let_go(joined)
            return
        task = asyncio.get_running_loop().create_task(self._leave(joined, mine, let_go))
        self._leaving[joined.owner] = task
        task.add_done_callback(lambda _: self._leaving.pop(joined.owner, None))

    async def aclose(self) -> None:
        """Wait for what is being disconnected."""
        if self._leaving:
            await asyncio.wait(list(self._leaving.values()))

    async def _leave(
        self, joined: Joined, mine: Sequence[Endpoint], let_go: Callable[[Joined], None]
    ) -> None:
        path = joined.space.path if joined.space is not None else ""
        for endpoint in mine:
            network = self._network(endpoint)
            try:
                await self._plugins.delete(read(network), path, joined.owner, endpoint.interface)
            except SampanError as error:
                log.error("leave network %s: %s", network.name, error)  # noqa: TRY400 - no trace
        let_go(joined)

    def _network(self, endpoint: Endpoint) -> Network:
        return self._registry.find(endpoint.network).network


def read(network: Network) -> Conflist:
    """The configuration list of a network, as it is now.

    Raises:
        InvalidArgument: it cannot be read, or is none.
    """
    path = network.options[CONFLIST]
    try:
        with open(path, "rb") as file:
            return parse(file.read(MAX_FILE), path)
    except OSError as error:
        raise InvalidArgument(f"read CNI configuration {path}: {error.strerror}") from error


def port_mappings(published: Sequence[Published]) -> list[dict[str, Any]]:
    """Published ports as CNI's `portMappings` has them."""
    return [
        {
            "hostPort": one.host_port,
            "containerPort": one.port,
            "protocol": one.protocol,
            **({} if one.host in (EVERY4, EVERY6) else {"hostIP": one.host}),
        }
        for one in published
    ]


def filled(endpoint: Endpoint, result: Result) -> Endpoint:
    """An endpoint with what the plugins gave it."""
    for text in result.ips:
        address = ip_interface(text)
        length = address.network.prefixlen
        if address.version == 4 and not endpoint.ipv4:
            endpoint = replace(endpoint, ipv4=str(address.ip), prefix4=length)
        elif address.version == 6 and not endpoint.ipv6:
            endpoint = replace(endpoint, ipv6=str(address.ip), prefix6=length)
    for gateway in result.gateways:
        if ":" in gateway:
            endpoint = replace(endpoint, gateway6=gateway)
        else:
            endpoint = replace(endpoint, gateway4=gateway)
    macs = [one.get("mac", "") for one in result.interfaces if one.get("sandbox")]
    return replace(endpoint, mac=macs[0]) if macs else endpoint


def _declares(conf: Conflist, capability: str) -> bool:
    return any((plugin.get("capabilities") or {}).get(capability) for plugin in conf.plugins)
