"""Labels of images, content and snapshots, which containerd's clients set and read back.

They mean nothing to us: what keeps what is known from documents and leases. So they are kept in
memory, and gone after a restart. Those of containers are in the containers' records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sampan.errors import ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_OBJECTS: Final = 100_000
_MAX_LABEL: Final = 4096  # bytes of key and value together, as containerd has it
_PREFIX: Final = "labels."


class Labels:
    """The labels of all objects by (namespace, kind, name)."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, str, str], dict[str, str]] = {}

    def get(self, namespace: str, kind: str, name: str) -> dict[str, str]:
        """What an object is labelled with."""
        return self._of.get((namespace, kind, name), {})

    def put(self, namespace: str, kind: str, name: str, labels: Mapping[str, str]) -> None:
        """Label an object with these and no others."""
        check(labels)
        key = namespace, kind, name
        if not labels:
            self._of.pop(key, None)
            return
        if key not in self._of and len(self._of) >= MAX_OBJECTS:
            raise ResourceExhausted(f"label {kind} {name}: {MAX_OBJECTS} objects have labels")
        self._of[key] = dict(labels)

    def update(
        self, namespace: str, kind: str, name: str, labels: Mapping[str, str], paths: Iterable[str]
    ) -> dict[str, str]:
        """Change the labels that the paths of a field mask name; the labels now."""
        changed = merged(self.get(namespace, kind, name), labels, paths)
        self.put(namespace, kind, name, changed)
        return changed


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
