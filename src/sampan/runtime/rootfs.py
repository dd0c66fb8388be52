"""The root file system as a detached mount, ready to be attached inside of a container.

The word `Mount` is shared with the snapshots: `{"type": "overlay", "lowers": [...], "upper": ...,
"work": ...}` or `{"type": "bind", "source": ...}`. The mount never appears in the mount namespace
of the host.
"""

from __future__ import annotations

import errno
import os

from sampan.kernel import mounts
from sampan.kernel import numbers as n

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# fsconfig(2) takes values of at most 255 bytes; kernels since 6.8 take layers one by one.
_MAX_VALUE = 255


def mount(word: dict[str, Any]) -> int:
    """The descriptor of the detached mount that `word` describes."""
    if word["type"] == "overlay":
        return _overlay(word)
    if word["type"] == "bind":
        return bind(word["source"])
    raise ValueError(f"unknown root file system type {word['type']!r}")


def bind(source: str) -> int:
    """A detached recursive bind mount of the directory `source`."""
    fd = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return mounts.clone_tree(fd, recursive=True)
    finally:
        os.close(fd)


def _overlay(word: dict[str, Any]) -> int:
    lowers: list[str] = word["lowers"]
    upper = [("upperdir", word["upper"]), ("workdir", word["work"])] if word.get("upper") else []
    attributes = 0 if upper else n.MOUNT_ATTR_RDONLY
    one_by_one = [("lowerdir+", path) for path in lowers]
    try:
        return mounts.new_mount(
            "overlay", [*one_by_one, *upper], source="overlay", attributes=attributes
        )
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return _overlay_by_list(lowers, upper, attributes)


def _overlay_by_list(lowers: list[str], upper: list[tuple[str, str]], attributes: int) -> int:
    """For kernels before 6.8: all layers in one value, relative to their common directory."""
    base = os.path.commonpath([os.path.dirname(path) for path in lowers])
    value = ":".join(os.path.relpath(path, base) for path in lowers)
    if len(value) > _MAX_VALUE:
        raise OSError(
            errno.E2BIG, f"mount overlay of {len(lowers)} layers: this kernel takes fewer layers"
        )
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(base)
    try:
        options = [("lowerdir", value), *upper]
        return mounts.new_mount("overlay", options, source="overlay", attributes=attributes)
    finally:
        os.fchdir(before)
        os.close(before)
