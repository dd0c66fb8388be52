"""The engine's composition: every service made once, in the order in which they need each other.

What is made pushes its end on the stack, so that a failure half-way, or the end of the engine,
undoes it in reverse. Nothing here decides anything.
"""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sampan.engine import outofmemory
from sampan.engine.archive import Archives
from sampan.engine.checkpoints import Checkpoints
from sampan.engine.commit import Committer
from sampan.engine.config import DEFAULT_POLICY
from sampan.engine.containers import Containers
from sampan.engine.create import Creator
from sampan.engine.events import Events
from sampan.engine.exec import Execs
from sampan.engine.exits import Exits
from sampan.engine.imagery import Images
from sampan.engine.lifecycle import Lifecycle
from sampan.engine.membership import Membership
from sampan.engine.model import HostConfig
from sampan.engine.networking import Networks
from sampan.engine.recover import Recovery
from sampan.engine.remove import Remover
from sampan.engine.seccomp import Filters
from sampan.engine.services import Background, Services
from sampan.engine.start import Starter, namespace_of
from sampan.engine.volumes import Volumes
from sampan.errors import SampanError
from sampan.images.removal import ImageUser
from sampan.images.retention import Policy
from sampan.images.service import ImageService
from sampan.images.trust import Trust
from sampan.layers.workers import LayerWorkers
from sampan.registry.client import Registry
from sampan.registry.hosts import Hosts
from sampan.registry.proxies import Proxies
from sampan.snapshots.choosing import choose
from sampan.store.content import ContentStore
from sampan.store.database import Database
from sampan.store.gc import Collector
from sampan.store.layout import Layout
from sampan.store.locks import RootLock
from sampan.store.reserve import Reserve
from sampan.tasks.launch import Launcher
from sampan.volumes.local import LocalVolumes

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from sampan.engine.config import EngineConfig
    from sampan.engine.containers import Entry
    from sampan.snapshots.overlay import OverlaySnapshotter

log = logging.getLogger(__name__)

DISK_THREADS = 4


@dataclass(frozen=True, slots=True)
class Parts:
    """The engine's own parts, above the services that they share."""

    services: Services
    creator: Creator
    starter: Starter
    exits: Exits
    execs: Execs
    lifecycle: Lifecycle
    membership: Membership
    remover: Remover
    archives: Archives
    checkpoints: Checkpoints
    committer: Committer


async def build(config: EngineConfig, undo: AsyncExitStack) -> Parts:
    """Lock, open, recover. Raises what the parts raise; whoever owns `undo` then undoes."""
    layout = Layout(config.root, config.state)
    fresh_boot = _prepare(layout)
    lock = RootLock(layout.lock)
    lock.acquire()
    undo.callback(lock.release)
    services = await _services(config, layout, undo)
    parts = _parts(services)
    undo.push_async_callback(parts.archives.aclose)
    services.containers.load()
    services.volumes.load()
    services.networks.load()
    undo.push_async_callback(_flush, services.containers)
    undo.push_async_callback(services.background.aclose)
    undo.callback(_let_go, services)
    await Recovery(services, parts.exits).run(fresh_boot=fresh_boot)
    await services.networks.recover(partial(namespace_of, services))
    if services.images.has_policy:
        services.background.spawn(services.images.keep_house(), "keep images within their policy")
    return parts


def _prepare(layout: Layout) -> bool:
    """Make the directories; whether the state directory is new, which a reboot makes it."""
    fresh = not os.path.isdir(layout.shims)
    layout.create()
    return fresh


async def _services(config: EngineConfig, layout: Layout, undo: AsyncExitStack) -> Services:
    launcher = Launcher()
    launcher.warm()
    undo.push_async_callback(launcher.aclose)
    disk = ThreadPoolExecutor(DISK_THREADS, "sampan-disk")
    undo.callback(disk.shutdown)
    db = await asyncio.to_thread(Database.open, layout.database)
    undo.push_async_callback(db.close)
    content = ContentStore(layout, db, disk)
    undo.push_async_callback(content.aclose)
    snapshots = await asyncio.to_thread(choose, layout, db, disk, config.snapshotter)
    undo.push_async_callback(snapshots.aclose)
    await asyncio.to_thread(snapshots.reconcile)
    await asyncio.to_thread(content.reconcile)
    filters = Filters()
    undo.callback(filters.close)
    filters.get(HostConfig())
    events = Events(db)
    undo.callback(events.close)
    reserve = Reserve(layout.reserve)
    reserve.keep()
    containers = Containers(db, events, reserve)
    images = await _images(config, layout, db, content, snapshots, containers, events, undo)
    networks = Networks(config, layout, db, events, containers)
    undo.push_async_callback(networks.aclose)
    return Services(
        config=config,
        layout=layout,
        db=db,
        disk=disk,
        snapshots=snapshots,
        images=images,
        launcher=launcher,
        events=events,
        containers=containers,
        networks=networks,
        volumes=Volumes(LocalVolumes(layout, db, disk), containers, events, disk),
        filters=filters,
        background=Background(),
    )


async def _images(
    config: EngineConfig,
    layout: Layout,
    db: Database,
    content: ContentStore,
    snapshots: OverlaySnapshotter,
    containers: Containers,
    events: Events,
    undo: AsyncExitStack,
) -> Images:
    workers = LayerWorkers()
    undo.push_async_callback(workers.aclose)
    hosts = Hosts(
        insecure=frozenset(config.insecure_registries),
        mirrors=dict(config.registry_mirrors),
        registries=dict(config.registries),
        directories=config.registry_directories,
    )
    proxies = Proxies.make(config.http_proxy, config.https_proxy, config.no_proxy)
    collector = Collector(db, content, snapshots.discard)
    service = ImageService(
        db=db,
        content=content,
        snapshotter=snapshots,
        workers=workers,
        registry=Registry(hosts, proxies=proxies),
        collect=collector.run,
        users=partial(_users, containers),
        layout=layout,
        policy=Policy(
            unused_for=config.image_unused_for,
            max_size=config.image_max_size,
            min_free=config.image_min_free,
            keep=config.image_keep,
        ),
        trust=Trust(config.trust_policy, required=config.trust_policy != DEFAULT_POLICY),
    )
    undo.push_async_callback(service.aclose)
    return Images(service, events)


def _users(containers: Containers) -> list[ImageUser]:
    return [
        ImageUser(
            container=entry.id,
            image=entry.container.image_id,
            running=entry.container.status.is_running,
        )
        for entry in containers
        if entry.container.image_id
    ]


def _parts(services: Services) -> Parts:
    """The parts know each other by what they do: starting, ending and removing call in a circle."""
    execs = Execs(services.config, services.containers, services.networks.linked_variables)

    async def end(entry: Entry) -> None:
        await lifecycle.end(entry)

    async def again(entry: Entry) -> None:
        await starter.again(entry)

    async def treat(entry: Entry) -> None:
        await lifecycle.treat(entry)

    remover = Remover(services, execs, end)
    exits = Exits(services, execs, again, remover.remove_ended, treat)
    starter = Starter(services, exits)
    lifecycle = Lifecycle(services, exits, starter)
    return Parts(
        services=services,
        creator=Creator(services),
        starter=starter,
        exits=exits,
        execs=execs,
        lifecycle=lifecycle,
        membership=Membership(services),
        remover=remover,
        archives=Archives(services),
        checkpoints=Checkpoints(services, starter),
        committer=Committer(services, lifecycle),
    )


async def _flush(containers: Containers) -> None:
    """The last rows; what a full disk does not take is in the shims' records."""
    try:
        await containers.flush_all()
    except SampanError as error:
        log.error("leave: %s", error)  # noqa: TRY400 - no trace needed


def _let_go(services: Services) -> None:
    """Forget every shim and every timer; containers run on."""
    for entry in services.containers:
        if entry.restart_timer is not None:
            entry.restart_timer.cancel()
        if entry.watch is not None:
            entry.watch.close()
        outofmemory.end(entry)
        if entry.task is not None:
            entry.task.close()
            entry.task = None
        for attachment in entry.attachments:
            os.close(attachment.fd)
        entry.attachments.clear()
