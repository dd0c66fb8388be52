"""Which snapshotter a root has: overlayfs where it works, whole directories elsewhere.

What a root was begun with it keeps, for the directories of the one mean nothing to the other; a
file in the root says it.
"""

from __future__ import annotations

import logging
import os
import tempfile
from typing import TYPE_CHECKING

from sampan.errors import FailedPrecondition, InvalidArgument
from sampan.kernel import overlaymarks
from sampan.runtime import rootfs
from sampan.snapshots.native import NativeSnapshotter
from sampan.snapshots.overlay import OverlaySnapshotter
from sampan.store import snapshots, trees

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from sampan.store.database import Database
    from sampan.store.layout import Layout

AUTO, OVERLAY, NATIVE = CHOICES = ("auto", "overlay", "native")
_log = logging.getLogger(__name__)


def choose(
    layout: Layout, db: Database, pool: Executor | None = None, wanted: str = AUTO
) -> OverlaySnapshotter:
    """The snapshotter of the root, by what it was begun with, or `wanted`, or what works.

    Raises:
        InvalidArgument: `wanted` is no snapshotter.
        FailedPrecondition: the root was begun with another one.
    """
    if wanted not in CHOICES:
        raise InvalidArgument(f"snapshotter {wanted!r}: use one of {', '.join(CHOICES)}")
    user_marks = overlaymarks.opaque_attribute() == overlaymarks.USER_OPAQUE
    begun = _begun(layout, db)
    if begun and wanted not in (AUTO, begun):
        raise FailedPrecondition(
            f"snapshotter {wanted}: the root {layout.root} was begun with {begun}; keep that, or "
            "use another root"
        )
    kind = begun or wanted
    if kind == AUTO:
        kind = _what_works(layout, user_marks=user_marks)
    if not begun:
        _write(layout, kind)
    if kind == NATIVE:
        return NativeSnapshotter(layout, db, pool)
    return OverlaySnapshotter(layout, db, pool, user_marks=user_marks)


def _begun(layout: Layout, db: Database) -> str:
    try:
        with open(layout.snapshotter, encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return OVERLAY if db.read_now(snapshots.list) else ""


def _write(layout: Layout, kind: str) -> None:
    with open(layout.snapshotter, "w", encoding="ascii") as file:
        file.write(kind + "\n")


def _what_works(layout: Layout, *, user_marks: bool) -> str:
    """Try a mount and a whiteout where the snapshots will be."""
    place = tempfile.mkdtemp(dir=layout.trash)
    try:
        for name in ("lower", "upper", "work"):
            os.mkdir(f"{place}/{name}")
        word = {
            "type": "overlay",
            "lowers": [f"{place}/lower"],
            "upper": f"{place}/upper",
            "work": f"{place}/work",
            "userxattr": user_marks,
        }
        os.close(rootfs.mount(word))
        os.mknod(f"{place}/lower/gone", 0o020000, 0)
    except OSError as error:
        _log.warning("overlayfs does not work in %s, files will be copied: %s", layout.root, error)
        return NATIVE
    finally:
        _remove(place)
    return OVERLAY


def _remove(place: str) -> None:
    """What stays is in the trash already."""
    parent = os.open(os.path.dirname(place), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        trees.remove(parent, os.path.basename(place))
    finally:
        os.close(parent)
