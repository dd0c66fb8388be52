"""Rows of labels that containerd's clients give to content, images, leases, namespaces, snapshots.

They keep nothing alive. What was labelled may go away without telling; `sweep` forgets its labels.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from sampan.errors import ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.store.database import Connection

MAX_OBJECTS: Final = 100_000

# An active snapshot has its namespace in its key.
_SWEEP: Final = """
DELETE FROM labels WHERE
  (kind = 'content' AND name NOT IN (SELECT digest FROM blobs)) OR
  (kind = 'image' AND name NOT IN (SELECT name FROM images)) OR
  (kind = 'lease' AND name NOT IN (SELECT id FROM leases)) OR
  (kind = 'snapshot' AND name NOT IN (SELECT key FROM snapshots)
    AND 'ctr/' || namespace || '/' || name NOT IN (SELECT key FROM snapshots))
"""


def get(conn: Connection, namespace: str, kind: str, name: str) -> dict[str, str] | None:
    """The labels of an object, None when it has none."""
    row = conn.execute(
        "SELECT labels FROM labels WHERE namespace = ? AND kind = ? AND name = ?",
        (namespace, kind, name),
    ).fetchone()
    return None if row is None else json.loads(row[0])


def put(conn: Connection, namespace: str, kind: str, name: str, labels: Mapping[str, str]) -> None:
    """Give an object these labels and no others.

    Raises:
        ResourceExhausted: MAX_OBJECTS have labels.
    """
    (count,) = conn.execute("SELECT count(*) FROM labels").fetchone()
    if count >= MAX_OBJECTS and get(conn, namespace, kind, name) is None:
        raise ResourceExhausted(f"label {kind} {name}: {MAX_OBJECTS} objects have labels")
    conn.execute(
        "INSERT INTO labels (namespace, kind, name, labels) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (namespace, kind, name) DO UPDATE SET labels = excluded.labels",
        (namespace, kind, name, json.dumps(dict(labels))),
    )


def drop(conn: Connection, namespace: str, kind: str, name: str) -> None:
    """Take an object's labels away."""
    conn.execute(
        "DELETE FROM labels WHERE namespace = ? AND kind = ? AND name = ?", (namespace, kind, name)
    )


def namespaces(conn: Connection) -> list[str]:
    """The namespaces that were made."""
    rows = conn.execute("SELECT namespace FROM labels WHERE kind = 'namespace' ORDER BY 1")
    return [name for (name,) in rows]


def sweep(conn: Connection) -> None:
    """Forget the labels of what is gone."""
    conn.execute(_SWEEP)
