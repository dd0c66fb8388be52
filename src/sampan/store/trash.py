"""Where trees go to be deleted, and what else is only cleaned up.

To throw a directory away is one rename into `trash/`, quick whatever it holds; the deletion runs on
the disk pool, a moment later and with what came meanwhile: each of its system calls hands the
interpreter's lock over and back, so one beside every request would slow all of them down. What a
crash leaves there is deleted at the next start (`empty`). What cannot be deleted (an immutable
file, a mount) stays, is logged, and is tried again at the next start.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

from sampan.ids import new_id
from sampan.store import trees

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from sampan.store.layout import Layout

_log = logging.getLogger(__name__)

DELAY = 0.25
"""Seconds that what was thrown away waits for company, where an event loop runs."""


class Trash:
    """The trash of one root; `pool` does the deleting."""

    def __init__(self, layout: Layout, pool: Executor) -> None:
        self._path = layout.trash
        self._pool = pool
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_timed = False
        self._one = Lock()
        self._is_closed = False

    def discard(self, path: str, *, hollow: Sequence[str] = ()) -> bool:
        """Take the directory or file `path` out of sight now, delete it later.

        `path` lies in the same root and is made from checked parts only. `hollow` are directories
        below it that nobody else can have written to, and that are likely to be empty when those
        before them are gone: they need no walk. Returns whether it was there.
        """
        name = new_id()[:32]
        try:
            os.rename(path, os.path.join(self._path, name))
        except FileNotFoundError:
            return False
        self._later(partial(self._delete, name, hollow))
        return True

    def later(self, work: Callable[[], None]) -> None:
        """Do this, which raises nothing, with the next deletions: at the latest in `close`."""
        self._later(work)

    def empty(self) -> None:
        """Delete what an earlier process left, on the pool."""
        for name in os.listdir(self._path):
            self._later(partial(self._delete, name))

    def close(self) -> None:
        """Delete what waits, and wait for nobody any more. Blocks."""
        self._is_closed = True
        self._delete_all()

    def _later(self, work: Callable[[], None]) -> None:
        self._waiting.append(work)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._begin()
            return
        if not self._is_timed:
            self._is_timed = True
            loop.call_later(DELAY, self._begin)

    def _begin(self) -> None:
        self._is_timed = False
        if self._is_closed:
            return
        try:
            self._pool.submit(self._delete_all)
        except RuntimeError:
            return  # the pool is shut down: the next start deletes it

    def _delete_all(self) -> None:
        # One at a time: two would only hand the interpreter's lock to each other.
        with self._one, suppress(IndexError):
            while True:
                self._waiting.popleft()()

    def _delete(self, name: str, hollow: Sequence[str] = ()) -> None:
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for below in hollow:
                with suppress(OSError):
                    os.rmdir(f"{name}/{below}", dir_fd=fd)
            trees.remove(fd, name)
        except OSError as error:
            _log.warning("delete %s in %s: %s", name, self._path, error)
        finally:
            os.close(fd)
