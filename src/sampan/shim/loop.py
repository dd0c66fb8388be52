"""The poll loop of a shim: file descriptors, what to call when they are ready, and deadlines.

One thread, one epoll. A handler gets the event mask and must not block; it may be called once more
than the descriptor deserves (a number closed and opened again within one batch), so handlers only
use non-blocking calls and take EAGAIN calmly. A deadline belongs to a key, and setting it again
moves it.

A handler that raises loses its descriptor and leaves one line on stderr; the loop goes on, for the
container must not pay for one bad peer.
"""

from __future__ import annotations

import os
import select
from time import monotonic

IN = select.EPOLLIN
OUT = select.EPOLLOUT
RDHUP = select.EPOLLRDHUP
GONE = select.EPOLLHUP | select.EPOLLERR

_BATCH = 32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def complain(text: str) -> None:
    """Write one line to stderr, which the engine points at its log. Never raises."""
    try:
        os.write(2, b"sampan-shim[%d]: %s\n" % (os.getpid(), os.fsencode(text)[:4000]))
    except OSError:
        pass


class Loop:
    """Ready descriptors and due deadlines, dispatched until `stop`."""

    __slots__ = ("_epoll", "_handlers", "_running", "_timers")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: dict[object, tuple[float, Callable[[], None]]] = {}
        self._running = True

    def add(self, fd: int, handler: Callable[[int], None], events: int = IN) -> None:
        """Call `handler` with the event mask whenever `fd` has one of `events`, or is gone."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        """Wait for other `events` on a descriptor that was added."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Forget a descriptor; one that is not there is fine. Call it before the close."""
        if self._handlers.pop(fd, None) is not None:
            try:
                self._epoll.unregister(fd)
            except OSError:
                pass  # closed already, which has removed it

    def after(self, key: object, seconds: float, call: Callable[[], None]) -> None:
        """Call once, `seconds` from now, unless the key is set again or cancelled before."""
        self._timers[key] = (monotonic() + seconds, call)

    def cancel(self, key: object) -> None:
        """Drop the deadline of `key`, if it has one."""
        self._timers.pop(key, None)

    def stop(self) -> None:
        """Dispatch nothing more after the handler that runs now."""
        self._running = False

    @property
    def is_running(self) -> bool:
        """Whether `stop` was not called."""
        return self._running

    def once(self, limit: float = -1.0) -> None:
        """Wait for one batch of events, at most `limit` seconds (-1 is for ever), and dispatch."""
        for fd, events in self._epoll.poll(self._patience(limit), _BATCH):
            handler = self._handlers.get(fd)
            if handler is not None and self._running:
                self._dispatch(fd, handler, events)
        if self._timers:
            self._expire()

    def _patience(self, limit: float) -> float:
        if not self._timers:
            return limit
        first = max(0.0, min(due for due, _ in self._timers.values()) - monotonic())
        return first if limit < 0 else min(first, limit)

    def _dispatch(self, fd: int, handler: Callable[[int], None], events: int) -> None:
        try:
            handler(events)
        except Exception as error:
            complain(f"handler of descriptor {fd}: {type(error).__name__}: {error}")
            self.remove(fd)

    def _expire(self) -> None:
        now = monotonic()
        due = [(key, call) for key, (when, call) in self._timers.items() if when <= now]
        for key, call in due:
            # An earlier call of this batch may have cancelled or moved it.
            when = self._timers.get(key)
            if when is None or when[0] > now:
                continue
            del self._timers[key]
            try:
                call()
            except Exception as error:
                complain(f"deadline: {type(error).__name__}: {error}")
