"""How much of the disk content from outside may still take.

Blobs and layers come from strangers, and a small one may unpack to more than there is. So a part of
the disk is kept from them: what runs already goes on writing when a pull has met its end.
"""

from __future__ import annotations

import os
from typing import Final

_KEPT: Final = 256 << 20  # bytes, or a thirty-second of a small disk
_SHARE: Final = 32


def room(fd: int) -> int:
    """Bytes that may still come to the file system of the descriptor `fd`; negative below it."""
    status = os.fstatvfs(fd)
    kept = min(_KEPT, status.f_blocks * status.f_frsize // _SHARE)
    return status.f_bavail * status.f_frsize - kept
