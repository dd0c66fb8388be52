"""A shim that an earlier engine launched, and that nobody has asked for anything since.

Whoever connects to a shim wakes it up, and one that is awake needs ten times the memory. So a new
engine that knows already what runs, from the records, only watches whether the shim is there; it
connects when there is something to ask, or when the shim has gone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sampan.tasks.task import PATIENCE, Task, open_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sampan.tasks.task import Handler


class Sleeper(Task):
    """A task that connects at the first call."""

    __slots__ = ("_directory", "_pidfd")

    def __init__(
        self, directory: str, pidfd: int, on_event: Handler, on_gone: Callable[[], None]
    ) -> None:
        """The shim of `directory`; owns its `pidfd`."""
        super().__init__(None, on_event, on_gone)
        self._directory = directory
        self._pidfd = pidfd
        self._loop.add_reader(pidfd, self._wake)

    @property
    def is_open(self) -> bool:
        """Whether the shim can be spoken to, as far as is known."""
        return self._pidfd >= 0 or super().is_open

    async def call(
        self, op: str, passed: Sequence[int] = (), *, patience: float = PATIENCE, **fields: Any
    ) -> dict[str, Any]:
        """As `Task.call`."""
        if self._pidfd >= 0:
            self._wake()
        return await super().call(op, passed, patience=patience, **fields)

    def close(self) -> None:
        """As `Task.close`."""
        if self._pidfd >= 0:
            self._forget()
        super().close()

    def _wake(self) -> None:
        """Connect. A keeper that has gone may have left a monitor, which listens in its place."""
        self._forget()
        try:
            self._listen(open_socket(self._directory))
        except OSError:
            self._on_gone()

    def _forget(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
