"""Mounts that a kubelet asks for, checked; sources that are not there are made, as elsewhere.

An image's mount is the engine's: it keeps the image, and makes a view of it for the container.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING

from sampan.engine.model import Mount as EngineMount
from sampan.engine.model import MountType
from sampan.errors import InvalidArgument
from sampan.pods.model import Propagation

if TYPE_CHECKING:
    from sampan.pods.model import Mount


def checked(wanted: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """`wanted` with plain targets and real sources.

    Raises:
        InvalidArgument: a mount cannot be as it is asked for.
    """
    return tuple(_checked(mount) for mount in wanted)


def _checked(mount: Mount) -> Mount:
    target = mount.target
    if not target or "\0" in target or ".." in target.split("/"):
        raise InvalidArgument(f"mount on {target!r}: not a path of the container")
    target = posixpath.normpath("/" + target.lstrip("/"))
    if target == "/":
        raise InvalidArgument("mount on /: the root is the image's")
    if bool(mount.uids) is not bool(mount.gids):
        raise InvalidArgument(f"mount on {target}: mappings of users and groups belong together")
    if mount.image is not None:
        return _checked_image(replace(mount, target=target))
    if mount.recursive_read_only:
        _check_recursive(mount)
    return replace(mount, target=target, source=_source(mount))


def of_images(wanted: tuple[Mount, ...]) -> tuple[EngineMount, ...]:
    """Those of images, in the engine's words."""
    return tuple(
        EngineMount(
            type=MountType.IMAGE,
            target=mount.target,
            source=mount.image.image,
            subpath=mount.image_path,
            read_only=True,
        )
        for mount in wanted
        if mount.image is not None
    )


def _checked_image(mount: Mount) -> Mount:
    if mount.source:
        raise InvalidArgument(f"mount on {mount.target}: an image and a path of the node")
    if mount.image is None or not mount.image.image:
        raise InvalidArgument(f"mount on {mount.target}: the image is missing")
    if mount.uids:
        raise InvalidArgument(f"mount on {mount.target}: an image has the container's own ids")
    return mount


def _check_recursive(mount: Mount) -> None:
    if not mount.read_only:
        raise InvalidArgument(f"mount on {mount.target}: recursive_read_only needs readonly")
    if mount.propagation is not Propagation.PRIVATE:
        raise InvalidArgument(
            f"mount on {mount.target}: recursive_read_only needs private propagation"
        )


def _source(mount: Mount) -> str:
    if not mount.source.startswith("/") or "\0" in mount.source:
        raise InvalidArgument(f"mount on {mount.target}: host_path must be absolute")
    source = os.path.realpath(mount.source)
    if not os.path.lexists(source):
        try:
            os.makedirs(source, 0o755)
        except OSError as error:
            raise InvalidArgument(f"make mount source {source}: {error.strerror}") from error
    return source
