"""`--storage-opt size=N`: how large the writable layer of a container may become.

The file system below the root keeps the limit, as a project quota of the snapshot's directory. A
container whose limit cannot be kept is refused at create: a limit that was asked for is never
ignored.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sampan.errors import FailedPrecondition, InvalidArgument
from sampan.kernel import quotas

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sampan.snapshots.base import Mount

SMALLEST = 64 << 10
"""Bytes; what the runtime itself makes in a container's tree has room in it."""

_FIRST_PROJECT = 0x53000000  # above what people give by hand
_SIZE = re.compile(r"([0-9]{1,15})([kmgt]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_WITHOUT = frozenset(
    (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.ESRCH, errno.EINVAL, errno.EPERM)
)


def size_of(options: Mapping[str, str]) -> int:
    """The bytes that were asked for; 0 for no limit.

    Raises:
        InvalidArgument: an option is unknown or no size.
    """
    for name, value in options.items():
        if name.lower() != "size":
            raise InvalidArgument(f"--storage-opt: unknown option {name!r}, only size is known")
        match = _SIZE.fullmatch(value)
        if match is None:
            raise InvalidArgument(f"--storage-opt size: {value[:40]!r} is not a size like 10g")
        size = int(match[1]) << _UNITS[match[2].lower()]
        if size < SMALLEST:
            raise InvalidArgument(f"--storage-opt size: at least {SMALLEST >> 10}k is needed")
        return size
    return 0


def limit(mount: Mount, size: int) -> None:
    """Limit what is written to the upper directory of a new snapshot.

    Raises:
        FailedPrecondition: this root cannot; the text says why.
    """
    if mount["type"] != "overlay" or "upper" not in mount:
        raise FailedPrecondition("--storage-opt size: the snapshots of this root are no overlays")
    parts = (mount["upper"], mount["work"])
    project = _project(int(os.path.basename(os.path.dirname(mount["upper"]))))
    try:
        for path in parts:
            with _opened(path) as directory:
                quotas.join(directory, project)
                quotas.limit(directory, project, size)
    except OSError as error:
        if error.errno not in _WITHOUT:
            raise
        raise FailedPrecondition(
            f"--storage-opt size: the file system of {os.path.dirname(parts[0])} keeps no project "
            f"quotas ({error.strerror}); mount xfs or ext4 with prjquota there, or use a volume "
            "with a size"
        ) from error


def forget(root: str, numbers: Sequence[int]) -> None:
    """The snapshots of these numbers are gone: their limits may go."""
    try:
        with _opened(root) as directory:
            for number in numbers:
                quotas.limit(directory, _project(number), 0)
    except OSError:
        return  # quotas are kept there no more


def _project(number: int) -> int:
    return _FIRST_PROJECT + number


@contextmanager
def _opened(path: str) -> Iterator[int]:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield directory
    finally:
        os.close(directory)
