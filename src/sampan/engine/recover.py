"""What an earlier engine left: living shims are joined, ends that nobody heard are recorded.

For each container the records decide, not the row: a shim that lives runs it; `exit.json` says
how it ended; neither means that its monitor died, and then nothing of it may stay. Every step can
be cut off and done again. A launch that was under way and has not begun comes to nothing: its
directory is its licence, and is removed while it is empty.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sampan.engine import restart
from sampan.engine.model import Status
from sampan.engine.placement import cgroup_path
from sampan.errors import ContainerNotFound
from sampan.tasks import recovery
from sampan.tasks.sleeper import Sleeper
from sampan.tasks.task import Task, open_socket

if TYPE_CHECKING:
    import socket

    from sampan.engine.containers import Entry
    from sampan.engine.exits import Exits
    from sampan.engine.services import Services
    from sampan.tasks.recovery import ExitRecord

log = logging.getLogger(__name__)

HELLO_PATIENCE = 10.0
AT_ONCE = 32
ATTEMPTS = 25
PAUSE = 0.02
"""Half a second for a shim between its socket's name and its first record."""


class Recovery:
    """Brings containers, shims and records together, once, at start."""

    def __init__(self, services: Services, exits: Exits) -> None:
        self._services = services
        self._exits = exits

    async def run(self, *, fresh_boot: bool) -> None:
        """Recover every container; `fresh_boot` starts those whose policy says so."""
        limit = asyncio.Semaphore(AT_ONCE)  # most of the time is the shims' own
        async with asyncio.TaskGroup() as group:
            for container_id in recovery.found(self._services.layout.shims):
                group.create_task(self._recover_one(container_id, limit))
        for entry in self._services.containers:
            status = entry.container.status
            if status.is_running and entry.task is None:
                await self._exits.lost(entry)
            elif status is Status.RESTARTING and entry.restart_timer is None:
                self._exits.schedule(entry, 0.0)
            elif status is Status.REMOVING:
                state = replace(entry.container.state, status=Status.DEAD)
                self._services.containers.defer(entry, replace(entry.container, state=state))
            self._apply_rest(entry, fresh_boot)
        self._sweep_directories()

    async def _recover_one(self, container_id: str, limit: asyncio.Semaphore) -> None:
        async with limit:
            try:
                entry = self._services.containers.find(container_id)
            except ContainerNotFound:
                await self._stray(container_id)
            else:
                await self._recover(entry)

    async def _recover(self, entry: Entry) -> None:
        directory = self._services.layout.shim(entry.id)
        if self._is_known(entry, directory):
            return
        for _ in range(ATTEMPTS):
            sock = _connect(directory)
            if sock is not None and await self._join(entry, sock):
                return
            if await self._settle(entry, directory):
                break
            await asyncio.sleep(PAUSE)  # a launch that was under way goes on; it listens soon
        else:
            await self._bury(cgroup_path(self._services.config, entry.container))
        await self._services.containers.flush(entry)
        if not entry.container.status.is_running:
            recovery.clear(directory)

    def _is_known(self, entry: Entry, directory: str) -> bool:
        """Whether the row says what runs: then its shim sleeps on until there is something to ask.

        It was the row that lagged behind if they differ: that is for the shim to tell.
        """
        state = entry.container.state
        pidfd = recovery.open_shim(directory, state.pid) if state.status.is_running else -1
        if pidfd < 0:
            return False
        task: Task

        def gone() -> None:
            self._exits.gone(entry, task)

        entry.task = task = Sleeper(directory, pidfd, partial(self._exits.heard, entry), gone)
        self._exits.found(entry)
        return True

    async def _settle(self, entry: Entry, directory: str) -> bool:
        """Take what the records of a shim say that does not answer; False when they say nothing."""
        record = recovery.read_exit(directory)
        if record is not None:
            self._begin(entry, directory, record)
            self._exits.ended(entry, record)
        elif recovery.has_state(directory) or entry.container.status.is_running:
            self._begin(entry, directory)
            await self._exits.lost(entry)
        elif not recovery.revoke(directory):
            return False
        return True

    async def _join(self, entry: Entry, sock: socket.socket) -> bool:
        """Listen to a living shim; whether it is one. What it says goes to `Exits` at once."""
        greeted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        task: Task

        def heard(message: dict[str, Any]) -> None:
            self._exits.heard(entry, message)
            _settle(greeted, True)

        def gone() -> None:
            self._exits.gone(entry, task)
            _settle(greeted, False)

        entry.task = task = Task(sock, heard, gone)
        try:
            async with asyncio.timeout(HELLO_PATIENCE):
                return await greeted
        except TimeoutError:
            log.error("shim of container %s does not answer", entry.id)  # noqa: TRY400
            task.close()
            entry.task = None
            return False

    def _begin(self, entry: Entry, directory: str, record: ExitRecord | None = None) -> None:
        """A run of which the row knows nothing: it began, or there would be no record."""
        state = entry.container.state
        if state.status.is_running:
            return
        if record is not None and max(record.time, state.started_at) == state.finished_at:
            return  # that end is in the row already; later or earlier, a clock may have been set
        pid = record.pid if record is not None else 0
        began = recovery.made_at(directory) or time.time_ns()
        self._exits.started(entry, pid, min(began, record.time) if record is not None else began)

    async def _stray(self, container_id: str) -> None:
        """A shim's directory without a container: nothing of it may stay."""
        directory = f"{self._services.layout.shims}/{container_id}"
        usual = f"{self._services.config.cgroup_parent}/{container_id}"
        own = recovery.cgroup_of(directory)
        if own and own.rpartition("/")[2] != container_id:
            log.error("the shim of %s names the cgroup %s, which is not its own", container_id, own)
            own = ""
        if all([await self._bury(path) for path in dict.fromkeys((usual, own or usual))]):
            try:
                recovery.clear(directory)
            except OSError as error:
                log.error("clear the directory of a shim: %s", error)  # noqa: TRY400

    async def _bury(self, path: str) -> bool:
        """Kill what is left in a container's cgroup; whether nothing is."""
        try:
            await self._services.on_disk(recovery.bury, path)
        except (OSError, ValueError) as error:
            log.error("bury container %s: %s", path, error)  # noqa: TRY400
            return False
        return True

    def _apply_rest(self, entry: Entry, fresh_boot: bool) -> None:
        """What an end that was only half dealt with still asks for."""
        container = entry.container
        if container.status is not Status.EXITED:
            return
        if container.host.auto_remove:
            self._exits.remove_soon(entry)
        elif fresh_boot and restart.should_start_at_boot(container.host.restart, container.state):
            state = replace(container.state, status=Status.RESTARTING)
            self._services.containers.defer(entry, replace(container, state=state))
            self._exits.schedule(entry, restart.GOOD_RUN)

    def _sweep_directories(self) -> None:
        """Directories of containers whose rows are gone."""
        layout = self._services.layout
        known = {entry.id for entry in self._services.containers}
        for name in os.listdir(layout.containers):
            if name not in known:
                self._services.snapshots.trash.discard(f"{layout.containers}/{name}")


def _connect(directory: str) -> socket.socket | None:
    try:
        return open_socket(directory)
    except OSError:
        return None


def _settle(future: asyncio.Future[bool], answer: bool) -> None:
    if not future.done():
        future.set_result(answer)
