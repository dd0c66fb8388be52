"""Remove and prune: what create made, taken away in one transaction.

The rows of container and snapshot go with the event, then the directories, by the disk's threads.
Ids are never used again, so nobody waits for them; what a kill leaves of them is swept at the next
start.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from sampan.engine import filters, storage
from sampan.engine.config import reach
from sampan.engine.model import Pruned, Status, WaitCondition
from sampan.engine.start import drop, split_rootfs
from sampan.errors import Conflict, ContainerNotFound, DeadlineExceeded, InvalidArgument
from sampan.tasks import recovery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sampan.engine.containers import Entry
    from sampan.engine.exec import Execs
    from sampan.engine.filters import Filters
    from sampan.engine.model import Container
    from sampan.engine.services import Services
    from sampan.store.database import Connection
    from sampan.volumes.local import Volume

log = logging.getLogger(__name__)

_PRUNE_KEYS = frozenset(("until", "label", "label!"))


class Remover:
    """Removes containers. `end` kills one and waits for its end."""

    def __init__(
        self, services: Services, execs: Execs, end: Callable[[Entry], Awaitable[None]]
    ) -> None:
        self._services = services
        self._execs = execs
        self._end = end

    async def remove(
        self, entry: Entry, force: bool = False, volumes: bool = False
    ) -> None:  # fmt: skip
        """See Engine.remove."""
        while True:
            container = entry.container
            if container.status is Status.REMOVING:
                raise Conflict(f"removal of container {container.name} is already in progress")
            if not container.status.can_remove or entry.launched is not None:
                _refuse_running(entry, force)
                await self._end(entry)
            async with entry.lock:
                if entry.container.status is Status.REMOVING:
                    raise ContainerNotFound(f"No such container: {entry.id}")
                if not entry.container.status.is_running:
                    await self._remove(entry, volumes or entry.container.host.auto_remove)
                    return
            # A start was under way when we looked. Who forces ends that one too.
            if not force:
                raise Conflict(f"container {entry.container.name} was started meanwhile")

    async def remove_ended(self, entry: Entry) -> None:
        """Remove a container that asked for it at its end, unless somebody was quicker."""
        try:
            await self.remove(entry)
        except (Conflict, ContainerNotFound) as error:
            log.info("remove container %s by itself: %s", entry.id, error)

    async def prune(self, wanted: Filters | None) -> Pruned:
        """See Engine.prune."""
        if unknown := (wanted or {}).keys() - _PRUNE_KEYS:
            raise InvalidArgument(f"invalid filter '{min(unknown)}'")
        unlabelled = tuple((wanted or {}).get("label!", ()))
        rest = {key: values for key, values in (wanted or {}).items() if key != "label!"}
        matches = filters.container_filter(rest, lambda ref: self._find(ref).container)
        removed: list[str] = []
        freed = 0
        for entry in self._services.containers:
            container = entry.container
            if container.owner or not container.status.can_remove or not matches(container):
                continue
            if unlabelled and filters.has_labels(container.config.labels, unlabelled):
                continue
            freed += await self._size(entry)
            try:
                await self.remove(entry)
            except (Conflict, ContainerNotFound):
                continue  # somebody was quicker
            removed.append(entry.id)
        return Pruned(ids=tuple(removed), space_reclaimed=freed)

    async def _remove(self, entry: Entry, volumes: bool) -> None:  # noqa: FBT001, RUF100
        services = self._services
        before = entry.container
        gone = replace(before, state=replace(before.state, status=Status.REMOVING))
        entry.container = gone
        attached, entry.attachments = entry.attachments, []
        drop(attached)
        orphans = services.volumes.orphans(before) if volumes and before.mounts else []
        try:
            reach(services.config, "remove")
            numbers = await services.containers.delete(
                entry,
                partial(self._remove_rows, before, orphans),
                *services.volumes.destroyed(orphans),
                services.containers.event(gone, "destroy"),
            )
        except BaseException:
            entry.container = replace(before, state=replace(before.state, status=Status.DEAD))
            raise
        reach(services.config, "removed")
        services.snapshots.discard(numbers)
        if before.host.storage_opt:
            storage.forget(services.layout.root, numbers)
        if orphans:
            await services.volumes.discard(orphans)
        places = services.layout.shim(entry.id), services.layout.container(entry.id)
        services.snapshots.trash.later(partial(_delete_files, *places))
        if entry.task is not None:
            entry.task.close()
            entry.task = None
        self._execs.forget(entry)
        entry.resolve(*WaitCondition)

    def _remove_rows(
        self, container: Container, orphans: list[Volume], conn: Connection
    ) -> list[int]:
        """Remove what the container's row kept; the numbers of its snapshots."""
        self._services.volumes.forget_now(conn, orphans)
        keys = [mount.snapshot for mount in container.mounts if mount.snapshot]
        if _has_snapshot(container):
            keys.append(container.id)
        return [self._services.snapshots.remove_now(conn, key) for key in keys]

    def _find(self, ref: str) -> Entry:
        return self._services.containers.find(ref)

    async def _size(self, entry: Entry) -> int:
        if not _has_snapshot(entry.container):
            return 0
        return await self._services.snapshots.written(entry.id)


def _has_snapshot(container: Container) -> bool:
    rootfs = container.config.rootfs
    return rootfs is None or split_rootfs(rootfs)[1]


async def wait_for_end(entry: Entry, patience: float) -> None:
    """Wait until nothing of the container runs.

    Raises:
        DeadlineExceeded: something still does.
    """
    wait = entry.arm(WaitCondition.NOT_RUNNING)
    try:
        async with asyncio.timeout(patience):
            await wait
    except TimeoutError:
        wait.cancel()
        raise DeadlineExceeded(
            f"container {entry.container.name} did not end within {patience:.0f} s"
        ) from None


def _refuse_running(entry: Entry, force: bool) -> None:
    if force:
        return
    name, status = entry.container.name, entry.container.status
    if status is Status.PAUSED:
        raise Conflict(
            f'cannot remove container "{name}": container is paused and must be unpaused first'
        )
    if entry.launched is not None:
        raise Conflict(f'cannot remove container "{name}": it is being started')
    raise Conflict(
        f'cannot remove container "{name}": container is {status}: '
        "stop the container before removing or force remove"
    )


def _delete_files(shim: str, container: str) -> None:
    """The records of the shim, the log and the small files below /etc."""
    try:
        recovery.clear(shim)
        recovery.clear(container)
    except OSError as error:
        log.error("remove files of a container: %s", error)  # noqa: TRY400 - no trace needed
