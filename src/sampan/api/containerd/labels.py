"""Labels of images, content, leases and snapshots, which containerd's clients set and read back.

They mean nothing to us: what keeps what is known from documents and leases. They are kept in the
database all the same, for a client finds its own things by them. Those of containers are in the
containers' records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sampan.errors import ResourceExhausted
from sampan.store import labels as rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sampan.store.database import Database

_MAX_LABEL: Final = 4096  # bytes of key and value together, as containerd has it
_PREFIX: Final = "labels."


class Labels:
    """The labels of all objects by (namespace, kind, name)."""

    def __init__(self, db: Database) -> None:
        self._db = db
        db.write_now(rows.sweep)

    def get(self, namespace: str, kind: str, name: str) -> dict[str, str]:
        """What an object is labelled with."""
        return self._db.read_now(lambda conn: rows.get(conn, namespace, kind, name)) or {}

    async def put(self, namespace: str, kind: str, name: str, labels: Mapping[str, str]) -> None:
        """Label an object with these and no others.

        Raises:
            ResourceExhausted: a label is too large, or too much is labelled.
        """
        check(labels)
        if labels:
            await self._db.write(lambda conn: rows.put(conn, namespace, kind, name, labels))
        else:
            await self.drop(namespace, kind, name)

    async def drop(self, namespace: str, kind: str, name: str) -> None:
        """Take an object's labels away."""
        await self._db.write(lambda conn: rows.drop(conn, namespace, kind, name))

    async def update(
        self, namespace: str, kind: str, name: str, labels: Mapping[str, str], paths: Iterable[str]
    ) -> None:
        """Change the labels that the paths of a field mask name."""
        changed = merged(self.get(namespace, kind, name), labels, paths)
        await self.put(namespace, kind, name, changed)


def merged(
    before: Mapping[str, str], asked: Mapping[str, str], paths: Iterable[str]
) -> dict[str, str]:
    """Labels after an update: with `labels` or without a path all, with `labels.KEY` that one."""
    masks = list(paths)
    if not masks or "labels" in masks:
        return {key: value for key, value in asked.items() if value}
    after = dict(before)
    for mask in masks:
        key = mask.removeprefix(_PREFIX)
        if not mask.startswith(_PREFIX):
            continue
        if asked.get(key):
            after[key] = asked[key]
        else:
            after.pop(key, None)
    return after


def check(labels: Mapping[str, str]) -> None:
    """Raises ResourceExhausted for a label that is too large."""
    for key, value in labels.items():
        if len(key) + len(value) > _MAX_LABEL:
            raise ResourceExhausted(f"label {key[:64]}: more than {_MAX_LABEL} bytes")
