"""Networks of CNI plugins: a configuration list of the host as a network of the engine.

The namespace is ours, the interface is the plugins' work: ADD before the start or while the
container runs, DEL when it leaves or after its end, behind which the namespace goes. The list is
read at each ADD; what was added is undone by the list of its ADD, which the plugins' cache holds,
whatever has become of the file. What a kill left in the cache is released by the next engine (GC).
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from dataclasses import replace
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from sampan.errors import InvalidArgument, SampanError
from sampan.network.cni import Plugins
from sampan.network.conflist import parse
from sampan.network.model import CONFLIST, EVERY4, EVERY6, Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sampan.engine.networks import Registry
    from sampan.engine.wiring import Joined
    from sampan.network.cni import Result
    from sampan.network.conflist import Conflist
    from sampan.network.model import Endpoint, Network, Published

log = logging.getLogger(__name__)

DIRECTORIES = ("/opt/cni/bin", "/usr/lib/cni")
MAX_FILE = 1 << 20
_WISHES = {
    "bandwidth": "limit bandwidth",
    "mac": "set a MAC address",
    "portMappings": "publish ports",
}


class Foreign:
    """Joins and leaves networks whose driver is `cni`."""

    def __init__(
        self, cache: str, neighbour: str, registry: Registry, joined: Mapping[str, Joined]
    ) -> None:
        """`cache` is where the plugins' results are kept; it outlives a boot, as theirs do.

        `neighbour` is another cache, whose attachments are of no network of the engine, but may
        be of the same lists.
        """
        self._plugins = Plugins(DIRECTORIES, cache)
        self._neighbour = Plugins(DIRECTORIES, neighbour)
        self._registry = registry
        self._joined = joined
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._collecting: asyncio.Task[None] | None = None
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def join(self, joined: Joined) -> list[tuple[Endpoint, Endpoint]]:
        """Let the plugins connect the namespace; pairs of endpoints, before and after.

        Raises:
            CniError: a plugin failed. NotFound: one is not here. InvalidArgument: the list is
            wrong, or has nobody who publishes ports.
        """
        changed: list[tuple[Endpoint, Endpoint]] = []
        for endpoint in self._mine(joined):
            # Ports lead to a bridge of ours where there is one; else the first list has them.
            published = [] if changed or joined.target is not None else joined.published
            changed.append((endpoint, await self.add(joined, endpoint, published)))
        return changed

    async def add(
        self, joined: Joined, endpoint: Endpoint, published: Sequence[Published] = ()
    ) -> Endpoint:
        """Let the plugins of one network make the endpoint's interface; the endpoint with what it
        has got. Raises as `join`; nothing is left then."""
        assert joined.space is not None
        conf = read(self._network(endpoint))
        wishes = capabilities(endpoint, published)
        for name in wishes:
            if not _declares(conf, name):
                raise InvalidArgument(
                    f"{_WISHES[name]}: network {endpoint.network_name} has no plugin that does it"
                )
        async with self._turns[conf.name]:
            await self._release(joined.owner, endpoint, "")  # what a failed DEL has left
            result = await self._plugins.add(
                conf,
                joined.space.path,
                joined.owner,
                endpoint.interface,
                capabilities=wishes,
            )
        return filled(endpoint, result)

    async def drop(self, joined: Joined, endpoint: Endpoint) -> None:
        """Let the plugins take the interface back; the namespace stays.

        Raises:
            CniError: a plugin failed; call it again.
        """
        if self._network(endpoint).driver is Driver.CNI and joined.space is not None:
            await self._release(joined.owner, endpoint, joined.space.path)

    async def check(self, joined: Joined, endpoint: Endpoint) -> None:
        """Let the plugins see whether what they made is still as they made it.

        Raises:
            CniError: it is not. NotFound: it was never added. FailedPrecondition: the list's
            version knows no CHECK.
        """
        added = self._plugins.find(joined.owner, endpoint.interface)
        conf = added if added is not None else read(self._network(endpoint))
        path = joined.space.path if joined.space is not None else ""
        await self._plugins.check(conf, path, joined.owner, endpoint.interface)

    async def settled(self, owner: str) -> None:
        """Wait until what `owner` had before is disconnected."""
        task = self._leaving.get(owner)
        if task is not None:
            await asyncio.wait([task])

    def leave(self, joined: Joined, let_go: Callable[[Joined], None]) -> None:
        """Disconnect, and then let the namespace go; nobody waits for it."""
        mine = self._mine(joined)
        if not mine:
            let_go(joined)
            return
        task = asyncio.get_running_loop().create_task(self._leave(joined, mine, let_go))
        self._leaving[joined.owner] = task
        task.add_done_callback(lambda _: self._leaving.pop(joined.owner, None))

    def collect_later(self) -> None:
        """Release what nobody has any more; at start, in the background."""
        networks = [one.network for one in self._registry if one.network.driver is Driver.CNI]
        if networks or self._plugins.attachments():
            loop = asyncio.get_running_loop()
            self._collecting = loop.create_task(self._collect(networks))

    async def aclose(self) -> None:
        """Wait for what is being disconnected."""
        if self._collecting is not None:
            self._collecting.cancel()
            await asyncio.wait([self._collecting])
        if self._leaving:
            await asyncio.wait(list(self._leaving.values()))

    async def _leave(
        self, joined: Joined, mine: Sequence[Endpoint], let_go: Callable[[Joined], None]
    ) -> None:
        path = joined.space.path if joined.space is not None else ""
        for endpoint in mine:
            try:
                await self._release(joined.owner, endpoint, path)
            except SampanError as error:
                name = endpoint.network_name
                log.error("leave network %s: %s", name, error)  # noqa: TRY400 - no trace
        let_go(joined)

    async def _release(self, owner: str, endpoint: Endpoint, path: str) -> None:
        """DEL of what was added, by the list that added it; nothing to release is fine."""
        conf = self._plugins.find(owner, endpoint.interface)
        if conf is not None:
            await self._plugins.delete(conf, path, owner, endpoint.interface)

    async def _collect(self, networks: Sequence[Network]) -> None:
        for network in networks:
            try:
                conf = read(network)
                async with self._turns[conf.name]:
                    await self._plugins.gc(conf, self._valid(conf.name))
            except SampanError as error:
                log.error("clean up network %s: %s", network.name, error)  # noqa: TRY400
        for one in self._plugins.attachments():  # of networks that are gone, or lists that are
            async with self._turns[one.network]:
                added = self._plugins.find(one.id, one.ifname)
                if added is None or (one.id, one.ifname) in self._valid(""):
                    continue
                try:
                    await self._plugins.delete(added, "", one.id, one.ifname)
                except SampanError as error:
                    log.error("clean up network %s: %s", one.network, error)  # noqa: TRY400

    def _valid(self, name: str) -> list[tuple[str, str]]:
        """Who has an interface by the list `name`; "" is by any."""
        own = [(one.owner, endpoint.interface) for one in self._joined.values()
               for endpoint in self._mine(one)]  # fmt: skip
        return own + [(one.id, one.ifname) for one in self._neighbour.attachments(name)]

    def _mine(self, joined: Joined) -> list[Endpoint]:
        return [one for one in joined.endpoints if self._network(one).driver is Driver.CNI]

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


def capabilities(endpoint: Endpoint, published: Sequence[Published]) -> dict[str, Any]:
    """What is asked of the plugins, in CNI's words; rates are in bits there."""
    found: dict[str, Any] = {}
    if published:
        found["portMappings"] = port_mappings(published)
    if endpoint.mac:
        found["mac"] = endpoint.mac
    rates = {
        "ingressRate": endpoint.rate_in * 8,
        "ingressBurst": endpoint.burst_in * 8,
        "egressRate": endpoint.rate_out * 8,
        "egressBurst": endpoint.burst_out * 8,
    }
    if any(rates.values()):
        found["bandwidth"] = {name: value for name, value in rates.items() if value}
    return found


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
