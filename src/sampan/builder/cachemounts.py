"""The directories of `RUN --mount=type=cache`: volumes, one for each id.

So they outlive the cache of results, are listed, kept, exported and brought to another machine as
other volumes are. Their names begin with `build-`, a label has the id. `shared` lets commands in
side by side, `locked` one after the other, `private` gives each its own while another is in use.
A volume that a command has is not removed.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from sampan.builder.files.service import Context, CopyJob, Part
from sampan.errors import FailedPrecondition, InvalidArgument
from sampan.store import builder as rows
from sampan.store.locks import KeyedLocks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sampan.builder.files.service import FileWork
    from sampan.builder.mounts import RunMount
    from sampan.engine.services import Services
    from sampan.snapshots.base import Mount

    Source = Context | Mount | None
    FindSource = Callable[[str], Awaitable[Source]]

LABEL: Final = "dev.sampan.build.cache"
_MOST_PRIVATE: Final = 64
_SHOWN: Final = 40  # characters of an id that a name has room for


def volume_name(mount_id: str) -> str:
    """What the volume of an id is called: as much of it as a name may have, and its hash."""
    shown = re.sub(r"[^A-Za-z0-9_.-]+", "-", mount_id).strip("-._")[-_SHOWN:]
    digest = hashlib.sha256(mount_id.encode()).hexdigest()[:12]
    return "-".join(part for part in ("build", shown.strip("-._"), digest) if part)


class CacheMounts:
    """Those of one root."""

    def __init__(self, services: Services, files: FileWork) -> None:
        self._services = services
        self._files = files
        self._locks = KeyedLocks()
        self._busy: dict[str, int] = {}

    @asynccontextmanager
    async def directory(self, mount: RunMount, find: FindSource) -> AsyncIterator[str]:
        """The directory of a mount, for the block; made and filled when it is not there.

        Raises:
            InvalidArgument: there is nothing to fill it with.
        """
        name = volume_name(mount.id)
        volumes = self._services.volumes
        async with AsyncExitStack() as undo:
            if mount.sharing == "locked":
                await undo.enter_async_context(self._locks.hold(name))
            if mount.sharing == "private":
                name = self._free(name)
            self._busy[name] = self._busy.get(name, 0) + 1
            undo.callback(self._release, name)
            async with self._locks.hold(f"make {name}"):
                volume = await volumes.create(name, labels={LABEL: mount.id})
                undo.enter_context(volumes.held(name, "a build"))
                await self._begin(name, volume.path, mount, find)
            yield volume.path

    def _free(self, name: str) -> str:
        for number in range(_MOST_PRIVATE):
            candidate = f"{name}-{number}" if number else name
            if candidate not in self._busy:
                return candidate
        raise FailedPrecondition(f"more than {_MOST_PRIVATE} builds use one private cache")

    def _release(self, name: str) -> None:
        self._busy[name] -= 1
        if not self._busy[name]:
            del self._busy[name]

    async def _begin(self, name: str, path: str, mount: RunMount, find: FindSource) -> None:
        """Give a directory that is new its owner, and fill it; note that it was used."""
        db = self._services.db
        if not db.read_now(lambda conn: rows.has_mount(conn, name)):
            if mount.from_ and not os.listdir(path):
                await self._fill(path, mount, await find(mount.from_))
            os.chown(path, mount.uid, mount.gid)
            os.chmod(path, 0o755 if mount.mode < 0 else mount.mode)
        await db.write(lambda conn: rows.put_mount(conn, name, mount.id))

    async def _fill(self, path: str, mount: RunMount, source: Source) -> None:
        if source is None:
            raise InvalidArgument(f"mount {mount.target}: there is nothing to mount")
        parent, _, last = path.rpartition("/")
        part = Part(source=0, words=[mount.source or "."], is_directory=False)
        job = CopyJob(target=f"/{last}", parts=[part], keep=not isinstance(source, Context))
        await self._files.copy(job, {"type": "bind", "source": parent}, [source])
