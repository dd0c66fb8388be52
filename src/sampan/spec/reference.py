"""Image references: `[registry/]repository[:tag][@digest]`.

The grammar and the normalisation are those of the reference package that Docker and containerd
share: a first component that could be a host name (it has a dot, a colon, an upper-case letter, or
is `localhost`) is the registry, otherwise the registry is `docker.io`, where single names lie below
`library/`. The canonical form names everything; the familiar form leaves the defaults out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from sampan.errors import InvalidArgument
from sampan.spec.digest import Digest

DEFAULT_REGISTRY: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
MAX_NAME: Final = 255
_MAX_TEXT: Final = 1024

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY: Final = re.compile(
    rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?", re.ASCII
)
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_IDENTIFIER: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised image reference. `str()` is the canonical form."""

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The reference that `text` spells.

        Raises:
            InvalidArgument: it does not follow the grammar.
        """
        if len(text) > _MAX_TEXT:
            raise _invalid(text, "it is too long")
        name, at, digest_text = text.partition("@")
        digest = Digest.parse(digest_text) if at else None
        name, tag = _split_tag(name)
        if tag is not None and _TAG.fullmatch(tag) is None:
            raise _invalid(text, "the tag is not [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
        if _IDENTIFIER.fullmatch(name):
            raise _invalid(text, "a name of 64 hexadecimal characters would look like an id")
        registry, repository = _split_registry(name)
        _check_name(text, registry, repository)
        return cls(registry, repository, tag, digest)

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def target(self) -> str:
        """What the registry is asked for: the digest where there is one, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG

    def with_default_tag(self) -> Reference:
        """This reference, with the tag `latest` when it has neither tag nor digest."""
        if self.tag is not None or self.digest is not None:
            return self
        return replace(self, tag=DEFAULT_TAG)

    def with_digest(self, digest: Digest) -> Reference:
        """The name of this reference at `digest`, without the tag."""
        return replace(self, tag=None, digest=digest)

    def familiar_name(self) -> str:
        """The name as people write it, without tag and digest: `busybox`."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        return self.repository.removeprefix("library/")

    def familiar(self) -> str:
        """The reference as people write it: `busybox:latest`."""
        return self.familiar_name() + self._suffix()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        return f"{tag}@{self.digest}" if self.digest is not None else tag

    def __str__(self) -> str:
        return self.name + self._suffix()


def _split_tag(name: str) -> tuple[str, str | None]:
    """Split at the last colon, unless it belongs to the port of a registry."""
    head, colon, tail = name.rpartition(":")
    if not colon or "/" in tail:
        return name, None
    return head, tail


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_host = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not is_host:
        first, rest = DEFAULT_REGISTRY, name
    if first in ("index.docker.io", "registry-1.docker.io"):
        first = DEFAULT_REGISTRY
    if first == DEFAULT_REGISTRY and "/" not in rest:
        rest = f"library/{rest}"
    return first, rest


def _check_name(text: str, registry: str, repository: str) -> None:
    if repository != repository.lower():
        raise _invalid(text, "the repository name must be lower case")
    if _REGISTRY.fullmatch(registry) is None:
        raise _invalid(text, "the registry is not a host name with an optional port")
    if _REPOSITORY.fullmatch(repository) is None:
        raise _invalid(text, "the repository has a character or a form that is not allowed")
    if len(registry) + 1 + len(repository) > MAX_NAME:
        raise _invalid(text, f"the name is longer than {MAX_NAME} characters")


def _invalid(text: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"invalid reference {text[:160]!r}: {why}")
