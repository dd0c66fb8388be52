"""The engine's verbs about containers and their networks: a part of `Engine`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.network.model import EndpointRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.engine.build import Parts
    from sampan.engine.containers import Entry
    from sampan.engine.filters import Filters
    from sampan.network.model import Binding


class NetworkVerbs:
    """Connect, disconnect, publish, restrict."""

    _parts: Parts

    def _find(self, ref: str) -> Entry:
        return self._parts.services.containers.find(ref)

    async def connect(self, network: str, ref: str, wish: EndpointRequest | None = None) -> None:
        """Put a container into one more network, at once if it runs.

        Raises:
            PermissionDenied: it is in there, or its network mode allows no other.
            InvalidArgument: an address or an alias cannot be had.
        """
        await self._parts.membership.connect(self._find(ref), network, wish or EndpointRequest())

    async def disconnect(self, network: str, ref: str) -> None:
        """Take a container out of a network.

        Raises:
            PermissionDenied: it is not in there.
        """
        await self._parts.membership.disconnect(self._find(ref), network)

    async def unlink(self, ref: str, alias: str) -> None:
        """Take a link of a container away; what runs keeps its environment. Raises NotFound."""
        await self._parts.membership.unlink(self._find(ref), alias)

    async def publish(
        self, ref: str, add: Sequence[Binding] = (), drop: Sequence[Binding] = ()
    ) -> None:
        """Publish ports of a container, and withdraw others, at once if it runs.

        Raises:
            Conflict: a port is taken, or the container has no network of its own.
            NotFound: a port that is to be withdrawn is not published.
        """
        await self._parts.membership.publish(self._find(ref), add, drop)

    async def restrict(self, ref: str, rules: Sequence[str] | None) -> None:
        """Let a container reach these names and networks only, at once if it runs; no rule is
        nothing, None is everything.

        Raises:
            InvalidArgument: a rule is wrong, or one of its networks is no bridge.
            Conflict: it has no network of its own.
        """
        await self._parts.membership.restrict(self._find(ref), rules)

    async def prune_networks(self, filters: Filters | None = None) -> Sequence[str]:
        """Remove every network that no container names; the names of those that went."""
        return await self._parts.membership.prune(filters)
