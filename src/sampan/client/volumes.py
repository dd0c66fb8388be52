"""The library's volumes: `engine.volumes.create("data")`, and the same awaited."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sampan.client import calls

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping
    from typing import Self

    from sampan.client.aio import AsyncClient
    from sampan.client.sync import Client

    Filters = dict[str, builtins.list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume. `path` is its directory on the host, when the engine is on this host."""

    name: str
    path: str
    created_at: str
    labels: dict[str, str]
    options: dict[str, str]
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Self:
        """From an answer of /volumes."""
        return cls(
            name=answer["Name"],
            path=answer.get("Mountpoint") or "",
            created_at=answer.get("CreatedAt") or "",
            labels=answer.get("Labels") or {},
            options=answer.get("Options") or {},
            raw=answer,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a prune removed; bytes."""

    names: tuple[str, ...]
    space_reclaimed: int

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Self:
        """From the answer of a prune."""
        return cls(
            names=tuple(answer.get("VolumesDeleted") or ()),
            space_reclaimed=answer.get("SpaceReclaimed") or 0,
        )


def create_body(
    name: str, labels: Mapping[str, str] | None, options: Mapping[str, str] | None
) -> dict[str, Any]:
    """The body of POST /volumes/create."""
    body: dict[str, Any] = {"Name": name, "Driver": "local"}
    if labels:
        body["Labels"] = dict(labels)
    if options:
        body["DriverOpts"] = dict(options)
    return body


def prune_filters(filters: Filters | None, *, all: bool) -> Filters | None:  # noqa: A002
    """The filters of a prune; `all` takes volumes with names too."""
    return {**(filters or {}), "all": ["true"]} if all else filters


class Volumes:
    """The volumes of one engine."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(
        self,
        name: str = "",
        *,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume, or find the one that is there; without a name it gets one."""
        body = create_body(name, labels, options)
        return Volume.parse(self._client.call(calls.volume_create(body)))

    def list(self, filters: Filters | None = None) -> builtins.list[Volume]:
        """Volumes by name; filters: dangling, driver, label, name."""
        answer = self._client.call(calls.volumes(filters))
        return [Volume.parse(one) for one in answer["Volumes"] or ()]

    def get(self, name: str) -> Volume:
        """One volume. Raises NotFound."""
        return Volume.parse(self._client.call(calls.volume_inspect(name)))

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume with its content. Raises Conflict while a container has it."""
        self._client.call(calls.volume_remove(name, force=force))

    def prune(self, filters: Filters | None = None, *, all: bool = False) -> Pruned:  # noqa: A002
        """Remove volumes that no container has: those without a name, or with `all` every one."""
        wanted = prune_filters(filters, all=all)
        return Pruned.parse(self._client.call(calls.prune_volumes(wanted)))


class AsyncVolumes:
    """The same, awaited."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(
        self,
        name: str = "",
        *,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume, or find the one that is there; without a name it gets one."""
        body = create_body(name, labels, options)
        return Volume.parse(await self._client.call(calls.volume_create(body)))

    async def list(self, filters: Filters | None = None) -> builtins.list[Volume]:
        """Volumes by name; filters: dangling, driver, label, name."""
        answer = await self._client.call(calls.volumes(filters))
        return [Volume.parse(one) for one in answer["Volumes"] or ()]

    async def get(self, name: str) -> Volume:
        """One volume. Raises NotFound."""
        return Volume.parse(await self._client.call(calls.volume_inspect(name)))

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume with its content. Raises Conflict while a container has it."""
        await self._client.call(calls.volume_remove(name, force=force))

    async def prune(
        self,
        filters: Filters | None = None,
        *,
        all: bool = False,  # noqa: A002
    ) -> Pruned:
        """Remove volumes that no container has: those without a name, or with `all` every one."""
        wanted = prune_filters(filters, all=all)
        return Pruned.parse(await self._client.call(calls.prune_volumes(wanted)))
