"""Verdicts: whether the policy lets an image come, and who signed it.

A verdict is about a digest, and the caller uses that digest and no other. Signatures lie in the
image's own repository: under the tag that cosign gives them (`sha256-<hex>.sig`), and among the
referrers. A signature for the index vouches for the manifests in it; one for the manifest of the
platform is enough too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sampan.errors import (
    DigestMismatch,
    ImageNotFound,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from sampan.images import signatures
from sampan.images.policy import MAX_POLICY, Identity, Kind, Policy, Requirement
from sampan.images.signatures import MAX_PAYLOAD, BadSignature, Key
from sampan.spec import mediatypes
from sampan.spec.digest import Digester
from sampan.spec.image import Manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.registry.repository import Repository
    from sampan.spec.digest import Digest
    from sampan.spec.image import Descriptor

PAYLOAD_TYPE: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
ARTIFACT_TYPE: Final = "application/vnd.dev.cosign.artifact.sig.v1+json"
SIGNATURE: Final = "dev.cosignproject.cosign/signature"
MAX_SIGNATURES: Final = 64
_MAX_REFERRERS: Final = 16


class Untrusted(PermissionDenied):
    """The policy does not let an image come; the text says why."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An image that may come: by which scope of the policy, signed by whom and under which name."""

    digest: Digest
    scope: str
    signers: tuple[tuple[Key, str], ...] = ()


@dataclass(slots=True)
class _Signatures:
    """What was found for one image: payloads with their signatures, read once."""

    found: list[tuple[Digest, bytes, str]] = field(default_factory=list)


class Trust:
    """The judge of one engine. The policy's file is read for each verdict."""

    def __init__(self, path: str = "", *, required: bool = False) -> None:
        """`required`: the file must be there; otherwise without one everything may come."""
        self._path = path
        self._required = required

    def policy(self) -> Policy:
        """The policy of the moment.

        Raises:
            InvalidArgument: the file is missing or cannot be understood.
        """
        if not self._path:
            return Policy()
        try:
            with open(self._path, "rb") as file:
                content = file.read(MAX_POLICY + 1)
        except FileNotFoundError:
            if self._required:
                raise InvalidArgument(f"trust policy {self._path}: no such file") from None
            return Policy()
        except OSError as error:
            raise InvalidArgument(f"trust policy {self._path}: {error.strerror}") from error
        try:
            return Policy.parse(content)
        except InvalidArgument as error:
            raise InvalidArgument(f"trust policy {self._path}: {error}") from error

    async def judge(self, repository: Repository, targets: Sequence[Descriptor]) -> Verdict:
        """Whether an image may come; `targets` are its index, if any, and its manifest.

        Raises:
            Untrusted: the policy does not let it come.
            InvalidArgument: the policy cannot be understood.
            Unavailable: the registry does not answer.
        """
        image = repository.reference
        scope, requirements = self.policy().of_image(image)
        signers: list[tuple[Key, str]] = []
        found: _Signatures | None = None
        for requirement in requirements:
            if requirement.kind is Kind.REJECT:
                raise Untrusted(f"{image.familiar()}: the policy rejects {scope or 'everything'}")
            if requirement.kind is Kind.SIGNED:
                found = found or await _look(repository, targets)
                signers.append(_signer(repository, found, requirement, _keys(requirement)))
        return Verdict(targets[0].digest, scope, tuple(signers))

    async def verify(
        self, repository: Repository, targets: Sequence[Descriptor], keys: Sequence[bytes]
    ) -> Verdict:
        """Whether one of the given keys (PEM) signed an image, whatever the policy says.

        Raises:
            Untrusted: none of them did.
            InvalidArgument: a key cannot be read.
        """
        read = [signatures.read_key(text, "") for text in keys]
        found = await _look(repository, targets)
        requirement = Requirement(Kind.SIGNED, identity=Identity())
        signer = _signer(repository, found, requirement, read)
        return Verdict(targets[0].digest, "keys", (signer,))

    def check_archive(self, transport: str) -> None:
        """Refuse an archive that the policy does not let come. Raises Untrusted."""
        for requirement in self.policy().of_archive(transport):
            if requirement.kind is not Kind.ACCEPT:
                raise Untrusted(
                    f"load: the policy does not accept a {transport}, which cannot be signed"
                )


def _keys(requirement: Requirement) -> list[Key]:
    """The keys of a requirement. Raises InvalidArgument: one cannot be read."""
    keys = [signatures.read_key(text, "") for text in requirement.key_texts]
    for path in requirement.key_paths:
        try:
            with open(path, "rb") as file:
                content = file.read(signatures.MAX_KEY + 1)
        except OSError as error:
            raise InvalidArgument(f"trust policy: key {path}: {error.strerror}") from error
        keys.append(signatures.read_key(content, os.path.basename(path)))
    if requirement.not_after is None:
        return keys
    last = requirement.not_after.astimezone(UTC)
    return [replace(key, not_after=min(last, key.not_after or last)) for key in keys]


def _signer(
    repository: Repository, found: _Signatures, requirement: Requirement, keys: Sequence[Key]
) -> tuple[Key, str]:
    """Who signed the image as the requirement wants it. Raises Untrusted."""
    image = repository.reference
    if not found.found:
        raise Untrusted(f"{image.familiar()}: it is not signed")
    reasons: list[str] = []
    for digest, payload, signature in found.found:
        try:
            key, name = signatures.check(payload, signature, digest, keys, datetime.now(UTC))
        except BadSignature as error:
            reasons.append(str(error))
            continue
        if requirement.identity.fits(name, image):
            return key, name
        reasons.append(f"it is for the name {name[:120]!r}")
    said = "; ".join(dict.fromkeys(reasons))
    raise Untrusted(f"{image.familiar()}: no signature of it is good: {said[:600]}")


async def _look(repository: Repository, targets: Sequence[Descriptor]) -> _Signatures:
    """Read the signatures of an image: those of the index first."""
    found = _Signatures()
    for digest in dict.fromkeys(target.digest for target in targets):
        await _read_tag(repository, digest, found)
        for entry in (await _referrers(repository, digest))[:_MAX_REFERRERS]:
            await _read_manifest(repository, entry, digest, found)
    return found


async def _read_tag(repository: Repository, digest: Digest, found: _Signatures) -> None:
    try:
        resolved = await repository.resolve_tag(f"{digest.algorithm}-{digest.hex}.sig")
    except (ImageNotFound, NotFound):
        return
    await _read_manifest(repository, resolved.descriptor, digest, found)


async def _referrers(repository: Repository, digest: Digest) -> list[Descriptor]:
    entries = await repository.referrers(digest)
    return [entry for entry in entries if entry.artifact_type in ("", ARTIFACT_TYPE)]


async def _read_manifest(
    repository: Repository, target: Descriptor, digest: Digest, found: _Signatures
) -> None:
    if not mediatypes.is_manifest(target.media_type):
        return
    manifest = Manifest.parse(await repository.manifest(target), target.media_type)
    for layer in manifest.layers:
        signature = layer.annotations.get(SIGNATURE)
        if layer.media_type != PAYLOAD_TYPE or not signature or layer.size > MAX_PAYLOAD:
            continue
        if len(found.found) == MAX_SIGNATURES:
            return
        found.found.append((digest, await _payload(repository, layer), signature))


class _Memory:
    """Where a payload goes."""

    def __init__(self) -> None:
        self.offset = 0
        self.data = bytearray()

    async def write(self, data: bytes) -> None:
        self.data += data
        self.offset += len(data)


async def _payload(repository: Repository, layer: Descriptor) -> bytes:
    memory = _Memory()
    await repository.blob(layer, memory, lambda _: None)
    digester = Digester(layer.digest.algorithm)
    digester.update(memory.data)
    if digester.digest() != layer.digest:
        raise DigestMismatch(f"verify signature: the digest of a payload is not {layer.digest}")
    return bytes(memory.data)
