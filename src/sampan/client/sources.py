"""Small translations that both faces of the library need: tar sources and log queries."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

_PIECE = 1 << 20


def pieces_of(source: str | os.PathLike[str] | Iterable[bytes]) -> Iterable[bytes]:
    """The bytes of a file, or those that are given."""
    if isinstance(source, (str, os.PathLike)):
        return _file(os.fspath(source))
    return source


def _file(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while data := file.read(_PIECE):
            yield data


@contextmanager
def writer_to(target: str | os.PathLike[str] | BinaryIO) -> Iterator[Callable[[bytes], object]]:
    """What writes to a file; one that is named is there, whole, when the block ends well."""
    if not isinstance(target, (str, os.PathLike)):
        yield target.write
        return
    path = os.fspath(target)
    unfinished = f"{path}.unfinished-{os.getpid()}"
    try:
        with open(unfinished, "xb") as file:
            yield file.write
        os.replace(unfinished, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(unfinished)
        raise


def tail_query(tail: int | None, since: float | None) -> dict[str, Any]:
    """The part of a log that is asked for, as `calls.logs` takes it."""
    return {
        "tail": "" if tail is None else str(tail),
        "since": "" if since is None else f"{since:.9f}",
    }
