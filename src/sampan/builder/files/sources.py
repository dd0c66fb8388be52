"""Directories that clients built from, kept so that next time only what changed is sent.

For each directory there are two files: `KEY.data`, archives one behind the other as they came, and
`KEY.stored`, what of them is still in use. Data is only appended to; when more than half of it is
of no use any more, everything is sent again, to a new file. Builds hold what they use by
descriptor, so anything here may be removed at any time. What the last build of a directory made of
its manifest is kept in memory too: the same manifest again needs no work at all.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sampan.builder.files.service import Context, spool, texts_of
from sampan.errors import InvalidArgument
from sampan.ids import new_id
from sampan.store.locks import KeyedLocks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sampan.builder.files.service import FileWork

MAX_KEPT: Final = 32
_KEY: Final = re.compile(r"[0-9a-f]{64}")
_WASTE: Final = 64 << 20  # bytes of no use that are not worth a copy
_NUMBER: Final = 4
_BLOCK: Final = 512


@dataclass(slots=True)
class Comparison:
    """A manifest, and what is missing of it: numbers of files, None for everything."""

    key: str
    manifest: int
    missing: list[int] | None
    digest: bytes

    def close(self) -> None:
        """Let the manifest go."""
        if self.manifest >= 0:
            os.close(self.manifest)
            self.manifest = -1


@dataclass(frozen=True, slots=True)
class _Last:
    """What the last build made of a manifest: `context` has no data, which is found by `inode`."""

    digest: bytes
    inode: int
    read: tuple[str, ...]
    context: Context


@dataclass(frozen=True, slots=True)
class Kept:
    """A directory that is kept: `size` in bytes on the disk."""

    key: str
    size: int
    used_ns: int


@dataclass(frozen=True, slots=True)
class Synced:
    """A context that comes as a comparison and the archive of what was missing."""

    comparison: Comparison
    pieces: AsyncIterator[bytes]


class Sources:
    """The kept directories of one root, in `directory`, which is ours alone."""

    def __init__(self, directory: str, files: FileWork) -> None:
        os.makedirs(directory, 0o700, exist_ok=True)
        self._directory = directory
        self._files = files
        self._locks = KeyedLocks()
        self._last: dict[str, _Last] = {}
        for name in os.listdir(directory):
            if name.endswith(".new"):
                os.unlink(f"{directory}/{name}")

    def _path(self, key: str, kind: str) -> str:
        return f"{self._directory}/{key}.{kind}"

    async def compare(self, key: str, manifest: AsyncIterator[bytes]) -> Comparison:
        """Take a manifest, and find what is missing.

        Raises:
            InvalidArgument: it is malformed.
        """
        if _KEY.fullmatch(key) is None:
            raise InvalidArgument("compare context: the key is no SHA-256")
        with ExitStack() as undo:
            fd, hasher = self._files.scratch(undo), hashlib.sha256()
            await spool(_hashed(manifest, hasher), fd)
            async with self._locks.hold(key):
                wanted = await self._missing(key, fd, hasher.digest(), undo)
            return Comparison(key, os.dup(fd), wanted, hasher.digest())

    async def _missing(
        self, key: str, manifest: int, digest: bytes, undo: ExitStack
    ) -> list[int] | None:
        found = self._open(key, undo)
        if found is None:
            return None
        data, stored = found
        if self._known(key, digest, data) is not None:
            return []
        listing = self._files.scratch(undo)
        status = os.fstat(data)
        job = {"do": "compare", "inode": status.st_ino}
        said = await self._files.run(job, [manifest, stored, listing], undo)
        size, here = status.st_size, said["here"]
        if not here or size > 2 * here + _WASTE:
            return None
        content = os.pread(listing, said["missing"] * _NUMBER, 0)
        return [
            int.from_bytes(content[at : at + _NUMBER], "little")
            for at in range(0, len(content), _NUMBER)
        ]

    def _open(self, key: str, undo: ExitStack) -> tuple[int, int] | None:
        """The data and what is stored of it; None when they are not both there."""
        fds = []
        for kind, flags in (("data", os.O_RDWR), ("stored", os.O_RDONLY)):
            try:
                fd = os.open(self._path(key, kind), flags | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                return None
            undo.callback(os.close, fd)
            fds.append(fd)
        return fds[0], fds[1]

    def _known(self, key: str, digest: bytes, data: int) -> _Last | None:
        """What the last build made, when it was of the same manifest and data."""
        last = self._last.get(key)
        same = last is not None and (last.digest, last.inode) == (digest, os.fstat(data).st_ino)
        return last if same else None

    def close(self) -> None:
        """Let go of what is kept in memory."""
        for last in self._last.values():
            last.context.close()
        self._last.clear()

    async def merge(self, synced: Synced, read: Sequence[str]) -> Context:
        """The context: what came now and what is here.

        Raises:
            InvalidArgument: what came is not what was missing.
        """
        comparison = synced.comparison
        with ExitStack() as undo:
            undo.callback(comparison.close)
            async with self._locks.hold(comparison.key):
                found = None
                if comparison.missing is not None:
                    found = self._open(comparison.key, undo)
                    if found is None:
                        raise InvalidArgument("receive context: it was pruned: build again")
                if found and (same := self._again(comparison, found[0], read)) is not None:
                    return same
                data, renewed = (found[0], "") if found else self._new(undo)
                stored = found[1] if found else self._files.scratch(undo)
                base = os.lseek(data, 0, os.SEEK_END)
                if comparison.missing != []:
                    await spool(synced.pieces, data)
                context = await self._indexed(comparison, (data, stored, base), read, undo)
                if renewed:
                    os.rename(renewed, self._path(comparison.key, "data"))
        await self._bound()
        return context

    def _again(self, comparison: Comparison, data: int, read: Sequence[str]) -> Context | None:
        """The context of the last build, when nothing has changed since."""
        last = self._known(comparison.key, comparison.digest, data)
        if last is None or comparison.missing != [] or last.read != tuple(read):
            return None
        os.utime(self._path(comparison.key, "stored"))
        return _copy(last.context, data)

    def _new(self, undo: ExitStack) -> tuple[int, str]:
        """A new file, gone again when nobody gives it a name."""
        path = f"{self._directory}/{new_id()[:32]}.new"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        undo.callback(os.close, fd)
        undo.callback(_unlink, path)
        return fd, path

    async def _indexed(
        self,
        comparison: Comparison,
        place: tuple[int, int, int],
        read: Sequence[str],
        undo: ExitStack,
    ) -> Context:
        data, stored, base = place
        listing, texts = self._files.scratch(undo), self._files.scratch(undo)
        kept, path = self._new(undo)
        inode = os.fstat(data).st_ino
        job = {
            "do": "merge",
            "base": base if comparison.missing != [] else -1,
            "inode": inode,
            "read": list(read),
        }
        fds = [comparison.manifest, stored, data, listing, texts, kept]
        said = await self._files.run(job, fds, undo)
        os.rename(path, self._path(comparison.key, "stored"))
        found = texts_of(read, said["texts"], texts)
        context = Context(os.dup(data), os.dup(listing), said["entries"], said["newest"], found)
        context.identity = said["identity"]
        before = self._last.pop(comparison.key, None)
        if before is not None:
            before.context.close()
        kept_context = _copy(context, -1)
        self._last[comparison.key] = _Last(comparison.digest, inode, tuple(read), kept_context)
        return context

    async def _bound(self) -> None:
        """Not more than MAX_KEPT, the oldest go."""
        kept = self.list()
        for one in sorted(kept, key=lambda one: one.used_ns)[:-MAX_KEPT]:
            await self.remove(one.key)

    def list(self) -> list[Kept]:
        """Everything that is kept."""
        found = []
        for name in os.listdir(self._directory):
            key, _, kind = name.partition(".")
            if kind == "stored":
                status = os.stat(self._path(key, kind))
                size = _blocks(self._path(key, "data")) + status.st_blocks * _BLOCK
                found.append(Kept(key, size, status.st_mtime_ns))
        return found

    async def remove(self, key: str) -> None:
        """Forget a directory."""
        async with self._locks.hold(key):
            last = self._last.pop(key, None)
            if last is not None:
                last.context.close()
            _unlink(self._path(key, "stored"))
            _unlink(self._path(key, "data"))


async def _hashed(content: AsyncIterator[bytes], hasher: hashlib._Hash) -> AsyncIterator[bytes]:
    async for piece in content:
        hasher.update(piece)
        yield piece


def _copy(context: Context, data: int) -> Context:
    """A context of its own with other data, or without any."""
    return Context(
        os.dup(data) if data >= 0 else -1,
        os.dup(context.index),
        context.entries,
        context.newest,
        dict(context.texts),
        identity=context.identity,
    )


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _blocks(path: str) -> int:
    try:
        return os.stat(path).st_blocks * _BLOCK
    except FileNotFoundError:
        return 0
