"""Further processes in running containers.

An exec is prepared, started once, and remembered with its exit code while its container is there
(at least the last MAX_KEPT that have ended). It gets the container's own sandbox: user,
capabilities, limits, filter and cgroup come from the same functions as those of the first process.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from errno import ESRCH
from signal import SIGKILL
from typing import TYPE_CHECKING, Any

from sampan.engine import specgen
from sampan.engine.model import Exec, Status
from sampan.engine.start import attach_entry, drop, start_failed
from sampan.errors import Conflict, InvalidArgument, NotFound, SampanError, StartFailed, Unavailable
from sampan.ids import new_id
from sampan.tasks.task import TaskFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.engine.config import EngineConfig
    from sampan.engine.containers import Containers, Entry
    from sampan.engine.model import Attachment, Container, ExecConfig
    from sampan.tasks.task import Task

MAX_KEPT = 256
_ROOM = 64
"""So many more are kept, for it to be worth to look through all."""
MAX_PREPARED = 4096
_LOST_CODE = 137


class Session:
    """One exec and whoever waits for its end."""

    __slots__ = ("_done", "entry", "exec", "quiet")

    def __init__(self, entry: Entry, made: Exec, *, quiet: bool = False) -> None:
        self.entry = entry
        self.exec = made
        self.quiet = quiet
        self._done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def end(self, code: int) -> None:
        """It has ended, or could not be started."""
        self.exec = replace(self.exec, started=True, running=False, exit_code=code)
        if not self._done.done():
            self._done.set_result(code)

    async def wait(self) -> int:
        """The exit code."""
        return await asyncio.shield(self._done)


class Execs:
    """All exec sessions of the engine."""

    def __init__(
        self,
        config: EngineConfig,
        containers: Containers,
        linked: Callable[[Container], tuple[str, ...]],
    ) -> None:
        """`linked` are the variables that a container has of those that it is linked to."""
        self._config = config
        self._containers = containers
        self._linked = linked
        self._sessions: dict[str, Session] = {}

    def create(self, entry: Entry, config: ExecConfig, *, quiet: bool = False) -> str:
        """See Engine.exec_create; a `quiet` one has no events."""
        check_running(entry)
        if not config.command or not config.command[0]:
            raise InvalidArgument("No exec command specified")
        if any("\0" in text for text in (*config.command, *config.env, config.cwd, config.user)):
            raise InvalidArgument("invalid character in the exec's command or environment")
        self._trim(entry)
        made = Exec(id=new_id(), container_id=entry.id, config=config)
        session = Session(entry, made, quiet=quiet)
        self._sessions[made.id] = entry.execs[made.id] = session
        self._emit(session, "exec_create: " + " ".join(config.command))
        return made.id

    async def start(self, exec_id: str, attachment: Attachment | None) -> None:
        """See Engine.exec_start."""
        attachments = (attachment,) if attachment is not None else ()
        try:
            session = self.find(exec_id)
            task = self._startable(session)
            session.exec = replace(session.exec, started=True, running=True)
            self._emit(session, "exec_start: " + " ".join(session.exec.config.command))
            await self._call(session, task, attachments)
        finally:
            drop(attachments)

    async def wait(self, exec_id: str) -> int:
        """See Engine.exec_wait."""
        return await self.find(exec_id).wait()

    async def settled(self, exec_id: str) -> Exec:
        """See Engine.exec_settled. The shim's words keep their order: its answer is the fence."""
        session = self.find(exec_id)
        # The shim tells us before it lets its clients go: what it said may be read already.
        await asyncio.sleep(0)
        task = session.entry.task
        if session.exec.running and task is not None:
            try:
                await task.call("state")
            except SampanError:
                pass  # it is gone, and so is the exec; the exit is on its way
        return session.exec

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """See Engine.exec_resize."""
        session = self.find(exec_id)
        task = session.entry.task
        if task is None or not session.exec.running:
            raise Conflict(f"exec {exec_id} is not running")
        await task.call("resize", exec=exec_id, height=height, width=width)

    async def kill(self, exec_id: str) -> None:
        """See Engine.exec_kill."""
        session = self.find(exec_id)
        task = session.entry.task
        if task is None or not session.exec.running:
            return
        try:
            await task.call("exec-signal", exec=exec_id, sig=int(SIGKILL), all=True)
        except TaskFailure as failure:
            if failure.errno != ESRCH:  # else it has ended meanwhile
                raise Conflict(f"kill exec {exec_id}: {failure}") from failure

    def find(self, exec_id: str) -> Session:
        """The session of an id. Raises NotFound."""
        session = self._sessions.get(exec_id)
        if session is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return session

    def ended(self, entry: Entry, exec_id: str, code: int) -> None:
        """The shim has seen the end of an exec."""
        session = entry.execs.get(exec_id)
        if session is None or not session.exec.running:
            return
        session.end(code)
        self._emit(session, "exec_die", exitCode=str(code))

    def all_ended(self, entry: Entry) -> None:
        """The shim is gone: what ran has ended without a code."""
        for exec_id in tuple(entry.execs):
            self.ended(entry, exec_id, _LOST_CODE)

    def drop_prepared(self, entry: Entry) -> None:
        """The container has ended: what was only prepared was so for this run of it, and is not
        there any more, as with dockerd."""
        for exec_id, session in tuple(entry.execs.items()):
            if not session.exec.started:
                self.drop(entry, exec_id)

    def drop(self, entry: Entry, exec_id: str) -> None:
        """Forget one that nobody will ask for again."""
        entry.execs.pop(exec_id, None)
        self._sessions.pop(exec_id, None)

    def forget(self, entry: Entry) -> None:
        """The container is removed."""
        for exec_id in entry.execs:
            self._sessions.pop(exec_id, None)
        entry.execs.clear()

    def _startable(self, session: Session) -> Task:
        if session.exec.started:
            raise Conflict(f"exec {session.exec.id} has already been started")
        return check_running(session.entry)

    async def _call(
        self, session: Session, task: Task, attachments: tuple[Attachment, ...]
    ) -> None:
        container, config = session.entry.container, session.exec.config
        facts = specgen.Facts(
            cgroups_path="",
            no_new_privileges=self._config.no_new_privileges,
            variables=self._linked(container) if container.host.links else (),
        )
        request: dict[str, Any] = {
            "exec": session.exec.id,
            "process": specgen.exec_process(container, config, facts),
            "terminal": config.tty,
            "console_size": config.console_size,
            "attach": [attach_entry(attachment) for attachment in attachments],
        }
        if config.privileged:
            request["seccomp"] = False
        try:
            answer = await task.call(
                "exec", [attachment.fd for attachment in attachments], **request
            )
        except TaskFailure as failure:
            error = _failed(container.name, failure)
            session.end(error.exit_code)
            raise error from failure
        except SampanError:
            session.end(_LOST_CODE)
            raise
        if not session.quiet:  # also of one that has ended since: it tells that it ran
            session.exec = replace(session.exec, pid=int(answer["pid"]))

    def _emit(self, session: Session, action: str, **attributes: str) -> None:
        if not session.quiet:
            self._containers.emit(session.entry, action, execID=session.exec.id, **attributes)

    def _trim(self, entry: Entry) -> None:
        """Forget the oldest that have ended; refuse more than can be held."""
        if len(entry.execs) < MAX_KEPT + _ROOM:
            return
        ended = [key for key, session in entry.execs.items() if session.exec.exit_code is not None]
        for exec_id in ended[: max(0, len(ended) - MAX_KEPT)]:
            del entry.execs[exec_id]
            self._sessions.pop(exec_id, None)
        if len(entry.execs) >= MAX_PREPARED:
            raise Conflict(f"container {entry.id} has too many exec sessions")


def check_running(entry: Entry) -> Task:
    """The task of a container that can be spoken to.

    Raises:
        Conflict: it does not run, or is paused.
        Unavailable: its monitor is gone, and the end is about to be noticed.
    """
    container = entry.container
    if container.status is Status.PAUSED:
        raise Conflict(f"Container {container.name} is paused, unpause the container before exec")
    if container.status is Status.RESTARTING:
        raise Conflict(
            f"container {container.id} is restarting, wait until the container is running"
        )
    if container.status is not Status.RUNNING:
        raise Conflict(f"container {container.id} is not running")
    if entry.task is None:
        raise Unavailable(f"container {container.id}: its monitor is gone")
    return entry.task


def _failed(name: str, failure: TaskFailure) -> StartFailed:
    outcome = {
        "error": str(failure),
        "errno": failure.errno,
        "operation": failure.operation,
    }
    code = start_failed(name, outcome).exit_code
    # 125 is for the engine's own failures; what a container refuses an exec is 126.
    return StartFailed(f"exec in container {name} failed: {failure}", 126 if code == 125 else code)
