"""The small init of `--init`: a static program, shown read-only in the container.

It must be static: the container's own loader and libraries are no business of ours. Debian's
catatonit, tini-static and docker-init all are; a dynamic tini is passed over. Where the host has
none of them, ours is written (`kernel.reaper`).
"""

from __future__ import annotations

import os
import struct
from functools import cache

from sampan.errors import FailedPrecondition
from sampan.kernel import reaper

TARGET = "/sbin/docker-init"
CANDIDATES = (
    "/usr/libexec/podman/catatonit",
    "/usr/bin/catatonit",
    "/usr/bin/tini-static",
    "/usr/bin/docker-init",
    "/usr/bin/tini",
)
_INTERPRETER = 3  # PT_INTERP of elf(5)


def find(wanted: str, own: str) -> str:
    """The path of the program on the host: `wanted`, or else what is installed, or else ours, which
    is put at `own`.

    Raises:
        FailedPrecondition: there is none for this machine, or `wanted` is not one.
    """
    if wanted and not _is_fit(wanted):
        raise FailedPrecondition(f"--init: {wanted} of the settings is not a static program")
    return wanted or _installed() or _write(own)


@cache
def _installed() -> str:
    for path in CANDIDATES:
        if _is_fit(path):
            return path
    return ""


def _is_fit(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK) and is_static(path)


def _write(own: str) -> str:
    """Made anew unless it is there as it should be; whoever executes it keeps what he has."""
    if not reaper.is_available():
        raise FailedPrecondition(
            "--init needs a static init program on the host: install catatonit or tini-static"
        )
    content = reaper.image()
    try:
        with open(own, "rb") as file:
            if file.read(len(content) + 1) == content:
                return own
    except FileNotFoundError:
        pass
    with open(f"{own}.new", "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), 0o555)
    os.rename(f"{own}.new", own)
    return own


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
