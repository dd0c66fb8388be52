"""Who may write: one process per root, one task per key.

`RootLock` is an flock on `<root>/lock`; the kernel drops it when its holder dies, however it dies.
The holder's pid stands in the file, for the message to the second comer only. `KeyedLocks` orders
tasks of one event loop by a key (a container id, a digest) and keeps nothing for keys not in use.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

from sampan.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType


class RootLock:
    """The exclusive right to one root. A context manager; `acquire` and `release` for the rest."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock now.

        Raises:
            Unavailable: another process has it; the message names its pid.
        """
        # Close-on-exec: the right must end with this process and not with a child's.
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _read_pid(fd)
            os.close(fd)
            raise Unavailable(f"lock {self.path}: it is held by process {holder}") from error
        except BaseException:
            os.close(fd)
            raise
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Give the lock back. Idempotent. The file stays: to remove it would race."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class KeyedLocks:
    """`async with locks.hold(key):` - one task at a time per key, in order of arrival."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    def __len__(self) -> int:
        return len(self._locks)

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Wait for `key`, keep it for the block."""
        lock, users = self._locks.get(key) or (asyncio.Lock(), 0)
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)


def _read_pid(fd: int) -> str:
    text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    return text if text.isdigit() else "unknown"
