"""The small init of `--init`: one static program of the host, shown read-only in the container.

It must be static: the container's own loader and libraries are no business of ours. Debian's
catatonit, tini-static and docker-init all are; a dynamic tini is passed over.
"""

from __future__ import annotations

import os
import struct
from functools import cache

from sampan.errors import FailedPrecondition

TARGET = "/sbin/docker-init"
_CANDIDATES = (
    "/usr/libexec/podman/catatonit",
    "/usr/bin/catatonit",
    "/usr/bin/tini-static",
    "/usr/bin/docker-init",
    "/usr/bin/tini",
)
_INTERPRETER = 3  # PT_INTERP of elf(5)


@cache
def find() -> str:
    """The path of the program on the host.

    Raises:
        FailedPrecondition: there is none.
    """
    for path in _CANDIDATES:
        if os.access(path, os.X_OK) and is_static(path):
            return path
    raise FailedPrecondition(
        "--init needs a static init program on the host: install catatonit or tini-static"
    )


def is_static(path: str) -> bool:
    """Whether the file is a 64-bit ELF program that names no interpreter."""
    with open(path, "rb") as file:
        head = file.read(4096)
    if len(head) < 64 or head[:5] != b"\x7fELF\x02":
        return False
    start, size, count = struct.unpack_from("<Q14xHH", head, 32)
    kinds = [
        struct.unpack_from("<I", head, start + index * size)[0]
        for index in range(count)
        if start + index * size + 4 <= len(head)
    ]
    return bool(kinds) and _INTERPRETER not in kinds
