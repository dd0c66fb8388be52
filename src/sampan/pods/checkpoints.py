"""Archives of running containers, as Kubernetes' forensic checkpoints have them.

The container's runtime writes its processes down by CRIU, and they go on. The archive is a tar with
the names by which the field's tools (checkpointctl) read it, in containerd's form:

    config.dump   the container: id, name, image, runtime, times
    spec.dump     its OCI configuration, with annotations that name container and pod
    status.dump   its status in the words of the CRI; status: the same in containerd's
    checkpoint/   CRIU's images, with the memory of the processes: nobody else may read the archive
    dump.log, stats-dump    what CRIU said
    rootfs-diff.tar         what the container changed, as a layer, read a moment after the memory
    container.log           its log so far

It gets its name when it is whole, and the disk has it.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sampan.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotImplementedHere,
    Unavailable,
)
from sampan.images.failures import finish
from sampan.layers import header, tarwriter
from sampan.pods.handlers import OURS
from sampan.tasks import recovery

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from sampan.pods.containers import PodContainer
    from sampan.pods.model import Sandbox
    from sampan.pods.service import Pods

_RUNNING: Final = 1  # runtime.v1.ContainerState
_SECOND: Final = 1_000_000_000
_PIECE: Final = 1 << 20
_BESIDE: Final = ("dump.log", "stats-dump")
"""What CRIU writes among the images, and tools look for beside them."""


async def create(pods: Pods, ref: str, location: str, timeout: int) -> None:
    """Write the archive of a running container to the file `location`, or into that directory.

    `timeout` is in seconds, 0 for as long as it takes.

    Raises:
        InvalidArgument: the location cannot be, or the container has a terminal.
        AlreadyExists: something is at the location.
        FailedPrecondition: it does not run, or CRIU cannot, with its own words.
        DeadlineExceeded: the timeout was not enough.
        NotImplementedHere: it runs in a machine of its own.
    """
    one = pods.containers.find(ref)
    sandbox = pods.table.find(one.notes.sandbox)
    path = _place(location, one, sandbox)
    if pods.sandboxes.handler(sandbox).is_machine:
        raise NotImplementedHere(
            f"checkpoint container {one.container.id}: it runs below a kernel of its own"
        )
    with opened(os.path.dirname(path)) as place, nameless(place) as file:
        try:
            async with asyncio.timeout(timeout or None):
                await write(pods, one, sandbox, file)
        except TimeoutError:
            raise DeadlineExceeded(
                f"checkpoint container {one.container.id}: not done within {timeout} s"
            ) from None
        await asyncio.to_thread(give_name, file, place, os.path.basename(path))


async def write(pods: Pods, one: PodContainer, sandbox: Sandbox, file: BinaryIO) -> None:
    """Write the archive of a container that runs, or is paused and stays so.

    Raises:
        InvalidArgument: it has a terminal.
        FailedPrecondition: it does not run, or CRIU cannot, with its own words.
    """
    work = tempfile.mkdtemp(prefix="checkpoint-", dir=pods.engine.services.layout.trash)
    try:
        specification = await pods.engine.dump(one.container.id, work)
        _describe(work, one, sandbox, specification)
        # To its end, for the file is the caller's, who closes it.
        await finish(asyncio.to_thread(_pack, file, work, one.container.log_path))
    except Unavailable as error:
        raise FailedPrecondition(str(error)) from error
    finally:
        await asyncio.to_thread(recovery.clear, work)


@contextmanager
def opened(directory: str) -> Iterator[int]:
    """A descriptor of the directory that a checkpoint goes to. Raises InvalidArgument."""
    try:
        place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgument(f"checkpoint location {directory}: {error.strerror}") from error
    try:
        yield place
    finally:
        os.close(place)


def nameless(place: int) -> BinaryIO:
    """A new file in a directory, without a name until it is whole: a kill leaves nothing.

    Raises:
        FailedPrecondition: the directory cannot have one.
    """
    path = f"/proc/self/fd/{place}"
    try:
        return open(os.open(path, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600), "wb")
    except OSError as error:
        raise FailedPrecondition(f"write checkpoint: {error.strerror}") from error


def give_name(file: BinaryIO, place: int, name: str) -> None:
    """Let a nameless file be `name` in its directory, for good. Blocking. Raises AlreadyExists."""
    try:
        os.link(f"/proc/self/fd/{file.fileno()}", name, dst_dir_fd=place, follow_symlinks=True)
        os.fsync(place)
    except FileExistsError:
        raise AlreadyExists(f"checkpoint location {name}: it is there already") from None
    except OSError as error:
        raise FailedPrecondition(f"write checkpoint {name}: {error.strerror}") from error


def _place(location: str, one: PodContainer, sandbox: Sandbox) -> str:
    """The path of the archive. Raises InvalidArgument, AlreadyExists."""
    if not location.startswith("/") or "\0" in location:
        raise InvalidArgument(f"checkpoint location {location!r}: it must be an absolute path")
    path = location
    if os.path.isdir(location):
        pod, now = sandbox.config, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        name = f"checkpoint-{pod.name}_{pod.namespace}-{one.notes.request.name}-{now}.tar"
        path = f"{location.rstrip('/')}/{name.replace('/', '_')}"
    if os.path.lexists(path):
        raise AlreadyExists(f"checkpoint location {path}: it is there already")
    return path


def _describe(
    work: str, one: PodContainer, sandbox: Sandbox, specification: dict[str, Any]
) -> None:
    """Write what the archive says of the container."""
    pod, name = sandbox.config, one.notes.request.name
    specification["annotations"] = {
        **(specification.get("annotations") or {}),
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": name,
        "io.kubernetes.cri.sandbox-id": sandbox.id,
        "io.kubernetes.cri.sandbox-name": pod.name,
        "io.kubernetes.cri.sandbox-namespace": pod.namespace,
        "io.kubernetes.cri.sandbox-uid": pod.uid,
        "io.kubernetes.cri.image-name": one.notes.image_name,
    }
    for file_name, content in (
        ("config.dump", _config(one, sandbox)),
        ("spec.dump", specification),
        ("status.dump", _status(one)),
        ("status", _short_status(one)),
    ):
        with open(f"{work}/{file_name}", "w", encoding="utf-8") as file:
            json.dump(content, file)
    for file_name in _BESIDE:
        try:
            os.rename(f"{work}/checkpoint/{file_name}", f"{work}/{file_name}")
        except FileNotFoundError:
            continue  # not every runtime has it


def _config(one: PodContainer, sandbox: Sandbox) -> dict[str, Any]:
    return {
        "id": one.container.id,
        "name": one.notes.request.name,
        "rootfsImage": one.notes.image_name,
        "rootfsImageRef": one.notes.image_ref,
        "rootfsImageName": one.notes.image_name,
        "runtime": sandbox.handler or OURS,
        "createdTime": _time(one.container.created_at),
        "checkpointedTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "restoredTime": "0001-01-01T00:00:00Z",
        "restored": False,
    }


def _status(one: PodContainer) -> dict[str, Any]:
    container, request = one.container, one.notes.request
    return {
        "id": container.id,
        "metadata": {"name": request.name, "attempt": request.attempt},
        "state": _RUNNING,
        "created_at": container.created_at,
        "started_at": container.state.started_at,
        "image": {"image": one.notes.image_name, "user_specified_image": request.image.image},
        "image_ref": one.notes.image_ref,
        "labels": dict(request.labels),
        "annotations": dict(request.annotations),
        "log_path": container.log_path,
    }


def _short_status(one: PodContainer) -> dict[str, Any]:
    state = one.container.state
    return {
        "Version": "v1",
        "CreatedAt": one.container.created_at,
        "StartedAt": state.started_at,
        "FinishedAt": 0,
        "ExitCode": 0,
        "Pid": state.pid,
        "Reason": "",
        "Message": "",
    }


def _time(nanoseconds: int) -> str:
    moment = datetime.fromtimestamp(nanoseconds // _SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{nanoseconds % _SECOND:09}Z"


def _pack(file: BinaryIO, work: str, log: str) -> None:
    """Make the tar of the directory `work` and of the log. Blocking. Raises FailedPrecondition."""
    try:
        _write_tar(file, work, log)
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise FailedPrecondition(f"write checkpoint: {error.strerror}") from error


def _write_tar(file: BinaryIO, work: str, log: str) -> None:
    for directory, folders, names in os.walk(work):
        folders.sort()
        inside = os.path.relpath(directory, work)
        if inside != ".":
            file.write(tarwriter.header(f"{inside}/".encode(), header.DIRECTORY, mode=0o700))
        for name in sorted(names):
            _add(file, f"{directory}/{name}", os.path.normpath(f"{inside}/{name}"))
    if log:
        _add(file, log, "container.log")
    file.write(tarwriter.END)


def _add(file: BinaryIO, path: str, name: str) -> None:
    """One regular file as it is now. The log may grow meanwhile, or be the kubelet's to remove."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with open(fd, "rb") as source:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return
        size, moment = found.st_size, int(found.st_mtime)
        entry = tarwriter.header(name.encode(), header.REGULAR, mode=0o600, size=size, mtime=moment)
        file.write(entry)
        left = size
        while left and (piece := source.read(min(left, _PIECE))):
            file.write(piece)
            left -= len(piece)
        file.write(bytes(left) + tarwriter.padding(size))
