"""Stop, kill, restart, pause, unpause, rename, update: what is done to containers that exist.

Signals go through the shim, which holds the process by descriptor: a pid that was used again is
never hit. What a user ended stays ended: that is written before the signal is sent.
"""

from __future__ import annotations

import asyncio
import logging
import signal as signals_of_python
from dataclasses import replace
from errno import ESRCH
from typing import TYPE_CHECKING, Any

from sampan.engine import limits, links, signals, specgen
from sampan.engine.model import (
    HostConfig,
    OnUnhealthy,
    RestartName,
    RestartPolicy,
    Status,
    WaitCondition,
)
from sampan.engine.placement import cgroup_path
from sampan.engine.remove import wait_for_end
from sampan.errors import (
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NameInUse,
    NotModified,
    ResourceExhausted,
    SampanError,
    Unavailable,
)
from sampan.kernel import cgroups
from sampan.kernel.identity import is_unprivileged
from sampan.tasks.task import TaskFailure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.engine.containers import Entry
    from sampan.engine.exits import Exits
    from sampan.engine.services import Services
    from sampan.engine.start import Starter
    from sampan.kernel.cgroups import Cgroup

log = logging.getLogger(__name__)

KILL_PATIENCE = 10.0
_KILL = int(signals_of_python.SIGKILL)
_UPDATABLE = frozenset(
    "memory memory_swap memory_reservation nano_cpus cpu_shares cpu_quota cpu_period cpuset_cpus "
    "cpuset_mems pids_limit blkio_weight".split()
)


class Lifecycle:
    """Changes of containers that exist."""

    def __init__(self, services: Services, exits: Exits, starter: Starter) -> None:
        self._services = services
        self._exits = exits
        self._starter = starter

    async def stop(self, entry: Entry, timeout: int | None, signal: str | None) -> None:
        """See Engine.stop."""
        number = signals.parse(signal or entry.container.config.stop_signal)
        if entry.container.status is Status.RESTARTING:
            await self._stop_waiting(entry)
            return
        if not entry.container.status.is_running:
            raise NotModified(f"container {entry.id} is already stopped")
        await self._mark_stopped(entry)
        wait = entry.arm(WaitCondition.NOT_RUNNING)
        try:
            await self._signal_or_gone(entry, number)
            await self._thaw_paused(entry)
            async with asyncio.timeout(self._patience(entry, timeout)):
                await wait
        except TimeoutError:
            await self.end(entry)
        finally:
            wait.cancel()
        self._services.containers.emit(entry, "stop")

    async def kill(self, entry: Entry, signal: str) -> None:
        """See Engine.kill."""
        number = signals.parse(signal)
        container = entry.container
        if container.status is Status.RESTARTING:  # as if it ran: it is not to come back
            await self._stop_waiting(entry)
            return
        if not container.status.is_running:
            raise Conflict(
                f"Cannot kill container: {container.name}: container {container.id} is not running"
            )
        if number in (_KILL, signals.parse(container.config.stop_signal)):
            await self._mark_stopped(entry)
        await self._signal(entry, number)
        if number == _KILL:  # clients look at the state right after it
            await self._thaw_paused(entry)
            await wait_for_end(entry, KILL_PATIENCE)

    async def end(self, entry: Entry) -> None:
        """Kill everything of a container, whatever its state, and wait until it is over."""
        if entry.container.status is Status.RESTARTING:
            await self._stop_waiting(entry)
            return
        async with entry.lock:  # a start under way comes to its end first
            if not entry.container.status.is_running:
                return
        await self._mark_stopped(entry)
        try:
            await self._signal_or_gone(entry, _KILL)
        except SampanError:
            if not _runs(entry):
                return
            raise
        await self._thaw_paused(entry)
        await wait_for_end(entry, KILL_PATIENCE)

    async def treat(self, entry: Entry) -> None:
        """Give an unhealthy container what its configuration says."""
        what = entry.container.host.on_unhealthy
        log.info("container %s is unhealthy: %s", entry.id, what)
        try:
            if what is OnUnhealthy.RESTART:
                await self.restart(entry, None, None)
            elif what is OnUnhealthy.STOP:
                await self.stop(entry, None, None)
            elif what is OnUnhealthy.KILL:
                await self._signal(entry, _KILL)  # not the user's wish: the restart policy holds
        except (NotModified, Conflict) as error:
            log.info("container %s: %s", entry.id, error)  # it ended meanwhile

    async def restart(self, entry: Entry, timeout: int | None, signal: str | None) -> None:
        """See Engine.restart."""
        try:
            await self.stop(entry, timeout, signal)
        except NotModified:
            pass
        await self._starter.start(entry)
        self._services.containers.emit(entry, "restart")

    async def pause(self, entry: Entry) -> None:
        """See Engine.pause."""
        async with entry.lock:
            container = entry.container
            if container.status is Status.PAUSED:
                raise Conflict(f"container {container.id} is already paused")
            if container.status is not Status.RUNNING:
                raise Conflict(f"container {container.id} is not running")
            await self._on_cgroup(entry, "freeze")
            await self._become(entry, Status.RUNNING, Status.PAUSED, "pause")

    async def unpause(self, entry: Entry) -> None:
        """See Engine.unpause."""
        async with entry.lock:
            if entry.container.status is not Status.PAUSED:
                raise Conflict(f"container {entry.id} is not paused")
            await self._on_cgroup(entry, "thaw")
            await self._become(entry, Status.PAUSED, Status.RUNNING, "unpause")

    async def rename(self, entry: Entry, name: str) -> None:
        """See Engine.rename."""
        containers = self._services.containers
        old = entry.container.name
        name = name.removeprefix("/")
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        if name == old:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        try:
            name = containers.reserve(name, entry.id)
        except NameInUse as error:
            raise NameInUse(f"Error when allocating new name: {error}") from None
        renamed = replace(entry.container, name=name)
        made = containers.event(renamed, "rename", oldName=f"/{old}")
        try:
            await containers.change(entry, renamed, made, name=name)
        except BaseException:
            entry.container = replace(entry.container, name=old)
            containers.release(name)
            raise
        containers.release(old)
        for other in containers:
            if any(links.parts(link)[0] == old for link in other.container.host.links):
                async with other.lock:
                    containers.defer(other, links.renamed(other.container, old, name))
        self._services.networks.renamed(entry.container, old)

    async def update(
        self, entry: Entry, policy: RestartPolicy | None, changes: dict[str, Any]
    ) -> tuple[str, ...]:
        """See Engine.update."""
        if unknown := changes.keys() - _UPDATABLE:
            raise InvalidArgument(f"update: {min(unknown)} cannot be changed")
        async with entry.lock:
            merged = _merge(entry.container.host, policy, changes)
            if policy is not None and policy.name is not RestartName.NO and merged.auto_remove:
                raise InvalidArgument(
                    "Restart policy cannot be updated because AutoRemove is enabled for the "
                    "container"
                )
            host, warnings = limits.check(merged)
            if changes and entry.container.status.is_running:
                resources = specgen.resources_of(host)
                if "pids_limit" in changes:
                    resources["pids"] = {"limit": host.pids_limit or -1}
                await self._on_cgroup(entry, "update", resources)
            updated = replace(entry.container, host=host)
            containers = self._services.containers
            await containers.change(entry, updated, containers.event(updated, "update"))
        return tuple(warnings)

    async def amend(self, entry: Entry, notes: str, resources: Mapping[str, Any] | None) -> None:
        """See Engine.amend."""
        async with entry.lock:
            if resources and entry.container.status.is_running:
                await self._on_cgroup(entry, "update", dict(resources))
            await self._services.containers.change(entry, replace(entry.container, notes=notes))

    # details

    def _patience(self, entry: Entry, timeout: int | None) -> float | None:
        for seconds in (timeout, entry.container.config.stop_timeout):
            if seconds is not None:
                return None if seconds < 0 else float(seconds)
        return float(self._services.config.stop_timeout)

    async def _signal(self, entry: Entry, number: int) -> None:
        container = entry.container
        if entry.task is None:
            raise Unavailable(f"container {container.id}: its monitor is gone")
        self._services.containers.emit(entry, "kill", signal=str(number))
        try:
            await entry.task.call("signal", sig=number)
        except TaskFailure as failure:
            if number == _KILL and failure.errno == ESRCH:
                return  # it has ended, and its shim is about to say so
            if entry.container.status.is_running and entry.task is not None:
                raise Conflict(f"Cannot kill container: {container.name}: {failure}") from failure

    async def _signal_or_gone(self, entry: Entry, number: int) -> None:
        """A monitor that is gone took its container along: its end is about to be noticed."""
        try:
            await self._signal(entry, number)
        except Unavailable as error:
            log.info("container %s: %s", entry.id, error)

    async def _mark_stopped(self, entry: Entry) -> None:
        state = replace(entry.container.state, stopped_by_user=True)
        try:
            await self._services.containers.change(entry, replace(entry.container, state=state))
        except ResourceExhausted as error:
            # It stands in memory. Whoever ends a container on a full disk may be making room.
            log.warning("stop container %s: %s", entry.id, error)

    async def _stop_waiting(self, entry: Entry) -> None:
        """End a container that waits for its restart."""
        self._exits.cancel(entry)
        async with entry.lock:
            if entry.container.status is Status.RESTARTING:
                state = replace(entry.container.state, status=Status.EXITED, stopped_by_user=True)
                stopped = replace(entry.container, state=state)
                containers = self._services.containers
                await containers.change(entry, stopped, containers.event(stopped, "stop"))
                entry.resolve(WaitCondition.NOT_RUNNING, WaitCondition.NEXT_EXIT)
                return
        if entry.container.status.is_running:
            await self.end(entry)

    async def _thaw_paused(self, entry: Entry) -> None:
        """A frozen process takes no signal, except that on version 2 it takes SIGKILL."""
        if entry.container.status is Status.PAUSED:
            await self._on_cgroup(entry, "thaw")
            await self._become(entry, Status.PAUSED, Status.RUNNING, "unpause")

    async def _become(self, entry: Entry, old: Status, new: Status, action: str) -> None:
        container = entry.container
        if container.status is not old:
            return  # it ended meanwhile
        changed = replace(container, state=replace(container.state, status=new))
        containers = self._services.containers
        await containers.change(entry, changed, containers.event(changed, action))

    async def _on_cgroup(self, entry: Entry, verb: str, *arguments: Any) -> None:
        cgroup = cgroup_of(self._services, entry)
        if is_unprivileged() and not cgroup.exists():
            raise FailedPrecondition(
                f"{verb} container {entry.container.name}: it has no cgroup, for the engine does "
                "not run as root"
            )
        try:
            await self._services.on_disk(getattr(cgroup, verb), *arguments)
        except (OSError, ValueError) as error:
            raise Conflict(f"{verb} container {entry.container.name}: {error}") from error


def _runs(entry: Entry) -> bool:
    return entry.container.status.is_running


def cgroup_of(services: Services, entry: Entry) -> Cgroup:
    """The container's cgroup."""
    return cgroups.manager(cgroup_path(services.config, entry.container))


_QUOTAS = {"cpu_quota": "CPU Quota", "cpu_period": "CPU Period"}


def _merge(host: HostConfig, policy: RestartPolicy | None, changes: dict[str, Any]) -> HostConfig:
    """The host configuration with what an update names; 0 and "" leave a limit as it is, but that
    of processes, which they take away."""
    wanted = {key: value for key, value in changes.items() if value not in (0, "", None)}
    if "pids_limit" in changes:
        wanted["pids_limit"] = max(0, int(changes["pids_limit"]))
    if "memory_swap" not in wanted and 0 < host.memory_swap < int(wanted.get("memory", 0)):
        raise InvalidArgument(
            "Memory limit should be smaller than already set memoryswap limit, update the "
            "memoryswap at the same time"
        )
    if host.nano_cpus and (named := [key for key in _QUOTAS if key in wanted]):
        raise InvalidArgument(
            f"Conflicting options: {_QUOTAS[named[0]]} cannot be updated as NanoCPUs has already "
            "been set"
        )
    if policy is not None:
        wanted["restart"] = policy
    return replace(host, **wanted)
