"""The networks themselves: made, found, listed, removed. Who is in them is `networking`'s business.

A network is a row, and a bridge of the same life. The row comes first and goes last, so that what a
kill leaves has a name, and is found and finished by the next engine.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sampan.engine import events as bus
from sampan.engine import foreign, netrecords
from sampan.engine.config import reach
from sampan.engine.networks import prune_filter
from sampan.engine.wiring import why_not
from sampan.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    PermissionDenied,
    SampanError,
)
from sampan.network import checking
from sampan.network.model import BRIDGE, NONE, Driver
from sampan.store import networks as rows

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Sequence

    from sampan.engine.config import EngineConfig
    from sampan.engine.events import Events
    from sampan.engine.filters import Filters
    from sampan.engine.model import Event
    from sampan.engine.networks import Registry
    from sampan.engine.wiring import Wiring
    from sampan.network.model import Endpoint, Network, NetworkConfig
    from sampan.store.database import Connection, Database


class NetworkTable:
    """Every network of the engine: a part of `Networks`."""

    def __init__(
        self,
        config: EngineConfig,
        db: Database,
        events: Events,
        registry: Registry,
        wiring: Wiring,
    ) -> None:
        self._config = config
        self._db = db
        self._events = events
        self._registry = registry
        self._wiring = wiring

    @property
    def default(self) -> str:
        """The network of a container that names none."""
        return NONE if why_not() else BRIDGE

    def find(self, ref: str) -> Network:
        """The network of a name, an id or a prefix. Raises NotFound, InvalidArgument."""
        return self._registry.find(ref).network

    def list(self, wanted: Filters | None = None) -> Sequence[Network]:
        """The networks that match. Raises InvalidArgument for an unknown filter."""
        return self._registry.list(wanted)

    def members(self, network: Network) -> Sequence[Endpoint]:
        """Who is in a network now."""
        return tuple(self._registry.find(network.id).endpoints.values())

    def ids(self) -> dict[str, str]:
        """The ids of all networks by their names."""
        return {member.network.name: member.network.id for member in self._registry}

    def name_of(self, ref: str) -> str:
        """The name of a network; what names none stays as it is."""
        try:
            return self.find(ref).name
        except SampanError:
            return ref

    async def create(self, config: NetworkConfig) -> Network:
        """Make a network.

        Raises:
            AlreadyExists: the name is taken. InvalidArgument, PermissionDenied, NotFound: see
            checking.complete. FailedPrecondition: this host cannot do it.
        """
        require()
        taken = await self._wiring.subnets()
        if not self._registry.is_missing(config.name):
            if self._registry.find(config.name).network.is_predefined:
                raise PermissionDenied(
                    f"operation is not permitted on predefined {config.name} network"
                )
            raise AlreadyExists(f"network with name {config.name} already exists")
        network = checking.complete(config, self._registry.subnets(), taken)
        if network.driver is Driver.CNI:
            foreign.read(network)  # refused here, not at the first start
        self._refuse_taken(network)
        self._registry.enter(network)
        try:
            row = netrecords.network_row(network)
            await self._write(partial(rows.insert, row=row), event(network, "create"))
            reach(self._config, "network-created")
            await self._wiring.make_bridge(network)
        except BaseException:
            self._registry.drop(network)
            self._wiring.drop_bridge(network)  # a create that is cancelled may have made it
            await self._write(partial(rows.delete, network_id=network.id))
            raise
        return network

    async def remove(self, ref: str) -> None:
        """Remove a network that nobody is in.

        Raises:
            NotFound: there is none. PermissionDenied: somebody is in it, or it is predefined.
        """
        member = self._registry.find(ref)
        network = member.network
        if network.is_predefined:
            raise PermissionDenied(f"{network.name} is a pre-defined network and cannot be removed")
        if member.endpoints:
            owners = ", ".join(sorted(owner[:12] for owner in member.endpoints))
            raise PermissionDenied(
                f"error while removing network: network {network.name} has active endpoints "
                f"({owners})"
            )
        self._registry.drop(network)
        try:
            # The row last: what a kill leaves behind has a name then.
            await self._wiring.remove_bridge(network)
            reach(self._config, "network-removed")
            gone = partial(rows.delete, network_id=network.id)
            await self._write(gone, event(network, "destroy"))
        except BaseException:
            self._registry.enter(network)
            raise

    async def prune(self, wanted: Filters | None, used: set[str]) -> builtins.list[str]:
        """Remove the networks that match and that no container names (`used`); their names."""
        matches = prune_filter(wanted)
        removed = []
        for member in self._registry:
            network = member.network
            if network.is_predefined or member.endpoints or network.name in used:
                continue
            if matches(network):
                await self.remove(network.id)
                removed.append(network.name)
        return removed

    # details

    def _refuse_taken(self, network: Network) -> None:
        name = network.interface
        others = {member.network.interface for member in self._registry}
        if network.driver is Driver.BRIDGE and name in others:
            raise Conflict(f"interface {name} belongs to another network")

    async def _write(self, change: Callable[[Connection], Any], *made: Event) -> None:
        def write(conn: Connection) -> builtins.list[Event]:
            change(conn)
            return bus.store(conn, made)

        self._events.publish(await self._db.write(write))


def require() -> None:
    """Raise FailedPrecondition where there can be no networks; the message says why."""
    if why := why_not():
        raise FailedPrecondition(f"there are no networks but none and host here: {why}")


def event(network: Network, action: str, container: str = "") -> Event:
    """What is told of a network."""
    attributes = {"name": network.name, "type": network.driver.value}
    if container:
        attributes["container"] = container
    return bus.make("network", action, network.id, attributes)
