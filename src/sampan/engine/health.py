"""Health checks: a process in the container says, now and then, whether it is well.

A check is an exec like any other (same user, capabilities, limits and filter), but without events
of its own, and its output is kept only in part. The state goes

    STARTING --- success -----------------------> HEALTHY <-+
       |                                             |      | success
       | `retries` failures in a row, those within   v      |
       +--- the start period not counted -------> UNHEALTHY-+

and each change is an event and written; the results between two changes are in memory only. No
check runs while the container is paused, nor two at once. What an unhealthy container gets is the
user's word alone (`on_unhealthy`); an image cannot say it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sampan.engine.model import (
    Attachment,
    ExecConfig,
    Framing,
    Health,
    HealthCheck,
    HealthResult,
    HealthStatus,
    OnUnhealthy,
    Status,
    WaitCondition,
)
from sampan.errors import InvalidArgument, SampanError, StartFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sampan.engine.containers import Entry
    from sampan.engine.exec import Execs
    from sampan.engine.model import Container
    from sampan.engine.services import Services
    from sampan.spec.image import Healthcheck, RunConfig

log = logging.getLogger(__name__)

INTERVAL = TIMEOUT = 30 * 10**9
START_INTERVAL = 5 * 10**9
RETRIES = 3
"""What holds where neither the request nor the image says it; nanoseconds."""

KEPT = 5
MAX_OUTPUT = 4096
_SHORTEST = 10**6
_SOON = 0.2  # seconds after which a check's output is read while it runs
_AT_ONCE = 8  # reads in a row, more than a socket holds
_DRAIN = 1.0  # seconds for output that is on its way when the process has ended
_NOT_RUN = -1
_SHELL = ("/bin/sh", "-c")
_FORMS = ("CMD", "CMD-SHELL")


def complete(check: HealthCheck | None, image: RunConfig | None) -> HealthCheck | None:
    """The check of a container: what the request says, the rest from the image; None for none.

    A test of a kind that nobody knows is kept and never made, as dockerd has it.

    Raises:
        InvalidArgument: a value is impossible.
    """
    own = image.healthcheck if image is not None else None
    if check is None and own is None:
        return None
    merged = _merged(check or HealthCheck(), own)
    _check(merged)
    if not merged.test:
        return None
    if merged.test[0] not in _FORMS:
        return merged
    if merged.test[0] == "CMD-SHELL":
        shell = image.shell if image is not None and image.shell else _SHELL
        return replace(merged, command=(*shell, *merged.test[1:]))
    return replace(merged, command=merged.test[1:])


def _merged(check: HealthCheck, own: Healthcheck | None) -> HealthCheck:
    if own is None:
        return check
    return HealthCheck(
        test=check.test or own.test,
        interval=check.interval or own.interval,
        timeout=check.timeout or own.timeout,
        start_period=check.start_period or own.start_period,
        start_interval=check.start_interval or own.start_interval,
        retries=check.retries or own.retries,
    )


def _check(check: HealthCheck) -> None:
    for name in ("interval", "timeout", "start_period", "start_interval"):
        if 0 != getattr(check, name) < _SHORTEST:
            word = name.title().replace("_", "")
            raise InvalidArgument(f"{word} in Healthcheck cannot be less than 1ms")
    if check.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")
    if check.test and check.test[0] in _FORMS and not any(check.test[1:]):
        raise InvalidArgument("Healthcheck has no command")


class Watch:
    """The checks of one run of a container."""

    __slots__ = ("is_closed", "timer")

    def __init__(self) -> None:
        self.timer: asyncio.TimerHandle | None = None
        self.is_closed = False

    def close(self) -> None:
        """No further check; one that runs is not looked at any more."""
        self.is_closed = True
        if self.timer is not None:
            self.timer.cancel()


class Checks:
    """Runs the checks of every container. `act` does what an unhealthy one gets."""

    def __init__(
        self, services: Services, execs: Execs, act: Callable[[Entry], Coroutine[Any, Any, None]]
    ) -> None:
        self._services = services
        self._execs = execs
        self._act = act

    def begin(self, entry: Entry) -> None:
        """The container runs: check it from now on."""
        self.end(entry)
        if entry.container.config.checks is not None:
            entry.watch = Watch()
            self._later(entry, entry.watch)

    def end(self, entry: Entry) -> None:
        """The container has ended, or the engine does."""
        if entry.watch is not None:
            entry.watch.close()
            entry.watch = None

    def _later(self, entry: Entry, watch: Watch) -> None:
        delay = pause(entry.container, time.time_ns())
        watch.timer = asyncio.get_running_loop().call_later(delay, self._due, entry, watch)

    def _due(self, entry: Entry, watch: Watch) -> None:
        if watch.is_closed:
            return
        if entry.container.status is Status.RUNNING and entry.task is not None:
            self._services.background.spawn(self._once(entry, watch), f"check {entry.id}")
        else:
            self._later(entry, watch)

    async def _once(self, entry: Entry, watch: Watch) -> None:
        check = entry.container.config.checks
        assert check is not None
        began = time.time_ns()
        code, output = await self._probe(entry, check)
        if watch.is_closed or not entry.container.status.is_running:
            return
        result = HealthResult(start=began, end=time.time_ns(), exit_code=code, output=output)
        became_ill = self._take(entry, check, result)
        if became_ill and entry.container.host.on_unhealthy is not OnUnhealthy.NONE:
            self._services.background.spawn(self._act(entry), f"unhealthy {entry.id}")
        if not watch.is_closed:
            self._later(entry, watch)

    def _take(self, entry: Entry, check: HealthCheck, result: HealthResult) -> bool:
        """Note a result; whether the container has become unhealthy by it."""
        container = entry.container
        before = container.state.health or Health()
        after = judge(before, check, result, container.state.started_at)
        changed = replace(container, state=replace(container.state, health=after))
        if after.status is before.status:
            entry.container = changed
            return False
        containers = self._services.containers
        event = containers.event(changed, f"health_status: {after.status}")
        containers.defer(entry, changed, event)
        if after.status is HealthStatus.HEALTHY:
            entry.resolve(WaitCondition.HEALTHY)
        return after.status is HealthStatus.UNHEALTHY

    async def _probe(self, entry: Entry, check: HealthCheck) -> tuple[int, str]:
        """Run the command; its exit code and the beginning of its output."""
        seconds = (check.timeout or TIMEOUT) / 1e9
        output = _Output()
        config = ExecConfig(command=check.command, attach_stdout=True, attach_stderr=True)
        try:
            exec_id = self._execs.create(entry, config, quiet=True)
        except SampanError as error:
            output.close()
            return _NOT_RUN, str(error)
        try:
            async with asyncio.timeout(seconds):
                await self._execs.start(exec_id, output.attachment())
                code = await self._execs.wait(exec_id)
            await output.drain()
            return code, output.text
        except TimeoutError:
            await self._execs.kill(exec_id)
            patience = f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"
            return _NOT_RUN, f"Health check exceeded timeout ({patience})"
        except StartFailed as error:
            return error.exit_code, str(error)
        except SampanError as error:
            return _NOT_RUN, str(error)
        finally:
            output.close()
            self._execs.drop(entry, exec_id)


def pause(container: Container, now_ns: int) -> float:
    """Seconds until the next check."""
    check, health = container.config.checks, container.state.health
    assert check is not None
    age = now_ns - container.state.started_at
    starting = health is None or health.status is HealthStatus.STARTING
    if starting and age < check.start_period:
        return (check.start_interval or START_INTERVAL) / 1e9
    return (check.interval or INTERVAL) / 1e9


def judge(before: Health, check: HealthCheck, result: HealthResult, started_at: int) -> Health:
    """What a result makes of the health. Pure."""
    results = (*before.log, result)[-KEPT:]
    if result.exit_code == 0:
        return Health(status=HealthStatus.HEALTHY, log=results)
    starting = before.status is HealthStatus.STARTING
    if starting and result.start - started_at < check.start_period:
        return replace(before, log=results)
    streak = before.failing_streak + 1
    ill = streak >= (check.retries or RETRIES)
    status = HealthStatus.UNHEALTHY if ill else before.status
    return Health(status=status, failing_streak=streak, log=results)


class _Output:
    """Our end of a check's output: kept in part.

    Most checks are over in milliseconds and say little: what they said waits in the socket until
    they have ended. Of one that goes on, it is read as it comes, so that nobody is held up.
    """

    __slots__ = ("_is_over", "_kept", "_listening", "_loop", "_ours", "_over", "_theirs", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._kept = bytearray()
        self._is_over = self._listening = False
        self._over: asyncio.Future[None] | None = None
        self._timer = self._loop.call_later(_SOON, self._listen)

    @property
    def text(self) -> str:
        """What was kept."""
        return self._kept.decode("utf-8", "replace")

    def attachment(self) -> Attachment:
        """The other end, for the shim."""
        fd = self._theirs.detach()
        return Attachment(fd=fd, stdout=True, stderr=True, framing=Framing.RAW)

    async def drain(self) -> None:
        """Wait for the end of the output, for a moment: a child may hold it open."""
        for _ in range(_AT_ONCE):  # a child may write without end: that is read beside all else
            if self._is_over or not self._read():
                break
        if self._is_over:
            return
        self._over = self._loop.create_future()
        self._listen()
        try:
            async with asyncio.timeout(_DRAIN):
                await self._over
        except TimeoutError:
            return

    def close(self) -> None:
        """Read no more."""
        self._timer.cancel()
        self._deafen()
        self._ours.close()
        self._theirs.close()

    def _listen(self) -> None:
        if not self._listening and not self._is_over:
            self._listening = True
            self._loop.add_reader(self._ours.fileno(), self._read)

    def _deafen(self) -> None:
        if self._listening:
            self._listening = False
            self._loop.remove_reader(self._ours.fileno())

    def _read(self) -> bool:
        """Read what there is; whether there was any."""
        try:
            data = self._ours.recv(65536)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self._kept += data[: max(0, MAX_OUTPUT - len(self._kept))]
        if not data:
            self._is_over = True
            self._deafen()
            if self._over is not None and not self._over.done():
                self._over.set_result(None)
        return bool(data)
