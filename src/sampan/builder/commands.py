"""Commands of RUN, each in a container of the engine that nobody else sees.

The container is an ordinary one: default profile, its own namespaces, the default network. Its
root is the snapshot that the step changes, its log is nowhere, its output is read as it comes. When
it has ended it is removed, whatever happened; a cancelled build kills it.

What the mounts needed as places to be mounted on is taken away afterwards (`builder.places`).
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from sampan.builder.failures import CommandFailed
from sampan.builder.leftovers import OWNER
from sampan.builder.places import remove_places
from sampan.engine.model import (
    Attachment,
    ContainerConfig,
    Framing,
    HostConfig,
    LogConfig,
    LogDriver,
    Ownership,
    WaitCondition,
)
from sampan.engine.start import SNAPSHOT
from sampan.images.failures import finish

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.engine.engine import Engine
    from sampan.engine.model import Container
    from sampan.snapshots.base import Mount

HOSTNAME: Final = "sampan-build"
_PLACES: Final = ("/dev", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc", "/sys")
_PIECE: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run; `mounts` in the words of the runtime's specification.

    `secret_env` is given to the process and written nowhere; `shown` is what an error quotes.
    """

    words: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    host: HostConfig = field(default_factory=HostConfig)
    mounts: tuple[dict[str, Any], ...] = ()
    secret_env: tuple[str, ...] = field(default=(), repr=False)
    shown: tuple[str, ...] = ()


class Commands:
    """Runs commands in one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._commands: dict[str, Command] = {}
        self._slots = asyncio.Semaphore(max(2, os.cpu_count() or 1))
        engine.complete(OWNER, self._amend)

    async def run(
        self,
        command: Command,
        snapshot: str,
        mount: Mount,
        *,
        began: Callable[[str], None],
        output: Callable[[bytes, bool], None],
    ) -> None:
        """Run to the end. `began` gets the container's id, `output` what was printed and whether
        to the standard error.

        Raises:
            CommandFailed: it ended with another code than 0.
            StartFailed: it could not be executed.
        """
        config = ContainerConfig(
            rootfs=f"{SNAPSHOT}{snapshot}",
            entrypoint=(),
            command=command.words,
            env=command.env,
            cwd=command.cwd,
            user=command.user,
            hostname=HOSTNAME,
        )
        host = replace(command.host, log=LogConfig(driver=LogDriver.NONE))
        made = await self._engine.create(config, host, owner=Ownership(owner=OWNER))
        self._commands[made.id] = command
        try:
            began(made.id)
            async with self._slots:
                code = await self._to_end(made.id, output)
        finally:
            self._commands.pop(made.id, None)
            await finish(self._engine.remove(made.id, force=True))
        places = (*_PLACES, *(str(each["destination"]) for each in command.mounts))
        await self._engine.services.on_disk(remove_places, mount, places)
        if code:
            raise CommandFailed(command.shown or command.words, code)

    async def _to_end(self, container: str, output: Callable[[bytes, bool], None]) -> int:
        ended = self._engine.arm_wait(container, WaitCondition.NEXT_EXIT)
        with ExitStack() as undo:
            attached, readers = [], []
            for is_error in (False, True):
                ours, theirs = socket.socketpair()
                undo.callback(ours.close)
                ours.setblocking(False)
                attached.append(
                    Attachment(
                        fd=theirs.detach(),
                        stdout=not is_error,
                        stderr=is_error,
                        framing=Framing.RAW,
                    )
                )
                readers.append(_read(ours, is_error, output))
            async with asyncio.TaskGroup() as tasks:
                for reader in readers:
                    tasks.create_task(reader)
                # A launch is not stopped half-way: it is waited for, and killed afterwards.
                await finish(self._engine.start(container, attached))
            return (await ended).exit_code

    def _amend(self, container: Container, spec: dict[str, Any]) -> None:
        """See Engine.complete: what is in no row of the database."""
        command = self._commands[container.id]
        spec["mounts"] += command.mounts
        spec["process"]["env"] += command.secret_env


async def _read(sock: socket.socket, is_error: bool, output: Callable[[bytes, bool], None]) -> None:  # noqa: FBT001, RUF100
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = await loop.sock_recv(sock, _PIECE)
        except ConnectionResetError:
            return
        if not data:
            return
        output(data, is_error)
