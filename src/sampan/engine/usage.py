"""What containers take on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import NotFound

if TYPE_CHECKING:
    from sampan.engine.model import Container
    from sampan.engine.services import Services


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes: `writable` is what the container itself wrote, `total` that and its image."""

    writable: int
    total: int


async def sizes(services: Services, container: Container) -> Sizes:
    """Measure one container; the image's part is known from its unpacking."""
    try:
        writable = await services.snapshots.written(container.id)
    except NotFound:  # it runs a directory of the host as it is
        writable = 0
    if not container.image_id:
        return Sizes(writable, writable)
    try:
        image = await services.images.get(container.image_id)
    except NotFound:  # removed by force
        return Sizes(writable, writable)
    return Sizes(writable, writable + image.size)
