"""Whiteouts: how a layer says that something below it is gone.

In an archive (OCI image-spec, "Whiteouts") an empty file `.wh.NAME` removes NAME of the layers
below, and `.wh..wh..opq` hides all that they have in its directory; what overlayfs has in their
place is `kernel.overlaymarks`. `classify` tells
what a base name means; the names it refuses once let a layer replace its own root.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from sampan.layers.limits import LayerError, show

PREFIX: Final = b".wh."
META_PREFIX: Final = b".wh..wh."  # AUFS's own files, which mean nothing to others
OPAQUE: Final = b".wh..wh..opq"


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
