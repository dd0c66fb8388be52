"""What stands behind the mounts of a RUN: copies, directories of the cache, secrets, the agent.

`prepared` gives a command's mounts for the time of a block. Files of a context, a stage or an image
are copied, so what a command changes in them is gone with the copy. A cache's directory is a volume
(`builder.cachemounts`).
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sampan.builder import agents
from sampan.builder.cachemounts import CacheMounts
from sampan.builder.files.service import Context, CopyJob, Part
from sampan.errors import InvalidArgument
from sampan.ids import new_id
from sampan.images.failures import finish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from sampan.builder.cachemounts import FindSource, Source
    from sampan.builder.files.service import FileWork
    from sampan.builder.mounts import RunMount
    from sampan.builder.secrets import Vault
    from sampan.engine.services import Services
    from sampan.snapshots.base import Mount

_BIND: Final = ("rbind", "rprivate")


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
        self._caches = CacheMounts(services, files)

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
                        path = await undo.enter_async_context(self._caches.directory(mount, find))
                        made.mounts.append(_bind(path, mount.target, read_only=mount.read_only))
                    case "tmpfs":
                        made.mounts.append(_tmpfs(mount))
                    case "secret":
                        self._secret(mount, secrets, made, undo)
                    case _:
                        await self._agent(mount, ssh, made, undo)
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

    async def _agent(
        self, mount: RunMount, ssh: Mapping[str, str], made: Prepared, undo: AsyncExitStack
    ) -> None:
        path = ssh.get(mount.id)
        if path is None:
            if mount.required:
                raise InvalidArgument(f"ssh agent {mount.id}: not found; give it with --ssh")
            return
        target = mount.target or f"/run/buildkit/ssh_agent.{len(made.env)}"
        mode = 0o600 if mount.mode < 0 else mount.mode
        directory = undo.enter_context(self._vault.place())
        shown = await undo.enter_async_context(
            agents.relayed(path, directory, mode=mode, uid=mount.uid, gid=mount.gid)
        )
        made.mounts.append(_bind(shown, target, read_only=True))
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
