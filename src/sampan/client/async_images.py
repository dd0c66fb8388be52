"""The library's calls about images; `AsyncEngine` has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack

from sampan.client import building, buildquery, calls, flows, results
from sampan.client.credentials import header_for
from sampan.client.sources import pieces_of, writer_to

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from typing import BinaryIO

    from sampan.client.aio import AsyncDriver


class AsyncEngineImages:
    """What an engine does with images."""

    _driver: AsyncDriver

    async def pull(
        self,
        image: str,
        *,
        platform: str = "",
        every_platform: bool = False,
        auth: tuple[str, str] | None = None,
        progress: Callable[[results.Progress], None] | None = None,
    ) -> results.Image:
        """Pull an image; `progress` is called at each step.

        `auth` is user and password; without it what `login` kept for the registry is used.
        """
        call = calls.pull(image, platform, header_for(image, auth), every_platform=every_platform)
        return await self._driver.drive(flows.pull(call, image, progress))

    async def push(
        self,
        image: str,
        *,
        platform: str = "",
        auth: tuple[str, str] | None = None,
        progress: Callable[[results.Progress], None] | None = None,
    ) -> None:
        """Send an image to its registry; `auth` as for `pull`."""
        call = calls.push(image, header_for(image, auth), platform)
        await self._driver.drive(flows.report(call, progress))

    async def copy_image(
        self,
        source: str,
        destination: str,
        *,
        auth: tuple[str, str] | None = None,
        destination_auth: tuple[str, str] | None = None,
        progress: Callable[[results.Progress], None] | None = None,
    ) -> None:
        """Copy an image, every platform of it, from one registry to another."""
        call = calls.copy(
            source,
            destination,
            header_for(source, auth),
            header_for(destination, destination_auth),
        )
        await self._driver.drive(flows.report(call, progress))

    async def login(self, registry: str, user: str, password: str) -> None:
        """Ask a registry whether it knows a user. Nothing is kept.

        Raises:
            Unauthenticated: it does not.
        """
        await self._driver.client.call(calls.login(user, password, registry))

    async def search(
        self,
        term: str,
        *,
        limit: int = 25,
        filters: dict[str, list[str]] | None = None,
        auth: tuple[str, str] | None = None,
    ) -> list[results.SearchResult]:
        """What a registry has by a word: Docker Hub, or the one that `term` begins with."""
        call = calls.search(term, limit, filters, header_for(term, auth))
        return [results.SearchResult.parse(one) for one in await self._driver.client.call(call)]

    async def trust_policy(self) -> dict[str, Any]:
        """The trust policy, as GET /system/trust has it."""
        document: dict[str, Any] = await self._driver.client.call(calls.trust())
        return document

    async def tags(self, image: str, *, auth: tuple[str, str] | None = None) -> list[str]:
        """The tags that an image's repository has at its registry."""
        answer = await self._driver.client.call(calls.remote_tags(image, header_for(image, auth)))
        return list(answer["Tags"])

    async def manifest(self, image: str, *, auth: tuple[str, str] | None = None) -> dict[str, Any]:
        """The manifest or index that a registry has, as a document."""
        call = calls.remote_manifest(image, header_for(image, auth))
        document: dict[str, Any] = await self._driver.client.call(call)
        return document

    async def referrers(
        self, image: str, artifact_type: str = "", *, auth: tuple[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """The descriptors of what refers to an image at its registry."""
        call = calls.remote_referrers(image, artifact_type, header_for(image, auth))
        return list((await self._driver.client.call(call))["Referrers"])

    async def import_image(
        self,
        source: str | os.PathLike[str] | Iterable[bytes],
        name: str = "",
        *,
        message: str = "",
        changes: Iterable[str] = (),
        platform: str = "",
    ) -> results.Image:
        """Make an image of the tar of a root file system: a path, or its bytes in pieces.

        `changes` are instructions for its config, as `CMD ["sh"]`.
        """
        call = calls.import_image(
            pieces_of(source), name, message=message, changes=changes, platform=platform
        )
        return await self._driver.drive(flows.import_image(call, name))

    async def build(
        self, context: building.Context = ".", **options: Unpack[building.BuildOptions]
    ) -> building.Build:
        """Build an image of a context: a directory, a URL, an archive (its path, or its bytes in
        pieces), or None with the text of a Dockerfile.

        Raises:
            CommandFailed: a command of RUN did not succeed; `exit_code` is its code.
            InvalidArgument: the Dockerfile or an option is wrong.
        """
        return await self._driver.drive(building.build(context, options))

    async def check_build(
        self, context: building.Context = ".", **options: Unpack[building.BuildOptions]
    ) -> list[building.BuildWarning]:
        """What is allowed in a Dockerfile and probably wrong; nothing is built."""
        return await self._driver.drive(building.check(context, options))

    async def prune_builds(self, *, unused_for: float | None = None, keep: int = 0) -> int:
        """Remove what builds have cached and was not used for `unused_for` seconds, until `keep`
        bytes are left; how many bytes are free now that were not."""
        until = None if unused_for is None else {"until": [f"{int(unused_for)}s"]}
        call = buildquery.prune(calls.filters_text(until), str(keep or ""))
        return int((await self._driver.client.call(call))["SpaceReclaimed"])

    async def images(
        self,
        *,
        all: bool = False,  # noqa: A002  docker's word
        filters: dict[str, list[str]] | None = None,
    ) -> list[results.Image]:
        """The images that are here, newest first; filters as of `sampan images`."""
        call = calls.images(everything=all, filters=filters)
        return [results.Image.parse(one) for one in await self._driver.client.call(call)]

    async def image(self, name: str) -> results.Image:
        """One image.

        Raises:
            ImageNotFound: it is not here.
        """
        return results.Image.parse(await self._driver.client.call(calls.image_inspect(name)))

    async def history(self, image: str) -> list[results.HistoryStep]:
        """How an image was made, newest step first. Raises ImageNotFound."""
        call = calls.image_history(image)
        return [results.HistoryStep.parse(one) for one in await self._driver.client.call(call)]

    async def prune_images(
        self,
        *,
        all: bool = False,  # noqa: A002  docker's word
        filters: dict[str, list[str]] | None = None,
    ) -> results.PrunedImages:
        """Remove images without a name that no container has; with `all`, named ones too."""
        wanted = {**(filters or {}), "dangling": ["false" if all else "true"]}
        return results.PrunedImages.parse(
            await self._driver.client.call(calls.prune_images(wanted))
        )

    async def disk_usage(self) -> dict[str, Any]:
        """What images, containers and volumes take, as GET /system/df has it."""
        document: dict[str, Any] = await self._driver.client.call(calls.disk_usage())
        return document

    async def tag(self, image: str, name: str) -> None:
        """Give an image another name."""
        await self._driver.client.call(calls.image_tag(image, name))

    async def remove_image(self, image: str, *, force: bool = False) -> None:
        """Remove a name of an image, and with its last name the image."""
        await self._driver.client.call(calls.image_remove(image, force=force))

    async def save(
        self,
        images: str | Iterable[str],
        target: str | os.PathLike[str] | BinaryIO,
        *,
        platform: str = "",
        format: Literal["docker-archive", "oci-archive"] = "docker-archive",  # noqa: A002
    ) -> None:
        """Write an archive of one or more images to a path or an open file.

        A path is written whole or not at all.

        Raises:
            ImageNotFound: one of them is not here.
        """
        names = [images] if isinstance(images, str) else list(images)
        call = calls.save(names, platform=platform, kind=format)
        with writer_to(target) as write:
            await self._driver.drive(flows.save(call, write))

    async def export_image(
        self, image: str, target: str | os.PathLike[str] | BinaryIO, *, platform: str = ""
    ) -> None:
        """Write the whole file system of an image as a tar to a path or an open file."""
        with writer_to(target) as write:
            await self._driver.drive(flows.save(calls.image_export(image, platform), write))

    async def load(
        self, source: str | os.PathLike[str] | Iterable[bytes], *, platform: str = ""
    ) -> list[results.Image]:
        """Make images of an archive: a path, or its bytes in pieces; the images.

        Raises:
            Unavailable: the archive is refused; the text says why.
        """
        call = calls.load(pieces_of(source), quiet=True, platform=platform)
        return await self._driver.drive(flows.load(call))

    async def check(self, *, repair: bool = False) -> results.StoreCheck:
        """Look for damage in the store, and mend what can be if asked."""
        return results.StoreCheck.parse(await self._driver.client.call(calls.check(repair=repair)))

    async def collect(
        self, *, unused_for: float | None = None, max_size: int = 0, min_free: int = 0
    ) -> int:
        """Remove images that were not used for `unused_for` seconds, or as many as it takes to get
        below `max_size` bytes and above `min_free`; without any, by the policy of the
        configuration. How many bytes are free now that were not."""
        call = calls.collect(
            "" if unused_for is None else f"{int(unused_for)}s",
            str(max_size or ""),
            str(min_free or ""),
        )
        return int((await self._driver.client.call(call))["SpaceReclaimed"])

    async def verify(
        self,
        image: str,
        keys: Iterable[str] = (),
        *,
        platform: str = "",
        auth: tuple[str, str] | None = None,
    ) -> results.Verified:
        """Whether the trust policy, or one of `keys` (PEM texts), vouches for an image of a
        registry.

        Raises:
            PermissionDenied: it does not; the text says why.
        """
        call = calls.verify(image, keys, platform, header_for(image, auth))
        return results.Verified.parse(await self._driver.client.call(call))
