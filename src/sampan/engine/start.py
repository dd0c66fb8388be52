"""Start: everything a shim needs in one message, then wait until the program runs or could not.

The spec is computed from the row each time, so nothing of it is kept on the disk. `/etc/hosts` and
`/etc/hostname` are small files of the container's own (it may write to them), made at the first
start; `/etc/resolv.conf` only where there is a network to ask on.
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

from sampan.engine import devices, initprogram, specgen
from sampan.engine.config import reach
from sampan.engine.model import Status, WaitCondition
from sampan.engine.placement import cgroup_path
from sampan.errors import Conflict, NotModified, SampanError, StartFailed
from sampan.tasks import recovery
from sampan.tasks.task import Task, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.engine.containers import Entry
    from sampan.engine.exits import Exits
    from sampan.engine.model import Attachment, Container
    from sampan.engine.services import Services
    from sampan.snapshots.base import Mount, OverlayMount

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
_HOSTS = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


class Starter:
    """Starts containers, for clients and for the policies."""

    def __init__(self, services: Services, exits: Exits) -> None:
        self._services = services
        self._exits = exits

    async def start(self, entry: Entry, attachments: Sequence[Attachment] = ()) -> None:
        """A client's start: see Engine.start."""
        queue(entry, attachments)
        async with entry.lock:
            _check_startable(entry)
            self._exits.cancel(entry)
            entry.backoff = 0.0
            if entry.container.state.restart_count:
                state = replace(entry.container.state, restart_count=0)
                entry.container = replace(entry.container, state=state)
            try:
                await self._launch(entry)
            except (SampanError, OSError) as error:
                self._failed(entry, error)
                raise

    async def again(self, entry: Entry) -> None:
        """A policy's start: one that fails is tried again, as long as the policy allows."""
        async with entry.lock:
            if entry.container.status is not Status.RESTARTING:
                return
            try:
                await self._launch(entry)
            except (SampanError, OSError) as error:
                self._exits.failed_again(entry, str(error))

    async def _launch(self, entry: Entry) -> None:
        services = self._services
        await services.containers.flush(entry)  # before the records of the last run go
        container = entry.container
        if container.mounts:
            await services.volumes.prepare(container)
        program = services.filters.get(container.host, container.architecture)
        mount = entry.mount or self._mount(entry)
        attached, entry.attachments = entry.attachments, []
        message = encode(self._message(container, mount, program, attached))
        passed = [program[0]] if program is not None else []
        passed += [attachment.fd for attachment in attached]
        try:
            outcome = await self._attempt(entry, message, passed)
            if outcome.get("silent"):
                # The spawner died with the message unread, or its shim before it did anything.
                outcome = await self._attempt(entry, message, passed)
        finally:
            drop(attached)
        if "error" in outcome:
            raise start_failed(container.name, outcome)
        await self._attach_late(entry)

    async def _attempt(self, entry: Entry, message: bytes, passed: list[int]) -> dict[str, Any]:
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
            await services.launcher.launch(message, [theirs.fileno(), *passed])
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
        program: tuple[int, int] | None,
        attachments: Sequence[Attachment],
    ) -> dict[str, Any]:
        services, config = self._services, container.config
        message: dict[str, Any] = {
            "v": 1,
            "op": "launch",
            "id": container.id,
            "dir": services.layout.shim(container.id),
            "spec": self._spec(container),
            "rootfs": mount,
            "log": self._log(container),
            "stdin": config.open_stdin,
            "stdin_once": config.stdin_once,
            "attach": [attach_entry(attachment) for attachment in attachments],
            "console_size": None,
            "start": True,
        }
        if program is not None:
            message["seccomp"] = True
            message["seccomp_flags"] = program[1]
        return message

    def _spec(self, container: Container) -> dict[str, Any]:
        maker = self._services.owners.get(container.owner)
        if maker is not None:
            return maker(container, cgroup_path(self._services.config, container))
        return specgen.generate(container, self._facts(container))

    def _log(self, container: Container) -> dict[str, Any]:
        wish, config = container.host.log, self._services.config
        return {
            "driver": wish.driver,
            "path": container.log_path,
            "max_size": wish.max_size or config.log_max_size,
            "max_file": wish.max_file or config.log_max_file,
        }

    def _facts(self, container: Container) -> specgen.Facts:
        config, host = self._services.config, container.host
        directory = self._services.layout.container(container.id)
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            pass
        else:
            _write_files(directory, container)
        shared = host.network_mode == "host"
        return specgen.Facts(
            cgroups_path=cgroup_path(config, container),
            no_new_privileges=config.no_new_privileges,
            shm_size=config.shm_size,
            hosts=f"{directory}/hosts",
            hostname_file=f"{directory}/hostname",
            resolv_conf=f"{directory}/resolv.conf" if shared else "",
            host_devices=devices.host_devices() if host.privileged else (),
            mounts=self._mounts(container),
            init_program=initprogram.find() if host.init else "",
            pid_namespace=self._pid_namespace(host.pid_mode),
        )

    def _pid_namespace(self, mode: str) -> str:
        """The namespace of `container:ID`, which must run.

        Raises:
            Conflict: it does not. ContainerNotFound: it is gone.
        """
        if not mode.startswith("container:"):
            return ""
        other = self._services.containers.find(mode.removeprefix("container:")).container
        if not other.status.is_running:
            raise Conflict(f"cannot join the pid namespace of {other.name}: it is not running")
        return f"/proc/{other.state.pid}/ns/pid"

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


def _check_startable(entry: Entry) -> None:
    container = entry.container
    if container.status is Status.PAUSED:
        raise Conflict("cannot start a paused container, try unpause instead")
    if container.status is Status.RUNNING:
        raise NotModified(f"container {container.id} is already started")
    if not container.status.can_start:
        raise Conflict("container is marked for removal and cannot be started")


def _write_files(directory: str, container: Container) -> None:
    """The container's own /etc/hosts, /etc/hostname and, with the host's network, resolv.conf."""
    hostname, shared = container.config.hostname, container.host.network_mode == "host"
    hosts = _read_host("/etc/hosts") if shared else _HOSTS
    extra = (entry.partition(":") for entry in container.host.extra_hosts)
    hosts += "".join(f"{address}\t{name}\n" for name, _, address in extra)
    _write(f"{directory}/hosts", hosts)
    _write(f"{directory}/hostname", f"{hostname}\n")
    if shared:
        servers = "".join(f"nameserver {server}\n" for server in container.host.dns)
        _write(f"{directory}/resolv.conf", servers or _read_host("/etc/resolv.conf"))


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, text.encode())
        os.fchmod(fd, 0o644)
    finally:
        os.close(fd)


def _read_host(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
