"""The engine: everything that can be done with containers, in one object.

`Engine.open(config)` takes the root's lock, builds every service, recovers what an earlier engine
left and starts the background work; `aclose()` undoes that, and leaves containers running. The
methods are what the APIs, the CLI and embedding programs call. `ref` is a container's id, a unique
prefix of one, or its name. Everything raises `sampan.errors`; nothing here knows about HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sampan.engine.model import (
    Attachment,
    Container,
    ContainerConfig,
    Created,
    EngineInfo,
    Event,
    Exec,
    ExecConfig,
    HostConfig,
    LogQuery,
    LogRecord,
    Pruned,
    RestartPolicy,
    Stats,
    Top,
    WaitCondition,
    WaitResult,
)

if TYPE_CHECKING:
    from typing import Self

    from sampan.engine.config import EngineConfig

Filters = Mapping[str, Sequence[str]]


class Engine:
    """One engine over one root. Made by `open` only."""

    config: EngineConfig
    images: Any  # images.service.ImageService

    @classmethod
    async def open(cls, config: EngineConfig | None = None) -> Self:
        """Lock the root, build, recover, start.

        Raises:
            Conflict: another engine has the root; the message names its pid.
        """
        raise NotImplementedError

    async def aclose(self) -> None:
        """Stop the background work and give the root back. Containers keep running."""
        raise NotImplementedError

    @property
    def is_idle(self) -> bool:
        """Whether no container runs or is about to: a daemon started on demand may leave."""
        raise NotImplementedError

    async def create(
        self,
        config: ContainerConfig,
        host: HostConfig | None = None,
        name: str | None = None,
        platform: str | None = None,
    ) -> Created:
        """Make a container of an image that is here, or of a directory. It does not pull.

        Raises:
            ImageNotFound: the image is not here (for this platform).
            NameInUse: another container has the name.
            InvalidArgument: a value is wrong; the message says which.
            NotImplementedHere: an option that this engine has not.
        """
        raise NotImplementedError

    async def start(self, ref: str, attachments: Sequence[Attachment] = ()) -> None:
        """Start; returns when execve has happened.

        Raises:
            NotModified: it runs already.
            StartFailed: with exit_code 127 (command not found), 126 (not executable) or 125.
        """
        raise NotImplementedError

    async def stop(self, ref: str, timeout: int | None = None, signal: str | None = None) -> None:
        """Send the stop signal, wait `timeout` seconds (-1: without end), then SIGKILL.

        Raises:
            NotModified: it does not run.
        """
        raise NotImplementedError

    async def kill(self, ref: str, signal: str = "SIGKILL") -> None:
        """Send a signal to the container's first process.

        Raises:
            Conflict: it does not run.
        """
        raise NotImplementedError

    async def restart(
        self, ref: str, timeout: int | None = None, signal: str | None = None
    ) -> None:
        """Stop when it runs, then start."""
        raise NotImplementedError

    async def pause(self, ref: str) -> None:
        """Freeze every process of the container."""
        raise NotImplementedError

    async def unpause(self, ref: str) -> None:
        """Thaw a frozen container."""
        raise NotImplementedError

    async def rename(self, ref: str, name: str) -> None:
        """Give the container another name.

        Raises:
            NameInUse: another container has it.
        """
        raise NotImplementedError

    async def update(
        self, ref: str, *, restart: RestartPolicy | None = None, **limits: int | str
    ) -> tuple[str, ...]:
        """Change the restart policy or limits (named as in HostConfig) in place; gives warnings."""
        raise NotImplementedError

    async def wait(
        self, ref: str, condition: WaitCondition | str = WaitCondition.NOT_RUNNING
    ) -> WaitResult:
        """Wait for the condition. Armed before the first await: what happens after the coroutine's
        first step is seen. Use `arm_wait` to arm without awaiting."""
        raise NotImplementedError

    def arm_wait(
        self, ref: str, condition: WaitCondition | str = WaitCondition.NOT_RUNNING
    ) -> AwaitableWait:
        """Arm a wait now, synchronously; await the result later (or `.cancel()` it).

        Raises:
            ContainerNotFound: at once, so that an edge can answer 404 before its headers.
        """
        raise NotImplementedError

    async def remove(self, ref: str, force: bool = False, volumes: bool = False) -> None:
        """Remove a container that does not run; with `force` kill it first.

        Raises:
            Conflict: it runs and `force` was not given.
        """
        raise NotImplementedError

    async def prune(self, filters: Filters | None = None) -> Pruned:
        """Remove every container that does not run and matches (until, label)."""
        raise NotImplementedError

    def get(self, ref: str) -> Container:
        """The container as it is now.

        Raises:
            ContainerNotFound: no such container; InvalidArgument when a prefix fits several.
        """
        raise NotImplementedError

    def list(
        self,
        all: bool = False,  # noqa: A002 - Docker's word
        filters: Filters | None = None,
        limit: int | None = None,
    ) -> list[Container]:
        """Containers, newest first; only running ones unless `all`, `limit` or a status filter."""
        raise NotImplementedError

    async def exec_create(self, ref: str, config: ExecConfig) -> str:
        """Prepare a further process; gives the exec's id.

        Raises:
            Conflict: the container does not run, or is paused.
        """
        raise NotImplementedError

    async def exec_start(self, exec_id: str, attachment: Attachment | None = None) -> None:
        """Start it; returns when execve has happened. None: detached.

        Raises:
            StartFailed: as for start; Conflict: it was started already.
        """
        raise NotImplementedError

    async def exec_wait(self, exec_id: str) -> int:
        """Wait for the end of a started exec; its exit code."""
        raise NotImplementedError

    def exec_inspect(self, exec_id: str) -> Exec:
        """The exec as it is now. Raises NotFound."""
        raise NotImplementedError

    async def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        """Set the size of an exec's terminal."""
        raise NotImplementedError

    async def attach(self, ref: str, attachment: Attachment) -> None:
        """Join a client's socket to the container. Returns when the socket is handed to the shim,
        or queued for the next start; the shim closes it when the streams end."""
        raise NotImplementedError

    async def resize(self, ref: str, height: int, width: int) -> None:
        """Set the size of the container's terminal."""
        raise NotImplementedError

    def logs(self, ref: str, query: LogQuery | None = None) -> AsyncIterator[LogRecord]:
        """The log, record by record; with `follow` until the container ends.

        Raises:
            ContainerNotFound: at once. NotImplementedHere: the container keeps no log.
        """
        raise NotImplementedError

    async def stats(self, ref: str) -> Stats:
        """One reading of the counters now; rates are the caller's to compute."""
        raise NotImplementedError

    async def top(self, ref: str, ps_args: str = "") -> Top:
        """The container's processes. Raises Conflict when it does not run."""
        raise NotImplementedError

    def events(
        self,
        since: int | None = None,
        until: int | None = None,
        filters: Filters | None = None,
    ) -> AsyncIterator[Event]:
        """Events in order: the kept ones from `since` on (ns), then new ones until `until` (ns).

        Subscribed at the call, not at the first `anext`. Without `until` it never ends.
        """
        raise NotImplementedError

    async def info(self) -> EngineInfo:
        """The host and the engine in numbers."""
        raise NotImplementedError

    async def pull(
        self,
        reference: str,
        *,
        platform: str | None = None,
        auth: Any = None,
        progress: Callable[[Any], None] | None = None,
    ) -> Any:
        """Pull an image: `images.pull`, with the event. Gives images.service.Image."""
        raise NotImplementedError


class AwaitableWait:
    """An armed wait. `await` it for the WaitResult; `cancel()` forgets it."""

    def __await__(self) -> Any:
        raise NotImplementedError

    def cancel(self) -> None:
        """Forget the wait."""
        raise NotImplementedError
