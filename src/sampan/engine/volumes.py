"""Volumes as the engine has them: made for containers, filled once, counted, removed, told of.

Who uses a volume is known from the containers' records alone. A lock for each name keeps a removal
and a container that is being made with the volume apart; whoever needs several takes them in the
order of their names. A volume with a file system behind it is mounted on its directory while a
container runs that uses it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from sampan.engine import events as bus
from sampan.engine import mounts as plans
from sampan.engine import ranges
from sampan.engine.model import MountType, Pruned
from sampan.engine.volumefilters import prune_filter, volume_filter
from sampan.errors import Conflict, NotFound
from sampan.ids import new_id
from sampan.snapshots.base import mapped
from sampan.store import volumes as rows
from sampan.store.locks import KeyedLocks
from sampan.volumes import backing, copyup
from sampan.volumes.local import DRIVER, Volume, VolumeNotFound, new_row

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    from sampan.engine.containers import Containers
    from sampan.engine.events import Events
    from sampan.engine.filters import Filters
    from sampan.engine.model import Container, Event, Mount
    from sampan.store.database import Connection
    from sampan.volumes.local import LocalVolumes

T = TypeVar("T")
log = logging.getLogger(__name__)

ANONYMOUS_LABEL = "com.docker.volume.anonymous"


class Volumes:
    """Every volume of the engine."""

    def __init__(
        self, local: LocalVolumes, containers: Containers, events: Events, disk: Executor
    ) -> None:
        self._local = local
        self._containers = containers
        self._events = events
        self._disk = disk
        self._locks = KeyedLocks()
        self._held: dict[str, list[str]] = {}

    def load(self) -> None:
        """Read what is there; at start, after the containers."""
        self._local.load()

    # what clients do

    async def create(
        self,
        name: str = "",
        *,
        driver: str = "",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume; one that is there already is given as it is. "" names it by itself.

        Raises:
            InvalidArgument: name or options are impossible. NotFound: there is no such driver.
        """
        check_driver(driver)
        async with self._locks.hold(name):
            if name and name in self._local:
                return self._local.get(name)
            labels = labels or {}
            if not name:
                labels = {**labels, ANONYMOUS_LABEL: ""}
            return await self._make(name or new_id(), not name, labels, options or {})

    def get(self, name: str) -> Volume:
        """The volume of that name. Raises VolumeNotFound."""
        return self._local.get(name)

    def list(self, filters: Filters | None = None) -> builtins.list[Volume]:
        """Volumes by name; filters: dangling, driver, label, name."""
        matches = volume_filter(filters, self.counts())
        return [volume for volume in self._local if matches(volume)]

    def users(self, name: str) -> builtins.list[str]:
        """The ids of the containers that mount the volume, running or not."""
        found = [
            entry.id for entry in self._containers if name in plans.names(entry.container.mounts)
        ]
        return [*found, *self._held.get(name, ())]

    @contextmanager
    def held(self, name: str, holder: str) -> Iterator[None]:
        """Count `holder` among those who use a volume, for the block: it is not removed meanwhile.

        Enter it without an await behind `create`, so that nobody removes it in between.
        """
        holders = self._held.setdefault(name, [])
        holders.append(holder)
        try:
            yield
        finally:
            holders.remove(holder)
            if not holders:
                del self._held[name]

    def counts(self) -> Counter[str]:
        """How many containers mount each volume, running or not."""
        return Counter(
            name for entry in self._containers for name in plans.names(entry.container.mounts)
        )

    async def size(self, volume: Volume) -> int:
        """Bytes that the volume takes on the disk."""
        return await self._on_disk(self._local.measure, volume)

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume and what is in it; `force` forgives one that is not there.

        Raises:
            VolumeNotFound: there is none. Conflict: a container uses it.
        """
        async with self._locks.hold(name):
            try:
                volume = self._local.get(name)
            except VolumeNotFound:
                if force:
                    return
                raise
            if users := self.users(name):
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            await self._destroy(volume)

    async def prune(self, filters: Filters | None = None) -> Pruned:
        """Remove volumes that nothing uses: those without a name, or with `all` every one."""
        matches = prune_filter(filters)
        removed, freed = [], 0
        for volume in self._local:
            async with self._locks.hold(volume.name):
                if volume.name not in self._local or not matches(volume) or self.users(volume.name):
                    continue
                freed += await self.size(volume)
                await self._destroy(volume)
                removed.append(volume.name)
        made = bus.make("volume", "prune", "", {"reclaimed": str(freed)})
        await self._events.store([made])
        return Pruned(ids=tuple(removed), space_reclaimed=freed)

    # what containers need

    @asynccontextmanager
    async def claimed(
        self, mounts: Sequence[Mount], tree: Mapping[str, Any] | None
    ) -> AsyncIterator[tuple[Mount, ...]]:
        """The mounts of a container with volumes that are there, for as long as the block lasts.

        `tree` is the image's file system, of which empty volumes are filled. What was made for a
        container that then could not be made is removed again.
        """
        named = tuple(self._named(mount) for mount in mounts)
        async with AsyncExitStack() as held:
            for name in sorted(plans.names(named)):
                await held.enter_async_context(self._locks.hold(name))
            made: list[Volume] = []
            try:
                for before, mount in zip(mounts, named, strict=True):
                    if mount.type is MountType.VOLUME:
                        await self._claim(mount, not before.source, tree, made)
                yield named
            except BaseException:
                for volume in made:
                    await self._destroy(volume)
                raise

    def _named(self, mount: Mount) -> Mount:
        if mount.type is not MountType.VOLUME:
            return mount
        name = mount.source or new_id()
        return replace(mount, source=name, path=self._local.path_of(name))

    async def _claim(
        self,
        mount: Mount,
        anonymous: bool,  # noqa: FBT001, RUF100
        tree: Mapping[str, Any] | None,
        made: builtins.list[Volume],
    ) -> None:
        if mount.source in self._local:
            volume = self._local.get(mount.source)
        else:
            labels = {**mount.labels, ANONYMOUS_LABEL: ""} if anonymous else mount.labels
            volume = await self._make(mount.source, anonymous, labels, mount.driver_options)
            made.append(volume)
        fresh = not volume.backing.kind and not self.users(volume.name)
        if mount.copy and not mount.subpath and tree is not None and fresh:
            directory = self._local.directory(volume)
            await self._on_disk(copyup.populate, tree, mount.target, directory)

    async def prepare(self, container: Container) -> None:
        """Mount what is behind the volumes of a container that is about to start."""
        for volume in self._of(container):
            if volume.backing.is_mounted:
                async with self._locks.hold(volume.name):
                    await self._on_disk(backing.mount, volume.backing, volume.path)

    async def release(self, container: Container) -> None:
        """Unmount what is behind the volumes that no running container uses any more."""
        for name in plans.names(container.mounts):
            async with self._locks.hold(name):
                if name in self._local and not self._is_running(name):
                    volume = self._local.get(name)
                    if volume.backing.is_mounted:
                        await self._on_disk(backing.unmount, volume.path)

    def needs_release(self, container: Container) -> bool:
        """Whether a file system was mounted for the container."""
        return any(
            self._local.get(name).backing.is_mounted
            for name in plans.names(container.mounts)
            if name in self._local
        )

    def events_of(self, container: Container, action: str) -> builtins.list[Event]:
        """`mount` or `unmount` of each of its volumes."""
        return [
            bus.make("volume", action, mount.source, _attributes(mount, container.id))
            for mount in container.mounts
            if mount.type is MountType.VOLUME
        ]

    def orphans(self, container: Container) -> builtins.list[Volume]:
        """The volumes without a name that go with the container.

        One that the container named all the same was somebody else's before: it stays.
        """
        known = set(plans.names(container.mounts)) - set(plans.named_by(container.host))
        found = [self._local.get(name) for name in sorted(known) if name in self._local]
        return [
            volume
            for volume in found
            if volume.anonymous and self.users(volume.name) == [container.id]
        ]

    def destroyed(self, volumes: Iterable[Volume]) -> builtins.list[Event]:
        """The events of their end."""
        return [bus.make("volume", "destroy", v.name, {"driver": DRIVER}) for v in volumes]

    def forget_now(self, conn: Connection, volumes: Iterable[Volume]) -> None:
        """Remove the rows, with the events, in the transaction that removes their container."""
        for volume in volumes:
            rows.delete(conn, volume.name)

    async def discard(self, volumes: Iterable[Volume]) -> None:
        """Remove the directories of volumes whose rows are gone."""
        for volume in volumes:
            if volume.backing.is_mounted:
                await self._on_disk(backing.unmount, volume.path)
            self._local.discard(volume)

    def specification(
        self, container: Container, tree_of: Callable[[str], Any]
    ) -> tuple[dict[str, Any], ...]:
        """The container's mounts in the words of the OCI configuration.

        `tree_of` gives the file system of a snapshot's key. Raises VolumeNotFound.
        """
        maps = ranges.mappings(container)
        return tuple(self._words(mount, tree_of, maps) for mount in container.mounts)

    def _words(
        self,
        mount: Mount,
        tree_of: Callable[[str], Any],
        maps: builtins.list[dict[str, int]],
    ) -> dict[str, Any]:
        """With a user namespace's ids where the files are ours, or were said to be shown so."""
        if mount.type is MountType.IMAGE:
            tree = tree_of(mount.snapshot)
            return plans.image_words(mount, mapped(tree, maps) if maps else tree)
        if mount.type is MountType.VOLUME:
            volume = self._local.get(mount.source)
            words = plans.volume_words(mount, volume.path, volume.backing)
            is_shown = bool(maps)
        else:
            words = plans.words(mount)
            is_shown = bool(maps) and "idmap" in mount.words
        return {**words, "options": [*words["options"], "idmap"]} if is_shown else words

    # inside

    async def _on_disk(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work, *arguments)

    async def _make(
        self,
        name: str,
        anonymous: bool,  # noqa: FBT001, RUF100
        labels: Mapping[str, str],
        options: Mapping[str, str],
    ) -> Volume:
        row = new_row(name, anonymous=anonymous, labels=labels, driver_options=options)
        made = [bus.make("volume", "create", name, {"driver": DRIVER})]

        def also(conn: Connection, _: Volume) -> None:
            made[:] = bus.store(conn, made)

        volume = await self._local.create(row, also)
        self._events.publish(made)
        return volume

    async def _destroy(self, volume: Volume) -> None:
        made = [bus.make("volume", "destroy", volume.name, {"driver": DRIVER})]

        def also(conn: Connection, _: Volume) -> None:
            made[:] = bus.store(conn, made)

        if volume.backing.is_mounted:
            await self._on_disk(backing.unmount, volume.path)
        await self._local.remove(volume, also)
        self._events.publish(made)

    def _of(self, container: Container) -> builtins.list[Volume]:
        return [self._local.get(name) for name in plans.names(container.mounts)]

    def _is_running(self, name: str) -> bool:
        return any(
            entry.container.status.is_running or entry.launched is not None
            for entry in self._containers
            if name in plans.names(entry.container.mounts)
        )


def check_driver(name: str) -> None:
    """Raises NotFound unless it is the one driver that there is."""
    if name not in ("", DRIVER):
        raise NotFound(f'error looking up volume plugin {name}: plugin "{name}" not found')


def _attributes(mount: Mount, container_id: str) -> dict[str, str]:
    return {
        "container": container_id,
        "destination": mount.target,
        "driver": DRIVER,
        "propagation": mount.propagation,
        "read/write": str(not mount.read_only).lower(),
    }
