"""Tasks: runs of containers, and further processes in them.

Create notes what was asked for and makes nothing; Start starts the engine's container. So a task
has no process until then, and its pid is 0.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from google.protobuf.empty_pb2 import Empty

from sampan.api.containerd.moments import moment
from sampan.api.containerd.records import OWNER, Notes, TaskNotes, specification
from sampan.api.containerd.stdio import Streams, check
from sampan.engine.model import ExecConfig, Status, WaitCondition
from sampan.engine.placement import cgroup_path
from sampan.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
)
from sampan.jsontext import decode
from sampan.kernel import cgroups
from sampan.wire.containerd import event_types_pb2 as events
from sampan.wire.containerd import task_types_pb2 as types
from sampan.wire.containerd import tasks_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from sampan.api.containerd.bus import Bus
    from sampan.api.containerd.calls import Caller, Unary
    from sampan.api.containerd.records import Records
    from sampan.engine.engine import Engine
    from sampan.engine.model import Container

_MAX_SIGNAL = 64


@dataclass(slots=True)
class _Process:
    """A further process of a task."""

    notes: TaskNotes
    config: ExecConfig
    exec_id: str = ""
    streams: Streams | None = None
    exit_code: int | None = None
    ended_ns: int = 0
    pid: int = 0
    ended: asyncio.Event | None = None


class Tasks:
    """Answers about tasks."""

    def __init__(self, engine: Engine, records: Records, bus: Bus) -> None:
        self._engine = engine
        self._records = records
        self._bus = bus
        self._streams: dict[str, Streams] = {}
        self._closed: set[tuple[str, str]] = set()  # (container, exec) whose stdin ends at once
        self._processes: dict[tuple[str, str], _Process] = {}
        self._work: set[asyncio.Task[None]] = set()
        engine.own(OWNER, self._specification)

    def table(self) -> dict[str, Unary]:
        """Method -> answer."""
        return {
            "Create": self._create,
            "Start": self._start,
            "Delete": self._delete,
            "DeleteProcess": self._delete_process,
            "Get": self._get,
            "List": self._list,
            "Kill": self._kill,
            "Exec": self._exec,
            "ResizePty": self._resize,
            "CloseIO": self._close_io,
            "Pause": self._pause,
            "Resume": self._resume,
            "ListPids": self._pids,
            "Wait": self._wait,
        }

    async def aclose(self) -> None:
        """End the pumps; containers run on."""
        for task in tuple(self._work):
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    def _specification(self, container: Container, cgroup: str) -> dict[str, Any]:
        """What the engine starts: the client's, in a cgroup of the engine's."""
        spec = specification(Notes.decode(container.notes))
        linux = spec.setdefault("linux", {})
        linux["cgroupsPath"] = cgroup
        return spec

    # one task

    async def _create(self, caller: Caller, request: pb.CreateTaskRequest) -> pb.CreateTaskResponse:
        if request.checkpoint.digest:
            raise NotImplementedHere("create task: restoring a checkpoint is not supported")
        container, notes = self._records.find(caller.namespace, request.container_id)
        if notes.task is not None:
            raise AlreadyExists(f"task {notes.id}: already exists")
        if not notes.snapshot_key:
            raise InvalidArgument(f"task {notes.id}: a container without a snapshot cannot run")
        paths = request.stdin, request.stdout, request.stderr
        task = TaskNotes(*paths, terminal=request.terminal, created_ns=time.time_ns())
        check(task)
        if task.terminal != container.config.tty:
            raise InvalidArgument(f"task {notes.id}: its specification says another terminal")
        await self._note(caller, notes.id, task)
        self._bus.tell(caller.namespace, "/tasks/create", events.TaskCreate(container_id=notes.id))
        return pb.CreateTaskResponse(container_id=notes.id)

    async def _start(self, caller: Caller, request: pb.StartRequest) -> pb.StartResponse:
        container, notes, task = self._task(caller, request.container_id)
        if request.exec_id:
            return await self._start_process(container, request.exec_id)
        if task.started:
            raise FailedPrecondition(f"task {notes.id} was started already")
        streams = self._streams[container.id] = self._open(task, container.id, "")
        self._spawn(streams.pump())
        ended = self._engine.arm_wait(container.id, WaitCondition.NEXT_EXIT)
        try:
            await self._engine.start(container.id, [streams.attachment])
        except BaseException:
            ended.cancel()
            raise
        finally:
            await self._note(caller, notes.id, replace(task, started=True))
        pid = self._engine.get(container.id).state.pid
        told = events.TaskStart(container_id=notes.id, pid=pid)
        self._bus.tell(caller.namespace, "/tasks/start", told)
        self._spawn(self._tell_end(caller, notes.id, pid, ended))
        return pb.StartResponse(pid=pid)

    async def _tell_end(self, caller: Caller, task_id: str, pid: int, ended: Any) -> None:
        result = await ended
        told = events.TaskExit(
            container_id=task_id,
            id=task_id,
            pid=pid,
            exit_status=result.exit_code,
            exited_at=moment(time.time_ns()),
        )
        self._bus.tell(caller.namespace, "/tasks/exit", told)

    async def _delete(self, caller: Caller, request: pb.DeleteTaskRequest) -> pb.DeleteResponse:
        container, notes, task = self._task(caller, request.container_id)
        if container.status.is_running:
            raise FailedPrecondition(f"task must be stopped before deletion: {notes.id} is running")
        await self._note(caller, notes.id, None)
        self._streams.pop(container.id, None)
        code = container.state.exit_code if _has_ended(container, task) else 0
        ended = moment(container.state.finished_at or time.time_ns())
        told = events.TaskDelete(
            container_id=notes.id, id=notes.id, exit_status=code, exited_at=ended
        )
        self._bus.tell(caller.namespace, "/tasks/delete", told)
        return pb.DeleteResponse(id=notes.id, exit_status=code, exited_at=ended)

    async def _get(self, caller: Caller, request: pb.GetRequest) -> pb.GetResponse:
        container, notes, _ = self._task(caller, request.container_id)
        if not request.exec_id:
            return pb.GetResponse(process=_shown(container, notes))
        process = self._process(container, request.exec_id)
        return pb.GetResponse(process=_shown_process(notes.id, request.exec_id, process))

    async def _list(self, caller: Caller, _: pb.ListTasksRequest) -> pb.ListTasksResponse:
        found = self._records.all(caller.namespace)
        return pb.ListTasksResponse(
            tasks=[_shown(container, notes) for container, notes in found if notes.task is not None]
        )

    async def _kill(self, caller: Caller, request: pb.KillRequest) -> Empty:
        container, notes, task = self._task(caller, request.container_id)
        number = request.signal or int(signal.SIGTERM)
        if number > _MAX_SIGNAL:
            raise InvalidArgument(f"kill {notes.id}: {number} is no signal")
        if request.exec_id:
            await self._kill_process(self._process(container, request.exec_id), number)
            return Empty()
        if not container.status.is_running:
            if not _has_ended(container, task):
                await self._note(caller, notes.id, replace(task, started=True))
                return Empty()
            raise NotFound(f"process already finished: {notes.id}: not found")
        await self._engine.kill(container.id, str(number))
        return Empty()

    async def _wait(self, caller: Caller, request: pb.WaitRequest) -> pb.WaitResponse:
        container, _, task = self._task(caller, request.container_id)
        if request.exec_id:
            return await _wait_process(self._process(container, request.exec_id))
        if _has_ended(container, task):
            code, ended = container.state.exit_code, container.state.finished_at
            return pb.WaitResponse(exit_status=code, exited_at=moment(ended))
        result = await self._engine.wait(container.id, WaitCondition.NEXT_EXIT)
        ended = self._engine.get(container.id).state.finished_at or time.time_ns()
        return pb.WaitResponse(exit_status=result.exit_code, exited_at=moment(ended))

    async def _resize(self, caller: Caller, request: pb.ResizePtyRequest) -> Empty:
        container, _, _ = self._task(caller, request.container_id)
        if request.exec_id:
            process = self._process(container, request.exec_id)
            await self._engine.exec_resize(process.exec_id, request.height, request.width)
        else:
            await self._engine.resize(container.id, request.height, request.width)
        return Empty()

    async def _close_io(self, caller: Caller, request: pb.CloseIORequest) -> Empty:
        container, _, _ = self._task(caller, request.container_id)
        streams = self._streams.get(container.id)
        if request.exec_id:
            streams = self._process(container, request.exec_id).streams
        if request.stdin and streams is not None:
            streams.close_stdin()
        elif request.stdin:  # a client that has nothing to say says so before the start
            self._closed.add((container.id, request.exec_id))
        return Empty()

    async def _pause(self, caller: Caller, request: pb.PauseTaskRequest) -> Empty:
        container, notes, _ = self._task(caller, request.container_id)
        await self._engine.pause(container.id)
        told = events.TaskPaused(container_id=notes.id)
        self._bus.tell(caller.namespace, "/tasks/paused", told)
        return Empty()

    async def _resume(self, caller: Caller, request: pb.ResumeTaskRequest) -> Empty:
        container, notes, _ = self._task(caller, request.container_id)
        await self._engine.unpause(container.id)
        told = events.TaskResumed(container_id=notes.id)
        self._bus.tell(caller.namespace, "/tasks/resumed", told)
        return Empty()

    async def _pids(self, caller: Caller, request: pb.ListPidsRequest) -> pb.ListPidsResponse:
        container, _, _ = self._task(caller, request.container_id)
        group = cgroups.manager(cgroup_path(self._engine.services.config, container))
        pids = group.pids() if container.status.is_running and group.exists() else []
        return pb.ListPidsResponse(processes=[types.ProcessInfo(pid=pid) for pid in sorted(pids)])

    # further processes

    async def _exec(self, caller: Caller, request: pb.ExecProcessRequest) -> Empty:
        container, notes, _ = self._task(caller, request.container_id)
        key = container.id, request.exec_id
        if not request.exec_id or key in self._processes:
            raise AlreadyExists(f"process {request.exec_id!r} of {notes.id}: already exists")
        task = TaskNotes(request.stdin, request.stdout, request.stderr, request.terminal)
        check(task)
        config = _process_config(request.spec.value, task)
        self._processes[key] = _Process(task, config, ended=asyncio.Event())
        return Empty()

    async def _start_process(self, container: Container, name: str) -> pb.StartResponse:
        process = self._process(container, name)
        if process.exec_id:
            raise FailedPrecondition(f"process {name} was started already")
        process.exec_id = await self._engine.exec_create(container.id, process.config)
        process.streams = self._open(process.notes, container.id, name)
        self._spawn(process.streams.pump())
        try:
            await self._engine.exec_start(process.exec_id, process.streams.attachment)
        except BaseException:
            _ended(process, 255)
            raise
        process.pid = self._engine.exec_inspect(process.exec_id).pid
        self._spawn(self._await_process(process))
        return pb.StartResponse(pid=process.pid)

    async def _await_process(self, process: _Process) -> None:
        _ended(process, await self._engine.exec_wait(process.exec_id))

    async def _kill_process(self, process: _Process, number: int) -> None:
        if process.exit_code is not None or not process.pid:
            raise NotFound("process already finished: not found")
        if number == signal.SIGKILL:
            await self._engine.exec_kill(process.exec_id)
            return
        pidfd = os.pidfd_open(process.pid)
        try:
            if self._engine.exec_inspect(process.exec_id).running:
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)

    async def _delete_process(
        self, caller: Caller, request: pb.DeleteProcessRequest
    ) -> pb.DeleteResponse:
        container, _, _ = self._task(caller, request.container_id)
        process = self._process(container, request.exec_id)
        if process.exec_id and process.exit_code is None:
            raise FailedPrecondition(f"process {request.exec_id} is running")
        del self._processes[container.id, request.exec_id]
        return pb.DeleteResponse(
            id=request.exec_id,
            pid=process.pid,
            exit_status=process.exit_code or 0,
            exited_at=moment(process.ended_ns),
        )

    # inside

    def _task(self, caller: Caller, container_id: str) -> tuple[Container, Notes, TaskNotes]:
        container, notes = self._records.find(caller.namespace, container_id)
        if notes.task is None:
            raise NotFound(f"no running task found: task {container_id} not found: not found")
        return container, notes, notes.task

    def _open(self, notes: TaskNotes, container_id: str, name: str) -> Streams:
        streams = Streams(notes)
        if (container_id, name) in self._closed:
            self._closed.discard((container_id, name))
            streams.close_stdin()
        return streams

    def _process(self, container: Container, name: str) -> _Process:
        found = self._processes.get((container.id, name))
        if found is None:
            raise NotFound(f"process {name!r}: not found")
        return found

    async def _note(self, caller: Caller, container_id: str, task: TaskNotes | None) -> None:
        await self._records.change(
            caller.namespace, container_id, lambda notes: replace(notes, task=task)
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)


def _has_ended(container: Container, task: TaskNotes) -> bool:
    """Whether the task ran and does not any more, or could not be started."""
    if container.status.is_running:
        return False
    return task.started or container.state.finished_at > task.created_ns


def _ended(process: _Process, code: int) -> None:
    process.exit_code, process.ended_ns = code, time.time_ns()
    if process.ended is not None:
        process.ended.set()


async def _wait_process(process: _Process) -> pb.WaitResponse:
    assert process.ended is not None
    await process.ended.wait()
    code = process.exit_code or 0
    return pb.WaitResponse(exit_status=code, exited_at=moment(process.ended_ns))


def _process_config(data: bytes, task: TaskNotes) -> ExecConfig:
    """An OCI process as the engine's further process. Raises InvalidArgument."""
    try:
        spec = decode(data)
        user = spec.get("user") or {}
        return ExecConfig(
            command=tuple(map(str, spec["args"])),
            env=tuple(map(str, spec.get("env") or ())),
            cwd=str(spec.get("cwd") or ""),
            user=f"{int(user.get('uid') or 0)}:{int(user.get('gid') or 0)}",
            tty=task.terminal,
            attach_stdin=bool(task.stdin),
            attach_stdout=bool(task.stdout),
            attach_stderr=bool(task.stderr) and not task.terminal,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument("exec: its process is no OCI process") from error


def _shown(container: Container, notes: Notes) -> types.Process:
    task = notes.task or TaskNotes()
    status = types.STOPPED
    if container.status is Status.PAUSED:
        status = types.PAUSED
    elif container.status.is_running:
        status = types.RUNNING
    elif not _has_ended(container, task):
        status = types.CREATED
    is_over = status == types.STOPPED
    return types.Process(
        container_id=notes.id,
        id=notes.id,
        pid=container.state.pid if container.status.is_running else 0,
        status=status,
        stdin=task.stdin,
        stdout=task.stdout,
        stderr=task.stderr,
        terminal=task.terminal,
        exit_status=container.state.exit_code if is_over else 0,
        exited_at=moment(container.state.finished_at) if is_over else None,
    )


def _shown_process(container_id: str, name: str, process: _Process) -> types.Process:
    status = types.CREATED if not process.exec_id else types.RUNNING
    if process.exit_code is not None:
        status = types.STOPPED
    return types.Process(
        container_id=container_id,
        id=name,
        pid=process.pid,
        status=status,
        stdin=process.notes.stdin,
        stdout=process.notes.stdout,
        stderr=process.notes.stderr,
        terminal=process.notes.terminal,
        exit_status=process.exit_code or 0,
    )
