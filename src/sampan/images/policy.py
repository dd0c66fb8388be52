"""The trust policy: which images may come here, and what must vouch for them.

The file has the form of containers-policy.json: `default`, and below `transports` the scopes of
`docker` (registries) and of archives. The most specific scope counts: name with tag or digest, name
without, its parents, the registry, `*.domain`, then the transport's "" and the default. All
requirements of a list must hold:

    {"type": "insecureAcceptAnything"}
    {"type": "reject"}
    {"type": "sigstoreSigned", "keyPath": ..., "signedIdentity": {"type": "matchRepository"}}

What we do not understand (another type, an unknown member, a key that cannot be read) is an error,
and nothing is pulled while there is one: a policy must not mean less than it says.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sampan.errors import InvalidArgument
from sampan.spec import documents
from sampan.spec.documents import Fields
from sampan.spec.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_POLICY: Final = 1 << 20
_MAX_KEYS: Final = 64
_TOP: Final = frozenset(("default", "transports"))
_SIGNED: Final = frozenset("type keyPath keyPaths keyData keyDatas signedIdentity notAfter".split())
_IDENTITY: Final = frozenset("type dockerReference dockerRepository prefix signedPrefix".split())
REGISTRIES: Final = "docker"


class Kind(StrEnum):
    """What a requirement asks."""

    ACCEPT = "insecureAcceptAnything"
    REJECT = "reject"
    SIGNED = "sigstoreSigned"


class Match(StrEnum):
    """How the name in a signature must fit the name of the image."""

    REPOSITORY = "matchRepository"
    EXACT = "matchExact"
    DIGEST_OR_EXACT = "matchRepoDigestOrExact"
    THIS = "exactReference"
    THIS_REPOSITORY = "exactRepository"
    REMAP = "remapIdentity"


@dataclass(frozen=True, slots=True)
class Identity:
    """The rule for names. cosign signs a repository without a tag, so that is the default."""

    match: Match = Match.REPOSITORY
    given: str = ""
    prefix: str = ""
    signed_prefix: str = ""

    def fits(self, signed: str, image: Reference) -> bool:
        """Whether a signature for the name `signed` vouches for `image`."""
        try:
            name = Reference.parse(signed)
        except InvalidArgument:
            return False
        match self.match:
            case Match.REPOSITORY:
                return name.name == image.name
            case Match.EXACT:
                return name == image and image.tag is not None
            case Match.DIGEST_OR_EXACT:
                if image.digest is not None and image.tag is None:
                    return name.name == image.name
                return (name.name, name.tag) == (image.name, image.tag)
            case Match.THIS:
                return name == Reference.parse(self.given)
            case Match.THIS_REPOSITORY:
                return name.name == Reference.parse(self.given).name
            case Match.REMAP:
                return name.name == self._remapped(image.name)

    def _remapped(self, name: str) -> str:
        if name == self.prefix or name.startswith(self.prefix.rstrip("/") + "/"):
            return self.signed_prefix + name[len(self.prefix) :]
        return name


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement. `keys` are PEM texts or paths of files; one of them must have signed."""

    kind: Kind
    key_paths: tuple[str, ...] = ()
    key_texts: tuple[bytes, ...] = ()
    identity: Identity = Identity()
    not_after: datetime | None = None


Requirements = tuple[Requirement, ...]
_ACCEPT: Final = (Requirement(Kind.ACCEPT),)


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole policy."""

    default: Requirements = _ACCEPT
    transports: dict[str, dict[str, Requirements]] = field(default_factory=dict, hash=False)

    @classmethod
    def parse(cls, content: bytes) -> Policy:
        """The policy in the bytes of a file.

        Raises:
            InvalidArgument: something in it is not understood.
        """
        fields = documents.parse(content, "policy", _TOP, MAX_POLICY)
        _only(fields.get("default"), list, "policy.default")
        unknown = _keys(fields, _TOP)
        if unknown:
            raise InvalidArgument(f"policy: unknown: {unknown[0][:80]!r}")
        transports = fields.get("transports") or {}
        _only(transports, dict, "policy.transports")
        return cls(
            default=_requirements(fields.get("default"), "policy.default"),
            transports={name: _scopes(name, scopes) for name, scopes in transports.items()},
        )

    def of_image(self, image: Reference) -> tuple[str, Requirements]:
        """The scope that counts for an image of a registry, and what it asks."""
        scopes = self.transports.get(REGISTRIES, {})
        for scope in _scopes_of(image):
            if scope in scopes:
                return scope, scopes[scope]
        return "default", self.default

    def of_archive(self, transport: str) -> Requirements:
        """What is asked of an archive (`docker-archive`, `oci-archive`)."""
        return self.transports.get(transport, {}).get("", self.default)


def _scopes_of(image: Reference) -> Sequence[str]:
    """From the most specific to the least."""
    found = [str(image)] if image.tag is not None or image.digest is not None else []
    parts = image.name.split("/")
    found += ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
    labels = image.registry.partition(":")[0].split(".")
    found += ["*." + ".".join(labels[start:]) for start in range(1, len(labels))]
    return [*found, ""]


def _scopes(transport: str, scopes: Any) -> dict[str, Requirements]:
    place = f"policy.transports.{transport}"
    _only(scopes, dict, place)
    return {scope: _requirements(value, f"{place}.{scope}") for scope, value in scopes.items()}


def _requirements(value: Any, place: str) -> Requirements:
    _only(value, list, place)
    if not value:
        raise InvalidArgument(f"{place}: at least one requirement is needed")
    return tuple(_requirement(entry, place) for entry in value)


def _requirement(value: Any, place: str) -> Requirement:
    fields = Fields(value, place, _SIGNED)
    try:
        kind = Kind(fields.text("type"))
    except ValueError:
        raise InvalidArgument(f"{place}: {fields.text('type')[:80]!r} is not supported") from None
    allowed = _SIGNED if kind is Kind.SIGNED else frozenset(("type",))
    if unknown := _keys(fields, allowed):
        raise InvalidArgument(f"{place}: {unknown[0][:80]!r} is not supported")
    if kind is not Kind.SIGNED:
        return Requirement(kind)
    paths = (*_one(fields, "keyPath"), *fields.texts("keyPaths", _MAX_KEYS))
    texts = (*_one(fields, "keyData"), *fields.texts("keyDatas", _MAX_KEYS))
    if not paths and not texts:
        raise InvalidArgument(f"{place}: a signature is asked for, and no key is given")
    return Requirement(
        kind,
        paths,
        tuple(_decoded(text, place) for text in texts),
        _identity(fields.get("signedIdentity"), place),
        _moment(fields.optional("notAfter"), place),
    )


def _identity(value: Any, place: str) -> Identity:
    if value is None:
        return Identity()
    fields = Fields(value, f"{place}.signedIdentity", _IDENTITY)
    if unknown := _keys(fields, _IDENTITY):
        raise InvalidArgument(f"{place}.signedIdentity: {unknown[0][:80]!r} is not supported")
    try:
        match = Match(fields.text("type"))
    except ValueError:
        raise InvalidArgument(f"{place}.signedIdentity: unknown type") from None
    given = fields.text("dockerReference", "") or fields.text("dockerRepository", "")
    identity = Identity(match, given, fields.text("prefix", ""), fields.text("signedPrefix", ""))
    if match in (Match.THIS, Match.THIS_REPOSITORY):
        Reference.parse(given)
    if match is Match.REMAP and not (identity.prefix and identity.signed_prefix):
        raise InvalidArgument(f"{place}.signedIdentity: prefix and signedPrefix are needed")
    return identity


def _moment(text: str | None, place: str) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidArgument(f"{place}.notAfter: {text[:60]!r} is not a time with its zone")
    return moment


def _one(fields: Fields, key: str) -> tuple[str, ...]:
    text = fields.optional(key)
    return () if text is None else (text,)


def _decoded(text: str, place: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidArgument(f"{place}: key data is not base64") from None


def _keys(fields: Fields, allowed: frozenset[str]) -> list[str]:
    return sorted(fields.names_of() - allowed)


def _only(value: Any, kind: type, place: str) -> None:
    if not isinstance(value, kind):
        word = "an object" if kind is dict else "a list"
        raise InvalidArgument(f"{place}: {word} is expected")
