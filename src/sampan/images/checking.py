"""Check of a store: every blob hashed again, every row and directory held against the others.

Found are blobs that are damaged, missing or nobody's; images that lack documents or layers;
snapshots that are missing. What can be mended is mended when asked: files of nobody are removed,
damaged blobs are dropped so that the next pull brings them again, snapshots are unpacked again from
their blobs. The store may be in use meanwhile; what is under way is not taken for damage.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from sampan.errors import Conflict, DataLoss, InvalidArgument, NotFound, SampanError
from sampan.spec.digest import Digest, chain_ids
from sampan.store import snapshots
from sampan.store.content import stored_digests

if TYPE_CHECKING:
    from sampan.images.catalog import Name
    from sampan.images.lookup import Lookup
    from sampan.images.pull import Puller
    from sampan.snapshots.overlay import OverlaySnapshotter
    from sampan.store.content import ContentStore
    from sampan.store.database import Connection, Database
    from sampan.store.layout import Layout
    from sampan.store.snapshots import SnapshotRow


class Finding(StrEnum):
    """What is wrong."""

    BLOB_DAMAGED = "blob damaged"
    BLOB_MISSING = "blob missing"
    BLOB_UNKNOWN = "blob unknown"
    IMAGE_BROKEN = "image broken"
    LAYER_MISSING = "layer missing"
    SNAPSHOT_MISSING = "snapshot missing"
    SNAPSHOT_UNKNOWN = "snapshot unknown"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and whether it was mended."""

    kind: Finding
    subject: str
    detail: str
    mended: bool = False


@dataclass(slots=True)
class Report:
    """What a check looked at, and found."""

    blobs: int = 0
    size: int = 0  # bytes that were hashed
    snapshots: int = 0
    images: int = 0
    problems: list[Problem] = field(default_factory=list)


class Checker:
    """Checks one store."""

    def __init__(
        self,
        layout: Layout,
        db: Database,
        content: ContentStore,
        snapshotter: OverlaySnapshotter,
        lookup: Lookup,
        puller: Puller,
    ) -> None:
        self._layout = layout
        self._db = db
        self._content = content
        self._snapshotter = snapshotter
        self._lookup = lookup
        self._puller = puller

    async def run(self, *, repair: bool = False) -> Report:
        """Look at everything; mend what can be mended if asked."""
        report = Report()
        await self._blobs(report, repair=repair)
        await self._snapshots(report, repair=repair)
        await self._images(report, repair=repair)
        return report

    # blobs

    async def _blobs(self, report: Report, *, repair: bool) -> None:
        files = set(await asyncio.to_thread(stored_digests, self._layout))
        await self._db.write(_nothing)  # what was being committed when the files were listed
        rows = {row.digest: row for row in self._content.walk()}
        for digest, row in rows.items():
            report.blobs += 1
            report.size += row.size
            problem = await self._judge(digest, row.size)
            if problem is not None and self._content.has(digest):
                kind, detail = problem
                mended = repair and await self._drop(digest)
                report.problems.append(Problem(kind, digest, detail, mended))
        for digest in sorted(files - set(rows)):
            if repair:
                await self._content.discard([digest])
            problem_text = "a file without a row"
            if not self._content.has(digest):
                report.problems.append(
                    Problem(Finding.BLOB_UNKNOWN, digest, problem_text, mended=repair)
                )

    async def _judge(self, digest: Digest, size: int) -> tuple[Finding, str] | None:
        try:
            actual, length = await self._content.digest_of(
                self._layout.blob(digest), digest.algorithm
            )
        except FileNotFoundError:
            return Finding.BLOB_MISSING, "its file is gone"
        except OSError as error:
            return Finding.BLOB_DAMAGED, f"it cannot be read: {error.strerror}"
        if length != size:
            return Finding.BLOB_DAMAGED, f"{length} bytes, {size} are right"
        if actual != digest:
            return Finding.BLOB_DAMAGED, f"its bytes have the digest {actual}"
        return None

    async def _drop(self, digest: Digest) -> bool:
        """Remove a damaged blob, so that it is fetched again; not one that a name leads to."""
        try:
            await self._content.delete(digest)
        except Conflict:
            return False
        except NotFound:
            return True
        return True

    # snapshots

    async def _snapshots(self, report: Report, *, repair: bool) -> None:
        found = await asyncio.to_thread(_numbers, self._layout.snapshots)
        await self._db.write(_nothing)
        rows = self._db.read_now(snapshots.list)
        report.snapshots = len(rows)
        missing = [row.key for row in rows if row.number not in found]
        # A directory that was made after the list is no problem: its row is newer than the list.
        missing = [key for key in missing if not await self._is_there(key)]
        gone = await self._forget(rows, missing) if repair else frozenset()
        for key in missing:
            problem = Problem(
                Finding.SNAPSHOT_MISSING, key, "its directory is gone", mended=key in gone
            )
            report.problems.append(problem)
        for number in sorted(found - {row.number for row in rows}):
            if repair:
                self._snapshotter.discard((number,))
            detail = "a directory without a row"
            report.problems.append(
                Problem(Finding.SNAPSHOT_UNKNOWN, str(number), detail, mended=repair)
            )

    async def _is_there(self, key: str) -> bool:
        try:
            await self._snapshotter.measure(key)
        except NotFound:
            return False
        return True

    async def _forget(self, rows: tuple[SnapshotRow, ...], missing: list[str]) -> frozenset[str]:
        """Drop the rows of snapshots whose files are gone, and of those above them, so that they
        are made again; not what a container has. The keys that went."""
        doomed = set(missing)
        for row in rows:  # parents come first
            if row.parent in doomed:
                doomed.add(row.key)
        gone: set[str] = set()
        for row in reversed(rows):
            if row.key not in doomed:
                continue
            try:
                await self._snapshotter.remove(row.key)
            except (Conflict, NotFound):
                continue
            gone.add(row.key)
        return frozenset(gone)

    # images

    async def _images(self, report: Report, *, repair: bool) -> None:
        for name in self._lookup.names():
            report.images += 1
            problem = await self._image(name, repair=repair)
            if problem is not None:
                report.problems.append(problem)

    async def _image(self, name: Name, *, repair: bool) -> Problem | None:
        shown = name.reference.familiar()
        self._lookup.documents.forget(name.target.digest)
        try:
            content = await self._lookup.documents.content(name.target)
        except (DataLoss, InvalidArgument, NotFound) as error:
            return Problem(Finding.IMAGE_BROKEN, shown, f"pull or load it again: {error}")
        missing = [
            chain
            for chain in chain_ids(content.config.rootfs_diff_ids)
            if not self._snapshotter.has(chain)
        ]
        if not missing:
            return None
        detail = f"{len(missing)} of its layers are not unpacked"
        mended = False
        if repair:
            try:
                await self._puller.unpack(content)
                mended = True
            except SampanError as error:
                detail = f"{detail}: {error}"
        return Problem(Finding.LAYER_MISSING, shown, detail, mended)


def _nothing(_: Connection) -> None:
    """Behind everything that was queued before."""


def _numbers(directory: str) -> set[int]:
    return {int(name) for name in os.listdir(directory) if name.isdecimal()}
