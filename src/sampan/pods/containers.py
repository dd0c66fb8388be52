"""Containers of pods: create, start, stop, remove, update. They are the engine's, with an owner.

The engine gives life, logs, exits and recovery; here is what a kubelet's request means. Stop and
remove of what is not there succeed, for a kubelet repeats them.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from sampan.engine import cdi
from sampan.engine.model import Ownership, Status, WaitCondition
from sampan.errors import (
    AlreadyExists,
    Conflict,
    ContainerNotFound,
    FailedPrecondition,
    InvalidArgument,
    NotModified,
    SampanError,
)
from sampan.images.failures import finish
from sampan.kernel import cgroups
from sampan.pods import mounts, names, records, specgen, users, wording
from sampan.pods.model import OWNER, Mode, Notes, Phase, Resources, User
from sampan.spec.reference import Reference
from sampan.vm.words import MACHINE

if TYPE_CHECKING:
    from sampan.engine.engine import Engine
    from sampan.engine.model import Container
    from sampan.images.model import Image
    from sampan.pods.model import Request, Sandbox, SandboxConfig
    from sampan.pods.sandboxes import Sandboxes
    from sampan.pods.table import Table

KILL_PATIENCE = 5.0
"""Seconds that a killed container has to end."""

START_FAILED = 128
"""The exit code of a container that could not be started, as every runtime reports it."""


@dataclass(frozen=True, slots=True)
class PodContainer:
    """A container of the engine with what was asked of it."""

    container: Container
    notes: Notes

    @property
    def could_not_start(self) -> bool:
        """Whether its start was tried and failed."""
        state = self.container.state
        return self.container.status is Status.CREATED and bool(state.error)


class Containers:
    """The containers of all pods."""

    def __init__(self, engine: Engine, table: Table) -> None:
        self._engine = engine
        self._table = table
        self._notes: dict[str, Notes] = {}
        self._taken: set[str] = set()
        self._users: dict[str, User] = {}
        self._failed_at: dict[str, int] = {}
        self.sandboxes: Sandboxes

    def load(self) -> None:
        """At start: the names of what is there are taken."""
        for one in self.all():
            self._taken.add(names.container_name(one.notes.sandbox, one.notes.request))

    async def thaw(self) -> None:
        """At start: an engine that died in a pod's checkpoint has left containers paused."""
        for container in self.current():
            if container.status is Status.PAUSED:
                with suppress(Conflict):  # it ends in this moment
                    await self._engine.unpause(container.id)

    # look

    def current(self) -> list[Container]:
        """All of them. One that has changed in any way is another object."""
        return self._engine.owned(OWNER)

    def all(self) -> list[PodContainer]:
        """All of them, newest first, with what was asked of each."""
        found = self._engine.list(all=True, owner=OWNER)
        return [PodContainer(one, self._notes_of(one)) for one in found]

    def find(self, ref: str) -> PodContainer:
        """The container of an id, or of the unique beginning of one.

        Raises:
            ContainerNotFound: there is none in any pod.
        """
        container = self._engine.get(ref)
        if container.owner != OWNER or not container.id.startswith(ref):
            raise ContainerNotFound(f"no such container: {ref}")
        return PodContainer(container, self._notes_of(container))

    def of_sandbox(self, sandbox_id: str) -> list[PodContainer]:
        """Those of one sandbox."""
        return [one for one in self.all() if one.notes.sandbox == sandbox_id]

    def failed_at(self, container: Container) -> int:
        """When the start of a container failed; near its creation when an earlier engine tried."""
        return self._failed_at.get(container.id, container.created_at)

    def user(self, container: Container) -> User | None:
        """Who its first process is; None when it never ran under this engine."""
        if container.id not in self._users and container.status.is_running:
            found = read_user(container.state.pid, container.ids)
            if found is not None:
                self._users[container.id] = found
        return self._users.get(container.id)

    def _notes_of(self, container: Container) -> Notes:
        notes = self._notes.get(container.id)
        if notes is None:
            notes = self._notes[container.id] = records.decode_notes(container.notes)
        return notes

    # change

    async def create(
        self,
        sandbox_id: str,
        request: Request,
        config: SandboxConfig | None,
        *,
        checkpoint: str = "",
    ) -> str:
        """Make a container in a sandbox; its id. `config` is the sandbox's as the kubelet has it.

        An image that is a path means the archive of a checkpoint, which says what runs; with
        `checkpoint` the request describes the whole of what that archive has.

        Raises:
            NotFound: there is no such sandbox, image or archive.
            AlreadyExists: the sandbox has a container of this name and attempt.
            FailedPrecondition: the sandbox is not ready.
            InvalidArgument: the archive is none, or does not fit the request.
            PermissionDenied: others than our user may have written the archive.
        """
        sandbox = self._table.find(sandbox_id)
        if sandbox.phase is not Phase.READY:
            raise FailedPrecondition(f"create container in {sandbox.id}: the sandbox is not ready")
        check(request, sandbox)
        self.sandboxes.handler(sandbox).check(request)
        path = checkpoint or (request.image.image if request.image.image[0] == "/" else "")
        name = names.container_name(sandbox.id, request)
        if name in self._taken:
            raise AlreadyExists(f"container name {name} is in use")
        self._taken.add(name)
        try:
            if path:
                wanted = request, config or sandbox.config
                return await self._restored(sandbox, *wanted, path, whole=bool(checkpoint))
            image = await self._engine.images.get(request.image.image)
            return await self._create(sandbox, request, config or sandbox.config, image)
        except BaseException:
            self._taken.discard(name)
            raise

    async def _restored(
        self, sandbox: Sandbox, request: Request, config: SandboxConfig, path: str, *, whole: bool
    ) -> str:
        """Make a container of an archive, or nothing. `whole`: the request describes all of it."""
        from sampan.pods import archives, restoring  # rarely asked for

        restoring.check(request, self.sandboxes.handler(sandbox))
        async with archives.opened(self._engine, path) as saved:
            image = await saved.image(self._engine)
            if not whole:
                request = restoring.completed(request, saved)
            elif (await self._engine.images.get(request.image.image)).id != image.id:
                raise InvalidArgument(f"restore container {request.name}: it has another image")
            request = replace(request, mounts=mounts.checked(request.mounts))
            restoring.check_mounts(request, saved)
            made = await self._create(sandbox, request, config, image, archives.CHECKPOINT)
            try:
                if whole:
                    restoring.check_process(self._engine.get(made), request, saved)
                await saved.install(self._engine, made)
            except BaseException:
                self._notes.pop(made, None)
                await finish(self._engine.remove(made, force=True))
                raise
        return made

    async def _create(
        self,
        sandbox: Sandbox,
        request: Request,
        config: SandboxConfig,
        image: Image,
        checkpoint: str = "",
    ) -> str:
        self._edits(request)  # refused here, not at the start
        request = replace(request, mounts=mounts.checked(request.mounts))
        notes = Notes(
            sandbox=sandbox.id,
            request=request,
            image_name=shown_name(image, request),
            image_ref=shown_digest(image),
            checkpoint=checkpoint,
        )
        made = await self._engine.create(
            wording.config(request, sandbox, image),
            replace(
                wording.host(request, sandbox, names.log_file(config, request)),
                program=self.sandboxes.handler(sandbox).program,
                mounts=mounts.of_images(request.mounts),
            ),
            name=names.engine_name(sandbox, request),
            owner=Ownership(
                owner=OWNER, notes=records.encode_notes(notes), ids=users.ids(sandbox.config)
            ),
        )
        self._notes[made.id] = notes
        return made.id

    async def start(self, ref: str) -> None:
        """Start a container that was created and never started.

        Raises:
            FailedPrecondition: it has run already, or its sandbox is not ready.
            StartFailed: its program could not be executed.
        """
        one = self.find(ref)
        container = one.container
        if container.status is not Status.CREATED or one.could_not_start:
            raise FailedPrecondition(
                f"start container {container.id}: it is {container.status}, not created"
            )
        sandbox = self._table.find(one.notes.sandbox)
        if not self.sandboxes.is_ready(sandbox):
            raise FailedPrecondition(f"start container {container.id}: its sandbox is not ready")
        if container.log_path:
            await self._engine.services.on_disk(make_log, container.log_path)
        try:
            if one.notes.checkpoint:
                await self._engine.start_from(container.id, one.notes.checkpoint)
                # It is the container's memory, and not needed again.
                await self._engine.remove_checkpoint(container.id, one.notes.checkpoint)
            else:
                await self._engine.start(container.id)
        except SampanError:
            self._failed_at[container.id] = time.time_ns()
            raise
        self.user(self._engine.get(container.id))

    async def stop(self, ref: str, timeout: int) -> None:
        """Stop with its signal, kill after `timeout` seconds; fine when nothing runs."""
        try:
            container = self.find(ref).container
            await self._engine.stop(container.id, max(0, timeout))
        except (ContainerNotFound, NotModified):
            return

    async def remove(self, ref: str) -> None:
        """Remove, by force when it runs; fine when it is gone."""
        try:
            one = self.find(ref)
        except ContainerNotFound:
            return
        await self._remove(one)

    async def end_all(self, sandbox_id: str, remove: bool) -> None:
        """Kill everything in a sandbox at once, and remove it if wanted."""
        found = self.of_sandbox(sandbox_id)
        work = [
            self._remove(one) if remove else self._end(one.container.id)
            for one in found
            if remove or one.container.status.is_running
        ]
        # One that fails must not keep the others alive; what failed first is told.
        for result in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _end(self, container_id: str) -> None:
        """Kill at once, and wait for the end; a stop in the usual way where that fails."""
        wait = self._engine.arm_wait(container_id, WaitCondition.NOT_RUNNING)
        try:
            await self._engine.kill(container_id)
            async with asyncio.timeout(KILL_PATIENCE):
                await wait
        except (SampanError, TimeoutError):
            await self.stop(container_id, 0)
        finally:
            wait.cancel()

    async def update(self, ref: str, limits: Resources) -> None:
        """Change limits, of a running container in place.

        Raises:
            Conflict: the kernel refuses; InvalidArgument: a limit is impossible.
        """
        one = self.find(ref)
        if one.container.status is Status.EXITED or one.could_not_start:
            raise FailedPrecondition(f"update container {one.container.id}: it has ended")
        request = replace(one.notes.request, resources=merged(one.notes.request.resources, limits))
        notes = replace(one.notes, request=request)
        wanted = specgen.resources(limits, has_hugepages=has_controller("hugetlb"))
        await self._engine.amend(one.container.id, records.encode_notes(notes), wanted)
        self._notes[one.container.id] = notes

    async def reopen_log(self, ref: str) -> None:
        """Open the log's file anew, for it was moved away. Raises FailedPrecondition."""
        container = self.find(ref).container
        try:
            await self._engine.reopen_log(container.id)
        except Conflict as error:
            raise FailedPrecondition(f"reopen log: {error}") from error

    async def _remove(self, one: PodContainer) -> None:
        container = one.container
        try:
            await self._engine.remove(container.id, force=True)
        except ContainerNotFound:
            pass
        except Conflict:
            if container.status is not Status.REMOVING:
                raise
        self._taken.discard(names.container_name(one.notes.sandbox, one.notes.request))
        for kept in (self._notes, self._users, self._failed_at):
            kept.pop(container.id, None)

    # the engine asks

    def spec(self, container: Container, cgroup: str) -> dict[str, object]:
        """The OCI configuration of a start."""
        notes = self._notes_of(container)
        sandbox = self._table.find(notes.sandbox)
        place = replace(
            self.sandboxes.place(sandbox),
            shared_processes=self._shared_processes(notes, sandbox),
            has_hugepages=has_controller("hugetlb"),
            edits=self._edits(notes.request),
        )
        services = self._engine.services
        trees = services.volumes.specification(container, services.snapshots.mounts)
        made = specgen.generate(container, cgroup, notes, sandbox, place, trees)
        if self.sandboxes.handler(sandbox).is_machine:
            made["annotations"] = {MACHINE: services.layout.shim(sandbox.keeper)}
        return made

    def _edits(self, request: Request) -> cdi.Edits:
        """What the devices of vendors add. Raises InvalidArgument, NotImplementedHere."""
        if not request.cdi:
            return cdi.Edits()
        return cdi.resolve(request.cdi, self._engine.config.cdi_directories)

    def _shared_processes(self, notes: Notes, sandbox: Sandbox) -> str:
        asked = notes.request.security.namespaces
        if self.sandboxes.handler(sandbox).is_machine:
            return ""
        if asked.pid is Mode.POD:
            if not sandbox.keeper:
                raise FailedPrecondition(
                    f"sandbox {sandbox.id} was made without a pid namespace of its own"
                )
            owner = sandbox.keeper
        elif asked.pid is Mode.TARGET:
            target = self.find(asked.target)
            if target.notes.sandbox != sandbox.id:
                raise InvalidArgument(f"target {asked.target}: it is in another sandbox")
            owner = target.container.id
        else:
            return ""
        container = self._engine.get(owner)
        if not container.status.is_running:
            raise FailedPrecondition(f"join the processes of {owner}: it does not run")
        return f"/proc/{container.state.pid}"


def check(request: Request, sandbox: Sandbox) -> None:
    """What can be refused before anything is made. Raises InvalidArgument."""
    if not request.name:
        raise InvalidArgument("a container needs a name in its metadata")
    if not request.image.image:
        raise InvalidArgument("a container needs an image")
    if request.security.privileged and not sandbox.config.security.privileged:
        raise InvalidArgument("no privileged container allowed in a sandbox that is not privileged")


def merged(old: Resources, new: Resources) -> Resources:
    """`old` with what `new` sets."""
    changes: dict[str, object] = {}
    for entry in fields(Resources):
        value = getattr(new, entry.name)
        if value:
            changes[entry.name] = value
    return replace(old, **changes)  # type: ignore[arg-type]


def shown_name(image: Image, request: Request) -> str:
    """A tag of the image, or what the request called it."""
    if image.names:
        return canonical(image.names[0])
    return request.image.user_specified or request.image.image


def shown_digest(image: Image) -> str:
    """The image at a digest of its registry, or its id."""
    return canonical(image.digests[0]) if image.digests else str(image.id)


def canonical(name: str) -> str:
    """A familiar name with its registry and everything."""
    return str(Reference.parse(name))


def make_log(path: str) -> None:
    """Make the log's file, which is read also when nothing is ever written. Blocking.

    Raises:
        InvalidArgument: it cannot be made, or something that is no file is there.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        fd = os.open(path, flags, 0o640)
    except OSError as error:
        raise InvalidArgument(f"make log {path}: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidArgument(f"make log {path}: it is there, and no regular file")
    finally:
        os.close(fd)


def read_user(pid: int, ids: tuple[int, ...] = ()) -> User | None:
    """The ids of a process, None when it is gone; `ids` is the range of its user namespace."""
    first = ids[0] if ids else 0
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            lines = dict(
                line.split(":", 1) for line in file.read(1 << 16).split("\n") if ":" in line
            )
        return User(
            uid=int(lines["Uid"].split()[1]) - first,
            gid=int(lines["Gid"].split()[1]) - first,
            groups=tuple(int(word) - first for word in lines["Groups"].split()),
        )
    except (OSError, KeyError, ValueError):
        return None


def has_controller(name: str) -> bool:
    """Whether the node has a cgroup controller."""
    if cgroups.mode() != "unified":
        return name in cgroups.manager("/sampan").names()
    with open("/sys/fs/cgroup/cgroup.controllers", encoding="ascii") as file:
        return name in file.read().split()
