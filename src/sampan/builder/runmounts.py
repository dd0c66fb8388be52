"""What stands behind the mounts of a RUN: copies, directories of the cache, secrets, the agent.

`prepared` gives a command's mounts for the time of a block. Files of a context, a stage or an image
are copied, so what a command changes in them is gone with the copy. A cache's directory is a
snapshot that no image has, one for each id; `locked` waits for it, `private` takes another when it
is in use.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sampan.builder.files.service import Context, CopyJob, Part
from sampan.errors import FailedPrecondition, InvalidArgument
from sampan.ids import new_id
from sampan.images.failures import finish
from sampan.store import builder as rows
from sampan.store.locks import KeyedLocks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from sampan.builder.files.service import FileWork
    from sampan.builder.mounts import RunMount
    from sampan.builder.secrets import Vault
    from sampan.engine.services import Services
    from sampan.snapshots.base import Mount
    from sampan.store.database import Connection

    Source = Context | Mount | None
    FindSource = Callable[[str], Awaitable[Source]]

_BIND: Final = ("rbind", "rprivate")
_MOST_PRIVATE: Final = 64


@dataclass(slots=True)
class Prepared:
    """The mounts in the runtime's words, and the variables that come with them."""

    mounts: list[dict[str, Any]] = field(default_factory=list)
    env: list[str] = field(default_factory=list)
    secret_env: list[str] = field(default_factory=list)


class RunMounts:
    """Prepares mounts for the commands of one root."""

    def __init__(self, services: Services, files: FileWork, vault: Vault) -> None:
        self._services = services
        self._files = files
        self._vault = vault
        self._locks = KeyedLocks()
        self._busy: dict[str, int] = {}

    @asynccontextmanager
    async def prepared(
        self,
        mounts: tuple[RunMount, ...],
        *,
        find: FindSource,
        secrets: Mapping[str, bytes],
        ssh: Mapping[str, str],
        lease: str,
    ) -> AsyncIterator[Prepared]:
        """The mounts, for the block.

        Raises:
            InvalidArgument: a source is missing, or a required secret was not given.
        """
        made = Prepared()
        async with AsyncExitStack() as undo:
            for mount in mounts:
                match mount.kind:
                    case "bind":
                        path = await self._copy(mount, find, lease, undo)
                        made.mounts.append(_bind(path, mount.target, read_only=mount.read_only))
                    case "cache":
                        path = await self._cache(mount, find, undo)
                        made.mounts.append(_bind(path, mount.target, read_only=mount.read_only))
                    case "tmpfs":
                        made.mounts.append(_tmpfs(mount))
                    case "secret":
                        self._secret(mount, secrets, made, undo)
                    case _:
                        self._agent(mount, ssh, made)
            yield made

    async def _copy(
        self, mount: RunMount, find: FindSource, lease: str, undo: AsyncExitStack
    ) -> str:
        """A copy of the source for one command; its path."""
        key = f"build-bind-{new_id()[:32]}"
        snapshots = self._services.snapshots
        where = await snapshots.prepare(key, None, lease=lease)
        undo.push_async_callback(self._remove, key)
        await self._fill(where, mount, await find(mount.from_))
        assert where["type"] == "bind"
        return f"{where['source']}/mount"

    async def _remove(self, key: str) -> None:
        await finish(self._services.snapshots.remove(key))

    async def _fill(self, where: Mount, mount: RunMount, source: Source) -> None:
        if source is None:
            raise InvalidArgument(f"mount {mount.target}: there is nothing to mount")
        part = Part(source=0, words=[mount.source or "."], is_directory=False)
        job = CopyJob(target="/mount", parts=[part], keep=not isinstance(source, Context))
        await self._files.copy(job, where, [source])

    async def _cache(self, mount: RunMount, find: FindSource, undo: AsyncExitStack) -> str:
        name = hashlib.sha256(mount.id.encode()).hexdigest()[:32]
        if mount.sharing == "locked":
            await undo.enter_async_context(self._locks.hold(name))
        if mount.sharing == "private":
            name = self._free(name)
        self._busy[name] = self._busy.get(name, 0) + 1
        undo.callback(self._release, name)
        async with self._locks.hold(f"make {name}"):
            return await self._directory(name, mount, find)

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

    async def _directory(self, name: str, mount: RunMount, find: FindSource) -> str:
        """The directory of a cache, made and filled when it is not there."""
        services, key = self._services, f"build-mount-{name}"

        def look(conn: Connection) -> tuple[Mount, bool]:
            found = rows.find_mount(conn, name)
            made = services.snapshots.prepare_now(conn, key, None) if found is None else None
            rows.put_mount(conn, name, mount.id, key)
            return (made, True) if made is not None else (services.snapshots.mounts(key), False)

        where, is_new = await services.db.write(look)
        assert where["type"] == "bind"
        path = where["source"]
        if is_new:
            if mount.from_:
                await self._fill(where, mount, await find(mount.from_))
            os.makedirs(f"{path}/mount", exist_ok=True)
            os.chown(f"{path}/mount", mount.uid, mount.gid)
            os.chmod(f"{path}/mount", 0o755 if mount.mode < 0 else mount.mode)
        return f"{path}/mount"

    def _secret(
        self,
        mount: RunMount,
        secrets: Mapping[str, bytes],
        made: Prepared,
        undo: AsyncExitStack,
    ) -> None:
        content = secrets.get(mount.id)
        if content is None:
            if mount.required:
                raise InvalidArgument(f"secret {mount.id}: not found; give it with --secret")
            return
        if mount.env:
            text = content.decode("utf-8", "surrogateescape")
            made.secret_env.append(f"{mount.env}={text}")
        if mount.target:
            mode = 0o400 if mount.mode < 0 else mount.mode
            path = undo.enter_context(self._vault.file(content, mode, mount.uid, mount.gid))
            made.mounts.append(_bind(path, mount.target, read_only=True))

    def _agent(self, mount: RunMount, ssh: Mapping[str, str], made: Prepared) -> None:
        path = ssh.get(mount.id)
        if path is None:
            if mount.required:
                raise InvalidArgument(f"ssh agent {mount.id}: not found; give it with --ssh")
            return
        target = mount.target or f"/run/buildkit/ssh_agent.{len(made.env)}"
        made.mounts.append(_bind(path, target, read_only=False))
        if not any(entry.startswith("SSH_AUTH_SOCK=") for entry in made.env):
            made.env.append(f"SSH_AUTH_SOCK={target}")


def _bind(source: str, target: str, *, read_only: bool) -> dict[str, Any]:
    options = [*_BIND, "nosuid", "nodev", "ro" if read_only else "rw"]
    return {"destination": target, "type": "bind", "source": source, "options": options}


def _tmpfs(mount: RunMount) -> dict[str, Any]:
    options = ["nosuid", "nodev"] + ([f"size={mount.size}"] if mount.size else [])
    return {
        "destination": mount.target,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": options,
    }
