"""The engine's side of the file jobs: contexts, their indexes, and copies into snapshots.

A `Context` is the file of the archive that a client sent, without a name on the disk, and the index
that a worker made of it. Everything here is by descriptor, and closed with the context.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sampan.builder import fetch, git
from sampan.builder.files import copying, index, nodes
from sampan.errors import InvalidArgument, ResourceExhausted
from sampan.layers.applied import AppliedLayer
from sampan.layers.workers import LayerWorkers
from sampan.runtime import rootfs
from sampan.spec.digest import Digest
from sampan.store.ingest import FULL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sampan.snapshots.base import Mount

MAX_CONTEXT: Final = 64 << 30
MAX_DOCUMENT: Final = 4 << 20
MAX_KEYS: Final = 1024
_MODULE: Final = "sampan.builder.files.worker"


@dataclass(slots=True)
class Context:
    """An archive and its index. `texts` are the files that were asked for, by name; `hidden` are
    files of it that are not to be copied; `identity` is the hash of the index, "" if nobody asked;
    `fetched` tells of the file of the web that it was.
    """

    data: int
    index: int
    entries: int = 0
    newest: int = 0
    texts: dict[str, bytes] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    identity: str = ""
    fetched: fetch.Fetched | None = None

    @property
    def fd(self) -> int:
        """The file of the bytes."""
        return self.data

    def close(self) -> None:
        """Let the files go."""
        for fd in (self.data, self.index):
            if fd >= 0:
                os.close(fd)
        self.data = self.index = -1


class InlineFile(NamedTuple):
    """A file that is no file anywhere; `mtime` in nanoseconds."""

    name: str
    content: bytes
    mode: int
    mtime: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Words that are looked up in one source; `unpack` as in copying."""

    source: int
    words: Sequence[str]
    is_directory: bool
    parents: bool = False
    exclude: Sequence[str] = ()
    unpack: bool | None = False

    def wish(self) -> dict[str, Any]:
        """The words as a request has them."""
        return {
            "sources": list(self.words),
            "is_directory": self.is_directory,
            "parents": self.parents,
            "exclude": list(self.exclude),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyJob:
    """A whole COPY: parts, where they go, and how files are made there."""

    target: str
    parts: Sequence[Part] = ()
    chown: str = ""
    chmod: str = ""
    keep: bool = False

    def request(self) -> bytes:
        """The request of the worker's job."""
        parts = [
            {"source": part.source, "wish": part.wish(), "unpack": part.unpack}
            for part in self.parts
        ]
        return json.dumps(
            {
                "target": self.target,
                "parts": parts,
                "chown": self.chown,
                "chmod": self.chmod,
                "keep": self.keep,
            }
        ).encode()


class FileWork:
    """The jobs, done by a pool of workers of its own. `directory` is ours alone."""

    def __init__(self, directory: str) -> None:
        self._workers = LayerWorkers(module=_MODULE)
        self._directory = directory
        self._keys: OrderedDict[str, str] = OrderedDict()

    async def aclose(self) -> None:
        """End the workers."""
        await self._workers.aclose()

    def warm(self) -> None:
        """Have a worker ready soon."""
        self._workers.warm()

    async def receive(self, content: AsyncIterator[bytes], read: Sequence[str]) -> Context:
        """Take an archive to its end and index it; `read` names small files wanted at once.

        Raises:
            InvalidArgument: it is no sound tar.
            ResourceExhausted: the disk is full.
        """
        self.warm()
        with ExitStack() as undo:
            archive = self.scratch(undo)
            await spool(content, archive)
            return await self._indexed(archive, read, undo)

    async def _indexed(self, archive: int, read: Sequence[str], undo: ExitStack) -> Context:
        plain, listing, texts = (self.scratch(undo) for _ in range(3))
        job = {"do": "index", "read": list(read)}
        said = await self._workers.run(job, [archive, plain, listing, texts, self._empty(undo)])
        data = plain if index.is_compressed(archive) else archive
        found = texts_of(read, said["texts"], texts)
        return Context(os.dup(data), os.dup(listing), said["entries"], said["newest"], found)

    def spool(self) -> Context:
        """A context that is nothing yet but a file for its bytes."""
        with ExitStack() as undo:
            return Context(os.dup(self.scratch(undo)), -1)

    def single(self, spooled: Context, name: str, size: int, mode: int, mtime: int) -> Context:
        """A context of the one file whose bytes were spooled; `mtime` in nanoseconds."""
        with ExitStack() as undo:
            listing = self.scratch(undo)
            node = nodes.Node(nodes.FILE, mode, size=size, mtime=mtime)
            index.store({b"": nodes.Node(nodes.DIRECTORY), name.encode(): node}, listing)
            return Context(os.dup(spooled.data), os.dup(listing), 1)

    async def clone(
        self, repository: git.Repository, *, keep: bool = False, commit: str = ""
    ) -> Context:
        """The files of a git repository, as `git.archive` gives them. Raises as it does."""
        tar = git.archive(repository, self._directory, keep=keep, commit=commit)
        return await self.receive(tar, ())

    async def remote(
        self, where: str, read: Sequence[str] = (), *, keep_git: bool = False
    ) -> Context:
        """The archive at a URL, or a git repository (`keep_git`: with its `.git`); another file is
        refused.

        Raises:
            InvalidArgument: it is neither.
            Unavailable: it cannot be had.
        """
        if git.is_repository(where):
            tar = git.archive(git.parse(where), self._directory, keep=keep_git)
            return await self.receive(tar, read)
        if not fetch.is_remote(where):
            raise InvalidArgument(
                f"context {where[:200]!r}: give a directory, docker-image://NAME, an http(s) URL "
                "of an archive, or a git repository"
            )
        with ExitStack() as undo:
            archive = self.scratch(undo)
            await fetch.fetch(where, archive)
            return await self._indexed(archive, read, undo)

    async def document(self, where: str) -> bytes | None:
        """The file at a URL when it is a text, None when it is an archive."""
        with ExitStack() as undo:
            target = self.scratch(undo)
            found = await fetch.fetch(where, target)
            head = os.pread(target, 512, 0)
            if index.is_archive(head) or found.size > MAX_DOCUMENT:
                return None
            return os.pread(target, found.size, 0)

    def inline(self, files: list[InlineFile]) -> Context:
        """A context of a few files that we have."""
        with ExitStack() as undo:
            data, listing = self.scratch(undo), self.scratch(undo)
            index.store(copying.inline(files, data), listing)
            return Context(os.dup(data), os.dup(listing), len(files))

    async def key(self, context: Context, part: Part) -> str:
        """The fingerprint of what `part` would copy. Raises InvalidArgument as the copy would."""
        wish = part.wish()
        known = json.dumps([context.identity, wish, context.hidden])
        if context.identity and known in self._keys:
            self._keys.move_to_end(known)
            return self._keys[known]
        with ExitStack() as undo:
            job = {"do": "key", "wish": wish, "hidden": context.hidden}
            said = await self.run(job, [context.index], undo)
        key: str = said["key"]
        if context.identity:
            self._remember(known, key)
        return key

    async def tree_key(self, tree: Mount, part: Part) -> str:
        """The fingerprint of what `part` would copy of a file system that never changes.

        Raises InvalidArgument as the copy would.
        """
        known = json.dumps([tree, part.wish()])
        found = self._keys.get(known)
        if found is None:
            with ExitStack() as undo:
                job = {"do": "tree-key", "wish": part.wish()}
                said = await self.run(job, [open_tree(tree, undo)], undo)
            found = str(said["key"])
            self._remember(known, found)
        return found

    def _remember(self, known: str, key: str) -> None:
        self._keys[known] = key
        if len(self._keys) > MAX_KEYS:
            self._keys.popitem(last=False)

    async def texts(
        self, tree: Mount, names: Sequence[str], directories: Sequence[str]
    ) -> dict[str, bytes]:
        """Small files of an image, and those in some of its directories, by path."""
        with ExitStack() as undo:
            out = self.scratch(undo)
            job = {"do": "texts", "names": list(names), "directories": list(directories)}
            said = await self.run(job, [open_tree(tree, undo), out], undo)
            return texts_of(said["names"], said["sizes"], out)

    async def difference(self, out: int, trees: list[int], newest: int | None) -> AppliedLayer:
        """Write the layer that the first tree makes above the second, if there is one, to `out`."""
        with ExitStack() as undo:
            said = await self.run({"do": "difference", "newest": newest}, [out, *trees], undo)
        return AppliedLayer(
            diff_id=Digest.parse(said["diff_id"]), size=said["size"], entries=said["entries"]
        )

    async def run(self, job: dict[str, Any], fds: list[int], undo: ExitStack) -> dict[str, Any]:
        """One job of the workers, with the empty directory that they lock themselves up in."""
        return await self._workers.run(job, [*fds, self._empty(undo)])

    async def copy(self, job: CopyJob, mount: Mount, sources: Sequence[Context | Mount]) -> int:
        """Carry out a copy into the snapshot `mount`; how many entries were made.

        Raises:
            InvalidArgument: a source is missing, or something is in the way.
            ResourceExhausted: the disk is full.
        """
        with ExitStack() as undo:
            request = self.scratch(undo)
            os.write(request, job.request())
            fds = [request, open_tree(mount, undo), self.scratch(undo), self.scratch(undo)]
            kinds: list[str] = []
            hidden: list[str] = []
            for source in sources:
                if isinstance(source, Context):
                    fds += (source.index, source.data)
                    kinds.append("archive")
                    hidden += source.hidden
                else:
                    fds.append(open_tree(source, undo))
                    kinds.append("tree")
            words = {"do": "copy", "trees": kinds, "hidden": hidden}
            said = await self._workers.run(words, [*fds, self._empty(undo)])
        entries: int = said["entries"]
        return entries

    def scratch(self, undo: ExitStack) -> int:
        """A file without a name."""
        flags = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
        fd = os.open(self._directory, flags, 0o600)
        undo.callback(os.close, fd)
        return fd

    def _empty(self, undo: ExitStack) -> int:
        path = f"{self._directory}/empty"
        os.makedirs(path, 0o700, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        undo.callback(os.close, fd)
        return fd


def open_tree(mount: Mount, undo: ExitStack) -> int:
    """The root of a file system that is mounted nowhere: a descriptor for the time of `undo`."""
    mounted = rootfs.mount(dict(mount))
    try:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted)
    finally:
        os.close(mounted)
    undo.callback(os.close, fd)
    return fd


def texts_of(names: Sequence[str], sizes: Sequence[int | None], fd: int) -> dict[str, bytes]:
    """The small files that a worker wrote one behind the other."""
    found: dict[str, bytes] = {}
    offset = 0
    for name, size in zip(names, sizes, strict=True):
        if size is not None:
            found[name] = os.pread(fd, size, offset)
            offset += size
    return found


async def spool(content: AsyncIterator[bytes], fd: int) -> None:
    """Write what comes to a file.

    Raises:
        InvalidArgument: it is too much. ResourceExhausted: the disk is full.
    """
    size = 0
    loop = asyncio.get_running_loop()
    async for piece in content:
        size += len(piece)
        if size > MAX_CONTEXT:
            raise InvalidArgument(f"the context is larger than {MAX_CONTEXT} bytes")
        try:
            if len(piece) > 1 << 16:
                await loop.run_in_executor(None, os.write, fd, piece)
            else:
                os.write(fd, piece)
        except OSError as error:
            if error.errno in FULL:
                raise ResourceExhausted(f"receive the context: {error}") from error
            raise
