"""Published ports: taken for a start, added and withdrawn while the container runs.

The host's port is bound first (`network.ports`), so that nobody else has it; then it is a row, and
then the packet filter leads it to the container. Backwards in the other order.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from sampan.engine import joining
from sampan.errors import Conflict, NotFound, StartFailed
from sampan.network.model import BINDING, EVERY4, Driver
from sampan.network.ports import Guards, matches
from sampan.network.relay import Relays
from sampan.store import networks as rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from sampan.engine.model import Container
    from sampan.engine.networks import Registry
    from sampan.engine.wiring import Joined, Wiring
    from sampan.network.model import Binding, Endpoint, Published
    from sampan.store.database import Connection

    Write = Callable[[Callable[[Connection], object]], Awaitable[None]]

log = logging.getLogger(__name__)


class Publishing:
    """The ports of the host that lead to containers."""

    def __init__(
        self,
        default: str,
        registry: Registry,
        joined: Mapping[str, Joined],
        wiring: Wiring,
        write: Write,
    ) -> None:
        """`default` is where ports without an address are published."""
        self._default = default
        self._registry = registry
        self._joined = joined
        self._wiring = wiring
        self._write = write
        self._guards = Guards()
        self._relays = Relays()

    def lease(self, container: Container, joined: Joined) -> None:
        """Take the ports that a container is to be started with.

        Raises:
            StartFailed: one is taken, in Docker's words.
        """
        joined.target = self.target(joined.endpoints)
        bindings = joining.bindings(container)
        target = joined.target or self._foreign(joined.endpoints)
        if bindings and target is not None:
            joined.published = self._take(container, target, bindings)
            self._relay(joined, joined.published)

    def lease_late(self, container: Container, joined: Joined) -> list[Published]:
        """Take the ports of a running container that had no network for them, and has one now.

        Raises:
            Conflict: one is taken, in Docker's words.
        """
        target = self.target(joined.endpoints)
        if target is None or joined.target is not None or joined.published:
            return []
        try:
            made = self._take(container, target, joining.bindings(container))
        except StartFailed as error:
            raise Conflict(str(error)) from error
        joined.published = made
        self._relay(joined, made)
        return made

    def forget_late(self, joined: Joined, made: Sequence[Published]) -> None:
        """Undo `lease_late`."""
        self._let_go(made)
        joined.published = [one for one in joined.published if one not in made]

    def hold(self, joined: Joined) -> None:
        """Bind what an earlier engine had published."""
        joined.target = self.target(joined.endpoints)
        for lost in self._guards.hold(joined.published):
            log.warning("port %d of the host was taken while no engine ran", lost.host_port)
        self._relay(joined, joined.published)

    def release(self, joined: Joined) -> None:
        """Let a container's ports go."""
        self._let_go(joined.published)

    async def aclose(self, published: Sequence[Published]) -> None:
        """Let all ports go; what is published stays published."""
        self._let_go(published)
        await self._relays.aclose()
        self._guards.close()

    async def add(self, container: Container, bindings: Sequence[Binding]) -> None:
        """Publish more ports of a running container, all of them or none.

        Raises:
            Conflict: it has no network that ports can be published on, or a port is taken.
        """
        joined = self._joined.get(container.id)
        if joined is None or joined.target is None:
            raise Conflict(f"container {container.name} has no network that can publish ports")
        try:
            made = self._take(container, joined.target, bindings)
        except StartFailed as error:
            raise Conflict(str(error)) from error
        try:
            ports = [port_row(container.id, one) for one in made]
            await self._write(partial(rows.join, endpoints=(), ports=ports))
            await self._wiring.publish(joined.target, made)
        except BaseException:
            self._let_go(made)
            ports = [port_row(container.id, one) for one in made]
            await self._write(partial(rows.withdraw, ports=ports))
            raise
        joined.published += made
        self._relay(joined, made)

    async def drop(self, container: Container, bindings: Sequence[Binding]) -> None:
        """Withdraw ports of a running container.

        Raises:
            NotFound: one is not published.
        """
        joined = self._joined.get(container.id)
        published = joined.published if joined is not None else []
        gone: list[Published] = []
        for wish in bindings:
            found = [one for one in published if matches(wish, one) and one not in gone]
            if not found:
                raise NotFound(
                    f"port {wish.port}/{wish.protocol} of container {container.name} is not "
                    "published there"
                )
            gone += found
        if joined is None or joined.target is None:
            return
        await self._wiring.withdraw(joined.target, gone)
        ports = [port_row(container.id, one) for one in gone]
        await self._write(partial(rows.withdraw, ports=ports))
        joined.published = [one for one in joined.published if one not in gone]
        self._let_go(gone)

    def target(self, endpoints: Sequence[Endpoint]) -> Endpoint | None:
        """Where published ports lead: the first network that can be reached from outside."""
        for one in endpoints:
            network = self._registry.find(one.network).network
            if network.driver is Driver.BRIDGE and not network.internal:
                return one
        return None

    def _foreign(self, endpoints: Sequence[Endpoint]) -> Endpoint | None:
        """An endpoint whose plugins publish ports by themselves; only the host's side is ours."""
        for one in endpoints:
            if self._registry.find(one.network).network.driver is Driver.CNI:
                return replace(one, ipv4=one.ipv4 or EVERY4)
        return None

    def _relay(self, joined: Joined, published: Sequence[Published]) -> None:
        """Carry by ourselves what the kernel does not rewrite, and so comes to a guard."""
        for one in published:
            guard = self._guards.find(one)
            if guard is not None:
                self._relays.open(guard, partial(_inside, joined, one))

    def _let_go(self, published: Sequence[Published]) -> None:
        for one in published:
            guard = self._guards.find(one)
            if guard is not None:
                self._relays.close(guard)
        self._guards.release(published)

    def _take(
        self, container: Container, target: Endpoint, bindings: Sequence[Binding]
    ) -> list[Published]:
        options = self._registry.find(target.network).network.options
        default = options.get(BINDING) or self._default
        carried = self._registry.find(target.network).network.driver is Driver.BRIDGE
        versions = joining.versions(target)
        try:
            return self._guards.publish(bindings, default, versions, carried=carried)
        except StartFailed as error:
            raise StartFailed(
                "driver failed programming external connectivity on endpoint "
                f"{container.name} ({target.id}): {error}"
            ) from error


def _inside(joined: Joined, one: Published) -> tuple[str, int] | None:
    """Where a published port leads now."""
    if joined.target is None:
        return None
    address = joined.target.ipv4
    if ":" in one.host:
        address = joined.target.ipv6 or address  # with IPv4 only, it is reached by that
    return (address, one.port) if address else None


def port_row(owner: str, one: Published) -> rows.PortRow:
    """The row of a published port."""
    return rows.PortRow(one.protocol, one.host, one.host_port, owner, one.port)
