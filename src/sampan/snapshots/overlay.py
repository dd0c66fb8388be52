"""Snapshots as directories for overlayfs.

Each snapshot is `snapshots/<number>/fs` with overlayfs' own `work` beside it. Numbers are short
because old kernels allow one page of mount options. A committed snapshot holds the
difference to its parent in overlayfs' own form (whiteouts as character devices 0:0, opaque
directories by xattr). A view's `fs` is an empty topmost layer, which gives overlayfs the two lowers
it asks for.

What survives a crash: directories are put there inside the transaction that makes the row, so a row
without a directory never commits; a directory without a row is a leftover, and `reconcile` removes
it. Removal is the row first, then a rename into the trash.

After a power failure the files of a freshly committed snapshot may be short although its row is
there: nothing is synced file by file. Some seconds after a commit `sync` flushes them all at once
and records it; `reconcile` drops what was committed in an earlier boot and never synced, so that it
is unpacked again instead of being used.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import stat
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from sampan.errors import Conflict, FailedPrecondition, NotFound, ResourceExhausted, SampanError
from sampan.snapshots.base import Kind, Mount, SnapshotRow, Usage
from sampan.snapshots.spares import Spares, make_set
from sampan.store import leases, snapshots, trees
from sampan.store.ingest import FULL
from sampan.store.trash import Trash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sampan.snapshots.base import OverlayMount
    from sampan.store.database import Connection, Database
    from sampan.store.layout import Layout

T = TypeVar("T")
_log = logging.getLogger(__name__)

DISK_THREADS = 2
SYNC_AFTER_S = 5.0  # seconds; a pull is over by then, and the kernel has begun to write anyway
# A layer's tar need not have an entry for its root. The sticky bit on a root that was prepared
# without a parent says: nobody has set this mode, take the parent's at commit.
_UNSET_ROOT = 0o1755
_PLAIN_ROOT = 0o755
_HOLLOW = ("work/work", "work")  # overlayfs leaves nothing there but its own directory


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What `reconcile` found."""

    removed: tuple[int, ...]  # directories without a row
    lost: tuple[str, ...]  # committed keys dropped: their files were not known to be on disk
    damaged: tuple[str, ...]  # keys that are in use and whose files are missing or suspect


class OverlaySnapshotter:
    """The `Snapshotter` for overlayfs.

    The `*_now` methods take a connection and do their part of a transaction of the caller's, so
    that a container, its snapshot and its event are one write. `pool` deletes and measures.
    """

    kind = "overlay"

    def __init__(
        self,
        layout: Layout,
        db: Database,
        pool: Executor | None = None,
        *,
        user_marks: bool = False,
    ) -> None:
        """`user_marks`: the kernel takes the attributes of users for overlayfs' marks here."""
        self._user_marks = user_marks
        self._layout = layout
        self._db = db
        self._own = None if pool else ThreadPoolExecutor(DISK_THREADS, "sampan-snapshots")
        self._pool: Executor = pool or self._own  # type: ignore[assignment]  # one of both is
        self.trash = Trash(layout, self._pool)
        self._spares = Spares(layout, self._pool)
        self._boot = _boot_id()
        self._timer: threading.Timer | None = None
        self._closed = False

    async def prepare(self, key: str, parent: str | None, *, lease: str | None = None) -> Mount:
        """See `Snapshotter.prepare`."""
        return await self._db.write(lambda conn: self.prepare_now(conn, key, parent, lease=lease))

    async def view(self, key: str, parent: str, *, lease: str | None = None) -> Mount:
        """See `Snapshotter.view`."""
        return await self._db.write(lambda conn: self.view_now(conn, key, parent, lease=lease))

    async def commit(
        self, name: str, key: str, *, parent: str | None = None, lease: str | None = None
    ) -> None:
        """See `Snapshotter.commit`."""
        await self._db.write(
            lambda conn: self.commit_now(conn, name, key, parent=parent, lease=lease)
        )

    async def remove(self, key: str) -> None:
        """See `Snapshotter.remove`."""
        number = await self._db.write(lambda conn: self.remove_now(conn, key))
        self.discard((number,))

    def mounts(self, key: str) -> Mount:
        """See `Snapshotter.mounts`."""

        def look(conn: Connection) -> Mount:
            row = snapshots.get(conn, key)
            if row.kind is Kind.COMMITTED:
                raise FailedPrecondition(f"mount snapshot {key}: it is committed, view it")
            return self._mount(row.number, row.kind, snapshots.parents(conn, key))

        return self._db.read_now(look)

    def tree(self, name: str) -> Mount:
        """The read-only file system of a committed snapshot, without a view of its own: for a look
        that is shorter than the snapshot's life. Raises NotFound."""
        numbers = self._db.read_now(lambda conn: snapshots.chain(conn, name))
        roots = [self._root(number) for number in numbers]
        if len(roots) == 1:
            return {"type": "bind", "source": roots[0]}
        return self._marked({"type": "overlay", "lowers": roots})

    async def usage(self, key: str) -> Usage:
        """See `Snapshotter.usage`. Measured once for a committed snapshot."""
        row = self.info(key)
        if row.size is not None and row.inodes is not None:
            return Usage(row.size, row.inodes)
        return await self.measure(key)

    async def measure(self, key: str) -> Usage:
        """What `key` takes on disk now, measured again. Raises NotFound, also without files."""
        row = self.info(key)
        size, inodes = await self._run(partial(self._measure, row.number))
        if row.kind is Kind.COMMITTED:
            await self._db.write(lambda conn: snapshots.set_usage(conn, row.number, size, inodes))
        return Usage(size, inodes)

    async def written(self, key: str) -> int:
        """Bytes in the files of an active snapshot, as dockerd counts them: two for `echo 1 >file`,
        and 0 for a container that wrote nothing, whatever the disk needs. Raises NotFound."""
        row = self.info(key)
        size, _ = await self._run(partial(self._measure, row.number, apparent=True))
        return size

    def directories(self, name: str) -> list[str]:
        """The directories of the committed snapshot `name` and of all below it, topmost first, to
        be read only. Raises NotFound."""
        numbers = self._db.read_now(lambda conn: snapshots.chain(conn, name))
        return [self._root(number) for number in numbers]

    def info(self, key: str) -> SnapshotRow:
        """The row of `key`. Raises NotFound."""
        return self._db.read_now(lambda conn: snapshots.get(conn, key))

    def has(self, name: str) -> bool:
        """Whether `name` is there and committed."""
        row = self._db.read_now(lambda conn: snapshots.find(conn, name))
        return row is not None and row.kind is Kind.COMMITTED

    async def hold(self, name: str, lease: str) -> bool:
        """Keep a committed snapshot under a lease; whether it is there."""

        def look(conn: Connection) -> bool:
            row = snapshots.find(conn, name)
            if row is None or row.kind is not Kind.COMMITTED:
                return False
            leases.hold(conn, lease, "snapshot", (name,))
            return True

        return await self._db.write(look)

    def walk(self) -> Sequence[SnapshotRow]:
        """See `Snapshotter.walk`."""
        return self._db.read_now(snapshots.list)

    # parts of a caller's transaction

    def prepare_now(
        self, conn: Connection, key: str, parent: str | None, *, lease: str | None = None
    ) -> Mount:
        """`prepare` in the transaction of `conn`."""
        return self._make(conn, key, Kind.ACTIVE, parent, lease)

    def view_now(
        self, conn: Connection, key: str, parent: str, *, lease: str | None = None
    ) -> Mount:
        """`view` in the transaction of `conn`."""
        return self._make(conn, key, Kind.VIEW, parent, lease)

    def commit_now(
        self,
        conn: Connection,
        name: str,
        key: str,
        *,
        parent: str | None = None,
        lease: str | None = None,
    ) -> None:
        """`commit` in the transaction of `conn`."""
        number = snapshots.commit(conn, name, key, parent=parent, boot=self._boot)
        _hold(conn, lease, name)
        self._settle_root(number, snapshots.parents(conn, name))
        self._sync_later()

    def remove_now(self, conn: Connection, key: str) -> int:
        """Remove the row in the transaction of `conn`; `discard` the number once it committed."""
        return snapshots.delete(conn, key)

    def discard(self, numbers: Iterable[int]) -> None:
        """Delete the directories of rows that were removed: out of sight now, off the disk soon."""
        for number in numbers:
            self.trash.discard(self._layout.snapshot(number), hollow=_HOLLOW)

    # start and end

    def reconcile(self) -> Leftovers:
        """Make directories and rows agree after a crash; blocks, before anything else runs."""
        lost, suspect = self._drop_unsynced()
        rows = self.walk()
        known = {row.number for row in rows}
        found = {int(name) for name in os.listdir(self._layout.snapshots) if name.isdecimal()}
        removed = tuple(sorted(found - known))
        self.trash.empty()  # first, or it would meet what is being deleted already
        self.discard(removed)
        self._spares.begin()
        damaged = [row.key for row in rows if row.number not in found]
        return Leftovers(removed, lost, tuple(dict.fromkeys((*damaged, *suspect))))

    async def sync(self) -> None:
        """Flush the file system, so that what is committed survives a power failure."""
        await self._run(self._sync)

    async def aclose(self) -> None:
        """Wait for the deletions; what is thrown away from now on is left to the next start."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.to_thread(self.trash.close)
        if self._own is not None:
            await asyncio.to_thread(self._own.shutdown, cancel_futures=True)

    # inside

    def _make(
        self, conn: Connection, key: str, kind: Kind, parent: str | None, lease: str | None
    ) -> Mount:
        below = snapshots.chain(conn, parent) if parent is not None else ()
        number = snapshots.insert(conn, key, kind, below[0] if below else None)
        _hold(conn, lease, key)
        try:
            self._make_directories(number, kind, below)
        except OSError as error:
            # The row is rolled back, and its number with it.
            self.trash.discard(self._layout.snapshot(number))
            if error.errno in FULL:
                raise ResourceExhausted(f"prepare snapshot {key}: {error}") from error
            raise
        return self._mount(number, kind, below)

    def _make_directories(self, number: int, kind: Kind, below: tuple[int, ...]) -> None:
        del kind  # it matters where files are copied
        path = self._layout.snapshot(number)
        if os.path.lexists(path):
            # Left by a transaction that did not commit: its number came back with the roll-back.
            self.trash.discard(path)
        if not self._spares.take(path):
            make_set(path)
        root = f"{path}/fs"
        if below:
            _copy_owner_and_mode(self._root(below[0]), root)
        else:
            os.chmod(root, _UNSET_ROOT)

    def _mount(self, number: int, kind: Kind, below: tuple[int, ...]) -> Mount:
        lowers = [self._root(lower) for lower in below]
        if kind is Kind.VIEW:
            return self._marked({"type": "overlay", "lowers": [self._root(number), *lowers]})
        if not lowers:
            return {"type": "bind", "source": self._root(number)}
        work = f"{self._layout.snapshot(number)}/work"
        return self._marked(
            {"type": "overlay", "lowers": lowers, "upper": self._root(number), "work": work}
        )

    def _marked(self, mount: OverlayMount) -> Mount:
        if self._user_marks:
            mount["userxattr"] = True
        return mount

    def _settle_root(self, number: int, below: tuple[int, ...]) -> None:
        root = self._root(number)
        if stat.S_IMODE(os.stat(root).st_mode) != _UNSET_ROOT:
            return
        if below:
            _copy_owner_and_mode(self._root(below[0]), root)
        else:
            os.chmod(root, _PLAIN_ROOT)

    def _root(self, number: int) -> str:
        return f"{self._layout.snapshot(number)}/fs"

    def _measure(self, number: int, *, apparent: bool = False) -> tuple[int, int]:
        try:
            fd = os.open(self._layout.snapshot(number), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFound(f"measure snapshot {number}: it is gone") from error
        try:
            return trees.measure(fd, "fs", apparent=apparent)
        finally:
            os.close(fd)

    def _drop_unsynced(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Drop what another boot committed and nobody synced, children first."""
        lost, kept = [], []
        for row in reversed(self.walk()):
            if not _is_unsynced(row):
                continue
            if row.boot == self._boot:
                self._sync_later()
                continue
            try:
                self._db.write_now(partial(snapshots.delete, key=row.key))
                lost.append(row.key)
            except Conflict:
                kept.append(row.key)
        return tuple(lost), tuple(kept)

    def _sync_later(self) -> None:
        if self._closed or self._timer is not None:
            return
        self._timer = threading.Timer(SYNC_AFTER_S, self._sync_in_time)
        self._timer.daemon = True
        self._timer.start()

    def _sync_in_time(self) -> None:
        self._timer = None  # what is committed from here on needs the next one
        try:
            self._sync()
        except (OSError, SampanError) as error:
            _log.warning("sync snapshots: %s", error)

    def _sync(self) -> None:
        numbers = [row.number for row in self.walk() if _is_unsynced(row)]
        if numbers:
            _syncfs(self._layout.snapshots)
            self._db.write_now(lambda conn: snapshots.set_synced(conn, numbers))

    async def _run(self, fn: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, fn)


def _is_unsynced(row: SnapshotRow) -> bool:
    return row.kind is Kind.COMMITTED and row.boot is not None


def _hold(conn: Connection, lease: str | None, key: str) -> None:
    if lease is not None:
        leases.hold(conn, lease, "snapshot", (key,))


def _copy_owner_and_mode(source: str, target: str) -> None:
    """In overlayfs the topmost layer's root is the root that everybody sees."""
    status = os.stat(source, follow_symlinks=False)
    if status.st_uid or status.st_gid:
        os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _syncfs(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), "syncfs", path)
    finally:
        os.close(fd)
