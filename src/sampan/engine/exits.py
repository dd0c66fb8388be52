"""What shims tell, and what follows: the only place where a container begins to run or ends.

Everything here is synchronous and happens in the order in which the shim spoke, so that an exit
right behind a start finds the start done. An end is taken once: by the event, or by `exit.json`
when the shim went without one, or as lost when it left no record at all; a second one finds the
container no longer running and changes nothing. The shim's records stay until the next start or the
removal: they are the truth while the row is on its way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sampan.engine import outofmemory, restart
from sampan.engine.config import reach
from sampan.engine.health import Checks
from sampan.engine.model import Health, Status, WaitCondition
from sampan.engine.placement import cgroup_path
from sampan.tasks import recovery
from sampan.tasks.recovery import LOST, LOST_CODE, ExitRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sampan.engine.containers import Entry
    from sampan.engine.exec import Execs
    from sampan.engine.model import Event
    from sampan.engine.services import Services
    from sampan.tasks.task import Task

    Follow = Callable[[Entry], Coroutine[Any, Any, None]]

log = logging.getLogger(__name__)


class Exits:
    """Listens to every shim. `start` and `remove` are what the policies do, `treat` what an
    unhealthy container gets."""

    def __init__(
        self, services: Services, execs: Execs, start: Follow, remove: Follow, treat: Follow
    ) -> None:
        self._services = services
        self._execs = execs
        self._start = start
        self._remove = remove
        self._checks = Checks(services, execs, treat)

    # what a shim tells

    def heard(self, entry: Entry, message: dict[str, Any]) -> None:
        """One event of the shim of `entry`."""
        kind = message["event"]
        if kind == "hello":
            self._met(entry, message["state"])
        elif kind == "started":
            self.started(entry, int(message["pid"]), int(message["time"]))
        elif kind == "start-failed":
            _settle_launch(entry, message)
        elif kind == "exit":
            record = ExitRecord.of(message)
            if entry.launched is not None:  # it overtook the word of its start
                self.started(entry, record.pid, record.time)
            self.ended(entry, record)
        elif kind == "exec-exit":
            self._execs.ended(entry, message["exec"], int(message["code"]))

    def _met(self, entry: Entry, state: dict[str, Any]) -> None:
        """A shim that an earlier engine launched; it may linger behind an end that is recorded."""
        self.found(entry)
        began = int(state.get("started") or 0)
        if began and began != entry.container.state.started_at:
            self.started(entry, int(state["pid"]), began)
        for ended in state.get("exec_exits") or ():
            self._execs.ended(entry, ended["exec"], int(ended["code"]))

    def gone(self, entry: Entry, task: Task) -> None:
        """The shim's socket is at its end."""
        if entry.task is not task:
            return
        entry.task = None
        directory = self._services.layout.shim(entry.id)
        record = recovery.read_exit(directory)
        if record is not None and entry.container.status.is_running:
            self.ended(entry, record)
        elif entry.container.status.is_running:
            self._services.background.spawn(self.lost(entry), f"bury {entry.id}")
        _settle_launch(entry, {"error": LOST, "operation": "launch", "silent": True})
        self._execs.all_ended(entry)

    def found(self, entry: Entry) -> None:
        """What an earlier engine has started runs: look after it."""
        if entry.container.status.is_running and entry.watch is None:
            self._checks.begin(entry)
            outofmemory.begin(self._services, entry)

    # transitions

    def started(self, entry: Entry, pid: int, at: int) -> None:
        """The container's program runs."""
        container = entry.container
        if not container.status.is_running:
            state = replace(
                container.state,
                status=Status.RUNNING,
                pid=pid,
                started_at=at,
                exit_code=0,
                error="",
                oom_killed=False,
                stopped_by_user=False,
                health=Health() if container.config.checks is not None else None,
            )
            running = replace(container, state=state)
            containers = self._services.containers
            volumes = self._services.volumes.events_of(running, "mount") if running.mounts else ()
            containers.defer(entry, running, *volumes, containers.event(running, "start"))
            if container.config.checks is not None:
                self._checks.begin(entry)
            outofmemory.begin(self._services, entry)
        _settle_launch(entry, {})

    def ended(self, entry: Entry, record: ExitRecord) -> None:
        """The container's first process has ended; the row, the events, and what the policy says.

        The shim takes both times, but not in one process: a program of no duration may seem to
        have ended before it began, and is then said to have taken none.
        """
        container = entry.container
        state = container.state
        if not state.status.is_running:
            return
        reach(self._services.config, "exit")
        ended = replace(
            state,
            status=Status.EXITED,
            pid=0,
            exit_code=record.code,
            oom_killed=record.oom,
            error=LOST if record.lost else "",
            finished_at=max(record.time, state.started_at),
        )
        again = restart.should_restart(container.host.restart, ended)
        if again:
            ended = replace(ended, status=Status.RESTARTING, restart_count=state.restart_count + 1)
        if entry.watch is not None:
            self._checks.end(entry)
        was_told = outofmemory.end(entry)
        self._execs.drop_prepared(entry)
        self._forget_shim(entry)
        self._services.networks.release(entry.id)
        ended_container = replace(container, state=ended)
        self._write(entry, ended_container, record, was_told=was_told)
        entry.resolve(WaitCondition.NEXT_EXIT, WaitCondition.HEALTHY)
        if again:
            self.schedule(entry, (record.time - state.started_at) / 1e9)
            return
        entry.resolve(WaitCondition.NOT_RUNNING)
        if container.host.auto_remove:
            self.remove_soon(entry)

    async def lost(self, entry: Entry) -> None:
        """The shim died without a record: nothing of the container may stay, then it has ended."""
        services = self._services
        directory = services.layout.shim(entry.id)
        record = ExitRecord(LOST_CODE, 9, False, time.time_ns(), entry.container.state.pid, True)
        try:
            await services.on_disk(recovery.bury, cgroup_path(services.config, entry.container))
            await services.on_disk(recovery.write_lost, directory, record)
        except OSError as error:
            log.error("bury container %s: %s", entry.id, error)  # noqa: TRY400 - no trace needed
        self.ended(entry, record)

    # the policy

    def schedule(self, entry: Entry, ran_for: float) -> None:
        """Start again after the policy's delay."""
        entry.backoff = restart.next_delay(entry.backoff, ran_for)
        entry.restart_timer = asyncio.get_running_loop().call_later(
            restart.with_jitter(entry.backoff), self._due, entry
        )

    def failed_again(self, entry: Entry, why: str) -> None:
        """A start by policy failed: that counts as one more try."""
        container = entry.container
        state = replace(container.state, error=why, exit_code=container.state.exit_code or 128)
        again = restart.should_restart(container.host.restart, state)
        status = Status.RESTARTING if again else Status.EXITED
        count = state.restart_count + 1 if again else state.restart_count
        state = replace(state, status=status, restart_count=count)
        self._services.containers.defer(entry, replace(container, state=state))
        if again:
            self.schedule(entry, 0.0)
        else:
            entry.resolve(WaitCondition.NOT_RUNNING, WaitCondition.NEXT_EXIT)

    def remove_soon(self, entry: Entry) -> None:
        """Remove a container that asked for it at its end."""
        self._services.background.spawn(self._remove(entry), f"remove {entry.id}")

    def cancel(self, entry: Entry) -> None:
        """Forget a start that waits."""
        if entry.restart_timer is not None:
            entry.restart_timer.cancel()
            entry.restart_timer = None

    def _due(self, entry: Entry) -> None:
        entry.restart_timer = None
        if entry.container.status is Status.RESTARTING:
            self._services.background.spawn(self._start(entry), f"restart {entry.id}")

    # details

    def _write(
        self, entry: Entry, container: Any, record: ExitRecord, *, was_told: bool
    ) -> None:  # fmt: skip
        containers = self._services.containers
        seconds = max(0, (record.time - container.state.started_at) // 10**9)
        made: list[Event] = []
        if record.oom and not was_told:
            made.append(containers.event(container, "oom"))
        made.append(
            containers.event(container, "die", exitCode=str(record.code), execDuration=str(seconds))
        )
        if container.mounts:
            volumes = self._services.volumes
            made += volumes.events_of(container, "unmount")
            if volumes.needs_release(container):
                self._services.background.spawn(volumes.release(container), "release volumes")
        containers.defer(entry, container, *made)

    def _forget_shim(self, entry: Entry) -> None:
        if entry.execs_running:
            return  # their exits are still to come; the end of file closes it
        if entry.task is not None:
            entry.task.close()
            entry.task = None


def _settle_launch(entry: Entry, outcome: dict[str, Any]) -> None:
    """Tell whoever waits for a start how it went."""
    launched, entry.launched = entry.launched, None
    if launched is not None and not launched.done():
        launched.set_result(outcome)
