"""Empty snapshot directories made ahead of time.

Making a container's writable layer needs three directories, and mkdir is what takes longest in it:
30 us each at best, ten times that on an ext4 from which much was deleted lately (the kernel steps
over inodes freed in the last half minute). A rename of a ready set costs 25 us always. So a few
sets wait in `spare/`, filled up on the disk pool when half of them are gone.

A set is built in the trash and renamed into place when it is whole: whatever stands in `spare/`
after a crash can be used. Used directories are never taken back: what a tenant may have done to
the inode of its root (ACLs, flags, attributes) would travel to the next one.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from typing import TYPE_CHECKING

from sampan.ids import new_id

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from sampan.store.layout import Layout

KEEP = 16
REFILL_AT = 8

_log = logging.getLogger(__name__)


class Spares:
    """The ready sets of one root. Keeps none before `begin`."""

    def __init__(self, layout: Layout, pool: Executor) -> None:
        self._path = layout.spares
        self._building = layout.trash
        self._pool = pool
        self._ready: deque[str] = deque()
        self._begun = False
        self._filling = False

    def begin(self) -> None:
        """Take up the sets of an earlier process, and fill up from now on."""
        self._ready.extend(os.listdir(self._path))
        self._begun = True
        self._fill_later()

    def take(self, target: str) -> bool:
        """Move a set to `target`; False when none is ready.

        Raises:
            OSError: ENOTEMPTY or EEXIST when `target` is there; the set stays.
        """
        try:
            name = self._ready.popleft()
        except IndexError:
            self._fill_later()
            return False
        try:
            os.rename(os.path.join(self._path, name), target)
        except OSError:
            self._ready.append(name)
            raise
        if len(self._ready) <= REFILL_AT:
            self._fill_later()
        return True

    def _fill_later(self) -> None:
        if not self._begun or self._filling:
            return
        self._filling = True
        try:
            self._pool.submit(self._fill)
        except RuntimeError:
            return  # the pool is shut down

    def _fill(self) -> None:
        try:
            while len(self._ready) < KEEP:
                self._ready.append(self._build())
        except OSError as error:
            _log.warning("make spare directories in %s: %s", self._path, error)
        finally:
            self._filling = False

    def _build(self) -> str:
        name = new_id()[:32]
        path = os.path.join(self._building, name)
        make_set(path)
        os.rename(path, os.path.join(self._path, name))
        return name


def make_set(path: str) -> None:
    """Make the directories of one snapshot at `path`. Raises FileExistsError."""
    for part in (path, f"{path}/fs", f"{path}/work"):
        os.mkdir(part, 0o700)
