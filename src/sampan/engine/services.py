"""What the engine's parts share: built once in `Engine.open`, passed by argument."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor

    from sampan.engine.config import EngineConfig
    from sampan.engine.containers import Containers
    from sampan.engine.events import Events
    from sampan.engine.imagery import Images
    from sampan.engine.model import Container
    from sampan.engine.networking import Networks
    from sampan.engine.seccomp import Filters
    from sampan.engine.volumes import Volumes
    from sampan.snapshots.overlay import OverlaySnapshotter
    from sampan.store.database import Database
    from sampan.store.layout import Layout
    from sampan.tasks.launch import Launcher

    SpecMaker = Callable[[Container, str], dict[str, Any]]
    Amend = Callable[[Container, dict[str, Any]], None]

log = logging.getLogger(__name__)


class Background:
    """Tasks that belong to the engine and not to a caller.

    Not an asyncio.TaskGroup: one that fails must not cancel the others, nor whoever happened to
    open the engine. A failure is logged, because there is nobody else to hear of it.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, object], name: str) -> None:
        """Run `work` until it ends or the engine closes."""
        task = asyncio.get_running_loop().create_task(_guarded(work, name), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # of one that was cancelled before its begin

    async def aclose(self) -> None:
        """Cancel what still runs and wait for its end."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _guarded(work: Coroutine[Any, Any, object], name: str) -> None:
    try:
        await work
    except Exception:
        log.exception("background work failed: %s", name)


@dataclass(frozen=True, slots=True)
class Services:
    """Everything below the engine's own methods."""

    config: EngineConfig
    layout: Layout
    db: Database
    disk: Executor
    snapshots: OverlaySnapshotter
    images: Images
    launcher: Launcher
    events: Events
    containers: Containers
    networks: Networks
    volumes: Volumes
    filters: Filters
    background: Background
    owners: dict[str, SpecMaker] = field(default_factory=dict)
    """Who makes the OCI configuration of an owned container, by its owner; it gets the container
    and the path of its cgroup."""
    amendments: dict[str, Amend] = field(default_factory=dict)
    """Who completes the usual OCI configuration of an owned container."""

    async def on_disk(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run blocking work in the bounded pool."""
        return await asyncio.get_running_loop().run_in_executor(self.disk, work, *arguments)
