"""Blobs and manifests to a registry.

A blob that the registry has already is not sent. Otherwise an upload is opened (POST), and its
content is sent in one request (PUT). The upload's place comes from the registry: when it lies on
another origin it gets the content and no credentials. A manifest goes last, when everything that it
names is there.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

import aiohttp

from sampan.errors import DataLoss, PermissionDenied, Unauthenticated
from sampan.registry import http
from sampan.registry.session import PUSH
from sampan.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sampan.registry.session import Session
    from sampan.spec.image import Descriptor

CHUNK: Final = 1 << 20
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


async def push_blob(
    session: Session, descriptor: Descriptor, fd: int, progress: Callable[[int], None]
) -> None:
    """Send the content of `fd`, which is read from its start and stays open.

    Raises:
        PermissionDenied, Unauthenticated: this user may not push here.
        DataLoss: `fd` has fewer bytes than the descriptor says.
        FailedPrecondition, Unavailable: the registry refused it or failed.
    """
    doing = f"push blob {descriptor.digest}"
    url = session.url("blobs/uploads")
    async with session.request(
        "POST", url, actions=PUSH, headers={"Content-Length": "0"}
    ) as answer:
        if answer.status != 202:
            raise _denied(await session.failure(answer, doing), session)
        place = http.location(answer)
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(descriptor.size),
    }
    async with session.request(
        "PUT",
        place.extend_query({"digest": descriptor.digest}),
        actions=PUSH,
        headers=headers,
        data=lambda: _content(fd, descriptor, progress),
        timeout=_BODY,
    ) as answer:
        if answer.status != 201:
            raise _denied(await session.failure(answer, doing), session)


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
    fd: int, descriptor: Descriptor, progress: Callable[[int], None]
) -> AsyncIterator[bytes]:
    offset = 0
    while offset < descriptor.size:
        data = await asyncio.to_thread(os.pread, fd, CHUNK, offset)
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
