"""Content by digest: blobs that are whole and verified, and ingests that are on their way.

An *ingest* is a file under `ingest/` for one *ref key* (the caller's name for what it fetches, for
example repository and digest). Bytes are hashed while they are written, off the event loop. An
ingest that was closed, or whose process died, is taken up again: what is there is hashed anew and
`offset` says where to go on. `commit` is fsync, check of size and digest, rename to
`blobs/<algorithm>/<hex>`, fsync of the directory, then the row: a row never stands for less than
the whole blob, and bytes that failed the check are thrown away.

Refuses: more bytes than announced, two writers of one ref key, digests that are not digests. A full
disk is ResourceExhausted, before the download when the size is known.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from sampan.errors import (
    Conflict,
    DigestMismatch,
    InvalidArgument,
    NotFound,
    OutOfRange,
    ResourceExhausted,
)
from sampan.ids import new_id
from sampan.spec.digest import Digest, Digester
from sampan.store import blobs, ingest, leases, trees
from sampan.store.ingest import Writer
from sampan.store.layout import make_directory
from sampan.store.locks import KeyedLocks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from sampan.spec.image import Descriptor
    from sampan.store.blobs import BlobRow
    from sampan.store.database import Connection, Database
    from sampan.store.layout import Layout

T = TypeVar("T")

DISK_THREADS = 4
STALE_INGEST_S = 24 * 3600


class ContentStore:
    """Blobs of one root. `pool` runs what waits for the disk; by default a small one of its own."""

    def __init__(self, layout: Layout, db: Database, pool: Executor | None = None) -> None:
        self._layout = layout
        self._db = db
        self._own = None if pool else ThreadPoolExecutor(DISK_THREADS, "sampan-disk")
        self._pool: Executor = pool or self._own  # type: ignore[assignment]  # one of both is
        self._busy: set[str] = set()
        self._locks = KeyedLocks()

    # write

    async def writer(
        self, ref_key: str, expected: Descriptor | None = None, *, lease: str | None = None
    ) -> Writer:
        """Begin or take up the ingest `ref_key`; use it with `async with` or `close` it.

        `expected` bounds the size, names the digest algorithm and is checked at commit.

        Raises:
            Conflict: another writer has this ref key.
            ResourceExhausted: the disk has no room for what is expected.
        """
        name = hashlib.sha256(ref_key.encode("utf-8", "surrogateescape")).hexdigest()
        if name in self._busy:
            raise Conflict(f"ingest {ref_key}: another writer is at it")
        self._busy.add(name)
        try:
            opened = await self._run(partial(ingest.take_up, self._layout.ingest(name), expected))
        except BaseException:
            self._busy.discard(name)
            raise
        return Writer(
            opened,
            ref_key=ref_key,
            expected=expected,
            pool=self._pool,
            commit=partial(self._commit, lease=lease),
            release=partial(self._busy.discard, name),
        )

    async def put(
        self,
        data: bytes,
        *,
        digest: str | None = None,
        links: Iterable[str] = (),
        snapshots: Iterable[str] = (),
        lease: str | None = None,
    ) -> Digest:
        """Store a small blob (a manifest, a config) with what it links; return its digest.

        Raises:
            DigestMismatch: `digest` is given and is not that of `data`.
        """
        actual = Digest.of(data) if digest is None else _verify(data, Digest.parse(digest))
        keep = partial(_keep, actual, tuple(links), tuple(snapshots), lease)
        if not await self._db.write(keep):
            key = f"put {actual} {time.monotonic_ns()}"
            async with await self.writer(key, lease=lease) as writer:
                await writer.truncate(actual.algorithm)
                await writer.write(data)
                await writer.commit(len(data), actual)
            await self._db.write(keep)
        return actual

    @asynccontextmanager
    async def staging(self) -> AsyncIterator[str]:
        """An empty directory on the same file system, for files that `adopt` takes.

        What is left in it at the end is removed; after a crash the next start does that.
        """
        name = new_id()[:32]
        path = os.path.join(self._layout.trash, name)
        make_directory(path)
        try:
            yield path
        finally:
            await self._run(partial(_remove_tree, self._layout.trash, name))

    async def digest_of(self, path: str, algorithm: str = "sha256") -> tuple[Digest, int]:
        """The digest and the size of a file of ours."""
        return await self._run(partial(_digest_file, path, algorithm))

    async def adopt(self, path: str, digest: Digest, size: int, *, lease: str) -> None:
        """Make a file from `staging`, whose digest the caller computed, a blob under its lease.

        Raises:
            ResourceExhausted: the disk is full.
        """
        if not await self.hold(digest, lease):
            await self._run(partial(_sync, path, os.O_RDONLY))
            await self._commit(path, digest, size, lease=lease)

    async def hold(self, digest: str, lease: str) -> bool:
        """Keep a blob under a lease; whether it is here. Look and hold are one transaction."""

        def look(conn: Connection) -> bool:
            if blobs.find(conn, digest) is None:
                return False
            leases.hold(conn, lease, "blob", (digest,))
            return True

        return await self._db.write(look)

    # read

    def has(self, digest: str) -> bool:
        """Whether the blob is here, whole."""
        return self.info(digest) is not None

    def info(self, digest: str) -> BlobRow | None:
        """Size and age of a blob, or None."""
        return self._db.read_now(lambda conn: blobs.find(conn, digest))

    def open(self, digest: str) -> int:
        """A new file descriptor of the blob, for reading; the caller closes it.

        Raises:
            NotFound: it is not here.
        """
        if not self.has(digest):
            raise NotFound(f"no such content: {digest}")
        try:
            return os.open(self._layout.blob(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise NotFound(f"no such content: {digest}: its file is gone") from error

    def read(self, digest: str, limit: int) -> bytes:
        """All bytes of a small blob, verified once more.

        Raises:
            NotFound: it is not here.
            OutOfRange: it has more than `limit` bytes.
            DigestMismatch: the file was changed behind our back.
        """
        with open(self.open(digest), "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise OutOfRange(f"read {digest}: more than {limit} bytes")
        _verify(data, Digest.parse(digest))
        return data

    def walk(self) -> tuple[BlobRow, ...]:
        """All blobs."""
        return self._db.read_now(blobs.list)

    # remove

    async def delete(self, digest: str) -> None:
        """Remove a blob.

        Raises:
            NotFound: it is not here.
            Conflict: an image has it as its target.
        """
        async with self._locks.hold(digest):
            await self._db.write(lambda conn: blobs.delete(conn, digest))
            await self._run(partial(_unlink, self._layout.blob(digest)))

    async def discard(self, digests: Iterable[str]) -> None:
        """Remove the files of blobs whose rows the collector removed, unless they came back."""
        for digest in digests:
            async with self._locks.hold(digest):
                if not self.has(digest):
                    await self._run(partial(_unlink, self._layout.blob(digest)))

    def reconcile(self) -> tuple[Digest, ...]:
        """Make files and rows agree again after a crash; blocks, before anything else runs.

        Removes files without a row and ingests that nobody took up for a day. Returns the digests
        whose file is missing; their rows are removed where no image points at them.
        """
        rows = {row.digest for row in self.walk()}
        files = set(stored_digests(self._layout))
        for digest in files - rows:
            _unlink(self._layout.blob(digest))
        for entry in os.scandir(self._layout.ingests):
            if entry.stat(follow_symlinks=False).st_mtime < time.time() - STALE_INGEST_S:
                _unlink(entry.path)
        missing = tuple(sorted(rows - files))
        for digest in missing:
            self._forget(digest)
        return missing

    async def aclose(self) -> None:
        """Wait for the disk work under way."""
        if self._own is not None:
            await asyncio.to_thread(self._own.shutdown)

    def _forget(self, digest: Digest) -> None:
        try:
            self._db.write_now(lambda conn: blobs.delete(conn, digest))
        except Conflict:
            return  # an image points at it: the one who uses the image says so

    async def _commit(self, path: str, digest: Digest, size: int, *, lease: str | None) -> None:
        """Give a verified, fsynced ingest its name and its row."""
        async with self._locks.hold(digest):
            if self.has(digest):
                await self._run(partial(_unlink, path))
            else:
                await self._run(partial(_publish, path, self._layout.blob(digest)))
            await self._db.write(partial(_record, digest, size, lease))

    async def _run(self, fn: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, fn)
        except OSError as error:
            if error.errno in ingest.FULL:
                raise ResourceExhausted(f"store content: {error}") from error
            raise


def _record(digest: Digest, size: int, lease: str | None, conn: Connection) -> None:
    blobs.insert(conn, digest, size)
    if lease is not None:
        leases.hold(conn, lease, "blob", (digest,))


def _keep(
    digest: Digest,
    links: tuple[str, ...],
    snapshots: tuple[str, ...],
    lease: str | None,
    conn: Connection,
) -> bool:
    """Link and lease a blob in one step; whether it is here."""
    if blobs.find(conn, digest) is None:
        return False
    blobs.link(conn, digest, blobs=links, snapshots=snapshots)
    if lease is not None:
        leases.hold(conn, lease, "blob", (digest,))
    return True


def _verify(data: bytes, digest: Digest) -> Digest:
    actual = hashlib.new(digest.algorithm, data).hexdigest()
    if actual != digest.hex:
        raise DigestMismatch(f"verify {digest}: the content is {digest.algorithm}:{actual}")
    return digest


def _publish(path: str, target: str) -> None:
    parent = os.path.dirname(target)
    if make_directory(parent):
        _sync(os.path.dirname(parent))
    os.rename(path, target)
    _sync(parent)


def _digest_file(path: str, algorithm: str) -> tuple[Digest, int]:
    digester, size = Digester(algorithm), 0
    buffer = bytearray(ingest.BLOCK)
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digester.update(view[:count])
            size += count
    return digester.digest(), size


def _remove_tree(parent: str, name: str) -> None:
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        trees.remove(fd, name)
    finally:
        os.close(fd)


def _sync(path: str, flags: int = os.O_RDONLY | os.O_DIRECTORY) -> None:
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def stored_digests(layout: Layout) -> list[Digest]:
    """The digests whose files are there; other names are not ours and stay."""
    directory, found = layout.blobs, []
    for algorithm in ("sha256", "sha384", "sha512"):
        try:
            names = os.listdir(os.path.join(directory, algorithm))
        except FileNotFoundError:
            continue
        for name in names:
            try:
                found.append(Digest.parse(f"{algorithm}:{name}"))
            except InvalidArgument:
                continue
    return found
