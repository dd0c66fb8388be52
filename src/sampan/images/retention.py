"""What may go when nobody asked for it: images that were not used for long, or for long enough.

A policy is the administrator's; without one nothing but unnamed content is ever collected. Images
that a container has, and those whose names the policy keeps, stay whatever else it says. The rest
goes in the order in which it was last used, the oldest first: all that is older than the age, and
as many more as it takes to get the store below its size and the disk above its free space.
"""

from __future__ import annotations

import fnmatch
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sampan.spec.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sampan.images.model import Image

_SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Bounds; 0 is none. Sizes in bytes, `unused_for` in seconds, `keep` patterns of names."""

    unused_for: int = 0
    max_size: int = 0
    min_free: int = 0
    keep: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it asks for nothing."""
        return not (self.unused_for or self.max_size or self.min_free)


@dataclass(frozen=True, slots=True)
class Situation:
    """How full it is. `used` is image id -> nanoseconds since 1970."""

    size: int  # bytes of all images
    free: int  # bytes of the disk
    used: Mapping[str, int]
    now_ns: int = 0


def choose(
    images: Iterable[Image], policy: Policy, situation: Situation, in_use: frozenset[str]
) -> Sequence[Image]:
    """The images that go, in the order in which they go."""
    now = situation.now_ns or time.time_ns()
    candidates = [image for image in images if image.id not in in_use and not _kept(image, policy)]
    candidates.sort(key=lambda image: situation.used.get(image.id, 0))
    size, free = situation.size, situation.free
    chosen: list[Image] = []
    for image in candidates:
        age = (now - situation.used.get(image.id, 0)) // _SECOND
        too_old = policy.unused_for and age > policy.unused_for
        too_full = (policy.max_size and size > policy.max_size) or (
            policy.min_free and free < policy.min_free
        )
        if too_old or too_full:
            chosen.append(image)
            size -= image.size
            free += image.size
    return chosen


def _kept(image: Image, policy: Policy) -> bool:
    return any(_matches(name, pattern) for name in image.names for pattern in policy.keep)


def _matches(name: str, pattern: str) -> bool:
    reference = Reference.parse(name)
    forms = (name, reference.familiar_name(), str(reference), reference.name)
    return any(fnmatch.fnmatchcase(form, pattern) for form in forms)
