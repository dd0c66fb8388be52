"""The filters of image lists: dangling, label, label!, reference, before, since, until.

Values of one filter are alternatives, except labels, which must all be there (`label!`: none of
them); filters of different names must all hold. `until` is a moment in nanoseconds since 1970. An
unknown filter is an error and not ignored, as in dockerd.
"""

from __future__ import annotations

import fnmatch
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from sampan.errors import InvalidArgument
from sampan.spec.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sampan.images.model import Image

    Filters = Mapping[str, Sequence[str]]

_KNOWN: Final = frozenset(("before", "dangling", "label", "label!", "reference", "since", "until"))
_TRUE: Final = frozenset(("1", "true", "True", "TRUE", "t", "T"))
_FALSE: Final = frozenset(("0", "false", "False", "FALSE", "f", "F"))


def chosen(
    images: Sequence[Image], filters: Filters | None, find: Callable[[str], Image]
) -> list[Image]:
    """The images that pass. `find` gives the image that `before` and `since` name.

    Raises:
        InvalidArgument: an unknown filter, or a value that is none.
    """
    found = list(images)
    for name, values in (filters or {}).items():
        if name not in _KNOWN:
            raise InvalidArgument(f"invalid filter {name[:80]!r}")
        found = [image for image in found if _passes(image, name, values, find)]
    wanted = (filters or {}).get("reference")
    return [_named(image, wanted) for image in found] if wanted else found


def _named(image: Image, patterns: Sequence[str]) -> Image:
    """The image with those of its names that were asked for."""
    names = tuple(n for n in image.names if any(_matches(n, one) for one in patterns))
    repositories = {Reference.parse(name).familiar_name() for name in names}
    digests = tuple(one for one in image.digests if one.rpartition("@")[0] in repositories)
    return replace(image, names=names, digests=digests)


def flag(filters: Filters | None, name: str, *, default: bool) -> bool:
    """The value of a filter that is true or false.

    Raises:
        InvalidArgument: it is neither.
    """
    values = frozenset((filters or {}).get(name, ()))
    if not values:
        return default
    if values <= _TRUE:
        return True
    if values <= _FALSE:
        return False
    raise InvalidArgument(f"invalid filter '{name}={sorted(values)}': true or false is expected")


def _passes(image: Image, name: str, values: Sequence[str], find: Callable[[str], Image]) -> bool:
    match name:
        case "dangling":
            return flag({name: values}, name, default=True) is not bool(image.names)
        case "label":
            return all(_has_label(image, value) for value in values)
        case "label!":
            return not any(_has_label(image, value) for value in values)
        case "until":
            return all(_created_ns(image) < _moment(value) for value in values)
        case "reference":
            return any(_matches(name, value) for name in image.names for value in values)
        case "before":
            return all(image.created < find(value).created for value in values)
        case _:
            return all(image.created > find(value).created for value in values)


def _created_ns(image: Image) -> int:
    try:
        return int(datetime.fromisoformat(image.created).timestamp() * 1e9)
    except (ValueError, OverflowError):
        return 0


def _moment(text: str) -> int:
    if not (text.isascii() and text.removeprefix("-").isdigit()):  # a long age began before 1970
        raise InvalidArgument(f"invalid filter 'until={text[:80]}': it is not a moment")
    return int(text)


def _has_label(image: Image, wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    labels = image.config.config.labels
    return key in labels and (not equals or labels[key] == value)


def _matches(name: str, pattern: str) -> bool:
    """Whether a familiar name, with or without its tag, fits a shell pattern, part by part."""
    reference = Reference.parse(name)
    forms = (name, reference.familiar_name(), str(reference), reference.name)
    wanted = pattern.split("/")
    return any(
        len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))
        for parts in (form.split("/") for form in forms)
    )
