"""What a layer may be: the bounds, by name, and the one error that says it was not.

A layer comes from whoever pushed the image. Every number that its bytes can drive upwards has a
ceiling here: the size of a name, a header, a sparse map, the count of entries, the depth of the
tree, the bytes that come out of a few bytes that go in. The ceilings are far above what images in
use have, and low enough that a worker under its memory limit ends with `LayerError`, not with a
crash.
"""

from __future__ import annotations

from typing import Final

from sampan.errors import InvalidArgument

MAX_ENTRIES: Final = 2_000_000  # entries and implied parent directories of one layer
MAX_NAME: Final = 4096  # bytes of a whole name, as PATH_MAX
MAX_COMPONENT: Final = 255  # bytes between two slashes, as NAME_MAX
MAX_DEPTH: Final = 512  # directories above an entry; a descriptor each while a tree is removed
MAX_LINK: Final = 4095  # bytes of a symbolic link's target
MAX_LINKS: Final = 40  # symbolic links followed for one name, as the kernel
MAX_PAX: Final = 1 << 20  # bytes of one extended header
MAX_LONG_NAME: Final = 1 << 16  # bytes of a GNU long name or long link header
MAX_XATTR_NAME: Final = 255
MAX_XATTR_VALUE: Final = 1 << 16
MAX_XATTRS_HELD: Final = 1 << 26  # bytes of directories' attributes, kept until the end
MAX_SPARSE_EXTENTS: Final = 1 << 16
MAX_FILE_SIZE: Final = 1 << 43  # apparent size of a sparse file: 8 TiB, below ext4's 16
MAX_LAYER_SIZE: Final = 1 << 38  # bytes of the tar stream: 256 GiB
MAX_RATIO: Final = 1100  # gzip cannot pass 1032; zstd can
RATIO_FLOOR: Final = 1 << 30  # bytes out before the ratio counts
MAX_ARCHIVE_FILES: Final = 20_000  # blobs and documents in one archive of images
LIST: Final = "list"  # the file beside them that says which is which
MAX_LIST: Final = 64 << 20  # bytes of it
MAX_ZSTD_WINDOW: Final = 1 << 27
MAX_XZ_MEMORY: Final = 1 << 28


class LayerError(InvalidArgument):
    """A layer is malformed, asks for what no layer may have, or passes a bound."""


def show(name: bytes) -> str:
    """`name` for a message: printable and short."""
    return repr(name[:120])[1:] + ("..." if len(name) > 120 else "")
