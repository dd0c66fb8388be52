"""/system/check and /system/collect: the store looked after. Not in Docker's API."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sampan.api.docker import answers, pictures
from sampan.errors import InvalidArgument
from sampan.images.retention import Policy
from sampan.wire import images
from sampan.wire import system as bodies

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call

_AGE: Final = re.compile(r"(?:[0-9]{1,9}[dhms])+", re.ASCII)
_PART: Final = re.compile(r"([0-9]+)([dhms])", re.ASCII)
_SECONDS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_SIZE: Final = re.compile(r"([0-9]{1,15})([kmgt]?)b?", re.IGNORECASE)
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


async def check(call: Call) -> StreamResponse:
    """POST /system/check?repair"""
    found = await call.engine.images.check(repair=call.flag("repair"))
    return answers.json(
        bodies.StoreCheck(
            blobs=found.blobs,
            size=found.size,
            snapshots=found.snapshots,
            images=found.images,
            problems=[
                bodies.Problem(
                    kind=one.kind, subject=str(one.subject), detail=one.detail, mended=one.mended
                )
                for one in found.problems
            ],
        )
    )


async def collect(call: Call) -> StreamResponse:
    """POST /system/collect?unusedFor&maxSize&minFree: without any, the configuration's policy"""
    policy = Policy(
        unused_for=_age(call.text("unusedFor")),
        max_size=_size(call.text("maxSize"), "maxSize"),
        min_free=_size(call.text("minFree"), "minFree"),
    )
    done = await call.engine.images.collect(None if policy.is_empty else policy)
    return answers.json(
        images.ImagesPruned(
            images_deleted=pictures.removed(done.removed) or None, space_reclaimed=done.reclaimed
        )
    )


def _age(text: str) -> int:
    """`7d`, `36h`, `1h30m` in seconds."""
    if text and _AGE.fullmatch(text) is None:
        raise InvalidArgument(f"unusedFor: {text[:40]!r} is not an age like 7d or 36h")
    return sum(int(count) * _SECONDS[unit] for count, unit in _PART.findall(text))


def _size(text: str, key: str) -> int:
    """`10g`, `512m`, or bytes."""
    if not text:
        return 0
    match = _SIZE.fullmatch(text)
    if match is None or not text.isascii():
        raise InvalidArgument(f"{key}: {text[:40]!r} is not a size like 10g")
    return int(match[1]) * _UNITS[match[2].lower()]


PATHS = {("POST", "/system/check"): check, ("POST", "/system/collect"): collect}
