"""Signatures of images in cosign's form: a payload that names a digest, and keys that may vouch.

A signature is over the exact bytes of the payload: ECDSA on a NIST curve or RSA of PKCS #1 v1.5,
each with SHA-256, or Ed25519. Keys are PEM: public keys, or certificates, which must be valid now.
The library for it is imported when the first key is read: most engines never have one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sampan.errors import InvalidArgument
from sampan.spec import documents
from sampan.spec.documents import Fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.spec.digest import Digest

MAX_PAYLOAD: Final = 64 << 10
MAX_KEY: Final = 64 << 10
MIN_RSA_BITS: Final = 2048
TYPE: Final = "cosign container image signature"
_TOP: Final = frozenset(("critical", "optional"))
_CRITICAL: Final = frozenset("identity image type".split())
_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")


class BadSignature(InvalidArgument):
    """A signature does not vouch for the image; the text says why."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key. `name` tells people which: its file, or the hash of the key."""

    name: str
    fingerprint: str
    public: Any
    not_after: datetime | None = None
    not_before: datetime | None = None

    def verify(self, signature: bytes, payload: bytes, now: datetime | None = None) -> None:
        """Check a signature over the bytes of a payload.

        Raises:
            BadSignature: it is not this key's, or the key may not be used any more.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

        moment = now or datetime.now(UTC)
        if self.not_after is not None and moment > self.not_after:
            raise BadSignature(f"the key {self.name} has expired at {self.not_after.isoformat()}")
        if self.not_before is not None and moment < self.not_before:
            raise BadSignature(f"the key {self.name} is not valid yet")
        try:
            if isinstance(self.public, ec.EllipticCurvePublicKey):
                self.public.verify(signature, payload, ec.ECDSA(hashes.SHA256()))
            elif isinstance(self.public, rsa.RSAPublicKey):
                self.public.verify(signature, payload, padding.PKCS1v15(), hashes.SHA256())
            else:
                self.public.verify(signature, payload)
        except InvalidSignature:
            raise BadSignature(f"it is not of the key {self.name}") from None


def read_key(content: bytes, name: str) -> Key:
    """The key in a PEM file, or in a certificate.

    Raises:
        InvalidArgument: there is none, or it is of a kind or size that is not trusted.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    if len(content) > MAX_KEY:
        raise InvalidArgument(f"key {name}: larger than {MAX_KEY} bytes")
    after = before = None
    try:
        if b"BEGIN CERTIFICATE" in content:
            certificate = x509.load_pem_x509_certificate(content)
            public: Any = certificate.public_key()
            after = certificate.not_valid_after_utc
            before = certificate.not_valid_before_utc
        else:
            public = serialization.load_pem_public_key(content)
        encoded = public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidArgument(f"key {name}: it is not a public key in PEM") from error
    _check_kind(public, name)
    fingerprint = "sha256:" + hashlib.sha256(encoded).hexdigest()
    return Key(name or fingerprint[:19], fingerprint, public, after, before)


def _check_kind(public: Any, name: str) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    match public:
        case ed25519.Ed25519PublicKey():
            return
        case ec.EllipticCurvePublicKey() if public.curve.name in _CURVES:
            return
        case rsa.RSAPublicKey() if public.key_size >= MIN_RSA_BITS:
            return
        case rsa.RSAPublicKey():
            raise InvalidArgument(f"key {name}: RSA of {public.key_size} bits is too short")
        case _:
            raise InvalidArgument(f"key {name}: only ECDSA, RSA and Ed25519 are known")


def signed_name(payload: bytes, digest: Digest) -> str:
    """The name that a payload vouches for, which must be about `digest`.

    Raises:
        BadSignature: it is about something else, or is no payload.
    """
    try:
        top = documents.parse(payload, "signature payload", _TOP, MAX_PAYLOAD)
        critical = Fields(top.get("critical"), "critical", _CRITICAL)
        kind = critical.text("type")
        image = Fields(critical.get("image"), "image", frozenset(("docker-manifest-digest",)))
        identity = Fields(critical.get("identity"), "identity", frozenset(("docker-reference",)))
        signed = image.text("docker-manifest-digest")
        name = identity.text("docker-reference")
    except InvalidArgument as error:
        raise BadSignature(str(error)) from None
    if kind != TYPE:
        raise BadSignature(f"its type is {kind[:60]!r}")
    if signed != digest:
        raise BadSignature(f"it is for the digest {signed[:80]}")
    return name


def decode(text: str) -> bytes:
    """The bytes of a signature as annotations have it. Raises BadSignature."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadSignature("it is not base64") from None


def check(
    payload: bytes, signature: str, digest: Digest, keys: Sequence[Key], now: datetime | None = None
) -> tuple[Key, str]:
    """Check one signature: the key that made it, and the name that it vouches for.

    Raises:
        BadSignature: no key made it, or it is about something else.
    """
    raw = decode(signature)
    failure = BadSignature("there is no key to check it with")
    for key in keys:
        try:
            key.verify(raw, payload, now)
        except BadSignature as error:
            failure = error
            continue
        return key, signed_name(payload, digest)
    raise failure
