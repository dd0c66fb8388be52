"""/images/*: one function per endpoint. Names in paths may hold slashes; see the routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp.web_protocol import RequestPayloadError

from sampan.api.docker import answers, pictures, streaming
from sampan.errors import Aborted, InvalidArgument, NotImplementedHere
from sampan.registry.credentials import Credentials
from sampan.wire import images as bodies
from sampan.wire import progress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call


async def listing(call: Call) -> StreamResponse:
    """GET /images/json?all&filters"""
    found = await call.engine.images.list(call.filters())
    return answers.json([pictures.summary(image) for image in found])


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

    async def work(lines: streaming.Lines) -> None:
        image = await call.engine.images.import_tar(
            parts(call),
            reference,
            message=call.text("message"),
            changes=call.values("changes"),
            progress=lines.report,
        )
        lines.add(progress.message(str(image.id)))

    return await streaming.run(call, work)


async def parts(call: Call) -> AsyncIterator[bytes]:
    """The body as it arrives.

    Raises:
        Aborted: it broke off; what was made of it so far is worth nothing.
    """
    try:
        async for part in call.request.content.iter_any():
            yield part
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
    done = await call.engine.images.prune(call.filters())
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
