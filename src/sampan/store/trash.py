"""Where trees go to be deleted.

To throw a directory away is one rename into `trash/`, quick whatever it holds; the deletion runs on
the disk pool. What a crash leaves there is deleted at the next start (`empty`). What cannot be
deleted (an immutable file, a mount) stays, is logged, and is tried again at the next start.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from sampan.ids import new_id
from sampan.store import trees

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from sampan.store.layout import Layout

_log = logging.getLogger(__name__)


class Trash:
    """The trash of one root; `pool` does the deleting."""

    def __init__(self, layout: Layout, pool: Executor) -> None:
        self._path = layout.trash
        self._pool = pool

    def discard(self, path: str) -> bool:
        """Take the directory or file `path` out of sight now, delete it later.

        `path` lies in the same root and is made from checked parts only. Returns whether it was
        there.
        """
        name = new_id()[:32]
        try:
            os.rename(path, os.path.join(self._path, name))
        except FileNotFoundError:
            return False
        self._later(name)
        return True

    def empty(self) -> None:
        """Delete what an earlier process left, on the pool."""
        for name in os.listdir(self._path):
            self._later(name)

    def _later(self, name: str) -> None:
        try:
            self._pool.submit(self._delete, name)
        except RuntimeError:
            return  # the pool is shut down: the next start deletes it

    def _delete(self, name: str) -> None:
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            trees.remove(fd, name)
        except OSError as error:
            _log.warning("delete %s in %s: %s", name, self._path, error)
        finally:
            os.close(fd)
