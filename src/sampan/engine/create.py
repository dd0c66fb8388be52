"""Create: a request becomes a container, in one transaction, or nothing happens.

The name is reserved in memory (the engine is the only writer), everything is checked before
anything is made, and then one write makes the snapshot's row and directories, the container's row
and the event. A kill before it leaves nothing; a kill behind it leaves a whole container.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sampan.engine import joining, limits, links, mounts, ranges, resolve, runtimes, storage
from sampan.engine.config import reach
from sampan.engine.model import Container, Created, LogDriver, MountType, Ownership
from sampan.engine.start import SNAPSHOT, overlay_above, split_rootfs
from sampan.errors import ContainerNotFound, FailedPrecondition, InvalidArgument, NotFound
from sampan.ids import new_id
from sampan.network.model import BRIDGE
from sampan.spec.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sampan.engine.model import ContainerConfig, HostConfig, Mount
    from sampan.engine.services import Services
    from sampan.images.model import Image
    from sampan.network.model import EndpointRequest
    from sampan.snapshots.base import BindMount, OverlayMount
    from sampan.snapshots.base import Mount as RootMount
    from sampan.store.database import Connection


class Creator:
    """Makes containers."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def create(
        self,
        config: ContainerConfig,
        host: HostConfig,
        name: str | None,
        platform: str | None,
        owner: Ownership | None = None,
        networks: Mapping[str, EndpointRequest] = MappingProxyType({}),
    ) -> Created:
        """See Engine.create."""
        services = self._services
        _check_source(config, owner)
        host, warnings = limits.check(self._named(host))
        self._check_links(host)
        if host.runtime and not host.program:
            words = runtimes.program(host.runtime, services.config.runtimes)
            host = replace(host, program=words)
        container_id = new_id()
        name = services.containers.reserve(name, container_id)
        try:
            image = await self._image(config, platform)
            container = self._container(container_id, name, config, host, image)
            if owner is not None:
                container = replace(container, owner=owner.owner, notes=owner.notes, ids=owner.ids)
            container = replace(self._name_target(container), networks=networks)
            container = services.networks.settle(container)
            services.filters.get(host, container.architecture)  # refused here, not at the start
            planned = mounts.plan(container.config, host, self._find)
            try:
                await self._insert_any(container, planned, image)
            except NotFound:
                if not await self._remade(image, config, platform):
                    raise
                await self._insert_any(container, planned, image)
        except BaseException:
            services.containers.release(name)
            raise
        return Created(id=container_id, warnings=tuple(warnings))

    async def _remade(
        self, image: Image | None, config: ContainerConfig, platform: str | None
    ) -> bool:
        """Whether an image lacked its snapshots and has them now: after a power failure, or for a
        platform that was never run."""
        if image is None or not image.chain_id or not config.image:
            return False
        if self._services.snapshots.has(image.chain_id):
            return False
        wanted = Platform.parse(platform) if platform else None
        await self._services.images.unpack(config.image, wanted)
        return True

    async def _insert_any(
        self, container: Container, planned: Sequence[Mount], image: Image | None
    ) -> None:
        if planned:
            await self._insert_mounted(container, planned, image)
        else:
            await self._insert(container, image)

    def _named(self, host: HostConfig) -> HostConfig:
        """A container that is named by a mode gets its id, so that it may be renamed."""
        named: dict[str, Any] = {}
        for name in ("pid_mode", "ipc_mode", "uts_mode"):
            word, _, ref = getattr(host, name).partition(":")
            if word == "container" and ref:
                named[name] = f"container:{self._find(ref).id}"
        if host.depends_on:
            named["depends_on"] = tuple(
                replace(one, container=self._find(one.container).id) for one in host.depends_on
            )
        return replace(host, **named) if named else host

    def _check_links(self, host: HostConfig) -> None:
        """On the default bridge a link is to a container; elsewhere to who will have the name."""
        for link in host.links if host.network_mode in (*joining.DEFAULTS, BRIDGE) else ():
            try:
                other = self._find(links.parts(link)[0]).host
                if other.network_mode == "host":
                    raise InvalidArgument(
                        "conflicting options: host type networking can't be used with links. "
                        "This would result in undefined behavior"
                    )
            except ContainerNotFound as error:  # to clients, 404 means that the image is missing
                raise InvalidArgument(f"could not get container for {link}: {error}") from error

    def _name_target(self, container: Container) -> Container:
        """`container:NAME` by its id; the container has that one's host name then.

        One that is not there yet is left as it is called, and found at the start, as with dockerd.
        """
        mode = container.host.network_mode
        if not mode.startswith(joining.CONTAINER):
            return container
        if container.host.ports or container.host.publish_all:
            raise InvalidArgument(
                "conflicting options: port publishing and the container type network mode"
            )
        ref = mode.partition(":")[2]
        if ref == container.name:
            raise InvalidArgument("cannot join own network namespace")
        try:
            return joining.shared_with(container, self._find(ref))
        except ContainerNotFound:
            return container

    async def _insert(
        self,
        container: Container,
        image: Image | None,
        also: Callable[[Connection], None] | None = None,
    ) -> None:
        services = self._services
        reach(services.config, "create")
        await services.containers.insert(
            container, self._prepare(container), image.id if image else None, also
        )
        reach(services.config, "created")
        if image is not None:
            services.images.use(image.id)

    async def _insert_mounted(
        self, container: Container, planned: Sequence[Mount], image: Image | None
    ) -> None:
        """The same for a container with mounts: what they name is made, or must be there."""
        decided, views = await self._views(container.id, planned)
        _check_bind_sources(decided)
        tree = self._tree(container) if mounts.wants_copy(decided) else None
        async with self._services.volumes.claimed(decided, tree) as named:
            mounted = replace(container, mounts=named)
            await self._insert(mounted, image, partial(self._make_views, views))

    async def _views(
        self, container_id: str, planned: Sequence[Mount]
    ) -> tuple[list[Mount], dict[str, str]]:
        """Mounts whose images have the keys of their views; the views' parents by key."""
        decided: list[Mount] = []
        views: dict[str, str] = {}
        for mount in planned:
            if mount.type is MountType.IMAGE:
                image = await self._services.images.get(mount.source)
                key = f"{container_id}/{len(views)}"
                views[key] = image.chain_id
                mount = replace(mount, snapshot=key)  # noqa: PLW2901
            decided.append(mount)
        return decided, views

    def _make_views(self, views: dict[str, str], conn: Connection) -> None:
        for key, parent in views.items():
            self._services.snapshots.view_now(conn, key, parent)

    def _tree(self, container: Container) -> OverlayMount | BindMount | None:
        """The file system that volumes are filled from."""
        rootfs = container.config.rootfs
        if rootfs is not None:
            return {"type": "bind", "source": split_rootfs(rootfs)[0]}
        return self._services.snapshots.tree(container.chain_id) if container.chain_id else None

    def _find(self, ref: str) -> Container:
        return self._services.containers.find(ref).container

    async def _image(self, config: ContainerConfig, platform: str | None) -> Image | None:
        if config.image is None:
            return None
        wanted = Platform.parse(platform) if platform else None
        return await self._services.images.get(config.image, wanted)

    def _container(
        self,
        container_id: str,
        name: str,
        config: ContainerConfig,
        host: HostConfig,
        image: Image | None,
    ) -> Container:
        own = image.config.config if image else None
        config = resolve.complete(config, own, host, container_id)
        path, *args = resolve.command_line(config)
        services = self._services
        return Container(
            id=container_id,
            name=name,
            created_at=time.time_ns(),
            config=config,
            host=host,
            path=path,
            args=tuple(args),
            ids=self._range(host),
            image_id=image.id if image else "",
            image_name=config.image or "",
            image_labels=own.labels if own else {},
            chain_id=image.chain_id if image else "",
            architecture=image.architecture if image else "",
            log_path=services.layout.log(container_id)
            if host.log.driver in (LogDriver.JSON_FILE, LogDriver.LOCAL)
            else host.log.path,
        )

    def _range(self, host: HostConfig) -> tuple[int, ...]:
        size = ranges.size_of(host.userns_mode)
        if not size:
            return ()
        first = ranges.choose(size, (entry.container for entry in self._services.containers))
        return first, size

    def _prepare(self, container: Container) -> partial[RootMount] | None:
        """What makes the writable layer inside of the transaction; None where there is none."""
        prepare = self._prepare_any(container)
        size = storage.size_of(container.host.storage_opt)
        if not size:
            return prepare
        if prepare is None:
            raise InvalidArgument("--storage-opt size: the container has no layer of its own")
        return partial(self._prepare_limited, prepare, size)

    def _prepare_any(self, container: Container) -> partial[RootMount] | None:
        rootfs = container.config.rootfs
        if rootfs is None:
            return partial(self._prepare_image, container.id, container.chain_id or None)
        directory, overlaid = split_rootfs(rootfs)
        return partial(self._prepare_overlay, container.id, directory) if overlaid else None

    def _prepare_limited(
        self, prepare: partial[RootMount], size: int, conn: Connection
    ) -> RootMount:
        mount = prepare(conn)
        try:
            storage.limit(mount, size)
        except FailedPrecondition:
            if mount["type"] == "overlay":
                self._services.snapshots.trash.discard(os.path.dirname(mount["upper"]))
            raise
        return mount

    def _prepare_image(self, key: str, parent: str | None, conn: Connection) -> RootMount:
        return self._services.snapshots.prepare_now(conn, key, parent)

    def _prepare_overlay(self, key: str, directory: str, conn: Connection) -> RootMount:
        mount = self._services.snapshots.prepare_now(conn, key, None)
        assert mount["type"] == "bind"
        status = os.stat(directory)
        os.chown(mount["source"], status.st_uid, status.st_gid)
        os.chmod(mount["source"], stat.S_IMODE(status.st_mode))
        above = overlay_above(directory, mount)
        os.makedirs(above["work"], 0o700, exist_ok=True)
        return above


def _check_source(config: ContainerConfig, owner: Ownership | None) -> None:
    """Exactly one of image and rootfs: a directory of the host, or the snapshot of an owner."""
    if bool(config.image) == bool(config.rootfs):
        raise InvalidArgument("exactly one of image and rootfs must be given")
    if not config.rootfs or (owner is not None and config.rootfs.startswith(SNAPSHOT)):
        return
    directory, _ = split_rootfs(config.rootfs)
    if not directory.startswith("/") or "\0" in directory:
        raise InvalidArgument(f"invalid rootfs {directory!r}: it must be an absolute path")
    try:
        status = os.stat(directory)
    except OSError as error:
        raise InvalidArgument(f"invalid rootfs {directory!r}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise InvalidArgument(f"invalid rootfs {directory!r}: not a directory")
    if os.path.samestat(status, os.stat("/")):
        raise InvalidArgument("invalid rootfs: the host's own root")


def _check_bind_sources(decided: Sequence[Mount]) -> None:
    """As dockerd: a source of `-v` that is missing becomes a directory, one of `--mount` fails."""
    missing = [m for m in decided if m.type is MountType.BIND and not os.path.lexists(m.source)]
    for mount in missing:
        if not mount.make_source:
            raise InvalidArgument(
                'invalid mount config for type "bind": bind source path does not exist: '
                f"{mount.source}"
            )
    for mount in missing:
        try:
            os.makedirs(mount.source, 0o755, exist_ok=True)
        except OSError as error:
            raise InvalidArgument(f"make bind source {mount.source}: {error}") from error
