"""Containers that need others: whoever starts, is started behind what it depends on.

The graph is the engine's own, so it holds for a client's start, for a restart policy and after a
reboot alike. It has no circles: a container can only depend on one that was there before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.engine.model import DependencyCondition, HealthStatus, Status, WaitCondition
from sampan.errors import Conflict, NotModified

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sampan.engine.containers import Containers, Entry
    from sampan.engine.model import Container, Dependency

    Start = Callable[[Entry], Awaitable[None]]


async def satisfy(containers: Containers, start: Start, container: Container) -> None:
    """Start what `container` depends on, and wait until each is as it must be.

    Raises:
        Conflict: one cannot become so. ContainerNotFound: one is gone.
        SampanError: one could not be started.
    """
    for dependency in container.host.depends_on:
        entry = containers.find(dependency.container)
        try:
            if dependency.condition is DependencyCondition.COMPLETED:
                await _complete(entry, start)
            else:
                await _run(entry, start, dependency)
        except Conflict as error:
            name = entry.container.name
            raise Conflict(f"container {container.name} depends on {name}: {error}") from error


def dependents(containers: Containers, entry: Entry) -> list[str]:
    """The names of the containers that depend on this one, and run."""
    return [
        other.container.name
        for other in containers
        if other.container.status.is_running
        and any(one.container == entry.id for one in other.container.host.depends_on)
    ]


async def _run(entry: Entry, start: Start, dependency: Dependency) -> None:
    if not entry.container.status.is_running:
        await _start(entry, start)
    if dependency.condition is not DependencyCondition.HEALTHY:
        return
    if entry.container.config.checks is None:
        raise Conflict("it has no health check")
    await entry.arm(WaitCondition.HEALTHY)
    health = entry.container.state.health
    if health is None or health.status is not HealthStatus.HEALTHY:
        raise Conflict(f"it did not become healthy: it is {entry.container.status}")


async def _complete(entry: Entry, start: Start) -> None:
    state = entry.container.state
    if not state.finished_at and not state.status.is_running:
        await _start(entry, start)
    await entry.arm(WaitCondition.NOT_RUNNING)
    if entry.container.status is not Status.EXITED or entry.container.state.exit_code:
        raise Conflict(f"it ended with {entry.container.state.exit_code}")


async def _start(entry: Entry, start: Start) -> None:
    try:
        await start(entry)
    except NotModified:
        return  # somebody was quicker
