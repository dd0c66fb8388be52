"""Networks of containers: joined before a start, left after an end, changed in between.

    prepare   addresses and ports are taken in memory, written in one transaction with the events,
              then made in the kernel: a spare namespace gets its addresses, ports lead to it
    release   the same backwards; what is made in the kernel goes with the namespace by itself

A row of an endpoint without a running container is what a kill left; recovery drops it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from sampan.engine import events as bus
from sampan.engine import joining, netrecords
from sampan.engine.config import reach
from sampan.engine.foreign import Foreign
from sampan.engine.naming import Naming
from sampan.engine.networks import DEFAULT_BRIDGE, Registry, moved, predefined
from sampan.engine.networktable import NetworkTable, event, require
from sampan.engine.publishing import Publishing, port_row
from sampan.engine.wiring import Joined, Wiring
from sampan.errors import Conflict, InvalidArgument, NotFound, SampanError
from sampan.network import egress
from sampan.network.ipam import parse_subnet
from sampan.network.links import index_of
from sampan.network.model import BRIDGE, Driver, Published
from sampan.network.resolver import Resolver
from sampan.store import networks as rows

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Sequence

    from sampan.engine.config import EngineConfig
    from sampan.engine.containers import Containers
    from sampan.engine.events import Events
    from sampan.engine.model import Container, Event
    from sampan.network.hostfirewall import HostFirewall
    from sampan.network.model import Endpoint, EndpointRequest, Network
    from sampan.store.database import Connection, Database
    from sampan.store.layout import Layout

log = logging.getLogger(__name__)


class Networks(NetworkTable):
    """Every network of the engine, and who is in it."""

    def __init__(
        self,
        config: EngineConfig,
        layout: Layout,
        db: Database,
        events: Events,
        containers: Containers,
    ) -> None:
        super().__init__(config, db, events, Registry(), Wiring(layout.forwarding))
        self._joined: dict[str, Joined] = {}
        self.ports = Publishing(
            config.publish_address, self._registry, self._joined, self._wiring, self._write
        )
        self._foreign = Foreign(layout.cni, layout.cni_of_pods, self._registry, self._joined)
        self._naming = Naming(self._registry, self._joined, containers)
        self._resolver = Resolver(self._naming)
        self._naming.teach = self._wiring.learn
        self._wiring.on_denied = self._naming.denied

    # life

    def load(self) -> None:
        """Read every row; at start, before containers are recovered."""
        self._db.read_now(self._registry.load)
        if self._registry.is_missing(BRIDGE):
            for network in predefined(self._config, self._wiring.subnets_now()):
                self._db.write_now(partial(rows.insert, row=netrecords.network_row(network)))
                self._registry.enter(network)
        self._move_clear()
        bridge = self.find(BRIDGE).interface
        if bridge != DEFAULT_BRIDGE:
            self._wiring.name_table(f"sampan-{bridge.removeprefix('sb-')}")
        for member in self._registry:
            for owner, endpoint in member.endpoints.items():
                self._joined.setdefault(owner, Joined(owner)).endpoints.append(endpoint)
        for row in self._db.read_now(rows.ports):
            one = Published(
                port=row.port, protocol=row.protocol, host=row.host, host_port=row.host_port
            )
            self._joined.setdefault(row.owner, Joined(row.owner)).published.append(one)

    def _move_clear(self) -> None:
        """Choose the default network's subnet anew if somebody else has taken it while there was
        no bridge of ours that would have told them."""
        member = self._registry.find(BRIDGE)
        network = member.network
        if self._config.bridge_subnet or member.endpoints or index_of(network.interface):
            return
        others = [
            parse_subnet(pool.subnet)
            for one in self._registry
            if one is not member
            for pool in one.network.pools
        ]
        changed = moved(network, [*self._wiring.subnets_now(), *others])
        if changed != network:
            log.warning(
                "the subnet of network bridge is in use: it is %s now", changed.pools[0].subnet
            )
            self._db.write_now(partial(rows.replace, row=netrecords.network_row(changed)))
            self._registry.enter(changed)

    async def recover(self, find_path: Callable[[str], str]) -> None:
        """Take over what runs, drop what does not; `find_path` gives an owner's namespace or ""."""
        async with asyncio.TaskGroup() as group:  # not one after the other: the worker keeps order
            for owner, joined in tuple(self._joined.items()):
                path = find_path(owner)
                if path:
                    group.create_task(self._take_over(owner, joined, path))
                else:
                    self.release(owner)
        busy = {one.network for joined in self._joined.values() for one in joined.endpoints}
        ports = [(one.target, one.published) for one in self._joined.values() if one.target]
        try:
            await self._wiring.restore([one.network for one in self._registry], busy, ports)
        except SampanError as error:
            log.error("restore networks: %s", error)  # noqa: TRY400 - no trace needed
        self._foreign.collect_later()

    async def _take_over(self, owner: str, joined: Joined, path: str) -> None:
        """Hold again what a container or pod that runs has."""
        joined.endpoints.sort(key=lambda one: (len(one.interface), one.interface))
        self.ports.hold(joined)
        try:
            joined.space = await self._wiring.open(path)
            container = self._naming.container(owner)  # None for a pod, whose DNS is not ours
            if container is not None and self._naming.needs_resolver(container):
                await self._wiring.open_doors(joined)
                self._serve_names(owner, joined)
            await self._drop_strays(owner, joined)
            if container is not None:
                await self.restrict(container)
        except SampanError as error:
            log.error("networks of %s: %s", owner, error)  # noqa: TRY400 - no trace needed

    async def _drop_strays(self, owner: str, joined: Joined) -> None:
        """Finish what a kill interrupted: the container's own row says where it is."""
        container = self._naming.container(owner)
        if container is None:
            return  # a pod, which is in one network all its life
        for endpoint in tuple(joined.endpoints):
            if endpoint.network_name not in container.networks:
                await self.disconnect(container, self.find(endpoint.network))

    async def aclose(self) -> None:
        """Let go of everything; what containers have stays theirs."""
        await self._resolver.aclose()
        await self._foreign.aclose()
        published = [one for joined in self._joined.values() for one in joined.published]
        await self.ports.aclose(published)
        joined = self._joined.values()
        opened = [one.space for one in joined if one.space is not None]
        idle = [one.network for one in self._registry if not one.endpoints]
        await self._wiring.aclose(opened, [one for one in idle if one.driver is Driver.BRIDGE])

    # containers

    def settle(self, container: Container) -> Container:
        """A container that is being made, with its network mode and networks settled.

        Raises:
            InvalidArgument: see joining.settle; or there is no such network.
            FailedPrecondition: a network was asked for that this host cannot have.
        """
        try:
            host, wishes = joining.settle(
                container.host, container.networks, self._registry, self.default
            )
        except NotFound as error:  # to clients, "not found" means that the image is missing
            raise InvalidArgument(str(error)) from error
        published = container.host.ports or container.host.publish_all
        if wishes or (published and container.host.network_mode in joining.DEFAULTS):
            require()
        return replace(container, host=host, networks=wishes)

    def endpoints(self, owner: str) -> tuple[Endpoint, ...]:
        """What a container has while it runs, eth0 first."""
        joined = self._joined.get(owner)
        return tuple(joined.endpoints) if joined is not None else ()

    def published(self, owner: str) -> tuple[Published, ...]:
        """The ports of the host that lead to a container."""
        joined = self._joined.get(owner)
        return tuple(joined.published) if joined is not None else ()

    def is_carried(self, owner: str, one: Published) -> bool:
        """Whether the engine carries what comes to a port itself: IPv6, to a container without."""
        joined = self._joined.get(owner)
        target = joined.target if joined is not None else None
        return ":" in one.host and target is not None and not target.ipv6

    async def host_firewall(self) -> HostFirewall:
        """What the host's own firewall would close."""
        return await self._wiring.host_firewall()

    def host_address(self, owner: str) -> str:
        """The host's address as a container sees it: its gateway, or the default bridge's."""
        for endpoint in self.endpoints(owner):
            if endpoint.gateway4:
                return endpoint.gateway4
        return self.find(BRIDGE).pools[0].gateway

    def linked(self, container: Container) -> Sequence[tuple[str, str]]:
        """(address, names) of the containers that this one was linked to on the default bridge."""
        return self._naming.linked(container)

    def linked_variables(self, container: Container) -> tuple[str, ...]:
        """What this container is told of them in its environment."""
        return self._naming.linked_variables(container)

    def has_resolver(self, owner: str) -> bool:
        """Whether a container asks our own name server."""
        return self._resolver.serves(owner)

    async def prepare(self, container: Container) -> str:
        """Join the container's networks; the path of its network namespace, "" when it has none.

        Raises:
            StartFailed: a port is taken. NotFound: a network is gone.
            SampanError: the kernel refused.
        """
        if not joining.has_networks(container.host.network_mode):
            return ""
        require()
        await self._foreign.settled(container.id)
        self._joined[container.id] = joined = Joined(container.id)
        try:
            self._lease(container, joined)
            reach(self._config, "network-leased")
            await self._record(container, joined)
            reach(self._config, "network-joined")
            networks = [self.find(one.network) for one in joined.endpoints]
            gateway = joining.gateway_of(joined.endpoints, container.networks)
            names = self._naming.needs_resolver(container)
            await self._wiring.wire(networks, joined, gateway, names=names)
            for before, after in await self._foreign.join(joined):
                await self._refresh(joined, before, after)
            self._serve_names(container.id, joined)
            await self.restrict(container)
            reach(self._config, "network-wired")
        except BaseException:
            self.release(container.id)
            raise
        if networks:
            self._wiring.refill_later(networks[0])
        assert joined.space is not None
        return joined.space.path

    async def restrict(self, container: Container) -> None:
        """Let a running container reach what its rules say; no rules are no restriction."""
        joined = self._joined.get(container.id)
        if joined is None or joined.space is None:
            return
        policy = None if container.host.egress is None else egress.parse(container.host.egress)
        if self._naming.set_policy(container.id, policy):
            networks = [self.find(one.network) for one in joined.endpoints]
            await self._wiring.restrict(container.id, joined, networks, policy)

    def release(self, owner: str) -> None:
        """Leave every network; nothing to leave is fine. Done in the order of the calls."""
        joined = self._joined.pop(owner, None)
        if joined is None:
            return
        made: list[Event] = []
        for endpoint in joined.endpoints:
            made += self._forget(endpoint)
        self._resolver.close(owner)
        self._naming.set_policy(owner, None)
        self.ports.release(joined)
        written = self._db.submit(partial(_left, owner=owner, made=made))
        written.add_done_callback(self._told)
        self._foreign.leave(joined, self._wiring.let_go)

    def renamed(self, container: Container, old: str) -> None:
        """A container has another name from now on."""
        joined = self._joined.get(container.id)
        if joined is None:
            return
        for index, endpoint in enumerate(joined.endpoints):
            names = tuple(container.name if one == old else one for one in endpoint.names)
            changed = replace(endpoint, names=names)
            if joined.target == endpoint:
                joined.target = changed
            joined.endpoints[index] = changed
            self._registry.find(endpoint.network).endpoints[endpoint.owner] = changed

    async def connect(self, container: Container, network: Network, wish: EndpointRequest) -> None:
        """Put a running container into one more network.

        Raises:
            Conflict: it is in there. InvalidArgument: what was asked for cannot be.
        """
        joined = self._joined.get(container.id)
        if joined is None or joined.space is None:
            raise Conflict(f"container {container.name} has no network namespace of its own")
        member = self._registry.find(network.id)
        interface = joining.next_interface(joined.endpoints)
        endpoint = joining.endpoint(member, container, wish, interface)
        member.endpoints[container.id] = endpoint
        joined.endpoints.append(endpoint)
        late: list[Published] = []
        try:
            late = self.ports.lease_late(container, joined)
            await self._write(
                partial(
                    rows.join,
                    endpoints=[netrecords.endpoint_row(endpoint)],
                    ports=[port_row(container.id, one) for one in late],
                ),
                event(network, "connect", container.id),
            )
            reach(self._config, "network-connecting")
            wishes = {**container.networks, network.name: wish}
            gateway = joining.gateway_of(joined.endpoints, wishes)
            target = self.ports.target(joined.endpoints)
            await self._wiring.connect(joined, network, endpoint, gateway, target)
            if network.driver is Driver.CNI:
                before, endpoint = endpoint, await self._foreign.add(joined, endpoint)
                reach(self._config, "network-added")
                await self._refresh(joined, before, endpoint)
            if self._naming.needs_resolver(container) and not self.has_resolver(container.id):
                await self._wiring.open_doors(joined)
                self._serve_names(container.id, joined)
            await self.restrict(container)
        except BaseException:
            await self._undo_connect(container, joined, endpoint, late)
            raise

    async def _undo_connect(
        self,
        container: Container,
        joined: Joined,
        endpoint: Endpoint,
        late: Sequence[Published],
    ) -> None:
        """Nothing of a failed or cancelled connect stays, nor of the ports that it published."""
        joined.endpoints.remove(endpoint)
        self._forget(endpoint)
        try:
            await self._foreign.drop(joined, endpoint)
        except SampanError as error:
            log.error("leave network: %s", error)  # noqa: TRY400 - no trace needed
        gateway = joining.gateway_of(joined.endpoints, container.networks)
        target = self.ports.target(joined.endpoints)
        self._wiring.drop_interface(joined, endpoint, gateway, target)
        await self._write(partial(rows.leave, owner=joined.owner, network_id=endpoint.network))
        if late:
            await self._wiring.withdraw(endpoint, late)  # behind what was asked for above
            self.ports.forget_late(joined, late)
            ports = [port_row(joined.owner, one) for one in late]
            await self._write(partial(rows.withdraw, ports=ports))

    async def disconnect(self, container: Container, network: Network) -> None:
        """Take a running container out of a network; not being in it is fine."""
        joined = self._joined.get(container.id)
        found = [one for one in joined.endpoints if one.network == network.id] if joined else []
        if joined is None or not found:
            return
        endpoint = found[0]
        left = [one for one in joined.endpoints if one != endpoint]
        gateway = joining.gateway_of(left, container.networks)
        reach(self._config, "network-disconnecting")
        await self._foreign.drop(joined, endpoint)
        await self._wiring.disconnect(joined, endpoint, gateway, self.ports.target(left))
        reach(self._config, "network-disconnected")
        joined.endpoints.remove(endpoint)
        made = self._forget(endpoint)
        await self._write(partial(rows.leave, owner=container.id, network_id=network.id), *made)
        await self.restrict(container)

    async def check(self, network: Network) -> dict[str, str]:
        """What is wrong with each container in a network of plugins, as they see it; "" where it
        is nothing.

        Raises:
            InvalidArgument: it is a network of another kind.
        """
        if network.driver is not Driver.CNI:
            raise InvalidArgument(
                f"check network {network.name}: it has no CNI plugins to be asked"
            )
        found = {}
        for endpoint in self.members(network):
            joined = self._joined.get(endpoint.owner, Joined(endpoint.owner))
            try:
                await self._foreign.check(joined, endpoint)
                found[endpoint.owner] = ""
            except SampanError as error:
                found[endpoint.owner] = str(error)
        return found

    # details

    async def _refresh(self, joined: Joined, before: Endpoint, after: Endpoint) -> None:
        """An endpoint has got its addresses from others."""
        joined.endpoints[joined.endpoints.index(before)] = after
        self._registry.find(after.network).endpoints[after.owner] = after
        await self._write(partial(rows.refresh, endpoint=netrecords.endpoint_row(after)))

    def _serve_names(self, owner: str, joined: Joined) -> None:
        """Give the doors of a container to the name server."""
        if joined.doors is not None:
            self._resolver.open(owner, joined.doors)
            joined.doors = None

    def _lease(self, container: Container, joined: Joined) -> None:
        """Take addresses and ports, in memory and as bound sockets."""
        for number, (name, wish) in enumerate(joining.ordered(container)):
            member = self._registry.find(name)
            endpoint = joining.endpoint(member, container, wish, f"eth{number}")
            member.endpoints[container.id] = endpoint
            joined.endpoints.append(endpoint)
        self.ports.lease(container, joined)

    async def _record(self, container: Container, joined: Joined) -> None:
        made = [event(self.find(one.network), "connect", container.id) for one in joined.endpoints]
        endpoints = [netrecords.endpoint_row(one) for one in joined.endpoints]
        ports = [port_row(container.id, one) for one in joined.published]
        await self._write(partial(rows.join, endpoints=endpoints, ports=ports), *made)

    def _forget(self, endpoint: Endpoint) -> builtins.list[Event]:
        """Give an endpoint's addresses back; the event that tells of it."""
        member = self._registry.find(endpoint.network)
        if member.endpoints.get(endpoint.owner) == endpoint:
            del member.endpoints[endpoint.owner]
            member.release(endpoint)
        return [event(member.network, "disconnect", endpoint.owner)]

    def _told(self, written: asyncio.Future[builtins.list[Event]]) -> None:
        if written.cancelled():
            return
        error = written.exception()
        if error is None:
            self._events.publish(written.result())
        else:
            log.error("leave networks: %s", error)


def _left(conn: Connection, owner: str, made: list[Event]) -> list[Event]:
    rows.leave(conn, owner)
    return bus.store(conn, made)
