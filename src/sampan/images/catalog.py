"""Names: which reference leads to which image.

A name in the store is a canonical reference with a tag, or with the digest of its target. The
latter kind keeps an image whose tag moved away, as `busybox@sha256:...`, until it is pruned; it is
never what `rmi NAME` alone leaves behind.

What a user types is looked up as dockerd does: a name (with the tag `latest` by default), a name at
a digest, a whole id, or the beginning of an id that is no other image's beginning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from sampan.errors import ImageNotFound, InvalidArgument
from sampan.spec.reference import Reference
from sampan.store import images

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.spec.digest import Digest
    from sampan.spec.image import Descriptor
    from sampan.store.database import Connection

# Every look-up reads every name; the same few are parsed again and again.
_parse = lru_cache(maxsize=4096)(Reference.parse)
_ID: Final = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Name:
    """A stored name and where it points."""

    reference: Reference
    target: Descriptor

    @property
    def tagged(self) -> bool:
        """Whether it is a tag, and not what keeps an image whose tag moved."""
        return self.reference.digest is None

    def at_digest(self) -> str:
        """The familiar name at the digest: `busybox@sha256:...`."""
        return f"{self.reference.familiar_name()}@{self.target.digest}"


def names(conn: Connection) -> list[Name]:
    """All names."""
    return [Name(_parse(row.name), row.target) for row in images.list(conn)]


def point(conn: Connection, reference: Reference, target: Descriptor) -> bool:
    """Make a name lead to `target`; whether that is a change.

    An image that loses its last name by this keeps one with its digest.
    """
    before = images.put(conn, str(reference), target)
    if before is None:
        return True
    old = before.target
    if old.digest == target.digest:
        return False
    if not images.by_digest(conn, old.digest):
        images.put(conn, str(reference.with_digest(old.digest)), old)
    return True


def check_tag(reference: Reference) -> None:
    """Raises InvalidArgument where a name is none that a user may give."""
    if reference.digest is not None:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    if reference.familiar_name() in ("sha256", "sha384", "sha512"):
        raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")


def find(every: Iterable[Name], text: str) -> Name | None:
    """The name that `text` means as a reference, None when there is none."""
    try:
        wanted = Reference.parse(text)
    except InvalidArgument:
        return None
    if wanted.digest is not None:
        return next(
            (
                name
                for name in every
                if name.reference.name == wanted.name and name.target.digest == wanted.digest
            ),
            None,
        )
    wanted = wanted.with_default_tag()
    return next((name for name in every if name.reference == wanted), None)


def tags_of(every: Iterable[Name], text: str) -> list[str]:
    """All tags of a name that was given without one; else what was given."""
    try:
        wanted = Reference.parse(text)
    except InvalidArgument:
        return [text]
    if wanted.tag is not None or wanted.digest is not None:
        return [text]
    tags = [n for n in every if n.tagged and n.reference.name == wanted.name]
    return [name.reference.familiar() for name in tags] or [text]


def is_meant(name: Name, text: str) -> bool:
    """Whether `text` is this tag, and not an id or a digest that leads to the same image."""
    try:
        return name.tagged and name.reference == Reference.parse(text)
    except InvalidArgument:
        return False


def find_id(ids: Iterable[Digest], text: str) -> Digest | None:
    """The id that `text` is or begins, None when there is none.

    Raises:
        InvalidArgument: it begins more than one.
    """
    match = _ID.fullmatch(text)
    if match is None:
        return None
    found = {one for one in ids if one.hex.startswith(match[1])}
    if len(found) > 1:
        raise InvalidArgument(f"the id {text} is ambiguous: it begins {len(found)} images")
    return found.pop() if found else None


def no_such_image(text: str) -> ImageNotFound:
    """dockerd's words for an image that is not here."""
    try:
        shown = Reference.parse(text).with_default_tag().familiar()
    except InvalidArgument:
        shown = text[:160]
    return ImageNotFound(f"No such image: {shown}")
