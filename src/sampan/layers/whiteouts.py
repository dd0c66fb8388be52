"""Whiteouts: how a layer says that something below it is gone.

In an archive (OCI image-spec, "Whiteouts") an empty file `.wh.NAME` removes NAME of the layers
below, and `.wh..wh..opq` hides everything that they have in its directory. On overlayfs the first
is a character device 0:0 called NAME, the second an attribute of the directory. `classify` tells
what a base name means; the names it refuses once let a layer replace its own root.
"""

from __future__ import annotations

import os
import stat
from enum import Enum
from typing import Final

from sampan.layers.limits import LayerError, show

PREFIX: Final = b".wh."
META_PREFIX: Final = b".wh..wh."  # AUFS's own files, which mean nothing to others
OPAQUE: Final = b".wh..wh..opq"
OPAQUE_XATTR: Final = b"trusted.overlay.opaque"
_DEVICE: Final = 0  # makedev(0, 0)


class Whiteout(Enum):
    """What a base name with the whiteout prefix stands for."""

    REMOVED = "removed"
    OPAQUE = "opaque"
    IGNORED = "ignored"


def classify(name: bytes) -> Whiteout:
    """What the base name `name`, which starts with PREFIX, means.

    Raises:
        LayerError: it would remove nothing, "." or "..".
    """
    if name == OPAQUE:
        return Whiteout.OPAQUE
    if name.startswith(META_PREFIX):
        return Whiteout.IGNORED
    if name[len(PREFIX) :] in (b"", b".", b".."):
        raise LayerError(f"apply layer: whiteout of nothing: {show(name)}")
    return Whiteout.REMOVED


def is_whiteout(status: os.stat_result) -> bool:
    """Whether a file is a whiteout in overlayfs's form."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _DEVICE


def make(parent: int, name: bytes) -> None:
    """Put a whiteout called `name` into the directory `parent`."""
    os.mknod(name, stat.S_IFCHR, _DEVICE, dir_fd=parent)


def make_opaque(directory: int) -> None:
    """Hide what lower layers have in the directory behind `directory`, a readable descriptor."""
    os.setxattr(directory, OPAQUE_XATTR, b"y")


def is_opaque(directory: int) -> bool:
    """Whether the directory behind `directory` hides the layers below it."""
    try:
        return os.getxattr(directory, OPAQUE_XATTR) == b"y"
    except OSError:
        return False
