"""From a reference to the descriptor of a manifest.

A HEAD request is enough where the registry answers it fully (it costs no pull on registries that
count them); otherwise the manifest itself is read and hashed. What the registry claims about a
digest is checked when the content arrives, and a reference that names a digest is never resolved to
another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sampan.errors import (
    DigestMismatch,
    ImageNotFound,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    SampanError,
    Unauthenticated,
)
from sampan.registry import http
from sampan.spec import mediatypes
from sampan.spec.digest import Digest, Digester
from sampan.spec.image import MAX_MANIFEST, Descriptor, media_type_of

if TYPE_CHECKING:
    import aiohttp

    from sampan.registry.session import Session
    from sampan.spec.reference import Reference

ACCEPT: Final = ", ".join((*mediatypes.INDEXES, *mediatypes.MANIFESTS))


@dataclass(frozen=True, slots=True)
class Resolved:
    """A descriptor, and the content where resolving had to read it."""

    descriptor: Descriptor
    content: bytes | None = None


async def resolve(session: Session, reference: Reference) -> Resolved:
    """What the registry has for the tag or digest of `reference`.

    Raises:
        ImageNotFound: it has nothing, or does not show it to this user.
        Unauthenticated: the credentials are wrong.
        DigestMismatch: the registry answers with another digest than the reference names.
        InvalidArgument: the answer is no image, or has a digest that is none.
        Unavailable: the registry does not answer.
    """
    try:
        return await _head(session, reference) or await _get(session, reference)
    except NotFound as error:
        raise not_found(reference, error) from None
    except PermissionDenied as error:
        raise denied(reference, error) from None
    except Unauthenticated as error:
        raise Unauthenticated(f"pull {reference.familiar()}: {error}") from None


def not_found(reference: Reference, error: SampanError) -> ImageNotFound:
    """dockerd's words for a manifest that is not there."""
    return ImageNotFound(f"manifest for {reference.familiar()} not found: {_tail(error)}")


def denied(reference: Reference, error: SampanError) -> ImageNotFound:
    """dockerd's words for a repository that is private or not there, which nobody may tell."""
    return ImageNotFound(
        f"pull access denied for {reference.familiar_name()}, "
        f"repository does not exist or may require 'docker login': {_tail(error)}"
    )


async def _head(session: Session, reference: Reference) -> Resolved | None:
    """The descriptor from the headers, None when they do not say everything."""
    url = session.url("manifests", reference.target)
    async with session.request("HEAD", url, headers={"Accept": ACCEPT}) as response:
        if response.status != 200:
            return None  # the GET has a body, which says why
        named = response.headers.get("Docker-Content-Digest", "")
        media_type, size = content_type(response), response.content_length
    if not named or size is None or media_type not in (*mediatypes.INDEXES, *mediatypes.MANIFESTS):
        return None
    digest = Digest.parse(named)
    if reference.digest is not None and digest != reference.digest:
        raise mismatch(f"manifest of {reference.familiar()}", reference.digest, digest)
    return Resolved(Descriptor(media_type, digest, size))


async def _get(session: Session, reference: Reference) -> Resolved:
    url = session.url("manifests", reference.target)
    async with session.request("GET", url, headers={"Accept": ACCEPT}) as response:
        if response.status != 200:
            raise await session.failure(response, f"resolve {reference.familiar()}")
        content = await http.read_bounded(response, MAX_MANIFEST, "a manifest")
        media_type = content_type(response)
    if media_type not in (*mediatypes.INDEXES, *mediatypes.MANIFESTS):
        stated = media_type_of(content)
        if media_type not in ("", "application/json", "application/octet-stream"):
            raise InvalidArgument(
                f"manifest of {reference.familiar()}: the media type {media_type[:160]!r} "
                "is not supported"
            )
        media_type = stated
    digest = _digest_of(content, reference)
    return Resolved(Descriptor(media_type, digest, len(content)), content)


def _digest_of(content: bytes, reference: Reference) -> Digest:
    if reference.digest is None:
        return Digest.of(content)
    digester = Digester(reference.digest.algorithm)
    digester.update(content)
    if digester.digest() != reference.digest:
        raise mismatch(f"manifest of {reference.familiar()}", reference.digest, digester.digest())
    return reference.digest


def content_type(response: aiohttp.ClientResponse) -> str:
    """The media type of an answer, without parameters."""
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def mismatch(what: str, expected: Digest, actual: Digest) -> DigestMismatch:
    """The error for content that is not what its digest names."""
    return DigestMismatch(f"verify {what}: the digest is {actual} and not {expected}")


def _tail(error: SampanError) -> str:
    """What the registry said, without what we were doing."""
    return str(error).partition(": ")[2] or str(error)
