"""How the bytes of a layer are compressed, told from the first of them.

`detect` looks at the first bytes, as docker and containerd do: the media type of a layer is only a
hint, and its diff id decides in the end. What inflates is in `layers.inflate`, and with its
libraries in the workers alone.
"""

from __future__ import annotations

from enum import StrEnum

MAGIC_SIZE = 6
"""First bytes that are enough for `detect`."""


class Compression(StrEnum):
    """How the bytes of a layer are packed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    XZ = "xz"
    BZIP2 = "bzip2"


_MAGIC = (
    (b"\x1f\x8b\x08", Compression.GZIP),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
    (b"\xfd7zXZ\x00", Compression.XZ),
    (b"BZh", Compression.BZIP2),
)


def detect(head: bytes) -> Compression:
    """The compression of content that starts with `head` (`MAGIC_SIZE` bytes are enough)."""
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
        return Compression.ZSTD  # a skippable frame comes first
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return Compression.NONE
