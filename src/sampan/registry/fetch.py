"""Manifests and blobs from a registry.

A manifest is small: read whole, bounded, verified. A blob is streamed into a writer that can be
continued: when the connection breaks, or the engine was restarted, the next request asks for the
rest with Range. An answer that is not the range that was asked for is never written. The writer's
owner verifies the digest at its commit; the size is watched here, so that an endless body ends at
the first byte too many.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp

from sampan.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from sampan.registry import http
from sampan.registry.resolver import ACCEPT, content_type, mismatch
from sampan.registry.retry import PIECE, Slow
from sampan.spec.digest import Digester
from sampan.spec.image import MAX_MANIFEST, Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable

    from yarl import URL

    from sampan.registry.retry import Retry
    from sampan.registry.session import Session

_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.ASCII)
_BODY: Final = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)


class BlobWriter(Protocol):
    """Where a blob goes: it knows how many bytes it has, and gathers the following ones."""

    offset: int

    async def write(self, data: bytes) -> None:
        """Append `data`."""


async def fetch_manifest(session: Session, descriptor: Descriptor) -> bytes:
    """The verified content of a manifest or index.

    Raises:
        DigestMismatch: the content is not what the digest names.
        InvalidArgument: it is too large, or has another size or type than announced.
        NotFound, Unauthenticated, PermissionDenied, Unavailable: as the registry answers.
    """
    what = f"manifest {descriptor.digest}"
    if descriptor.size > MAX_MANIFEST:
        raise InvalidArgument(
            f"{what}: its {descriptor.size} bytes are more than the limit of {MAX_MANIFEST}"
        )
    url = session.url("manifests", descriptor.digest)
    async with session.request("GET", url, headers={"Accept": ACCEPT}) as response:
        if response.status != 200:
            raise await session.failure(response, f"fetch {what}")
        content = await http.read_bounded(response, descriptor.size, what)
        media_type = content_type(response)
    digester = Digester(descriptor.digest.algorithm)
    digester.update(content)
    if digester.digest() != descriptor.digest:
        raise mismatch(what, descriptor.digest, digester.digest())
    if len(content) != descriptor.size:
        raise InvalidArgument(
            f"{what}: {len(content)} bytes, and its descriptor says {descriptor.size}"
        )
    if media_type not in (descriptor.media_type, "", "application/json"):
        raise InvalidArgument(
            f"{what}: it was sent as {media_type[:160]!r} and announced as {descriptor.media_type}"
        )
    return content


async def fetch_blob(
    session: Session,
    descriptor: Descriptor,
    writer: BlobWriter,
    progress: Callable[[int], None],
    retry: Retry,
) -> None:
    """Bring the bytes of a blob that `writer` does not have yet.

    `progress` is told how many bytes of the blob have arrived. What arrived stays in the writer
    when this fails or is cancelled.

    Raises:
        FailedPrecondition: the registry sends another size than announced.
        NotFound, Unauthenticated, PermissionDenied: as the registry answers.
        Unavailable: it failed too often without one more byte.
    """
    attempt = 1
    while writer.offset < descriptor.size:
        before = writer.offset
        try:
            await _attempt(session, descriptor, writer, _Pace(retry.patience, progress))
        except Unavailable as error:
            moved = writer.offset > before and not isinstance(error, Slow)
            attempt = 1 if moved else attempt + 1
            if attempt > retry.blob_attempts:
                raise
            await retry.pause(attempt, error)


class _Pace:
    """Tells how many bytes of a blob are here, and gives up on who sends next to nothing: a read
    that gets a byte within its own time-out would go on for ever."""

    def __init__(self, patience: float, progress: Callable[[int], None]) -> None:
        self._patience = patience
        self._progress = progress
        self._offset = -1
        self._since = 0.0

    def __call__(self, offset: int) -> None:
        now = time.monotonic()
        if self._offset < 0 or offset - self._offset >= PIECE:
            self._offset, self._since = offset, now
        elif now - self._since > self._patience:
            raise Slow(
                f"fetch blob: the server sent {offset - self._offset} bytes in "
                f"{now - self._since:.0f} s"
            )
        self._progress(offset)


async def _attempt(
    session: Session,
    descriptor: Descriptor,
    writer: BlobWriter,
    progress: Callable[[int], None],
) -> None:
    """Try the registry, then the URLs that the descriptor names, which get no credentials."""
    try:
        await _stream(
            session, session.url("blobs", descriptor.digest), descriptor, writer, progress
        )
    except NotFound:
        for url in _foreign(descriptor):
            try:
                await _stream(session, url, descriptor, writer, progress)
            except NotFound:
                continue
            return
        raise


async def _stream(
    session: Session,
    url: URL,
    descriptor: Descriptor,
    writer: BlobWriter,
    progress: Callable[[int], None],
) -> None:
    offset, what = writer.offset, f"fetch blob {descriptor.digest}"
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    async with session.request("GET", url, headers=headers, timeout=_BODY) as response:
        match response.status:
            case 200:
                skip = offset  # the server does not know ranges and starts anew
            case 206:
                skip = _check_range(response, offset, descriptor, what)
            case _:
                raise await session.failure(response, what)
        _check_length(response, offset - skip, descriptor, what)
        await _copy(response.content, skip, descriptor, writer, progress)
    if writer.offset < descriptor.size:
        raise Unavailable(
            f"{what}: the server ended the answer after {writer.offset} of {descriptor.size} bytes"
        )


async def _copy(
    content: aiohttp.StreamReader,
    skip: int,
    descriptor: Descriptor,
    writer: BlobWriter,
    progress: Callable[[int], None],
) -> None:
    """Write the body as it arrives, in the largest pieces that have arrived."""
    while piece := await content.readany():
        if skip:
            piece, skip = piece[skip:], max(0, skip - len(piece))
            if not piece:
                continue
        if writer.offset + len(piece) > descriptor.size:
            raise FailedPrecondition(
                f"fetch blob {descriptor.digest}: more than the {descriptor.size} bytes that "
                "its descriptor says"
            )
        await writer.write(piece)
        progress(writer.offset)


def _check_range(
    response: aiohttp.ClientResponse, offset: int, descriptor: Descriptor, what: str
) -> int:
    """Whether a 206 answer is the rest that was asked for: 0 bytes to skip.

    Raises:
        Unavailable: it is another part. Tried again, as a proxy may have mixed up two answers.
    """
    text = response.headers.get("Content-Range", "")
    found = _RANGE.fullmatch(text)
    if (
        found is None
        or int(found[1]) != offset
        or int(found[2]) >= descriptor.size
        or found[3] not in ("*", str(descriptor.size))
    ):
        raise Unavailable(
            f"{what}: asked for the bytes from {offset} of {descriptor.size}, "
            f"the server sent {text[:80]!r}"
        )
    return 0


def _check_length(
    response: aiohttp.ClientResponse, start: int, descriptor: Descriptor, what: str
) -> None:
    """Refuse an answer that announces another size, before anything of it is written."""
    length = response.content_length
    if response.status == 200 and length is not None and start + length != descriptor.size:
        raise FailedPrecondition(
            f"{what}: the server has {start + length} bytes, "
            f"and its descriptor says {descriptor.size}"
        )


def _foreign(descriptor: Descriptor) -> list[URL]:
    from yarl import URL

    try:
        return [URL(url, encoded=True) for url in descriptor.urls]
    except ValueError:
        raise InvalidArgument(f"blob {descriptor.digest}: its descriptor has a bad URL") from None
