"""The thread that does the kernel's work for networks, and what runs beside it.

One thread does everything, in the order in which it was asked for, so that a release is over before
the next start begins. Spares are made when nothing else is to be done. When somebody flushes the
packet filter, the rules are made again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from sampan.errors import FailedPrecondition, SampanError
from sampan.kernel.identity import is_unprivileged
from sampan.network import doors, firewall, hostfirewall, spaces
from sampan.network.denials import Denials, group_of
from sampan.network.firewall import Watch
from sampan.network.model import Driver
from sampan.network.plumbing import Plumber

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sampan.network.denials import Denied
    from sampan.network.doors import Doors
    from sampan.network.egress import Policy
    from sampan.network.hostfirewall import HostFirewall
    from sampan.network.ipam import Subnet
    from sampan.network.model import Endpoint, Network, Published
    from sampan.network.spaces import Space

log = logging.getLogger(__name__)

REFILL_DELAY = 0.02
"""Seconds of quiet after a start until the next spare is made, where none is left."""

REFILL_LATER = 0.15
"""The same where some are left: what is going on is not held up by what may come."""

REASSERT_DELAY = 0.05
"""Seconds after a foreign flush until the rules are made again: a reload flushes more than once."""

RETRY_DELAY = 1.0
"""Seconds until the rules are made again that could not be made."""


@dataclass(slots=True)
class Joined:
    """What one container has of networks while it runs."""

    owner: str
    endpoints: list[Endpoint] = field(default_factory=list)
    space: Space | None = None
    published: list[Published] = field(default_factory=list)
    doors: Doors | None = None
    """Sockets of the name server, until it has them."""
    target: Endpoint | None = None
    """The endpoint that the published ports lead to."""


class Wiring:
    """The plumber, from the event loop. What it raises as OSError is FailedPrecondition here."""

    def __init__(self, marker: str) -> None:
        self._plumber = Plumber(marker)
        self._worker = ThreadPoolExecutor(1, "sampan-net")
        self._refill: asyncio.TimerHandle | None = None
        self._watch: Watch | None = None
        self._denials: Denials | None = None
        self.on_denied: Callable[[Denied], None] | None = None
        self._closed = False

    def name_table(self, name: str) -> None:
        """Say how our table in the packet filter is called; before anything is made."""
        self._plumber.firewall.name = name

    def subnets_now(self) -> list[Subnet]:
        """The subnets that the host uses; before anything else happens."""
        return self._plumber.subnets()

    async def subnets(self) -> list[Subnet]:
        """The subnets that the host uses."""
        found: list[Subnet] = await self._do("list subnets", self._plumber.subnets)
        return found

    async def make_bridge(self, network: Network) -> None:
        """Make what a network needs before anybody is in it."""
        if network.driver is Driver.BRIDGE:
            await self._do(f"make network {network.name}", self._plumber.make_bridge, network)
            self._listen()

    async def remove_bridge(self, network: Network) -> None:
        """Undo `make_bridge`."""
        if network.driver is Driver.BRIDGE:
            await self._do(f"remove network {network.name}", self._plumber.remove_bridge, network)

    def drop_bridge(self, network: Network) -> None:
        """`remove_bridge` for one that may not be there; nobody waits for it."""
        if network.driver is Driver.BRIDGE:
            self._worker.submit(_guarded, self._plumber.remove_bridge, network)

    async def open(self, path: str) -> Space:
        """The namespace behind a path."""
        space: Space = await self._do("open network namespace", spaces.open_path, path)
        return space

    async def restore(
        self,
        networks: Sequence[Network],
        busy: set[str],
        ports: Sequence[tuple[Endpoint, Sequence[Published]]],
    ) -> None:
        """The rules as they were, at once, when anything of ours is there."""
        bridges = [one for one in networks if one.driver is Driver.BRIDGE]
        if await self._do("restore networks", self._plumber.restore, bridges, busy, ports):
            self._listen()

    async def wire(
        self,
        networks: Sequence[Network],
        joined: Joined,
        gateway: Endpoint | None,
        *,
        names: bool = False,
    ) -> None:
        """A namespace with an interface in every network; ports lead to it. With `names`, it can
        ask our name server."""
        await self._do("join networks", self._make, networks, joined, gateway, names)
        self._listen()

    async def open_doors(self, joined: Joined) -> None:
        """Let what is there already ask our name server."""
        assert joined.space is not None
        joined.doors = await self._do("open name server", doors.open_doors, joined.space)

    async def connect(
        self,
        joined: Joined,
        network: Network,
        endpoint: Endpoint,
        gateway: Endpoint | None,
        target: Endpoint | None,
    ) -> None:
        """One more interface for a namespace; ports that led nowhere lead to `target` then."""
        what = f"join network {network.name}"
        await self._do(what, self._connect, joined, network, endpoint, gateway, target)

    async def disconnect(
        self,
        joined: Joined,
        endpoint: Endpoint,
        gateway: Endpoint | None,
        target: Endpoint | None,
    ) -> None:
        """One interface less; published ports lead to `target` then."""
        what = f"leave network {endpoint.network_name}"
        await self._do(what, self._disconnect, joined, endpoint, gateway, target)

    def drop_interface(
        self,
        joined: Joined,
        endpoint: Endpoint,
        gateway: Endpoint | None,
        target: Endpoint | None,
    ) -> None:
        """`disconnect` for what may not be there; nobody waits for it."""
        self._worker.submit(_guarded, self._disconnect, joined, endpoint, gateway, target)

    async def publish(self, endpoint: Endpoint, published: Sequence[Published]) -> None:
        """Let more ports lead to an endpoint."""
        await self._do("publish ports", self._plumber.publish, endpoint, tuple(published))

    async def withdraw(self, endpoint: Endpoint, published: Sequence[Published]) -> None:
        """Undo `publish`."""
        await self._do("withdraw ports", self._plumber.withdraw, endpoint, tuple(published))

    async def restrict(
        self,
        owner: str,
        joined: Joined,
        networks: Sequence[Network],
        policy: Policy | None,
    ) -> None:
        """Let a container reach what `policy` permits; None: everything again."""
        assert joined.space is not None
        pairs = list(zip(joined.endpoints, networks, strict=True))
        what = "restrict egress"
        await self._do(what, self._plumber.restrict, owner, joined.space, pairs, policy)
        if self._denials is None and policy is not None:
            self._denials = Denials(group_of(self._plumber.firewall.name))
            asyncio.get_running_loop().add_reader(self._denials.fileno(), self._denied)

    async def learn(self, owner: str, found: Sequence[tuple[str, int]]) -> None:
        """Let a restricted container reach what a name of its rules has become."""
        await self._do("allow addresses", self._plumber.firewall.learn, owner, found)

    async def host_firewall(self) -> HostFirewall:
        """What the host's own firewall closes."""
        name = self._plumber.firewall.name
        found: HostFirewall = await self._do("read the firewall", hostfirewall.read, name)
        return found

    def let_go(self, joined: Joined) -> None:
        """Ports first, then the namespace; nobody waits for it."""
        self._worker.submit(_guarded, self._let_go, joined)

    def refill_later(self, network: Network) -> None:
        """Make spares for a network when nothing else is to be done."""
        if network.driver is not Driver.BRIDGE or self._closed:
            return
        if self._refill is not None:
            self._refill.cancel()
        loop = asyncio.get_running_loop()
        bridge = network.interface
        delay = REFILL_LATER if self._plumber.has_spare(bridge) else REFILL_DELAY
        self._refill = loop.call_later(delay, self._refill_now, bridge)

    async def aclose(self, opened: Sequence[Space], idle: Sequence[Network]) -> None:
        """Let go of everything, and remove what is made for `idle` networks; what containers have
        stays theirs."""
        self._closed = True
        if self._refill is not None:
            self._refill.cancel()
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch.fileno())
            self._watch.close()
        if self._denials is not None:
            asyncio.get_running_loop().remove_reader(self._denials.fileno())
            self._denials.close()
        for space in opened:
            self._worker.submit(space.close)
        self._worker.submit(_guarded, self._plumber.close, idle)
        await self._do("close networks", os.getpid)  # behind everything else
        self._worker.shutdown()

    # in the thread

    def _make(
        self,
        networks: Sequence[Network],
        joined: Joined,
        gateway: Endpoint | None,
        names: bool,
    ) -> None:
        for network in networks:
            if network.driver is Driver.BRIDGE:
                self._plumber.make_bridge(network)
        space, link, bridge = self._start_with(networks[0] if networks else None)
        try:
            for network, endpoint in zip(networks, joined.endpoints, strict=True):
                self._plumber.attach(
                    space, network, endpoint, routed=endpoint is gateway, link=link, bridge=bridge
                )
                link = bridge = ""
            if names:
                joined.doors = doors.open_doors(space)
            if joined.target is not None:
                self._plumber.publish(joined.target, joined.published)
        except BaseException:
            for sock in joined.doors or ():
                sock.close()
            joined.doors = None
            space.close()
            raise
        joined.space = space

    def _start_with(self, network: Network | None) -> tuple[Space, str, str]:
        """A namespace, and the link in it and its bridge where there is one already."""
        if network is None or network.driver is not Driver.BRIDGE:
            return spaces.make(), "", ""
        spare = self._plumber.take(network.interface)
        return spare.space, spare.link, spare.bridge

    def _connect(
        self,
        joined: Joined,
        network: Network,
        endpoint: Endpoint,
        gateway: Endpoint | None,
        target: Endpoint | None,
    ) -> None:
        assert joined.space is not None
        if network.driver is Driver.BRIDGE:
            self._plumber.make_bridge(network)
        self._plumber.attach(joined.space, network, endpoint, routed=False)
        self._plumber.route(joined.space, gateway)
        if joined.target is None and target is not None:
            self._plumber.publish(target, joined.published)
            joined.target = target

    def _disconnect(
        self,
        joined: Joined,
        endpoint: Endpoint,
        gateway: Endpoint | None,
        target: Endpoint | None,
    ) -> None:
        assert joined.space is not None
        if joined.target == endpoint:  # first: who comes meanwhile is led to where it goes on
            self._plumber.move(endpoint, target, joined.published)
            joined.target = target
        self._plumber.detach(joined.space, endpoint)
        self._plumber.route(joined.space, gateway)

    def _let_go(self, joined: Joined) -> None:
        self._plumber.firewall.restrict(joined.owner, None)
        if joined.target is not None:
            self._plumber.withdraw(joined.target, joined.published)
        for sock in joined.doors or ():
            sock.close()
        if joined.space is not None:
            joined.space.close()

    def _refill_one(self, bridge: str) -> None:
        """Make one, and the next one behind whatever was asked for meanwhile."""
        if not self._closed and self._plumber.refill(bridge):
            with suppress(RuntimeError):  # the engine ends
                self._worker.submit(_guarded, self._refill_one, bridge)

    # on the loop

    async def _do(self, what: str, work: Callable[..., Any], *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._worker, partial(work, *arguments))
        except OSError as error:
            raise FailedPrecondition(f"{what}: {error.strerror or error}") from error

    def _refill_now(self, bridge: str) -> None:
        self._refill = None
        if not self._closed:
            self._worker.submit(_guarded, self._refill_one, bridge)

    def _listen(self) -> None:
        """Hear of foreign flushes, once there is something to lose."""
        if self._watch is None and not self._closed:
            self._watch = Watch(self._plumber.firewall.name)
            asyncio.get_running_loop().add_reader(self._watch.fileno(), self._heard)

    def _heard(self) -> None:
        if self._watch is not None and self._watch.lost():
            asyncio.get_running_loop().call_later(REASSERT_DELAY, self._reassert)

    def _denied(self) -> None:
        for one in self._denials.read() if self._denials is not None else ():
            if self.on_denied is not None:
                self.on_denied(one)

    def _reassert(self) -> None:
        if not self._closed:
            loop = asyncio.get_running_loop()
            done = loop.run_in_executor(self._worker, _guarded, self._plumber.reassert)
            done.add_done_callback(self._asserted)

    def _asserted(self, done: asyncio.Future[bool]) -> None:
        """Without its rules a network is open: they are made again until they are there."""
        if not self._closed and not done.cancelled() and not done.result():
            asyncio.get_running_loop().call_later(RETRY_DELAY, self._reassert)


_is_unprivileged = cache(is_unprivileged)


def why_not() -> str:
    """Why this process can have no networks but host and none; "" when it can."""
    if _is_unprivileged():
        return "the engine does not run as root"
    return "" if firewall.find_nft() else "nft (package nftables) is not installed"


def _guarded(work: Callable[..., object], *arguments: object) -> bool:
    """Work of the thread that nobody waits for; whether it was done."""
    try:
        work(*arguments)
    except (SampanError, OSError) as error:
        log.error("networks: %s", error)  # noqa: TRY400 - no trace needed
        return False
    return True
