"""/images/*: one function per endpoint. Names in paths may hold slashes; see the routes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from sampan.api.docker import ages, answers, pictures, streaming, versions
from sampan.errors import Aborted, InvalidArgument, NotImplementedHere
from sampan.images.progress import silent
from sampan.images.saving import ArchiveFormat
from sampan.registry.credentials import Credentials
from sampan.spec.platform import Platform
from sampan.wire import distribution, progress
from sampan.wire import images as bodies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call
    from sampan.spec.image import Descriptor


_decode_platforms = msgspec.json.Decoder(list[distribution.Platform]).decode


async def listing(call: Call) -> StreamResponse:
    """GET /images/json?all&filters&digests&shared-size&manifests&identity"""
    filters = filters_of(call)
    if call.minor < versions.NO_FILTER_WORD and call.text("filter"):
        filters.setdefault("reference", [call.text("filter")])
    with_manifests = call.minor >= versions.MANIFESTS and call.flag("manifests")
    if call.flag("identity") and not with_manifests:
        raise InvalidArgument("conflicting options: identity requires manifests=1")
    found = await call.engine.images.list(filters)
    with_shared = call.minor >= versions.SHARED_SIZES and call.flag("shared-size")
    shared = await call.engine.images.shared_sizes(found) if with_shared else {}
    users = users_of_images(call)
    lines = []
    for image in found:
        line = pictures.summary(image, len(users.get(image.id, ())), shared.get(image.id, -1))
        if with_manifests:
            line.manifests = await manifests_of(call, image.target)
        versions.image_summary(line, call.minor)
        lines.append(line)
    return answers.json(lines)


def users_of_images(call: Call) -> dict[str, list[str]]:
    """Ids of containers by that of their image."""
    found: dict[str, list[str]] = {}
    for container in call.engine.list(all=True):
        found.setdefault(str(container.image_id), []).append(container.id)
    return found


async def manifests_of(call: Call, target: Descriptor) -> list[bodies.ManifestSummary]:
    """The manifests below a target, as far as they are known here."""
    users = users_of_images(call)
    states = await call.engine.images.manifests.of(target)
    return [pictures.manifest(state, users) for state in states]


async def create(call: Call) -> StreamResponse:
    """POST /images/create?fromImage&tag&platform&fromSrc&repo&message&changes: pull or import"""
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
        await call.engine.images.pull(
            reference,
            platform=platform_of(call),
            every_platform=call.flag("allPlatforms"),
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
        )
        lines.add(progress.message(str(image.id)))

    return await streaming.run(call, work)


async def parts(call: Call) -> AsyncIterator[bytes]:
    """The body as it arrives, each piece in time.

    Raises:
        Aborted: it broke off; what was made of it so far is worth nothing.
        DeadlineExceeded: the client stopped sending.
    """
    try:
        async for part in call.stream():
            yield part
    except InvalidArgument as error:
        raise Aborted(str(error)) from error


async def push(call: Call) -> StreamResponse:
    """POST /images/{name}/push?tag&platform"""
    reference = named(call.name, call.text("tag"))
    credentials = credentials_of(call)

    async def work(lines: streaming.Lines) -> None:
        await call.engine.images.push(
            reference, platform=platform_of(call), auth=credentials, progress=lines.report
        )

    return await streaming.run(call, work)


async def save(call: Call) -> StreamResponse:
    """GET /images/get?names&platform&format"""
    names = [name for text in call.values("names") for name in text.split(",") if name]
    return await archive_of(call, names)


async def save_one(call: Call) -> StreamResponse:
    """GET /images/{name}/get?platform&format"""
    return await archive_of(call, [call.name])


async def archive_of(call: Call, names: list[str]) -> StreamResponse:
    """The archive of images by name or id. `format` is ours: oci-archive leaves docker's out."""
    if not names:
        raise InvalidArgument("save images: names is needed")
    try:
        kind = ArchiveFormat(call.text("format") or ArchiveFormat.DOCKER)
    except ValueError:
        raise InvalidArgument(f"save images: unknown format {call.text('format')!r}") from None
    pieces = await call.engine.images.save(names, platforms=platforms_of(call), kind=kind)
    call.cancel_when_gone()
    answer = await answers.stream(call.request, "application/x-tar")
    async for piece in pieces:
        await answer.write(piece)
    await answer.write_eof()
    return answer


async def export(call: Call) -> StreamResponse:
    """GET /images/{name}/export?platform: the tar of the whole file system. Not in Docker's API"""
    pieces = await call.engine.images.export(call.name, platform_of(call))
    call.cancel_when_gone()
    answer: StreamResponse | None = None
    async for piece in pieces:
        answer = answer or await answers.stream(call.request, "application/x-tar")
        await answer.write(piece)
    answer = answer or await answers.stream(call.request, "application/x-tar")
    await answer.write_eof()
    return answer


async def load(call: Call) -> StreamResponse:
    """POST /images/load?quiet&platform: the body is an archive"""
    quiet = call.flag("quiet")

    async def work(lines: streaming.Lines) -> None:
        report = silent if quiet else lines.report
        loaded = await call.engine.images.load(
            parts(call), platforms=platforms_of(call), progress=report
        )
        for image in loaded:
            for name in image.names:
                lines.add(progress.text(f"Loaded image: {name}\n"))
            if not image.names:
                lines.add(progress.text(f"Loaded image ID: {image.id}\n"))

    return await streaming.run(call, work, begun=True)


def platform_of(call: Call) -> Platform | None:
    """The one platform of the query.

    Raises:
        InvalidArgument: it is none, or there are several.
    """
    found = platforms_of(call)
    if len(found) > 1:
        raise InvalidArgument("several platforms: only one can be asked for here")
    return found[0] if found else None


def platforms_of(call: Call, key: str = "platform") -> list[Platform]:
    """The platforms of the query: texts, or the JSON objects of newer clients, one or a list.

    Raises:
        InvalidArgument: one is neither.
    """
    return [one for text in call.values(key) if text for one in _platforms(text)]


def _platforms(text: str) -> list[Platform]:
    if not text.startswith(("{", "[")):
        return [Platform.parse(text)]
    try:
        found = _decode_platforms(text if text.startswith("[") else f"[{text}]")
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"invalid platform: {error}") from error
    return [Platform.make(one.os, one.architecture, one.variant) for one in found]


async def inspect(call: Call) -> StreamResponse:
    """GET /images/{name}/json?manifests&platform"""
    with_manifests = call.minor >= versions.MANIFESTS_OF_IMAGE and call.flag("manifests")
    platform = platform_of(call) if call.minor >= versions.PLATFORM_OF_IMAGE else None
    if with_manifests and platform is not None:
        raise InvalidArgument(
            "conflicting options: manifests and platform options cannot both be set"
        )
    image = await call.engine.images.get(call.name, platform)
    others = await call.engine.images.list() if len(image.config.history) > 1 else ()
    answer = pictures.inspect(image, others)
    if with_manifests:
        target = await call.engine.images.manifests.target(call.name)
        answer.descriptor = pictures.descriptor(target)
        answer.manifests = await manifests_of(call, target)
    versions.image(answer, call.minor)
    return answers.json(answer)


async def history(call: Call) -> StreamResponse:
    """GET /images/{name}/history?platform"""
    platform = platform_of(call) if call.minor >= versions.PLATFORM_OF_HISTORY else None
    return answers.json(pictures.history(await call.engine.images.history(call.name, platform)))


async def attestations(call: Call) -> StreamResponse:
    """GET /images/{name}/attestations?platform&type&statement: in-toto statements about it"""
    if len(call.values("platform")) > 1:
        raise InvalidArgument("attestations: only one platform can be asked for")
    manifests = call.engine.images.manifests
    target = await manifests.target(call.name)
    kinds, with_words = call.values("type"), call.flag("statement")
    found = manifests.statements(target, platform_of(call) or Platform.host())
    return answers.json(
        [
            bodies.Statement(
                descriptor=pictures.descriptor(one.descriptor),
                predicate_type=one.predicate_type,
                statement=msgspec.Raw(manifests.read(one)) if with_words else msgspec.UNSET,
            )
            for one in found
            if not kinds or one.predicate_type in kinds
        ]
    )


async def tag(call: Call) -> StreamResponse:
    """POST /images/{name}/tag?repo&tag"""
    if not call.text("repo"):
        raise InvalidArgument("tag an image: repo is needed")
    await call.engine.images.tag(call.name, named(call.text("repo"), call.text("tag")))
    return answers.empty(201)


async def remove(call: Call) -> StreamResponse:
    """DELETE /images/{name}?force&noprune&platforms"""
    if not call.name.strip():
        raise InvalidArgument("image name cannot be blank")
    is_new = call.minor >= versions.PLATFORMS_OF_REMOVAL
    platforms = platforms_of(call, "platforms") if is_new else ()
    done = await call.engine.images.remove(call.name, force=call.flag("force"), platforms=platforms)
    return answers.json(pictures.removed(done))


async def prune(call: Call) -> StreamResponse:
    """POST /images/prune?filters"""
    done = await call.engine.images.prune(filters_of(call))
    return answers.json(
        bodies.ImagesPruned(
            images_deleted=pictures.removed(done.removed) or None, space_reclaimed=done.reclaimed
        )
    )


def filters_of(call: Call) -> dict[str, list[str]]:
    """The filters of the query; a moment of `until`, however it is given, in nanoseconds."""
    filters = call.filters()
    now = time.time_ns()
    if "until" in filters:
        filters["until"] = [str(ages.parse_moment(text, now)) for text in filters["until"]]
    return filters


def named(name: str, tag: str) -> str:
    """A name and the tag or digest that came apart from it, as one reference."""
    if not tag:
        return name
    return f"{name}@{tag}" if ":" in tag else f"{name}:{tag}"


def credentials_of(call: Call, header: str = "X-Registry-Auth") -> Credentials | None:
    """The credentials of X-Registry-Auth."""
    return Credentials.from_header(call.request.headers.get(header, ""))


PATHS = {
    ("GET", "/images/json"): listing,
    ("POST", "/images/create"): create,
    ("GET", "/images/get"): save,
    ("POST", "/images/load"): load,
    ("POST", "/images/prune"): prune,
}
NAMED = {
    ("DELETE", "images", ""): remove,
    ("GET", "images", "attestations"): attestations,
    ("GET", "images", "export"): export,
    ("GET", "images", "get"): save_one,
    ("GET", "images", "history"): history,
    ("GET", "images", "json"): inspect,
    ("POST", "images", "push"): push,
    ("POST", "images", "tag"): tag,
}
