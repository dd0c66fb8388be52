"""The filter `ancestor` of container lists: containers of an image, and of images made from it.

Images do not say what they were made from. What is built on another one has all its layers and all
its history below its own, and so an image descends from every image whose layers and history are
the beginning of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.engine.filters import Filters
    from sampan.engine.imagery import Images
    from sampan.spec.image import ImageConfig


async def with_descendants(images: Images, filters: Filters) -> Filters:
    """The filters, with the ids of all images that an `ancestor` stands for in its place."""
    if "ancestor" not in filters:
        return filters
    meant: list[str] = []
    every = await images.list()
    for value in filters["ancestor"]:
        try:
            ancestor = await images.get(value)
        except (NotFound, InvalidArgument):
            meant.append(value)  # no image of today; a container may still have been made of it
            continue
        meant += [str(one.id) for one in every if descends(one.config, ancestor.config)]
    return {**filters, "ancestor": meant}


def descends(config: ImageConfig, ancestor: ImageConfig) -> bool:
    """Whether an image was made of the other, or is it."""
    return _begins(config.rootfs_diff_ids, ancestor.rootfs_diff_ids) and _begins(
        config.history, ancestor.history
    )


def _begins(whole: Sequence[object], start: Sequence[object]) -> bool:
    return whole[: len(start)] == start
