"""Volumes on the disk of this host: the directories, the rows, and what they stand for.

A volume is the directory `volumes/<name>`, whose `_data` containers see, and a row. The directory
is made before the row and leaves before it: a row without a directory is a removal that was cut
off, an empty directory without a row a creation that was. A directory without a row that holds
something is left alone, and the next volume of that name takes it over, as dockerd does; one that
nobody named goes after its row, and is removed.

Only this class makes and removes them; who uses a volume is the engine's knowledge.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from sampan.errors import NotFound, ResourceExhausted, SampanError
from sampan.ids import check_name, is_id
from sampan.store import trees
from sampan.store import volumes as rows
from sampan.store.ingest import FULL
from sampan.store.layout import make_directory
from sampan.store.trash import Trash
from sampan.store.volumes import VolumeRow
from sampan.volumes.copyup import DATA
from sampan.volumes.options import Backing, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Executor

    from sampan.store.database import Connection, Database
    from sampan.store.layout import Layout

log = logging.getLogger(__name__)

DRIVER = "local"
_DATA_MODE = 0o755


class VolumeNotFound(NotFound):
    """There is no such volume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One volume. `path` is the directory that containers see; times are nanoseconds."""

    name: str
    path: str
    created_at: int
    anonymous: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def backing(self) -> Backing:
        """What is behind it."""
        return parse(self.options)


class LocalVolumes:
    """Every volume of one root, in memory and on disk. Call `load` first."""

    def __init__(self, layout: Layout, db: Database, pool: Executor) -> None:
        self._layout = layout
        self._db = db
        self._trash = Trash(layout, pool)
        self._volumes: dict[str, Volume] = {}

    def __iter__(self) -> Iterator[Volume]:
        return iter(sorted(self._volumes.values(), key=lambda volume: volume.name))

    def __contains__(self, name: str) -> bool:
        return name in self._volumes

    def get(self, name: str) -> Volume:
        """The volume of that name. Raises VolumeNotFound."""
        try:
            return self._volumes[name]
        except KeyError:
            raise VolumeNotFound(f"get {name}: no such volume") from None

    def load(self) -> None:
        """Read the rows, and make them agree with the directories."""
        for row in self._db.read_now(rows.list):
            if os.path.isdir(self._data(row.name)):
                self._volumes[row.name] = self._volume(row)
            else:
                log.warning("volume %s has no directory: its removal was cut off", row.name)
                self._db.write_now(partial(rows.delete, name=row.name))
        for name in os.listdir(self._layout.volumes):
            if name in self._volumes:
                continue
            if is_id(name):
                self._trash.discard(f"{self._layout.volumes}/{name}")
            else:
                self._drop_empty(f"{self._layout.volumes}/{name}")

    async def create(
        self, row: VolumeRow, also: Callable[[Connection, Volume], None] | None = None
    ) -> Volume:
        """Make the volume of `row`, which is not there yet; `also` joins the transaction.

        Raises:
            InvalidArgument: name or options are impossible. ResourceExhausted: the disk is full.
        """
        parse(row.options)
        check_name(row.name, "volume")
        volume = self._volume(row)
        try:
            make_directory(self._layout.volume(row.name))
            make_directory(volume.path, _DATA_MODE)
        except OSError as error:
            if error.errno in FULL:
                raise ResourceExhausted(f"create volume {row.name}: {error}") from error
            raise

        def write(conn: Connection) -> None:
            rows.insert(conn, row)
            if also is not None:
                also(conn, volume)

        try:
            await self._db.write(write)
        except SampanError:
            self._drop_empty(self._layout.volume(row.name))
            raise
        self._volumes[row.name] = volume
        return volume

    async def remove(
        self, volume: Volume, also: Callable[[Connection, Volume], None] | None = None
    ) -> None:
        """Remove a volume that nothing uses, with everything in it."""
        self._volumes.pop(volume.name, None)
        self._trash.discard(self._layout.volume(volume.name))

        def write(conn: Connection) -> None:
            rows.delete(conn, volume.name)
            if also is not None:
                also(conn, volume)

        await self._db.write(write)

    def discard(self, volume: Volume) -> None:
        """Remove the directory of a volume without a name, whose row is gone with its container."""
        self._volumes.pop(volume.name, None)
        self._trash.discard(self._layout.volume(volume.name))

    def path_of(self, name: str) -> str:
        """The directory that containers see of the volume `name`."""
        return self._data(name)

    def directory(self, volume: Volume) -> str:
        """The directory that holds the data directory."""
        return self._layout.volume(volume.name)

    def measure(self, volume: Volume) -> int:
        """Bytes on the disk. Blocks; 0 when the volume has gone meanwhile."""
        try:
            fd = os.open(self.directory(volume), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            return trees.measure(fd, DATA)[0]
        finally:
            os.close(fd)

    def _volume(self, row: VolumeRow) -> Volume:
        return Volume(
            name=row.name,
            path=self._data(row.name),
            created_at=row.created_ns,
            anonymous=row.anonymous,
            labels=row.labels,
            options=row.options,
        )

    def _data(self, name: str) -> str:
        return f"{self._layout.volume(name)}/{DATA}"

    def _drop_empty(self, path: str) -> None:
        for directory in (f"{path}/{DATA}", path):
            try:
                os.rmdir(directory)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    log.warning("%s belongs to no volume and is not empty: left alone", path)


def new_row(
    name: str,
    *,
    anonymous: bool = False,
    labels: Mapping[str, str] | None = None,
    driver_options: Mapping[str, str] | None = None,
) -> VolumeRow:
    """The row of a volume that is made now."""
    return VolumeRow(name, anonymous, time.time_ns(), labels or {}, driver_options or {})
