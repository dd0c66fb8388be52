"""The engine's side of unpacking and making layers: a bounded pool of worker processes.

`LayerWorkers.apply` hands a blob and a directory to a worker (`layers.worker`) and waits for the
answer without holding the event loop. Workers are started when needed, kept warm for a while, and
ended by closing their socket. A cancelled job takes its worker with it: the worker kills the child
that unpacks, and what is in the directory by then is for the caller to remove. A worker that dies
costs its job a clear error and is replaced by the next job.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import sampan
from sampan import errors
from sampan.layers.applied import AppliedLayer
from sampan.layers.compression import Compression
from sampan.layers.limits import MAX_LAYER_SIZE, LayerError
from sampan.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LOWERS: Final = 48  # descriptors of one message, less blob and destination; the top ones count
IDLE_SECONDS: Final = 30.0
END_SECONDS: Final = 5.0
JOB_SECONDS: Final = 3600.0  # for one layer; a slow disk is no reason to wait for ever
_MAX_MESSAGE: Final = 1 << 16
_CODE: Final = (
    "import sys; sys.path[:0] = sys.argv[2].split(chr(10)); "
    "from importlib import import_module; import_module(sys.argv[3]).main(int(sys.argv[1]))"
)
_KINDS: Final = {
    kind.__name__: kind
    for kind in (
        LayerError,
        errors.Aborted,
        errors.Conflict,
        errors.DataLoss,
        errors.DigestMismatch,
        errors.InvalidArgument,
        errors.ResourceExhausted,
    )
}


class LayerWorkers:
    """At most `count` layers are unpacked at a time, each by a process of its own."""

    def __init__(self, count: int | None = None, module: str = "sampan.layers.worker") -> None:
        """`count` is the number of processors by default; `module.main` serves the jobs."""
        self._module = module
        self._slots = asyncio.Semaphore(count or os.cpu_count() or 1)
        self._idle: list[_Worker] = []
        self._expiry: asyncio.TimerHandle | None = None
        self._closed = False

    async def apply(
        self,
        blob_fd: int,
        media_type: str,
        dest_fd: int,
        expected_diff_id: Digest | None,
        *,
        lowers: Sequence[int] = (),
        limit: int = MAX_LAYER_SIZE,
    ) -> AppliedLayer:
        """Unpack the layer in `blob_fd` into the empty directory `dest_fd`; both stay the caller's.

        Args:
            blob_fd: the blob, a regular file, read from its start.
            media_type: of the layer's descriptor. The compression is told from the bytes.
            dest_fd: a directory descriptor that is not O_PATH.
            expected_diff_id: what the tar stream must hash to.
            lowers: the layers below, top first, for implied parent directories.
            limit: bytes of the tar stream, at most.

        Raises:
            LayerError: the layer is malformed, hostile or beyond a bound.
            DataLoss: the blob is not readable, or (DigestMismatch) not what the image promised.
            ResourceExhausted: the disk is full.
            Aborted: the worker died.
            DeadlineExceeded: it took longer than JOB_SECONDS.
            Unavailable: the pool is closed.
        """
        if media_type.endswith("+encrypted"):
            raise LayerError(f"unpack layer: encrypted layers are not supported: {media_type}")
        job = {"do": "apply", "expected": expected_diff_id, "limit": limit}
        return await self._run(job, [blob_fd, dest_fd, *lowers[:MAX_LOWERS]])

    async def diff(
        self,
        out_fd: int,
        tree_fd: int,
        lower_fd: int = -1,
        *,
        overlay: bool = True,
        compression: Compression = Compression.GZIP,
        newest: int | None = None,
        root: tuple[int, int, int] | None = None,
        without: Sequence[str] = (),
        limit: int = MAX_LAYER_SIZE,
    ) -> AppliedLayer:
        """Write the layer that `tree_fd` makes above `lower_fd` to `out_fd`; see `layers.diff`.

        `out_fd` may be a pipe, which the caller reads meanwhile and whose writing end he closes
        when this is done. The result's size is that of the tar.

        Raises:
            LayerError: the tree has what no layer can say.
            Conflict: a file became shorter while it was read.
            Others: as `apply`.
        """
        job = {
            "do": "diff",
            "overlay": overlay,
            "compression": compression.value,
            "newest": newest,
            "root": root,
            "without": list(without),
            "limit": limit,
        }
        return await self._run(job, [out_fd, tree_fd, *([lower_fd] if lower_fd >= 0 else [])])

    async def changes(
        self, out_fd: int, tree_fd: int, lowers: Sequence[str] = (), *, overlay: bool = True
    ) -> AppliedLayer:
        """Write the list of `layers.diff.list_changes` to `out_fd`, each entry ended by a NUL.

        `lowers` are the directories below the tree, topmost first.
        """
        job = {"do": "changes", "overlay": overlay, "lowers": list(lowers)}
        return await self._run(job, [out_fd, tree_fd])

    async def export(self, out_fd: int, lowers: Sequence[str]) -> AppliedLayer:
        """Write the tar of the directories `lowers`, stacked topmost first, to `out_fd`.

        Raises as `diff`.
        """
        job = {"do": "export", "lowers": list(lowers), "limit": MAX_LAYER_SIZE}
        return await self._run(job, [out_fd])

    async def split(self, source_fd: int, dest_fd: int, *, limit: int) -> None:
        """Unpack the archive of images that comes through `source_fd` into the empty directory
        `dest_fd`; see `layers.split`. At most `limit` bytes come out.

        Raises:
            LayerError: it is no archive, or is beyond a bound.
            ResourceExhausted: the disk is full.
        """
        await self._ask({"do": "split", "limit": limit}, [source_fd, dest_fd])

    async def _run(self, job: dict[str, Any], fds: Sequence[int]) -> AppliedLayer:
        said = await self._ask(job, fds)
        return AppliedLayer(
            diff_id=Digest.parse(said["diff_id"]), size=said["size"], entries=said["entries"]
        )

    async def run(self, job: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        """Have a worker do a job that its module knows; what it answers. Raises as `apply`."""
        return await self._ask(job, fds)

    async def _ask(self, job: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        async with self._slots:
            worker = self._take()
            try:
                async with asyncio.timeout(JOB_SECONDS):
                    answer = await worker.ask(json.dumps(job).encode(), list(fds))
                if not answer:
                    raise errors.Aborted(f"{job['do']} layer: the worker process died")
            except TimeoutError as error:
                await worker.aclose()
                text = f"{job['do']} layer: not done after {JOB_SECONDS:.0f} seconds"
                raise errors.DeadlineExceeded(text) from error
            except BaseException:
                await asyncio.shield(worker.aclose())
                raise
            await self._give_back(worker)
        return _result(answer)

    def warm(self) -> None:
        """Start a worker now, so that the first layer finds one."""
        if not self._idle and not self._closed:
            self._idle.append(_Worker(self._module))
            self._expire_later()

    async def aclose(self) -> None:
        """End the idle workers; busy ones end with their jobs."""
        self._closed = True
        if self._expiry is not None:
            self._expiry.cancel()
        workers, self._idle = self._idle, []
        for worker in workers:
            await worker.aclose()

    def _take(self) -> _Worker:
        if self._closed:
            raise errors.Unavailable("unpack layer: the engine is closing")
        while self._idle:
            worker = self._idle.pop()
            if worker.is_alive():
                return worker
            worker.close()
        return _Worker(self._module)

    async def _give_back(self, worker: _Worker) -> None:
        if self._closed:
            await worker.aclose()
            return
        self._idle.append(worker)
        self._expire_later()

    def _expire_later(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._expire)

    def _expire(self) -> None:
        """End the idle workers without waiting: they have nothing to do but leave."""
        workers, self._idle = self._idle, []
        for worker in workers:
            worker.close()


class _Worker:
    """One process and our end of its socket."""

    def __init__(self, module: str) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    "-B",
                    "-c",
                    _CODE,
                    str(theirs.fileno()),
                    module_path(),
                    module,
                ],
                stdin=subprocess.DEVNULL,
                close_fds=True,
                pass_fds=[theirs.fileno()],
                cwd="/",
                env={},
            )
        self._socket = ours

    async def ask(self, message: bytes, fds: list[int]) -> bytes:
        """Send one job; its answer, b"" when the worker has died."""
        loop = asyncio.get_running_loop()
        try:
            socket.send_fds(self._socket, [message], fds)
            return await loop.sock_recv(self._socket, _MAX_MESSAGE)
        except (BrokenPipeError, ConnectionResetError):
            return b""

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """Tell the process to end, and let it be collected when it has."""
        self._socket.close()
        if self._process.poll() is None:
            loop = asyncio.get_running_loop()
            pidfd = os.pidfd_open(self._process.pid)
            loop.add_reader(pidfd, self._collect, loop, pidfd)

    def _collect(self, loop: asyncio.AbstractEventLoop, pidfd: int) -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        self._process.wait()

    async def aclose(self) -> None:
        """Close the socket and wait for the end; a process that stays is killed."""
        self._socket.close()
        if self._process.poll() is not None:
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        pidfd = os.pidfd_open(self._process.pid)
        loop.add_reader(pidfd, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), END_SECONDS)
        except TimeoutError:
            self._process.kill()
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        self._process.wait()


def module_path() -> str:
    """Where a worker finds us and what we need, a directory a line."""
    # Found, not imported: what inflates foreign bytes is not for this process.
    found = [find_spec(name) for name in ("isal", "zstandard")]
    files = (sampan.__file__, *(spec.origin for spec in found if spec))
    directories = [os.path.dirname(os.path.dirname(os.path.abspath(file or ""))) for file in files]
    return "\n".join(dict.fromkeys(directories))


def _result(answer: bytes) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(answer)
    if "error" in said:
        raise _KINDS.get(said["kind"], errors.Internal)(said["error"])
    return said
