"""A container's files as tar: what `cp` and `export` read and write, whether it runs or not.

The work is done by `layers.archivist`, a process for each request that enters the container's tree
and locks itself up. This side opens the pipes, hands over the words, and passes bytes on. An
archive that is written is kept in a nameless file first: what is not whole changes nothing, and the
client's pace is nobody's concern while the tree is held.

A container that does not run is mounted by the worker. For writing it is locked, so that it does
not start meanwhile: two overlays with one upper directory would be two views of one disk. Reading
needs no lock, because it mounts the upper directory as one more lower one, and what it must make
(the mount points of volumes) goes into a scratch directory.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sampan import errors
from sampan.engine import etcfiles, linked
from sampan.engine.start import root_mount
from sampan.kernel.identity import is_alive
from sampan.layers.limits import MAX_LAYER_SIZE, LayerError
from sampan.layers.workers import module_path
from sampan.tasks import recovery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from sampan.engine.containers import Entry
    from sampan.engine.model import Container
    from sampan.engine.services import Services
    from sampan.snapshots.base import Mount, OverlayMount

PATIENCE: Final = 600.0
"""Seconds in which a reader must take something, and a writer must be done."""

MAX_AT_ONCE: Final = 16
SPARE_SECONDS: Final = 20.0
_CHUNK: Final = 256 << 10
_PIPE_SIZE: Final = 1 << 20
_MAX_ANSWER: Final = 1 << 16
_MAX_PATH: Final = 4096
_NOTHING: Final[dict[str, Any]] = {
    "mount": None,
    "binds": [],
    "directories": [],
    "read_only": False,
    "keep_kinds": False,
    "owner": "",
    "users": False,
}
_CODE: Final = (
    "import sys; sys.path[:0] = sys.argv[2].split(chr(10)); "
    "from sampan.layers.archivist import main; main(int(sys.argv[1]))"
)
_KINDS: Final = {
    kind.__name__: kind
    for kind in (
        LayerError,
        errors.Conflict,
        errors.DataLoss,
        errors.InvalidArgument,
        errors.NotFound,
        errors.PermissionDenied,
        errors.ResourceExhausted,
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStat:
    """One path of a container. `mode` is st_mode; `target` is where a link leads, or ""."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    target: str = ""


class Archive:
    """A tar that is being read: its `stat`, and `chunks` once."""

    def __init__(self, worker: _Worker, reader: int, stat: PathStat | None) -> None:
        self.stat = stat
        self._worker = worker
        self._reader = reader

    async def chunks(self) -> AsyncIterator[bytes]:
        """The tar's bytes.

        Raises:
            SampanError: it broke off; what came before is no whole archive.
        """
        while data := await _read(self._reader):
            yield data
        await self._worker.answer()


class Archives:
    """Reads and writes containers' files."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._spare: _Worker | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._closed = False

    async def aclose(self) -> None:
        """End the worker that waits for the next request."""
        self._closed = True
        if self._expiry is not None:
            self._expiry.cancel()
        spare, self._spare = self._spare, None
        if spare is not None:
            await spare.aclose()

    async def stat(self, entry: Entry, path: str) -> PathStat:
        """What `path` is in the container.

        Raises:
            NotFound: nothing is there.
        """
        async with self._slots, self._worker(entry, "stat", path, []) as worker:
            return await worker.stat(entry, path)

    @asynccontextmanager
    async def read(self, entry: Entry, path: str) -> AsyncIterator[Archive]:
        """`path` with everything in it as a tar, named from its last element on.

        Raises:
            NotFound: nothing is there.
        """
        async with self._slots:
            reader, writer = _pipe()
            try:
                async with self._worker(entry, "read", path, [writer]) as worker:
                    writer = _close(writer)
                    found = await worker.stat(entry, path)
                    self._services.containers.emit(entry, "archive-path")
                    yield Archive(worker, reader, found)
            finally:
                _close(writer)
                os.close(reader)

    @asynccontextmanager
    async def export(self, entry: Entry) -> AsyncIterator[Archive]:
        """The container's own tree as a tar, without volumes and what else is mounted in it."""
        async with self._slots:
            reader, writer = _pipe()
            try:
                async with self._worker(entry, "export", "/", [writer]) as worker:
                    writer = _close(writer)
                    self._services.containers.emit(entry, "export")
                    yield Archive(worker, reader, None)
            finally:
                _close(writer)
                os.close(reader)

    async def write(
        self,
        entry: Entry,
        path: str,
        source: AsyncIterator[bytes],
        *,
        keep_kinds: bool = False,
        as_user: bool = False,
    ) -> None:
        """Unpack a tar, compressed or not, below the directory `path`.

        Args:
            entry: the container.
            path: an existing directory.
            source: the tar's bytes; nothing is changed before the last one.
            keep_kinds: refuse to put a directory in the place of a file, and the reverse.
            as_user: give everything to the container's user, not to the tar's owners.

        Raises:
            NotFound: there is no such directory; InvalidArgument: it is none, or the tar is bad.
            PermissionDenied: the container may not write there either.
        """
        owner = entry.container.config.user if as_user else ""
        more = {"keep_kinds": keep_kinds, "owner": owner}
        with tempfile.TemporaryFile(dir=self._services.layout.ingests, buffering=0) as file:
            archive = file.fileno()
            await self._spool(archive, source)
            async with (
                self._slots,
                entry.lock,
                self._worker(entry, "write", path, [archive], **more) as worker,
            ):
                await worker.done(entry, path)
            self._services.containers.emit(entry, "extract-to-dir")

    async def _spool(self, archive: int, source: AsyncIterator[bytes]) -> None:
        total = 0
        async for data in source:
            total += len(data)
            if total > MAX_LAYER_SIZE:
                raise errors.InvalidArgument(f"the archive is larger than {MAX_LAYER_SIZE} bytes")
            await self._services.on_disk(_write_all, archive, data)

    @asynccontextmanager
    async def _worker(
        self, entry: Entry, do: str, path: str, fds: list[int], **more: Any
    ) -> AsyncIterator[_Worker]:
        if not path or "\0" in path or len(os.fsencode(path)) > _MAX_PATH:
            raise errors.InvalidArgument("bad parameter: path must be 1 to 4096 bytes without NUL")
        job: dict[str, Any] = {**_NOTHING, "do": do, "path": path, **more}
        pidfd = _init(entry, self._services.layout.shim(entry.id))
        scratch = ""
        job["users"] = bool(entry.container.ids)
        if pidfd < 0:
            is_written = do == "write"
            job["binds"] = volumes = [] if do == "export" else await self._binds(entry)
            job["directories"] = _promised(entry.container)
            job["read_only"] = is_written and entry.container.host.read_only
            needs_scratch = not is_written and (volumes or job["directories"])
            scratch = self._scratch() if needs_scratch else ""
            job["mount"] = self._mount(entry, scratch, is_written=is_written)
            if do in ("stat", "read"):
                job["binds"] = [*volumes, *self._own_files(entry.container, volumes)]
        worker, self._spare = self._spare or _Worker(), None
        try:
            worker.send(job, fds if pidfd < 0 else [pidfd, *fds])
            yield worker
        finally:
            if pidfd >= 0:
                os.close(pidfd)
            await asyncio.shield(worker.aclose())
            if job["binds"]:
                await self._services.volumes.release(entry.container)
            self._keep_spare()
            if scratch:
                self._services.snapshots.trash.discard(scratch)

    async def _binds(self, entry: Entry) -> list[dict[str, Any]]:
        """What the container has mounted in its tree when it runs, but for what is empty then.

        On the disk everything has the image's ids, also of a container with a user namespace.
        """
        container = replace(entry.container, ids=())
        if not container.mounts:
            return []
        services = self._services
        await services.volumes.prepare(container)
        words = services.volumes.specification(container, services.snapshots.mounts)
        return [word for word in words if word["type"] == "bind"]

    def _own_files(
        self, container: Container, volumes: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """hosts, hostname and resolv.conf as they were at the end, where nothing else is there."""
        try:
            owner = linked.network_owner(self._services, container)
        except errors.NotFound:  # whose network it shared is gone, and its files with it
            return []
        taken = {one["destination"] for one in volumes}
        found = etcfiles.mounts(self._services.layout.container(owner.id))
        return [one for one in found if one["destination"] not in taken]

    def _keep_spare(self) -> None:
        """Start a worker ahead: requests of `cp` come in pairs, and starting is most of each."""
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        if self._spare is None:
            self._spare = _Worker()
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = loop.call_later(SPARE_SECONDS, self._expire)

    def _expire(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            self._services.background.spawn(spare.aclose(), "end a spare archive worker")

    def _scratch(self) -> str:
        """Directories for what a reader has to make: the mount points of volumes."""
        made = tempfile.mkdtemp(dir=self._services.layout.trash)
        for name in ("upper", "work"):
            os.mkdir(f"{made}/{name}", 0o755)
        return made

    def _mount(self, entry: Entry, scratch: str, *, is_written: bool) -> Mount:
        """The container's tree; as a view when it is only read."""
        mount = entry.mount or root_mount(entry.container, self._services)
        if is_written or mount["type"] != "overlay" or "upper" not in mount:
            return mount
        lowers = [mount["upper"], *mount["lowers"]]
        view: OverlayMount = {"type": "overlay", "lowers": lowers}
        if scratch:
            view["upper"], view["work"] = f"{scratch}/upper", f"{scratch}/work"
        return view


class _Worker:
    """One process and our end of its socket."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            arguments = [str(theirs.fileno()), module_path()]
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", _CODE, *arguments],
                stdin=subprocess.DEVNULL,
                close_fds=True,
                pass_fds=[theirs.fileno()],
                cwd="/",
                env={},
            )
        # Opened while the process is certain to be there, alive or not: once it is collected, its
        # number may be somebody else's.
        self._pidfd = os.pidfd_open(self._process.pid)
        self._socket = ours

    def send(self, job: dict[str, Any], fds: list[int]) -> None:
        """Give the job; the descriptors stay the caller's."""
        socket.send_fds(self._socket, [json.dumps(job).encode()], fds)

    async def stat(self, entry: Entry, path: str) -> PathStat:
        """The answer to what the path is."""
        return PathStat(**(await self.done(entry, path))["stat"])

    async def done(self, entry: Entry, path: str) -> dict[str, Any]:
        """The next answer; a path that is missing is told in docker's words."""
        try:
            return await self.answer()
        except errors.NotFound as error:
            name = entry.container.name
            raise errors.NotFound(f"Could not find the file {path} in container {name}") from error

    async def answer(self) -> dict[str, Any]:
        """The next answer.

        Raises:
            SampanError: the worker's own error; Aborted: it died.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await loop.sock_recv(self._socket, _MAX_ANSWER)
        except TimeoutError as error:
            raise errors.DeadlineExceeded("archive: the worker does not answer") from error
        except ConnectionResetError:
            answer = b""
        if not answer:
            raise errors.Aborted("archive: the worker process died")
        said: dict[str, Any] = json.loads(answer)
        if "error" in said:
            raise _KINDS.get(said["kind"], errors.Internal)(said["error"])
        return said

    async def aclose(self) -> None:
        """End the process and collect it."""
        self._socket.close()
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._pidfd, ended.set)
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await ended.wait()
        finally:
            loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        self._process.wait()


def _init(entry: Entry, shim: str) -> int:
    """A pidfd of the container's first process; -1 when it does not run."""
    if not entry.container.status.is_running:
        return -1
    found = recovery.init_of(shim)
    if found is None:
        return -1
    try:
        pidfd = os.pidfd_open(found[0])
    except ProcessLookupError:
        return -1
    if is_alive(*found):
        return pidfd
    os.close(pidfd)
    return -1


def _promised(container: Container) -> list[str]:
    """The working directory of a container that was never started: dockerd makes it at the create,
    the runtime at the first start; who looks meanwhile finds it."""
    cwd = container.config.cwd
    return [cwd] if cwd and not container.state.started_at else []


def _pipe() -> tuple[int, int]:
    """A large pipe whose reading end does not block."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    return reader, writer


def _close(fd: int) -> int:
    if fd >= 0:
        os.close(fd)
    return -1


async def _read(fd: int) -> bytes:
    """The next bytes of the pipe, b"" at its end."""
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        pass
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        async with asyncio.timeout(PATIENCE):
            await ready.wait()
    except TimeoutError as error:
        raise errors.DeadlineExceeded("archive: the container's files do not come") from error
    finally:
        loop.remove_reader(fd)
    return os.read(fd, _CHUNK)


def _write_all(fd: int, data: bytes) -> None:
    position = 0
    while position < len(data):
        position += os.write(fd, data[position:])
