"""Blobs and manifests to a registry.

A blob that the registry has already is not sent, and one that another of its repositories has is
mounted from there. Otherwise an upload is opened (POST), and its content is sent in one request
(PUT) or, when it is large, in several (PATCH). The upload's place comes from the registry: when it
lies on another origin it gets the content and no credentials. A manifest goes last, when everything
that it names is there.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Final

import aiohttp

from sampan.errors import DataLoss, PermissionDenied, Unauthenticated, Unavailable
from sampan.registry import http
from sampan.registry.session import PUSH
from sampan.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from yarl import URL

    from sampan.registry.session import Session
    from sampan.spec.image import Descriptor

CHUNK: Final = 1 << 20
PIECE: Final = 64 << 20  # bytes of one request; what a broken connection costs at most
_RANGE: Final = re.compile(r"(?:bytes=)?0-([0-9]{1,18})", re.ASCII)
_BODY: Final = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=300)


async def has_blob(session: Session, descriptor: Descriptor) -> bool:
    """Whether the registry has the blob, in this repository, with the size that we know."""
    url = session.url("blobs", descriptor.digest)
    async with session.request("HEAD", url, actions=PUSH) as response:
        if response.status == 404:
            return False
        if response.status != 200:
            raise await session.failure(response, f"look for blob {descriptor.digest}")
        return response.content_length in (None, descriptor.size)


async def mount_blob(session: Session, descriptor: Descriptor, repository: str) -> bool:
    """Ask the registry to take a blob over from another of its repositories; whether it did.

    Raises:
        Unauthenticated, PermissionDenied, Unavailable: as the registry answers.
    """
    url = session.url("blobs/uploads").with_query({"mount": descriptor.digest, "from": repository})
    headers = {"Content-Length": "0"}
    async with session.request(
        "POST", url, actions=PUSH, also=repository, headers=headers
    ) as answer:
        if answer.status == 202:
            # It opened an upload instead, which nobody will use: registries drop those in time.
            return False
        if answer.status != 201:
            raise await session.failure(answer, f"mount blob {descriptor.digest}")
    return await has_blob(session, descriptor)


class Upload:
    """One blob on its way. `run` may be called again after it failed, and goes on.

    A small blob is sent in one request. A large one goes in pieces, so that a broken connection
    costs one of them; the registry says how far it is.
    """

    def __init__(
        self,
        session: Session,
        descriptor: Descriptor,
        fd: int,
        progress: Callable[[int], None],
    ) -> None:
        """`fd` is read by position and stays the caller's."""
        self._session = session
        self._descriptor = descriptor
        self._fd = fd
        self._progress = progress
        self._place: URL | None = None
        self._doing = f"push blob {descriptor.digest}"

    async def run(self) -> None:
        """Send what the registry does not have yet.

        Raises:
            PermissionDenied, Unauthenticated: this user may not push here.
            DataLoss: `fd` has fewer bytes than the descriptor says.
            FailedPrecondition, Unavailable: the registry refused it or failed.
        """
        size, offset = self._descriptor.size, 0
        if self._place is not None:
            offset = await self._offset(self._place)
        if self._place is None:
            self._place = await self._open()
        while size - offset > PIECE:
            self._place = await self._send("PATCH", self._place, offset, offset + PIECE)
            offset += PIECE
        await self._send("PUT", self._place, offset, size)

    async def _open(self) -> URL:
        """Begin an upload: its place."""
        async with self._session.request(
            "POST",
            self._session.url("blobs/uploads"),
            actions=PUSH,
            headers={"Content-Length": "0"},
        ) as answer:
            if answer.status != 202:
                raise _denied(await self._session.failure(answer, self._doing), self._session)
            return http.location(answer)

    async def _offset(self, place: URL) -> int:
        """How many bytes the registry has of an upload that was broken off. When it does not know
        that upload any more there is no place, and it begins anew."""
        async with self._session.request("GET", place, actions=PUSH) as answer:
            if answer.status != 204:
                self._place = None
                return 0
            found = _RANGE.fullmatch(answer.headers.get("Range", ""))
            if "Location" in answer.headers:
                self._place = http.location(answer)
        have = int(found[1]) + 1 if found is not None else 0
        if have <= 1 or have > self._descriptor.size:  # "0-0" is nothing, with most
            have = 0
        return have

    async def _send(self, method: str, place: URL, start: int, stop: int) -> URL:
        """Send the bytes from `start` to `stop`; the place for what follows."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(stop - start),
        }
        if method == "PATCH" or start:
            headers["Content-Range"] = f"{start}-{stop - 1}"
        last = method == "PUT"
        url = place.extend_query({"digest": self._descriptor.digest}) if last else place
        async with self._session.request(
            method,
            url,
            actions=PUSH,
            headers=headers,
            data=lambda: _content(self._fd, self._descriptor, start, stop, self._progress),
            timeout=_BODY,
        ) as answer:
            if answer.status not in ((201,) if last else (202, 204)):
                if answer.status == 416:
                    raise Unavailable(f"{self._doing}: the registry lost a part of it")
                raise _denied(await self._session.failure(answer, self._doing), self._session)
            return place if last else http.location(answer)


async def push_manifest(session: Session, target: str, content: bytes, media_type: str) -> Digest:
    """Send a manifest under a tag or its digest; the digest that the registry now has it by.

    Raises:
        PermissionDenied, Unauthenticated: this user may not push here.
        FailedPrecondition, NotFound, Unavailable: the registry refused it or failed.
    """
    async with session.request(
        "PUT",
        session.url("manifests", target),
        actions=PUSH,
        headers={"Content-Type": media_type},
        data=lambda: content,
    ) as answer:
        if answer.status != 201:
            raise _denied(await session.failure(answer, f"push manifest {target}"), session)
        named = answer.headers.get("Docker-Content-Digest")
    digest = Digest.of(content)
    if named is not None and named != digest:
        raise DataLoss(f"push manifest {target}: the registry stored {named[:160]!r}, not {digest}")
    return digest


async def _content(
    fd: int, descriptor: Descriptor, start: int, stop: int, progress: Callable[[int], None]
) -> AsyncIterator[bytes]:
    offset = start
    while offset < stop:
        data = await asyncio.to_thread(os.pread, fd, min(CHUNK, stop - offset), offset)
        if not data:
            raise DataLoss(f"read blob {descriptor.digest}: it ends after {offset} bytes")
        offset += len(data)
        yield data
        progress(offset)


def _denied(error: Exception, session: Session) -> Exception:
    """dockerd's words when a registry does not take pushes of this user."""
    if not isinstance(error, (PermissionDenied, Unauthenticated)):
        return error
    return PermissionDenied(f"push {session.reference.familiar_name()}: {error}")
