"""The filters of `docker images`: pure. Values of one key: any may match; keys: all must.

`reference` is a shell pattern for a familiar name with or without its tag, `dangling` asks for
images without a name, `label` wants every value, `before` and `since` name images, `until` a time.
An unknown key is refused.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from sampan.api.docker import ages
from sampan.errors import ImageNotFound, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sampan.images.model import Image

_KEYS = frozenset(("reference", "dangling", "label", "before", "since", "until"))
_TRUE = frozenset(("1", "true", "True", "t"))
_FALSE = frozenset(("0", "false", "False", "f"))


def select(
    images: Sequence[Image], filters: Mapping[str, Sequence[str]], now_ns: int
) -> list[Image]:
    """The images that match.

    Raises:
        InvalidArgument: a key or value is unknown.
        ImageNotFound: `before` or `since` name none.
    """
    if unknown := filters.keys() - _KEYS:
        raise InvalidArgument(f"invalid filter '{min(unknown)}'")
    kept = list(images)
    for key, values in filters.items():
        for value in values if key != "reference" else ():
            kept = [image for image in kept if _matches(image, key, value, images, now_ns)]
    if patterns := filters.get("reference"):
        kept = [image for image in kept if _is_called(image, patterns)]
    return kept


def truth(values: Sequence[str], key: str) -> bool | None:
    """The boolean that a filter holds; None when it is not given.

    Raises:
        InvalidArgument: it is no boolean, or two different ones.
    """
    if not values:
        return None
    found = {value in _TRUE for value in values}
    if len(found) > 1 or not set(values) <= _TRUE | _FALSE:
        raise InvalidArgument(f"invalid filter '{key}={','.join(values)}'")
    return found.pop()


def _matches(image: Image, key: str, value: str, images: Sequence[Image], now_ns: int) -> bool:
    created = ages.unix_seconds(image.created)
    match key:
        case "dangling":
            return truth([value], key) is not bool(image.names)
        case "label":
            name, has_value, wanted = value.partition("=")
            found = image.config.config.labels.get(name)
            return found is not None and (not has_value or found == wanted)
        case "until":
            return created * ages.SECOND < ages.parse_moment(value, now_ns)
        case "before":
            return created < _created(value, images)
        case _:
            return created > _created(value, images)


def _created(name: str, images: Sequence[Image]) -> int:
    for image in images:
        if name in image.names or f"{name}:latest" in image.names or _has_id(image, name):
            return ages.unix_seconds(image.created)
    raise ImageNotFound(f"No such image: {name}")


def _has_id(image: Image, name: str) -> bool:
    return len(name) >= 2 and (image.id.startswith(name) or image.id.startswith(f"sha256:{name}"))


def _is_called(image: Image, patterns: Sequence[str]) -> bool:
    for name in image.names:
        repository = name.rpartition(":")[0]
        if any(fnmatchcase(name, p) or fnmatchcase(repository, p) for p in patterns):
            return True
    return False
