"""What went wrong in many tasks at once, told as one error.

A TaskGroup gathers the failures of its tasks; the caller of a pull wants the first. A full disk
shows as an OSError or as a message of SQLite, wherever it strikes first; it becomes one clear
ResourceExhausted here.
"""

from __future__ import annotations

import asyncio
import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sampan.errors import Internal, ResourceExhausted, SampanError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

T = TypeVar("T")

_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


@contextmanager
def one_error(doing: str) -> Iterator[None]:
    """Raise the first real error of a group, and name a full disk as such.

    Raises:
        ResourceExhausted: the disk or the quota is full.
        Internal: another system call failed.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        error = first(group)
        raise _named(error, doing) from error
    except OSError as error:
        raise _named(error, doing) from error


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Wait for `work` to its end, also when we are cancelled meanwhile; then be cancelled.

    For steps that must not stop half-way, such as an undo: a plain shield would let them run on
    behind our back.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except BaseException:  # noqa: S112 - the task holds it, and it is raised below
            continue
    if cancelled is not None:
        task.exception()
        raise cancelled
    return task.result()


def first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The most telling failure of a group: one of ours before any other."""
    leaves = list(_leaves(group))
    return next((leaf for leaf in leaves if isinstance(leaf, SampanError)), leaves[0])


def is_full(error: BaseException) -> bool:
    """Whether a system call failed because the disk or the quota is full."""
    return isinstance(error, OSError) and error.errno in _FULL


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _named(error: BaseException, doing: str) -> BaseException:
    if is_full(error):
        return ResourceExhausted(f"{doing}: no space left on device")
    if isinstance(error, OSError):
        return Internal(f"{doing}: {error}")
    return error
