"""/images/*: one function per endpoint. Names in paths may hold slashes; see the routes."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Any

from aiohttp.web_protocol import RequestPayloadError

from sampan.api.docker import answers, changes, image_filters, pictures, streaming
from sampan.errors import Aborted, InvalidArgument, NotImplementedHere
from sampan.registry.credentials import Credentials
from sampan.wire import images as bodies

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call


async def listing(call: Call) -> StreamResponse:
    """GET /images/json?all&filters"""
    found = await call.engine.images.list()
    kept = image_filters.select(found, call.filters(), time.time_ns())
    return answers.json([pictures.summary(image) for image in kept])


async def create(call: Call) -> StreamResponse:
    """POST /images/create: a pull (fromImage) or an import (fromSrc)"""
    if call.text("fromImage"):
        return await pull(call)
    if call.text("fromSrc"):
        return await import_(call)
    raise InvalidArgument("create image: fromImage or fromSrc is needed")


async def pull(call: Call) -> StreamResponse:
    """POST /images/create?fromImage&tag&platform"""
    reference = named(call.text("fromImage"), call.text("tag"))
    credentials = credentials_of(call)

    async def work(lines: streaming.Lines) -> None:
        await call.engine.pull(
            reference,
            platform=call.text("platform") or None,
            auth=credentials,
            progress=lines.report,
        )

    return await streaming.run(call, work)


async def import_(call: Call) -> StreamResponse:
    """POST /images/create?fromSrc=-&repo&tag&message&changes: the body is a tar of a root"""
    if call.text("fromSrc") != "-":
        raise NotImplementedHere("import an image from a URL: send the file itself (fromSrc=-)")
    repository = call.text("repo")
    reference = named(repository, call.text("tag")) if repository else None
    config = changes.run_config(call.values("changes"))

    async def work(lines: streaming.Lines) -> None:
        await from_body(
            call,
            lambda fd: call.engine.images.import_tar(
                fd, reference, config=config, message=call.text("message"), progress=lines.report
            ),
        )

    return await streaming.run(call, work)


async def from_body(call: Call, reader: Callable[[int], Coroutine[Any, Any, Any]]) -> None:
    """Let `reader` read the body from a descriptor. A body that breaks off breaks the reader."""
    ours, theirs = socket.socketpair()
    with theirs, ours:
        ours.setblocking(False)
        reading = asyncio.ensure_future(reader(theirs.fileno()))
        feeding = asyncio.ensure_future(_feed(call, ours))
        try:
            await asyncio.wait((reading, feeding), return_when=asyncio.FIRST_COMPLETED)
            if feeding.done() and (error := feeding.exception()) is not None:
                raise error
            await reading
        finally:
            feeding.cancel()
            reading.cancel()
            ours.close()  # a reader in a thread meets the end here
            await asyncio.gather(feeding, reading, return_exceptions=True)


async def _feed(call: Call, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        async for part in call.request.content.iter_any():
            await loop.sock_sendall(target, part)
        target.shutdown(socket.SHUT_WR)
    except BrokenPipeError:
        return  # the reader had enough, and says why
    except RequestPayloadError as error:
        raise Aborted("read the body: it broke off") from error


async def push(call: Call) -> StreamResponse:
    """POST /images/{name}/push?tag"""
    reference = named(call.name, call.text("tag"))
    credentials = credentials_of(call)

    async def work(lines: streaming.Lines) -> None:
        await call.engine.images.push(reference, auth=credentials, progress=lines.report)

    return await streaming.run(call, work)


async def inspect(call: Call) -> StreamResponse:
    """GET /images/{name}/json"""
    return answers.json(pictures.inspect(await call.engine.images.get(call.name)))


async def history(call: Call) -> StreamResponse:
    """GET /images/{name}/history"""
    return answers.json(pictures.history(await call.engine.images.history(call.name)))


async def tag(call: Call) -> StreamResponse:
    """POST /images/{name}/tag?repo&tag"""
    if not call.text("repo"):
        raise InvalidArgument("tag an image: repo is needed")
    await call.engine.images.tag(call.name, named(call.text("repo"), call.text("tag")))
    return answers.empty(201)


async def remove(call: Call) -> StreamResponse:
    """DELETE /images/{name}?force&noprune"""
    done = await call.engine.images.remove(call.name, force=call.flag("force"))
    return answers.json(pictures.removed(done))


async def prune(call: Call) -> StreamResponse:
    """POST /images/prune?filters"""
    filters = call.filters()
    dangling = image_filters.truth(filters.pop("dangling", []), "dangling")
    if filters:
        raise NotImplementedHere(f"prune images: the filter '{min(filters)}' is not supported yet")
    done = await call.engine.images.prune(every=dangling is False)
    return answers.json(
        bodies.ImagesPruned(
            images_deleted=pictures.removed(done.removed) or None, space_reclaimed=done.reclaimed
        )
    )


def named(name: str, tag: str) -> str:
    """A name and the tag or digest that came apart from it, as one reference."""
    if not tag:
        return name
    return f"{name}@{tag}" if ":" in tag else f"{name}:{tag}"


def credentials_of(call: Call) -> Credentials | None:
    """The credentials of X-Registry-Auth."""
    return Credentials.from_header(call.request.headers.get("X-Registry-Auth", ""))


PATHS = {
    ("GET", "/images/json"): listing,
    ("POST", "/images/create"): create,
    ("POST", "/images/prune"): prune,
}
NAMED = {
    ("DELETE", "images", ""): remove,
    ("GET", "images", "history"): history,
    ("GET", "images", "json"): inspect,
    ("POST", "images", "push"): push,
    ("POST", "images", "tag"): tag,
}
