"""Directories that clients built from, kept so that next time only what changed is sent.

For each directory there are two files: `KEY.data`, archives one behind the other as they came, and
`KEY.stored`, what of them is still in use. Data is only appended to; when more than half of it is
of no use any more, everything is sent again, to a new file. Builds hold what they use by
descriptor, so anything here may be removed at any time.
"""

from __future__ import annotations

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

    def close(self) -> None:
        """Let the manifest go."""
        if self.manifest >= 0:
            os.close(self.manifest)
            self.manifest = -1


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
            fd = self._files.scratch(undo)
            await spool(manifest, fd)
            async with self._locks.hold(key):
                wanted = await self._missing(key, fd, undo)
            return Comparison(key, os.dup(fd), wanted)

    async def _missing(self, key: str, manifest: int, undo: ExitStack) -> list[int] | None:
        found = self._open(key, undo)
        if found is None:
            return None
        data, stored = found
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
        job = {
            "do": "merge",
            "base": base if comparison.missing != [] else -1,
            "inode": os.fstat(data).st_ino,
            "read": list(read),
        }
        fds = [comparison.manifest, stored, data, listing, texts, kept]
        said = await self._files.run(job, fds, undo)
        os.rename(path, self._path(comparison.key, "stored"))
        found = texts_of(read, said["texts"], texts)
        context = Context(os.dup(data), os.dup(listing), said["entries"], said["newest"], found)
        context.identity = said["identity"]
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
            _unlink(self._path(key, "stored"))
            _unlink(self._path(key, "data"))


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
