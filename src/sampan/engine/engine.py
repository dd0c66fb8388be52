"""The engine: everything that can be done with containers, in one object.

`Engine.open(config)` takes the root's lock, builds every service, recovers what an earlier engine
left and starts the background work; `aclose()` undoes that, and leaves containers running. The
methods are what the APIs, the CLI and embedding programs call. `ref` is a container's id, a unique
prefix of one, or its name. Everything raises `sampan.errors`; nothing here knows about HTTP.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from operator import attrgetter
from typing import TYPE_CHECKING

from sampan.engine import links, stats, usage
from sampan.engine.attach import attach
from sampan.engine.build import build
from sampan.engine.checkpointverbs import CheckpointVerbs
from sampan.engine.commit import CommitRequest
from sampan.engine.config import EngineConfig
from sampan.engine.exec import check_running
from sampan.engine.filters import container_filter
from sampan.engine.info import engine_info
from sampan.engine.logs import LogReader
from sampan.engine.model import HostConfig, LogQuery, Status, WaitCondition
from sampan.engine.networkverbs import NetworkVerbs
from sampan.engine.start import drop
from sampan.errors import InvalidArgument, NotImplementedHere, SampanError
from sampan.images.progress import silent
from sampan.spec.platform import Platform

if TYPE_CHECKING:
    import builtins
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Mapping,
        Sequence,
    )
    from contextlib import AbstractAsyncContextManager
    from typing import Self

    from sampan.engine.archive import Archive, PathStat
    from sampan.engine.build import Parts
    from sampan.engine.containers import Wait
    from sampan.engine.filters import Filters
    from sampan.engine.imagery import Images
    from sampan.engine.model import (
        Attachment,
        Container,
        ContainerConfig,
        Created,
        EngineInfo,
        Event,
        Exec,
        ExecConfig,
        LogRecord,
        Ownership,
        Pruned,
        RestartPolicy,
        Stats,
        Top,
        WaitResult,
    )
    from sampan.engine.networking import Networks
    from sampan.engine.services import Amend, Services, SpecMaker
    from sampan.engine.usage import Sizes
    from sampan.engine.volumes import Volumes
    from sampan.images.diffing import Change
    from sampan.images.model import Image
    from sampan.images.progress import Report
    from sampan.network.model import EndpointRequest
    from sampan.registry.credentials import Credentials


class Engine(NetworkVerbs, CheckpointVerbs):
    """One engine over one root. Made by `open` only."""

    def __init__(self, parts: Parts, undo: AsyncExitStack) -> None:
        """For `open` only."""
        self.config: EngineConfig = parts.services.config
        self.images: Images = parts.services.images
        self.volumes: Volumes = parts.services.volumes
        self.networks: Networks = parts.services.networks
        self._parts = parts
        self._services = parts.services
        self._undo = undo

    @classmethod
    async def open(cls, config: EngineConfig | None = None) -> Self:
        """Lock the root, build, recover, start.

        Raises:
            Unavailable: another engine has the root; the message names its pid.
        """
        async with AsyncExitStack() as undo:
            parts = await build(config or EngineConfig(), undo)
            return cls(parts, undo.pop_all())
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        """Stop the background work and give the root back. Containers keep running."""
        await self._undo.aclose()

    def at_close(self, end: Callable[[], Awaitable[object]]) -> None:
        """Call `end` first when the engine is closed: for rooms above that hold something."""
        self._undo.push_async_callback(end)

    @property
    def services(self) -> Services:
        """What the rooms directly above share with the engine."""
        return self._services

    @property
    def is_idle(self) -> bool:
        """Whether no container runs or is about to: a daemon started on demand may leave."""
        return not any(
            entry.container.status.is_running
            or entry.container.status is Status.RESTARTING
            or entry.launched is not None
            for entry in self._services.containers
        )

    async def create(
        self,
        config: ContainerConfig,
        host: HostConfig | None = None,
        name: str | None = None,
        platform: str | None = None,
        owner: Ownership | None = None,
        networks: Mapping[str, EndpointRequest] | None = None,
    ) -> Created:
        """Make a container of an image that is here, or of a directory. It does not pull.

        `networks` is what is asked of each network, by name; `host.network_mode` need not be in it.

        Raises:
            ImageNotFound: the image is not here (for this platform).
            NameInUse: another container has the name.
            InvalidArgument: a value is wrong; the message says which.
            NotImplementedHere: an option that this engine has not.
        """
        return await self._parts.creator.create(
            config, host or HostConfig(), name, platform, owner, networks or {}
        )

    async def start(self, ref: str, attachments: Sequence[Attachment] = ()) -> None:
        """Start; returns when execve has happened.

        Raises:
            NotModified: it runs already.
            StartFailed: with exit_code 127 (command not found), 126 (not executable) or 125.
        """
        try:
            entry = self._find(ref)
        except SampanError:
            drop(attachments)
            raise
        await self._parts.starter.start(entry, attachments)

    async def stop(self, ref: str, timeout: int | None = None, signal: str | None = None) -> None:
        """Send the stop signal, wait `timeout` seconds (-1: without end), then SIGKILL.

        Raises:
            NotModified: it does not run.
        """
        await self._parts.lifecycle.stop(self._find(ref), timeout, signal)

    async def kill(self, ref: str, signal: str = "SIGKILL") -> None:
        """Send a signal to the container's first process.

        Raises:
            Conflict: it does not run.
        """
        await self._parts.lifecycle.kill(self._find(ref), signal)

    async def restart(
        self, ref: str, timeout: int | None = None, signal: str | None = None
    ) -> None:
        """Stop when it runs, then start."""
        await self._parts.lifecycle.restart(self._find(ref), timeout, signal)

    async def pause(self, ref: str) -> None:
        """Freeze every process of the container."""
        await self._parts.lifecycle.pause(self._find(ref))

    async def unpause(self, ref: str) -> None:
        """Thaw a frozen container."""
        await self._parts.lifecycle.unpause(self._find(ref))

    async def rename(self, ref: str, name: str) -> None:
        """Give the container another name.

        Raises:
            NameInUse: another container has it.
        """
        await self._parts.lifecycle.rename(self._find(ref), name)

    async def update(
        self, ref: str, *, restart: RestartPolicy | None = None, **limits: int | str
    ) -> tuple[str, ...]:
        """Change the restart policy or limits (named as in HostConfig) in place; gives warnings."""
        return await self._parts.lifecycle.update(self._find(ref), restart, limits)

    async def wait(
        self, ref: str, condition: WaitCondition | str = WaitCondition.NOT_RUNNING
    ) -> WaitResult:
        """Wait for the condition, armed at the coroutine's first step; see `arm_wait`."""
        armed = self.arm_wait(ref, condition)
        try:
            return await armed
        finally:
            armed.cancel()

    def arm_wait(
        self, ref: str, condition: WaitCondition | str = WaitCondition.NOT_RUNNING
    ) -> Wait:
        """Arm a wait now, synchronously; await the result later (or `.cancel()` it).

        Raises:
            ContainerNotFound: at once, so that an edge can answer 404 before its headers.
        """
        try:
            wanted = WaitCondition(condition)
        except ValueError:
            raise InvalidArgument(f"invalid condition: {condition!r}") from None
        return self._find(ref).arm(wanted)

    async def remove(self, ref: str, force: bool = False, volumes: bool = False) -> None:
        """Remove a container that does not run; with `force` kill it first, with `volumes` remove
        those of its volumes that nobody named.

        Raises:
            Conflict: it runs and `force` was not given.
        """
        await self._parts.remover.remove(self._find(ref), force, volumes)

    async def prune(self, filters: Filters | None = None) -> Pruned:
        """Remove every container that does not run and matches (until, label)."""
        return await self._parts.remover.prune(filters)

    def get(self, ref: str) -> Container:
        """The container as it is now.

        Raises:
            ContainerNotFound: no such container; InvalidArgument when a prefix fits several.
        """
        return self._find(ref).container

    def list(
        self,
        all: bool = False,  # noqa: A002 - Docker's word
        filters: Filters | None = None,
        limit: int | None = None,
        owner: str = "",
    ) -> builtins.list[Container]:
        """Containers, newest first; only running ones unless `all`, `limit` or a status filter.

        Those of an owner are listed for that owner alone.
        """
        entries = self._services.containers
        found = [entry.container for entry in entries if entry.container.owner == owner]
        if not (all or limit or (filters and "status" in filters)):
            found = [container for container in found if container.status.is_running]
        if filters:
            matches = container_filter(
                self._named_networks(filters), self.get, self.networks.published
            )
            found = [container for container in found if matches(container)]
        found.sort(key=attrgetter("created_at"), reverse=True)
        return found[:limit] if limit else found

    def owned(self, owner: str) -> builtins.list[Container]:
        """The containers of an owner, in the same order as long as none comes or goes."""
        entries = self._services.containers
        return [entry.container for entry in entries if entry.container.owner == owner]

    def link_names(self) -> Mapping[str, tuple[str, ...]]:
        """`PARENT/ALIAS` of each link in the default bridge, by the name of who is linked to."""
        return links.names(entry.container for entry in self._services.containers)

    def _named_networks(self, filters: Filters | None) -> Filters | None:
        """The filters, with names of networks in place of ids."""
        if not filters or "network" not in filters:
            return filters
        names = [self.networks.name_of(value) for value in filters["network"]]
        return {**filters, "network": names}

    async def exec_create(self, ref: str, config: ExecConfig, *, quiet: bool = False) -> str:
        """Prepare a further process; gives the exec's id. A `quiet` one has no events.

        Raises:
            Conflict: the container does not run, or is paused.
        """
        return self._parts.execs.create(self._find(ref), config, quiet=quiet)

    async def exec_start(self, exec_id: str, attachment: Attachment | None = None) -> None:
        """Start it; returns when execve has happened. None: detached.

        Raises:
            StartFailed: as for start; Conflict: it was started already.
        """
        await self._parts.execs.start(exec_id, attachment)

    async def exec_wait(self, exec_id: str) -> int:
        """Wait for the end of a started exec; its exit code."""
        return await self._parts.execs.wait(exec_id)

    def exec_inspect(self, exec_id: str) -> Exec:
        """The exec as it is now. Raises NotFound."""
        return self._parts.execs.find(exec_id).exec

    async def exec_settled(self, exec_id: str) -> Exec:
        """The exec, after everything that its shim said before now has been heard.

        A client that has read the end of the streams must not be told that the process runs.
        Raises NotFound.
        """
        return await self._parts.execs.settled(exec_id)

    async def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        """Set the size of an exec's terminal."""
        await self._parts.execs.resize(exec_id, height, width)

    async def exec_kill(self, exec_id: str) -> None:
        """Kill an exec's process and every process of its session; fine when it has ended."""
        await self._parts.execs.kill(exec_id)

    async def attach(self, ref: str, attachment: Attachment) -> None:
        """Join a client's socket to the container. Returns when the socket is handed to the shim,
        or queued for the next start; the shim closes it when the streams end."""
        try:
            entry = self._find(ref)
        except SampanError:
            drop((attachment,))
            raise
        await attach(self._services.containers, entry, attachment)

    async def resize(self, ref: str, height: int, width: int) -> None:
        """Set the size of the container's terminal; nothing happens where it has none."""
        entry = self._find(ref)
        task = check_running(entry)
        if entry.container.config.tty:
            await task.call("resize", height=height, width=width)
        self._services.containers.emit(entry, "resize", height=str(height), width=str(width))

    async def reopen_log(self, ref: str) -> None:
        """Write to a new file of the log's name from now on, for the old one was moved away.

        Raises:
            Conflict: the container does not run.
        """
        await check_running(self._find(ref)).call("reopen-log")

    async def amend(
        self, ref: str, notes: str, resources: Mapping[str, object] | None = None
    ) -> None:
        """Replace the notes of an owned container, and apply OCI resources to it if it runs.

        Raises:
            Conflict: the kernel refuses a limit; nothing has changed then.
        """
        await self._parts.lifecycle.amend(self._find(ref), notes, resources)

    def complete(self, owner: str, amend: Amend) -> None:
        """Have `amend` complete the OCI configuration of the containers of `owner`."""
        self._services.amendments[owner] = amend

    def own(self, owner: str, make_spec: SpecMaker) -> None:
        """Take care of the containers of `owner`: `make_spec` gives their OCI configuration."""
        self._services.owners[owner] = make_spec

    def logs(self, ref: str, query: LogQuery | None = None) -> AsyncIterator[LogRecord]:
        """The log, record by record; with `follow` until the container ends.

        Raises:
            ContainerNotFound: at once. NotImplementedHere: the container keeps no log.
        """
        return self._log(ref).read(query or LogQuery())

    def log_pieces(
        self, ref: str, query: LogQuery
    ) -> AsyncGenerator[builtins.list[LogRecord], None]:
        """The same, as many records at a time as are there. Raises as `logs`."""
        return self._log(ref).pieces(query)

    def _log(self, ref: str) -> LogReader:
        entry = self._find(ref)
        path = entry.container.log_path
        if not path:
            raise NotImplementedHere("configured logging driver does not support reading")
        end = entry.arm(WaitCondition.NOT_RUNNING)
        return LogReader(path, end)

    async def stats(self, ref: str, counters: stats.Counters | None = None) -> Stats:
        """One reading of the counters now; rates are the caller's to compute.

        `counters` reads them elsewhere than in the container's cgroup; what it raises comes back.
        """
        return await stats.read(self._services, self._find(ref), counters)

    async def pids(self, ref: str) -> Sequence[int]:
        """The processes of a container, none when it does not run."""
        return await stats.pids(self._services, self._find(ref))

    async def top(self, ref: str, ps_args: str = "") -> Top:
        """The container's processes. Raises Conflict when it does not run."""
        return await stats.top(self._services, self._find(ref), ps_args)

    async def path_stat(self, ref: str, path: str) -> PathStat:
        """What `path` is in the container, running or not. Raises NotFound."""
        return await self._parts.archives.stat(self._find(ref), path)

    def read_archive(self, ref: str, path: str) -> AbstractAsyncContextManager[Archive]:
        """`path` of the container as a tar: `async with` gives its `stat` and `chunks()`.

        Raises:
            ContainerNotFound: at once; NotFound: nothing is at `path`.
        """
        return self._parts.archives.read(self._find(ref), path)

    def export(self, ref: str) -> AbstractAsyncContextManager[Archive]:
        """The container's own tree as a tar, without what is mounted in it."""
        return self._parts.archives.export(self._find(ref))

    async def write_archive(
        self,
        ref: str,
        path: str,
        source: AsyncIterator[bytes],
        *,
        keep_kinds: bool = False,
        as_user: bool = False,
    ) -> None:
        """Unpack a tar below the directory `path` of the container: see `archive.Archives.write`.

        Raises:
            NotFound: no such directory; InvalidArgument: the tar is bad; PermissionDenied.
        """
        await self._parts.archives.write(
            self._find(ref), path, source, keep_kinds=keep_kinds, as_user=as_user
        )

    async def changes(self, ref: str) -> builtins.list[Change]:
        """The paths that the container changed in its file system, sorted."""
        return await self._parts.committer.changes(self._find(ref))

    async def commit(self, ref: str, request: CommitRequest | None = None) -> Image:
        """Make an image of the container's files; it is frozen meanwhile unless told not to.

        Raises:
            FailedPrecondition: the container was not made of an image.
        """
        return await self._parts.committer.commit(self._find(ref), request or CommitRequest())

    async def sizes(self, ref: str) -> Sizes:
        """What the container's own files take, and all that it sees of its image and them."""
        return await usage.sizes(self._services, self._find(ref).container)

    def exec_ids(self, ref: str) -> builtins.list[str]:
        """The exec sessions of the container that run, oldest first."""
        sessions = self._find(ref).execs.values()
        return [session.exec.id for session in sessions if session.exec.running]

    def events(
        self,
        since: int | None = None,
        until: int | None = None,
        filters: Filters | None = None,
        owner: str = "",
    ) -> AsyncIterator[Event]:
        """Events in order: the kept ones from `since` on (ns), then new ones until `until` (ns).

        Subscribed at the call, not at the first `anext`. Without `until` it never ends. What
        happens to containers of an owner is told to that owner alone.
        """
        return self._services.events.stream(since, until, filters, owner)

    async def info(self) -> EngineInfo:
        """The host and the engine in numbers."""
        return await engine_info(self._services)

    async def pull(
        self,
        reference: str,
        *,
        platform: str | None = None,
        auth: Credentials | None = None,
        progress: Report | None = None,
    ) -> Image:
        """Pull an image: `images.pull`, by strings."""
        wanted = Platform.parse(platform) if platform else None
        return await self.images.pull(
            reference, platform=wanted, auth=auth, progress=progress or silent
        )
