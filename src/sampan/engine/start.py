"""Start: everything a shim needs in one message, then wait until the program runs or could not.

The spec is computed from the row each time, so nothing of it is kept on the disk. A
container with networks joins them first, and leaves them again when it could not be started.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sampan.engine import (
    cdi,
    dependencies,
    devices,
    etcfiles,
    hookfiles,
    initprogram,
    joining,
    linked,
    logattributes,
    ranges,
    specgen,
)
from sampan.engine.config import reach
from sampan.engine.model import LogDriver, Status, WaitCondition
from sampan.engine.placement import cgroup_path
from sampan.errors import Conflict, ContainerNotFound, NotModified, SampanError, StartFailed
from sampan.kernel.identity import is_unprivileged
from sampan.snapshots.base import mapped
from sampan.tasks import foreign, recovery
from sampan.tasks.task import Task, encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sampan.engine.containers import Entry
    from sampan.engine.exits import Exits
    from sampan.engine.model import Attachment, Container, HostConfig
    from sampan.engine.services import Services
    from sampan.snapshots.base import Mount, OverlayMount

    Launch = Callable[[bytes, list[int]], Awaitable[None]]

log = logging.getLogger(__name__)

PATIENCE = 120.0
"""Seconds until a start that neither succeeds nor fails is given up."""

SNAPSHOT = "snapshot:"
"""A root file system that is an active snapshot of a room above; its key follows."""

MAX_QUEUED = 64
_EXIT_CODES = {
    errno.ENOENT: 127,
    errno.EACCES: 126,
    errno.EPERM: 126,
    errno.ENOEXEC: 126,
    errno.ENOTDIR: 126,
    errno.EISDIR: 126,
    errno.ELOOP: 126,
    errno.E2BIG: 126,
}


class Starter:
    """Starts containers, for clients and for the policies."""

    def __init__(self, services: Services, exits: Exits) -> None:
        self._services = services
        self._exits = exits

    async def start(
        self, entry: Entry, attachments: Sequence[Attachment] = (), images: str = ""
    ) -> None:
        """A client's start: see Engine.start. `images` are those of a checkpoint."""
        queue(entry, attachments)
        async with entry.lock:
            _check_startable(entry)
            linked.check(self._services, entry.container)
            self._exits.cancel(entry)
            entry.backoff = 0.0
            if entry.container.state.restart_count:
                state = replace(entry.container.state, restart_count=0)
                entry.container = replace(entry.container, state=state)
            try:
                await self._launch(entry, images)
            except (SampanError, OSError) as error:
                self._failed(entry, error)
                raise

    def specification(self, entry: Entry) -> dict[str, Any]:
        """The configuration of a container that runs, as its start had it."""
        mode = entry.container.host.network_mode
        own = not (mode in ("none", "host") or mode.startswith(joining.CONTAINER))
        netns = f"/proc/{entry.container.state.pid}/ns/net" if own else ""
        return self._spec(entry.container, netns)

    async def again(self, entry: Entry) -> None:
        """A policy's start: one that fails is tried again, as long as the policy allows."""
        async with entry.lock:
            if entry.container.status is not Status.RESTARTING:
                return
            try:
                await self._launch(entry)
            except (SampanError, OSError) as error:
                self._exits.failed_again(entry, str(error))

    async def _launch(self, entry: Entry, images: str = "") -> None:
        services = self._services
        await services.containers.flush(entry)  # before the records of the last run go
        container = linked.find_owner(services, entry.container)
        if container is not entry.container:
            await services.containers.change(entry, container)
        if container.host.depends_on:
            await dependencies.satisfy(services.containers, self.start, container)
        if container.mounts:
            await services.volumes.prepare(container)
        mount = entry.mount or self._mount(entry)
        netns = await self._join_networks(container)
        attached, entry.attachments = entry.attachments, []
        try:
            spec = self._spec(container, netns)
            launch: Launch = services.launcher.launch
            message = self._message(container, mount, spec, attached)
            passed = [attachment.fd for attachment in attached]
            if container.host.program or images or spec.get("hooks"):
                launch = foreign.launch
                self._make_foreign(message, container)
                message["restore"] = images
            elif program := services.filters.get(container.host, container.architecture):
                message["seccomp"], message["seccomp_flags"] = True, program[1]
                passed.insert(0, program[0])
            encoded = encode(message)
            outcome = await self._attempt(entry, launch, encoded, passed)
            if outcome.get("silent"):
                # The spawner died with the message unread, or its shim before it did anything.
                outcome = await self._attempt(entry, launch, encoded, passed)
        except BaseException:
            services.networks.release(entry.id)
            raise
        finally:
            drop(attached)
        if "error" in outcome:
            services.networks.release(entry.id)
            raise start_failed(container.name, outcome)
        await self._attach_late(entry)

    async def _join_networks(self, container: Container) -> str:
        """The path of the network namespace to join, "" for a new one or the host's."""
        mode = container.host.network_mode
        if mode == "none":
            return ""
        if not mode.startswith(joining.CONTAINER):
            path = await self._services.networks.prepare(container)
            linked.tell(self._services, container)
            return path
        target = self._services.containers.find(mode.partition(":")[2]).container
        if not target.status.is_running:
            raise Conflict(f"cannot join network of a non running container: {target.id}")
        return namespace_of(self._services, target.id)

    async def _attempt(
        self, entry: Entry, launch: Launch, message: bytes, passed: list[int]
    ) -> dict[str, Any]:
        """One launch; what the shim said, or that it said nothing."""
        services = self._services
        directory = services.layout.shim(entry.id)
        recovery.make(directory)
        reach(services.config, "start-directory")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        launched: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        entry.launched = launched
        entry.task = task = _listen(entry, ours, self._exits)
        try:
            await launch(message, [theirs.fileno(), *passed])
            reach(services.config, "start-launched")
        except BaseException:
            entry.launched = entry.task = None
            task.close()
            raise
        finally:
            theirs.close()
        outcome = await _await_outcome(entry, task, launched)
        if "error" in outcome:
            silent = outcome.get("silent") and not recovery.has_state(directory)
            await self._bury(entry, task)
            return {**outcome, "silent": silent}
        return outcome

    async def _attach_late(self, entry: Entry) -> None:
        """Hand over the clients that came while the container was being started."""
        attached, entry.attachments = entry.attachments, []
        try:
            for attachment in attached:
                if entry.task is not None:
                    await entry.task.call("attach", (attachment.fd,), **attach_entry(attachment))
        except SampanError as error:
            log.warning("attach to container %s: %s", entry.id, error)
        finally:
            drop(attached)

    def _message(
        self,
        container: Container,
        mount: Mount,
        spec: dict[str, Any],
        attachments: Sequence[Attachment],
    ) -> dict[str, Any]:
        services, config = self._services, container.config
        return {
            "v": 1,
            "op": "launch",
            "id": container.id,
            "dir": services.layout.shim(container.id),
            "spec": spec,
            "rootfs": shown(mount, container),
            "log": self._log(container),
            "stdin": config.open_stdin,
            "stdin_once": config.stdin_once,
            "attach": [attach_entry(attachment) for attachment in attachments],
            "console_size": container.host.console_size if config.tty else None,
            "start": True,
        }

    def _make_foreign(self, message: dict[str, Any], container: Container) -> None:
        """Let a program create the container: it compiles the profile, and runs the hooks."""
        spec, own = message["spec"], container.host.program
        message["program"] = own or hookfiles.PROGRAM
        message["handler"] = "" if own else hookfiles.NAME
        spec["ociVersion"] = foreign.OCI_VERSION
        profile = self._services.filters.profile(container.host, container.architecture)
        if profile is not None:
            spec["linux"]["seccomp"] = profile

    def _spec(self, container: Container, netns: str) -> dict[str, Any]:
        config = self._services.config
        maker = self._services.owners.get(container.owner)
        if maker is not None:
            spec = maker(container, cgroup_path(config, container))
        else:
            spec = specgen.generate(container, self._facts(container, netns))
            amend = self._services.amendments.get(container.owner)
            if amend is not None:
                amend(container, spec)
        if config.hooks_directories:
            hookfiles.add(spec, config.hooks_directories, container)
        return spec

    def _log(self, container: Container) -> dict[str, Any]:
        wish, config = container.host.log, self._services.config
        return {
            "driver": wish.driver,
            "path": container.log_path,
            "max_size": wish.max_size or config.log_max_size,
            "max_file": wish.max_file or config.log_max_file,
            "packed": wish.driver is LogDriver.LOCAL if wish.compress is None else wish.compress,
            "attributes": logattributes.of(container),
        }

    def _facts(self, container: Container, netns: str) -> specgen.Facts:
        config, host = self._services.config, container.host
        directory = self._services.layout.container(container.id)
        is_new = etcfiles.make(directory)  # also where only the log will be in it
        has_resolver = host.network_mode != "none"
        shared = host.network_mode.startswith(joining.CONTAINER)
        if shared:  # and so are the names that are known in there
            directory = self._services.layout.container(
                linked.network_owner(self._services, container).id
            )
            # One without a network has no resolver.
            has_resolver = os.path.exists(f"{directory}/resolv.conf")
        elif is_new or host.network_mode != "none":
            self._write_files(directory, container)
        return specgen.Facts(
            cgroups_path=cgroup_path(config, container),
            no_new_privileges=config.no_new_privileges,
            shm_size=config.shm_size,
            hosts=f"{directory}/hosts",
            hostname_file=f"{directory}/hostname",
            resolv_conf=f"{directory}/resolv.conf" if has_resolver else "",
            netns=netns,
            has_host_sys=host.network_mode == "host" and is_unprivileged(),
            host_devices=devices.host_devices() if host.privileged else (),
            mounts=self._mounts(container),
            init_program=self._init() if host.init else "",
            edits=cdi.resolve(host.cdi_devices, config.cdi_directories),
            joined=self._joined(host),
            variables=self._services.networks.linked_variables(container) if host.links else (),
        )

    def _init(self) -> str:
        services = self._services
        return initprogram.find(services.config.init_path, services.layout.init_program)

    def _joined(self, host: HostConfig) -> dict[str, str]:
        """The namespaces of `container:ID`, which must run.

        Raises:
            Conflict: it does not, or does not share. ContainerNotFound: it is gone.
        """
        joined: dict[str, str] = {}
        for kind in ("pid", "ipc", "uts"):
            mode: str = getattr(host, f"{kind}_mode")
            if not mode.startswith("container:"):
                continue
            other = self._services.containers.find(mode.removeprefix("container:")).container
            why = _refusal(other, kind)
            if why:
                raise Conflict(f"cannot join the {kind} namespace of {other.name}: {why}")
            joined[kind] = f"/proc/{other.state.pid}/ns/{kind}"
            if kind == "ipc":
                joined["shm"] = f"/proc/{other.state.pid}/ns/mnt"
        return joined

    def _write_files(self, directory: str, container: Container) -> None:
        networks = self._services.networks
        linked.write_names(self._services, container)
        if container.host.network_mode != "none":
            own = networks.has_resolver(container.id)
            etcfiles.write_resolver(directory, container, own=own)

    def _mounts(self, container: Container) -> tuple[dict[str, Any], ...]:
        services = self._services
        return services.volumes.specification(container, services.snapshots.mounts)

    def _mount(self, entry: Entry) -> Mount:
        entry.mount = root_mount(entry.container, self._services)
        return entry.mount

    def _failed(self, entry: Entry, error: Exception) -> None:
        """Remember why a client's start failed; an auto-removed container goes."""
        code = error.exit_code if isinstance(error, StartFailed) else 128
        container = entry.container
        attached, entry.attachments = entry.attachments, []
        drop(attached)
        if container.status.is_running:
            return
        status = Status.EXITED if container.state.started_at else Status.CREATED
        state = replace(container.state, status=status, exit_code=code, error=str(error))
        self._services.containers.defer(entry, replace(container, state=state))
        entry.resolve(WaitCondition.NEXT_EXIT, WaitCondition.NOT_RUNNING)
        if container.host.auto_remove:
            self._exits.remove_soon(entry)

    async def _bury(self, entry: Entry, task: Task) -> None:
        """Nothing of a failed launch stays: the shim has undone what it made, or is dead."""
        task.close()
        if entry.task is task:
            entry.task = None
        path = cgroup_path(self._services.config, entry.container)
        try:
            await self._services.on_disk(recovery.bury, path)
        except OSError as error:
            log.error("bury container %s: %s", entry.id, error)  # noqa: TRY400 - no trace needed
        recovery.clear(self._services.layout.shim(entry.id))


def namespace_of(services: Services, owner: str) -> str:
    """The path of the network namespace of a container that runs, or of a pod; "" for none."""
    try:
        container = services.containers.find(owner).container
    except ContainerNotFound:
        path = f"{services.layout.sandbox(owner)}/net"
        return path if os.path.exists(path) else ""
    if not container.status.is_running or not container.state.pid:
        return ""
    return f"/proc/{container.state.pid}/ns/net"


def _listen(entry: Entry, sock: socket.socket, exits: Exits) -> Task:
    task: Task
    task = Task(sock, partial(exits.heard, entry), lambda: exits.gone(entry, task))
    return task


async def _await_outcome(
    entry: Entry, task: Task, launched: asyncio.Future[dict[str, Any]]
) -> dict[str, Any]:
    try:
        async with asyncio.timeout(PATIENCE):
            return await launched
    except TimeoutError:
        return {"error": f"no answer in {PATIENCE:.0f} s", "errno": 0, "operation": "launch"}
    finally:
        entry.launched = None


def queue(entry: Entry, attachments: Sequence[Attachment]) -> None:
    """Keep attachments for the next launch.

    Raises:
        Conflict: too many wait already.
    """
    if len(entry.attachments) + len(attachments) > MAX_QUEUED:
        drop(attachments)
        raise Conflict(f"attach to container {entry.id}: too many clients wait for its start")
    entry.attachments.extend(attachments)


def drop(attachments: Sequence[Attachment]) -> None:
    """Close the descriptors of attachments: handed on, or not wanted any more."""
    for attachment in attachments:
        os.close(attachment.fd)


def attach_entry(attachment: Attachment) -> dict[str, Any]:
    """The words of the shim's protocol."""
    entry: dict[str, Any] = {
        "stdin": attachment.stdin,
        "stdout": attachment.stdout,
        "stderr": attachment.stderr,
        "framing": attachment.framing,
    }
    if attachment.detach_keys is not None:
        entry["detach_keys"] = ",".join(str(byte) for byte in attachment.detach_keys)
    if attachment.settle:
        entry["settle"] = True
    return entry


def start_failed(name: str, outcome: dict[str, Any]) -> StartFailed:
    """The error of a start that the shim refused: 127 and 126 where execve itself did."""
    text, operation = outcome["error"], outcome.get("operation", "")
    code = 125 if operation else _EXIT_CODES.get(int(outcome.get("errno") or 0), 125)
    return StartFailed(f"failed to start container {name}: {text}", code)


def root_mount(container: Container, services: Services) -> Mount:
    """How the container's root is mounted: its snapshot, or the directory that it was given.

    Raises:
        NotFound: the snapshot is gone.
    """
    rootfs = container.config.rootfs
    if rootfs is None:
        return services.snapshots.mounts(container.id)
    if rootfs.startswith(SNAPSHOT):
        return services.snapshots.mounts(rootfs.removeprefix(SNAPSHOT))
    directory, overlaid = split_rootfs(rootfs)
    if not overlaid:
        return {"type": "bind", "source": directory}
    return overlay_above(directory, services.snapshots.mounts(container.id))


def shown(mount: Mount, container: Container) -> Mount:
    """The root as the container's user namespace sees it."""
    maps = ranges.mappings(container)
    return mapped(mount, maps) if maps else mount


def split_rootfs(rootfs: str) -> tuple[str, bool]:
    """(directory, whether an overlay goes above it) of `DIR` or `DIR:O`."""
    if rootfs.endswith(":O"):
        return rootfs[:-2], True
    return rootfs, False


def overlay_above(directory: str, writable: Mount) -> OverlayMount:
    """An overlay on `directory` whose changes go to a snapshot that has no parent."""
    assert writable["type"] == "bind"
    upper = writable["source"]
    return {
        "type": "overlay",
        "lowers": [directory],
        "upper": upper,
        "work": os.path.join(os.path.dirname(upper), "work"),
    }


def _refusal(other: Container, kind: str) -> str:
    """Why a namespace of a container cannot be joined, or ""."""
    if not other.status.is_running:
        return "it is not running"
    if kind == "ipc" and other.host.ipc_mode in ("", "none", "private"):
        return "it has a non-shareable IPC; create that container with --ipc shareable"
    return "it has a user namespace of its own" if other.ids else ""


def _check_startable(entry: Entry) -> None:
    container = entry.container
    if container.status is Status.PAUSED:
        raise Conflict("cannot start a paused container, try unpause instead")
    if container.status is Status.RUNNING:
        raise NotModified(f"container {container.id} is already started")
    if not container.status.can_start:
        raise Conflict("container is marked for removal and cannot be started")
