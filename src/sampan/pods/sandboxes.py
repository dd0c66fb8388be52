"""Sandboxes: run, stop, remove.

The row is written before anything is made, not ready, so that a kill in the middle is undone at the
next start. Stop and remove may be repeated, and finish what an earlier attempt left.

    row -> files, namespaces, shm -> network -> keeper of the pid namespace -> ready
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from sampan.engine.config import reach
from sampan.engine.model import ContainerConfig, HostConfig, LogConfig, LogDriver, Ownership
from sampan.errors import (
    ContainerNotFound,
    FailedPrecondition,
    ImageNotFound,
    InvalidArgument,
    NotFound,
    SampanError,
)
from sampan.ids import new_id
from sampan.pods import files, keeper, names, namespaces, specgen, users
from sampan.pods.model import KEEPER, Mode, Phase, Sandbox, SandboxConfig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sampan.engine.engine import Engine
    from sampan.images.model import Image
    from sampan.pods.handlers import Handler, Handlers
    from sampan.pods.model import Resources
    from sampan.pods.network import Network
    from sampan.pods.table import Table

log = logging.getLogger(__name__)


class Sandboxes:
    """Makes and unmakes sandboxes. `end_containers` kills what runs in one."""

    def __init__(
        self,
        engine: Engine,
        table: Table,
        network: Network,
        handlers: Handlers,
        end_containers: Callable[[str, bool], Awaitable[None]],
    ) -> None:
        self._engine = engine
        self._layout = engine.services.layout
        self._table = table
        self._network = network
        self._handlers = handlers
        self._end_containers = end_containers
        self.pause_image = ""

    async def run(self, config: SandboxConfig, handler: str) -> Sandbox:
        """Make a sandbox and set it up.

        Raises:
            AlreadyExists: another sandbox has the name.
            InvalidArgument, NotFound: the configuration cannot be, or there is no such handler.
        """
        found = self._handlers.find(handler)
        check(config)
        found.check_sandbox(config)
        if config.namespaces.uids:
            found.check_user_namespaces()
            config = replace(config, sysctls={**users.SYSCTLS, **config.sysctls})
        sandbox = Sandbox(
            id=new_id(),
            created_at=time.time_ns(),
            config=config,
            handler=found.name,
            boot=boot_id(),
        )
        files.resolv_conf(config.dns)
        names.cgroup_parent(config.cgroup_parent)
        kinds = specgen.pinned_kinds(sandbox)
        sysctls = namespaces.check_sysctls(config.sysctls, kinds)
        pause = await self._find_pause() if self.pause_image and not found.is_machine else None
        await self._table.insert(sandbox)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._undo, sandbox.id)
            reach(self._engine.config, "pod")
            given = await self._choose_network(sandbox)
            make = partial(self._make, sandbox, kinds, sysctls, given)
            await self._engine.services.on_disk(make)
            await self._connect(sandbox.id)
            reach(self._engine.config, "pod-connected")
            if found.is_machine or pause or config.namespaces.pid is Mode.POD:
                await self._keep(sandbox, found, pause)
            sandbox = await self._table.change(sandbox.id, phase=Phase.READY)
            undo.pop_all()
        return sandbox

    async def stop(self, sandbox_id: str) -> None:
        """End everything in a sandbox and release its network; fine when there is none."""
        try:
            sandbox = self._table.find(sandbox_id)
        except NotFound:
            return
        async with self._table.lock(sandbox.id):
            # All at once: what is killed needs no network while it dies.
            await together(self._end_containers(sandbox.id, False), self._release(sandbox.id))

    async def remove(self, sandbox_id: str) -> None:
        """Remove a sandbox with its containers; fine when there is none."""
        try:
            sandbox = self._table.find(sandbox_id)
        except NotFound:
            return
        async with self._table.lock(sandbox.id):
            await together(self._end_containers(sandbox.id, True), self._release(sandbox.id))
            await self._clear(sandbox.id)

    async def _clear(self, sandbox_id: str) -> None:
        await self._release(sandbox_id)
        sandbox = self._find(sandbox_id)
        if sandbox is None:
            return
        await together(
            self._remove_keeper(sandbox.keeper),
            self._engine.services.on_disk(self._unmake, sandbox_id),
        )
        await self._table.delete(sandbox_id)

    async def note_resources(
        self, sandbox: Sandbox, resources: Resources, overhead: Resources
    ) -> None:
        """Remember what the kubelet has given to the whole pod."""
        config = replace(sandbox.config, resources=resources, overhead=overhead)
        await self._table.change(sandbox.id, config=config)

    async def settle(self) -> None:
        """At start: finish what was under way, and see what a reboot has taken."""
        now = boot_id()
        for sandbox in self._table:
            if sandbox.phase is Phase.MAKING:
                await self._clear(sandbox.id)  # its run was cut off
            elif sandbox.phase is Phase.READY and (
                sandbox.boot != now or not self._is_whole(sandbox)
            ):
                await self._release(sandbox.id)
        known = {sandbox.id for sandbox in self._table}
        for keeper_ in self._engine.list(all=True, owner=KEEPER):
            if not any(one.keeper == keeper_.id for one in self._table):
                await self._remove_keeper(keeper_.id)
        await self._engine.services.on_disk(self._sweep, known)

    def is_ready(self, sandbox: Sandbox) -> bool:
        """Whether the sandbox is set up, and its keeper runs where it has one."""
        if sandbox.phase is not Phase.READY or not sandbox.keeper:
            return sandbox.phase is Phase.READY
        try:
            return self._engine.get(sandbox.keeper).status.is_running
        except ContainerNotFound:
            return False

    def place(self, sandbox: Sandbox) -> specgen.Place:
        """Where its containers find what they share; without a pid namespace."""
        return specgen.Place(
            pinned=self._layout.sandbox(sandbox.id), files=self._layout.pod(sandbox.id)
        )

    def handler(self, sandbox: Sandbox) -> Handler:
        """What runs its containers. Raises InvalidArgument."""
        return self._handlers.find(sandbox.handler)

    def keeper_spec(self, container_id: str, cgroup: str) -> dict[str, object]:
        """The OCI configuration of a keeper, or of the machine of a pod."""
        for sandbox in self._table:
            if sandbox.keeper == container_id:
                made = specgen.keeper(cgroup, sandbox, self.place(sandbox))
                own = self._engine.get(container_id)
                made["process"]["args"] = [own.path, *own.args]
                if self.handler(sandbox).is_machine:
                    made["hostname"] = sandbox.config.hostname or os.uname().nodename
                return made
        raise FailedPrecondition(f"container {container_id} keeps no sandbox")

    # steps

    def _make(
        self, sandbox: Sandbox, kinds: list[str], sysctls: dict[str, str], given: str
    ) -> None:
        config, pinned = sandbox.config, self._layout.sandbox(sandbox.id)
        hostname = config.hostname or os.uname().nodename
        os.mkdir(pinned, 0o700)
        os.mkdir(self._layout.pod(sandbox.id), 0o700)
        files.write(self._layout.pod(sandbox.id), hostname=hostname, dns=config.dns)
        namespaces.make(pinned, kinds, hostname=hostname, sysctls=sysctls, network=given)
        if "ipc" in kinds:
            namespaces.make_shm(pinned)

    def _unmake(self, sandbox_id: str) -> None:
        namespaces.remove(self._layout.sandbox(sandbox_id))
        files.remove(self._layout.pod(sandbox_id))

    async def _choose_network(self, sandbox: Sandbox) -> str:
        """Decide on the network; the namespace to pin where it comes with one, else ""."""
        if sandbox.config.namespaces.network is Mode.NODE:
            return ""
        network = self._network.choose()
        await self._table.change(sandbox.id, network=network)  # before: a kill is undone by it
        return await self._network.prepare(network, sandbox)

    async def _connect(self, sandbox_id: str) -> None:
        sandbox = self._table.find(sandbox_id)
        if sandbox.network:
            path = f"{self._layout.sandbox(sandbox_id)}/net"
            addresses = await self._network.attach(sandbox.network, sandbox, path)
            await self._table.change(sandbox_id, addresses=addresses)

    async def _find_pause(self) -> Image:
        """The configured pause image, brought here if need be."""
        try:
            return await self._engine.images.get(self.pause_image)
        except ImageNotFound:
            return await self._engine.images.pull(self.pause_image)

    async def _keep(self, sandbox: Sandbox, handler: Handler, pause: Image | None) -> None:
        """Start what the pod's processes are in: a process of ours or of an image, or a machine."""
        root = await self._engine.services.on_disk(
            partial(keeper.make_root, f"{self._layout.root}/keeper")
        )
        config = sandbox.config
        made = await self._engine.create(
            ContainerConfig(image=pause.id, labels={}, hostname=config.hostname)
            if pause
            else ContainerConfig(
                rootfs=root, command=(keeper.PROGRAM,), labels={}, hostname=config.hostname
            ),
            HostConfig(
                network_mode="none",
                cgroup_parent=names.cgroup_parent(config.cgroup_parent),
                log=LogConfig(driver=LogDriver.NONE),
                program=handler.program if handler.is_machine else (),
            ),
            owner=Ownership(owner=KEEPER, notes=sandbox.id),
        )
        await self._table.change(sandbox.id, keeper=made.id)
        await self._engine.start(made.id)

    async def _release(self, sandbox_id: str) -> None:
        """Not ready, no keeper that runs, no network; the files stay for the containers' status."""
        sandbox = self._find(sandbox_id)
        if sandbox is None:
            return
        if sandbox.phase is Phase.READY:
            sandbox = await self._table.change(sandbox_id, phase=Phase.STOPPED)
        await together(self._end_keeper(sandbox.keeper), self._leave_network(sandbox))

    async def _leave_network(self, sandbox: Sandbox) -> None:
        if sandbox.network:
            path = f"{self._layout.sandbox(sandbox.id)}/net"
            alive = namespaces.is_pinned(path)
            await self._network.detach(sandbox.network, sandbox, path if alive else "")
            await self._table.change(sandbox.id, network="")

    async def _undo(self, sandbox_id: str) -> None:
        """A run that failed leaves nothing."""
        try:
            await self._clear(sandbox_id)
        except (SampanError, OSError):
            log.exception("undo pod sandbox %s", sandbox_id)

    async def _end_keeper(self, keeper_id: str) -> None:
        if not keeper_id:
            return
        try:
            await self._engine.kill(keeper_id)
            await self._engine.wait(keeper_id)
        except SampanError:
            return  # it does not run

    async def _remove_keeper(self, keeper_id: str) -> None:
        if not keeper_id:
            return
        try:
            await self._engine.remove(keeper_id, force=True)
        except ContainerNotFound:
            return

    def _find(self, sandbox_id: str) -> Sandbox | None:
        try:
            return self._table.find(sandbox_id)
        except NotFound:
            return None

    def _is_whole(self, sandbox: Sandbox) -> bool:
        pinned = self._layout.sandbox(sandbox.id)
        return all(
            namespaces.is_pinned(f"{pinned}/{kind}") for kind in specgen.pinned_kinds(sandbox)
        )

    def _sweep(self, known: set[str]) -> None:
        """Directories of sandboxes whose rows are gone. Blocking."""
        for name in os.listdir(self._layout.sandboxes):
            if name not in known:
                namespaces.remove(f"{self._layout.sandboxes}/{name}")
        for name in os.listdir(self._layout.pods):
            if name not in known:
                files.remove(f"{self._layout.pods}/{name}")


async def together(*work: Awaitable[object]) -> None:
    """Wait for all of it, even where one fails; the first failure is raised then."""
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def check(config: SandboxConfig) -> None:
    """What can be refused before anything is made.

    Raises:
        InvalidArgument: a value is impossible.
    """
    if not config.name:
        raise InvalidArgument("a pod sandbox needs a name in its metadata")
    if len(config.hostname) > 64 or not config.hostname.isprintable():
        raise InvalidArgument(f"invalid hostname {config.hostname!r}")
    if config.namespaces.network is Mode.CONTAINER or config.namespaces.ipc is Mode.CONTAINER:
        raise InvalidArgument("network and ipc namespaces are the pod's or the node's")
    users.check(config)


def boot_id() -> str:
    """Which boot this is."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read(64).strip()
