"""Checkpoints: a running container's processes as files, by CRIU, and the start from them.

The runtime does both (`sampan-oci checkpoint` and `restore`), as for every caller. To write one, it
gets a directory of state that says of the container what it would have written itself. The start
from one is that of a foreign runtime's container: a shim of its own asks the program, which is ours
here, for `restore` in place of `create`. What CRIU says when it cannot comes back as it is.

The files lie in the container's own directory, unless the request names another one; they have the
container's memory in them, so nobody else may read them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from typing import TYPE_CHECKING, Final

from sampan.engine import hookfiles
from sampan.engine.model import Status
from sampan.engine.placement import cgroup_path
from sampan.engine.remove import wait_for_end
from sampan.errors import Conflict, InvalidArgument, NotFound, Unavailable
from sampan.kernel import cgroups
from sampan.kernel.identity import start_time
from sampan.tasks import recovery

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sampan.engine.containers import Entry
    from sampan.engine.model import Container
    from sampan.engine.services import Services
    from sampan.engine.start import Starter

PATIENCE: Final = 300.0
"""Seconds that a dump may take, and the end of the container after it."""

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}", re.ASCII)
_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class Checkpoints:
    """Makes, lists and removes them."""

    def __init__(self, services: Services, starter: Starter) -> None:
        self._services = services
        self._starter = starter

    def directory(self, entry: Entry, where: str, name: str) -> str:
        """Where a checkpoint is or will be. Raises InvalidArgument."""
        if _NAME.fullmatch(name) is None:
            raise InvalidArgument(
                f"Invalid checkpoint ID ({name[:80]}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )
        return f"{self._place(entry, where)}/{name}"

    def _place(self, entry: Entry, where: str) -> str:
        if where and not os.path.isabs(where):
            raise InvalidArgument(f"checkpoint directory {where!r}: an absolute path is needed")
        return where or f"{self._services.layout.container(entry.id)}/checkpoints"

    async def create(self, entry: Entry, name: str, where: str, *, leave_running: bool) -> None:
        """See Engine.checkpoint."""
        path = self.directory(entry, where, name)
        async with entry.lock:
            _check(entry.container)
            if name in self.list(entry, where):
                raise Conflict(
                    f"checkpoint with name {name} already exists for container "
                    f"{entry.container.name}"
                )
            await self._dump(entry, path, leave_running=leave_running)
        if not leave_running:
            await wait_for_end(entry, PATIENCE)
        self._services.containers.emit(entry, "checkpoint")

    async def dump(self, entry: Entry, path: str) -> dict[str, Any]:
        """See Engine.dump."""
        async with entry.lock:
            if not entry.container.status.is_running:
                raise Conflict(f"container {entry.id} is not running")
            if entry.container.config.tty:
                raise InvalidArgument("a container with a terminal cannot be checkpointed")
            os.mkdir(path, 0o700)
            if entry.container.host.program:
                await self._write_by(entry.container, path)
            else:
                await self._write(entry, path, leave_running=True)
        return self._starter.specification(entry)

    async def _dump(self, entry: Entry, path: str, *, leave_running: bool) -> None:
        """Let the runtime write it beside its place, and give it its name when it is whole."""
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        images = tempfile.mkdtemp(prefix=".new-", dir=os.path.dirname(path))
        try:
            await self._write(entry, images, leave_running=leave_running)
            os.rename(images, path)
        except BaseException:
            await asyncio.to_thread(recovery.clear, images)
            raise

    async def _write(self, entry: Entry, images: str, *, leave_running: bool) -> None:
        with tempfile.TemporaryDirectory(dir=self._services.layout.trash) as root:
            self._write_state(entry, f"{root}/{entry.id}")
            words = [*hookfiles.PROGRAM, "--root", root, "checkpoint", "--image-path", images]
            words += ["--file-locks", "--tcp-established", "--ext-unix-sk"]
            words += ["--leave-running"] if leave_running else []
            await _run([*words, entry.id], f"checkpoint {entry.container.name}")

    async def _write_by(self, container: Container, images: str) -> None:
        """By the program that made it, whose state is in the shim's directory."""
        root = f"{self._services.layout.shim(container.id)}/runtime"
        words = [*container.host.program, "--root", root, "checkpoint", "--leave-running"]
        words += ["--image-path", images, "--work-path", images, container.id]
        await _run(words, f"checkpoint {container.name}")

    def _write_state(self, entry: Entry, directory: str) -> None:
        """What the runtime would know of the container. Its cgroup is the shim's to remove; one
        that is paused is named, because CRIU lets it go while it writes, and stops it again."""
        pid = entry.container.state.pid
        try:
            started = start_time(pid)
        except (FileNotFoundError, ProcessLookupError):
            raise Conflict(f"Container {entry.id} is not running") from None
        state = {
            "v": 1,
            "id": entry.id,
            "pid": pid,
            "start_time": started,
            "rootfs": f"/proc/{pid}/root",
            "config": self._starter.specification(entry),
        }
        if entry.container.status is Status.PAUSED:
            path = cgroup_path(self._services.config, entry.container)
            state |= {"cgroup": path, "cgroup_paths": cgroups.manager(path).names()}
        os.mkdir(directory, 0o700)
        with open(f"{directory}/state.json", "w", encoding="utf-8") as file:
            file.write(json.dumps(state))

    def list(self, entry: Entry, where: str) -> Sequence[str]:
        """See Engine.checkpoints."""
        try:
            found = os.listdir(self._place(entry, where))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise InvalidArgument(f"list checkpoints: {where}: {error.strerror}") from error
        return sorted(name for name in found if _NAME.fullmatch(name))

    async def remove(self, entry: Entry, name: str, where: str) -> None:
        """See Engine.remove_checkpoint."""
        path = self.existing(entry, name, where)
        await asyncio.to_thread(recovery.clear, path)

    def existing(self, entry: Entry, name: str, where: str) -> str:
        """The directory of a checkpoint. Raises NotFound."""
        path = self.directory(entry, where, name)
        if not os.path.isdir(path) or os.path.islink(path):
            raise NotFound(f"checkpoint {name} does not exist for container {entry.container.name}")
        return path

    async def start(self, entry: Entry, name: str, where: str) -> None:
        """Start the container where it was when the checkpoint was made."""
        await self._starter.start(entry, images=self.existing(entry, name, where))


def _check(container: Container) -> None:
    """Raise when the container cannot be written down now, or never."""
    if container.status is not Status.RUNNING:
        raise Conflict(f"Container {container.id} is not running")
    if container.config.tty:
        raise InvalidArgument("checkpoint not supported on containers with tty")
    if container.host.program:
        raise InvalidArgument("checkpoint not supported on containers of other runtimes")


async def _run(words: Sequence[str], what: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd="/",
        env=_ENVIRONMENT,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            _, said = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        text = said.decode(errors="replace").strip() or f"status {process.returncode}"
        text = text.partition("; its log is")[0]  # which goes with what is not whole
        raise Unavailable(f"{what}: {text[-2000:]}")
