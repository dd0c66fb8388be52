"""Checkpoints of whole pods: a directory with an archive for each container, and `pod.json`.

All containers are paused before the first one is written down, and go on when the last one is, so
that what is written is one moment of the pod. CRIU finishes what it has begun with a container even
when the caller has given up: in the middle it cannot be stopped without harm.

A restored pod has a sandbox and containers that were never started; the processes come to life with
each container's start.
"""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

import msgspec

from sampan.engine.model import Status
from sampan.errors import (
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
)
from sampan.images.failures import finish
from sampan.pods import archives, checkpoints
from sampan.pods.handlers import OURS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import BinaryIO

    from sampan.pods.containers import PodContainer
    from sampan.pods.model import Request, Sandbox, SandboxConfig
    from sampan.pods.service import Pods

PATIENCE: Final = 600.0
"""Seconds, for callers that set no deadline of their own."""

MANIFEST: Final = "pod.json"
VERSION: Final = 1
_ARCHIVE: Final = re.compile(r"container-[0-9]{1,9}\.tar", re.ASCII)


class _Manifest(msgspec.Struct):
    v: int
    handler: str
    containers: dict[str, str]  # name to file


async def create(
    pods: Pods, ref: str, directory: str, ids: Sequence[str], options: Mapping[str, str]
) -> None:
    """Write a pod's containers `ids`, which are all that run, to an empty directory.

    Raises:
        NotFound: there is no such pod or container.
        InvalidArgument: the directory is not there or not empty, an option, not these containers.
        FailedPrecondition: one does not run, or CRIU cannot.
        NotImplementedHere: the pod has a kernel of its own.
    """
    sandbox = pods.table.find(ref)
    _refuse_options(options)
    if pods.sandboxes.handler(sandbox).is_machine:
        raise NotImplementedHere(f"checkpoint pod {sandbox.id}: it has a kernel of its own")
    chosen = _chosen(pods, sandbox, ids)
    _check_empty(directory)
    names = {one.notes.request.name: f"container-{n}.tar" for n, one in enumerate(chosen)}
    manifest = _Manifest(VERSION, sandbox.handler or OURS, names)
    with ExitStack() as stack:
        place = stack.enter_context(checkpoints.opened(directory))
        files = [stack.enter_context(checkpoints.nameless(place)) for _ in range(len(chosen) + 1)]
        files[-1].write(msgspec.json.encode(manifest))
        try:
            async with asyncio.timeout(PATIENCE):
                await _pause_and_write(pods, sandbox, chosen, files)
        except TimeoutError:
            raise DeadlineExceeded(f"checkpoint pod {sandbox.id}: CRIU takes too long") from None
        named = zip(files, (*names.values(), MANIFEST), strict=True)
        await finish(asyncio.to_thread(_give_names, place, tuple(named)))


async def restore(
    pods: Pods,
    directory: str,
    config: SandboxConfig,
    handler: str,
    options: Mapping[str, str],
    requests: Sequence[Request],
) -> tuple[str, dict[str, str]]:
    """Make a sandbox, and in it the containers of a checkpoint; its id, and theirs by name.

    Raises:
        NotFound: there is no checkpoint, or an image of it is not here.
        InvalidArgument: the checkpoint is none, or is not what the requests describe.
        PermissionDenied: others than our user may have written it.
        Others: as for a sandbox and for each container; nothing stays of what was made.
    """
    _refuse_options(options)
    files = _match(_manifest(directory), requests, pods.handlers.find(handler).name or OURS)
    sandbox = await pods.sandboxes.run(config, handler)
    made = {}
    try:
        for request in requests:
            path = f"{directory}/{files[request.name]}"
            made[request.name] = await pods.containers.create(
                sandbox.id, request, config, checkpoint=path
            )
    except BaseException:
        await finish(pods.sandboxes.remove(sandbox.id))
        raise
    return sandbox.id, made


def _chosen(pods: Pods, sandbox: Sandbox, ids: Sequence[str]) -> list[PodContainer]:
    """The containers meant. Raises InvalidArgument, FailedPrecondition, NotFound."""
    if not ids or len(set(ids)) < len(ids):
        raise InvalidArgument("container_ids: each container that runs has to be there once")
    chosen = [pods.containers.find(one) for one in ids]
    for one in chosen:
        if one.notes.sandbox != sandbox.id:
            raise InvalidArgument(f"container {one.container.id} is in another pod")
        if one.container.status is not Status.RUNNING:
            raise FailedPrecondition(f"container {one.container.id} does not run")
    wanted = {one.container.id for one in chosen}
    for one in pods.containers.of_sandbox(sandbox.id):
        if one.container.status.is_running and one.container.id not in wanted:
            raise InvalidArgument(f"container_ids: {one.container.id} runs too, and is missing")
    return chosen


def _refuse_options(options: Mapping[str, str]) -> None:
    if options:
        raise InvalidArgument(f"options: there is none named {min(options)!r}")


def _check_empty(directory: str) -> None:
    if not directory.startswith("/") or "\0" in directory:
        raise InvalidArgument(f"output_path {directory!r}: it must be an absolute path")
    try:
        if os.listdir(directory):
            raise InvalidArgument(f"output_path {directory}: it is not empty")
    except OSError as error:
        raise InvalidArgument(f"output_path {directory}: {error.strerror}") from error


async def _pause_and_write(
    pods: Pods, sandbox: Sandbox, chosen: Sequence[PodContainer], files: Sequence[BinaryIO]
) -> None:
    try:
        for one in chosen:
            await pods.engine.pause(one.container.id)
        for one, file in zip(chosen, files, strict=False):
            paused = pods.containers.find(one.container.id)
            await finish(checkpoints.write(pods, paused, sandbox, file))
    except Conflict as error:
        raise FailedPrecondition(f"checkpoint pod {sandbox.id}: {error}") from error
    finally:
        await finish(_go_on(pods, chosen))


async def _go_on(pods: Pods, chosen: Sequence[PodContainer]) -> None:
    """Each of them, also behind one that was never paused, has ended, or is gone."""
    for one in chosen:
        with suppress(Conflict, NotFound):
            await pods.engine.unpause(one.container.id)


def _give_names(place: int, files: Sequence[tuple[BinaryIO, str]]) -> None:
    """Name all of them or none, `pod.json` last: without it there is no checkpoint. Blocking."""
    done: list[str] = []
    try:
        for file, name in files:
            file.flush()
            os.fsync(file.fileno())
            checkpoints.give_name(file, place, name)
            done.append(name)
    except BaseException:
        for name in done:
            os.unlink(name, dir_fd=place)
        raise


def _manifest(directory: str) -> _Manifest:
    """What `pod.json` says. Raises NotFound, InvalidArgument, PermissionDenied."""
    if not directory.startswith("/") or "\0" in directory:
        raise InvalidArgument(f"checkpoint_path {directory!r}: it must be an absolute path")
    path = f"{directory}/{MANIFEST}"
    with open(archives.open_own(path), "rb") as file:
        content = file.read(archives.MAX_DOCUMENT + 1)
    found = archives.parse(content, _Manifest, path)
    if found.v != VERSION or not all(map(_ARCHIVE.fullmatch, found.containers.values())):
        raise InvalidArgument(f"{path}: it is no checkpoint that can be restored here")
    return found


def _match(found: _Manifest, requests: Sequence[Request], handler: str) -> dict[str, str]:
    """The file of each request. Raises InvalidArgument when these are not the containers."""
    names = [request.name for request in requests]
    if found.handler != handler:
        raise InvalidArgument(
            f"restore pod: its checkpoint was made by the runtime handler {found.handler!r}"
        )
    if not names or sorted(names) != sorted(found.containers):
        raise InvalidArgument(
            f"restore pod: the checkpoint has the containers {sorted(found.containers)}, "
            f"and {sorted(names)} are asked for"
        )
    return found.containers
