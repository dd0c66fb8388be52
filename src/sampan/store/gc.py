"""The collector: what nothing names any more goes.

*Mark*: roots are image names, containers (their image, their snapshot, and views whose keys begin
with the container's id), living leases, and snapshots in the making that are younger than this
process (nobody goes on with an older one, also when the lease of whoever died still holds it); from
them along links and parents. It is one recursive query. *Sweep*: in the same transaction the rows
of all else go; then the files and directories follow. A crash in between leaves files without rows,
which the next start removes.

The collector knows nothing of images: what a manifest needs was recorded as links by who parsed it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sampan.spec.digest import Digest
from sampan.store import leases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sampan.store.content import ContentStore
    from sampan.store.database import Connection, Database

# UNION, not UNION ALL: what was reached once is not followed again, so cycles of links end.
_MARK = """
CREATE TEMP TABLE live AS
WITH RECURSIVE reached (kind, key) AS (
  SELECT 'blob', digest FROM images
  UNION SELECT 'blob', image FROM containers WHERE image IS NOT NULL
  UNION SELECT 'snapshot', snapshot FROM containers WHERE snapshot IS NOT NULL
  UNION SELECT 'snapshot', s.key FROM snapshots s
        JOIN containers c ON c.id = substr(s.key, 1, 64) WHERE s.kind <> 'committed'
  UNION SELECT 'snapshot', snapshot FROM build_results WHERE snapshot IS NOT NULL
  UNION SELECT 'blob', blob FROM build_results WHERE blob IS NOT NULL
  UNION SELECT i.kind, i.key FROM lease_items i
        LEFT JOIN snapshots a ON i.kind = 'snapshot' AND a.key = i.key AND a.kind <> 'committed'
        WHERE a.created_ns IS NULL OR a.created_ns >= ?
  UNION SELECT 'snapshot', key FROM snapshots WHERE kind <> 'committed' AND created_ns >= ?
  UNION SELECT l.kind, l.child FROM reached r
        JOIN links l ON r.kind = 'blob' AND l.parent = r.key
  UNION SELECT 'snapshot', p.key FROM reached r
        JOIN snapshots s ON r.kind = 'snapshot' AND s.key = r.key
        JOIN snapshots p ON p.number = s.parent
)
SELECT kind, key FROM reached
"""
_SWEEP_BLOBS = (
    "DELETE FROM blobs WHERE digest NOT IN (SELECT key FROM temp.live WHERE kind = 'blob')"
    " RETURNING digest, size"
)
# Parents and children go in one statement: foreign keys are checked at its end.
_SWEEP_SNAPSHOTS = (
    "DELETE FROM snapshots WHERE key NOT IN (SELECT key FROM temp.live WHERE kind = 'snapshot')"
    " RETURNING number"
)


@dataclass(frozen=True, slots=True)
class Garbage:
    """What lost its row, and has to lose its file."""

    blobs: tuple[Digest, ...]
    size: int  # bytes of the blobs
    snapshots: tuple[int, ...]  # directory numbers


def collect(conn: Connection, *, now_ns: int, unfinished_before_ns: int = 0) -> Garbage:
    """Remove the rows that no root reaches; return what they stood for.

    Active and view snapshots that only a lease has, or nobody, are kept when they were made at or
    after `unfinished_before_ns`: somebody may be about to name them.
    """
    leases.expire(conn, now_ns)
    conn.execute("DROP TABLE IF EXISTS temp.live")
    conn.execute(_MARK, (unfinished_before_ns, unfinished_before_ns))
    gone = conn.execute(_SWEEP_BLOBS).fetchall()
    numbers = conn.execute(_SWEEP_SNAPSHOTS).fetchall()
    conn.execute("DROP TABLE temp.live")
    return Garbage(
        blobs=tuple(Digest(row[0]) for row in gone),
        size=sum(row[1] for row in gone),
        snapshots=tuple(row[0] for row in numbers),
    )


class Collector:
    """Collects one root. `discard` takes the numbers of snapshot directories (the snapshotter's).

    Make it after recovery: unfinished snapshots that are older than it are garbage.
    """

    def __init__(
        self, db: Database, content: ContentStore, discard: Callable[[Iterable[int]], None]
    ) -> None:
        self._db = db
        self._content = content
        self._discard = discard
        self._born_ns = time.time_ns()

    async def run(self) -> Garbage:
        """Collect now; return what went. Snapshot directories are deleted a bit later."""
        job = partial(collect, now_ns=time.time_ns(), unfinished_before_ns=self._born_ns)
        garbage = await self._db.write(job, heavy=True)
        self._discard(garbage.snapshots)
        await self._content.discard(garbage.blobs)
        return garbage
