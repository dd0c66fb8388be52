"""What a check's result makes of a container's health, and when the next one is due."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import pytest

from sampan.engine import health
from sampan.engine.model import (
    Container,
    ContainerConfig,
    Health,
    HealthCheck,
    HealthResult,
    HealthStatus,
    HostConfig,
    State,
)
from sampan.errors import InvalidArgument
from sampan.spec.image import Healthcheck, RunConfig

SECOND = 10**9
CHECK = HealthCheck(test=("CMD", "x"), command=("x",), retries=2, start_period=10 * SECOND)


def result(code: int, at: int) -> HealthResult:
    return HealthResult(start=at * SECOND, end=at * SECOND + 1, exit_code=code)


def test_failures_in_the_start_period_do_not_count():
    now = health.judge(Health(), CHECK, result(1, 5), 0)
    assert (now.status, now.failing_streak, len(now.log)) == (HealthStatus.STARTING, 0, 1)
    now = health.judge(now, CHECK, result(1, 11), 0)
    assert (now.status, now.failing_streak) == (HealthStatus.STARTING, 1)
    now = health.judge(now, CHECK, result(1, 12), 0)
    assert (now.status, now.failing_streak) == (HealthStatus.UNHEALTHY, 2)


def test_one_success_heals_and_ends_the_start_period():
    now = health.judge(Health(), CHECK, result(0, 1), 0)
    assert now.status is HealthStatus.HEALTHY
    now = health.judge(now, CHECK, result(3, 2), 0)
    assert (now.status, now.failing_streak) == (HealthStatus.HEALTHY, 1)
    now = health.judge(now, CHECK, result(0, 3), 0)
    assert now.failing_streak == 0
    for at in range(20):
        now = health.judge(now, CHECK, result(0, at), 0)
    assert len(now.log) == health.KEPT


def container(check: HealthCheck, status: HealthStatus) -> Container:
    return Container(
        id="a" * 64,
        name="x",
        created_at=0,
        config=ContainerConfig(image="x", healthcheck=check),
        host=HostConfig(),
        path="x",
        state=State(started_at=0, health=Health(status=status)),
    )


def test_pauses():
    starting = container(CHECK, HealthStatus.STARTING)
    assert health.pause(starting, 3 * SECOND) == 5
    assert health.pause(starting, 11 * SECOND) == 30
    own = replace(CHECK, interval=7 * SECOND, start_interval=SECOND)
    assert health.pause(container(own, HealthStatus.STARTING), 3 * SECOND) == 1
    assert health.pause(container(own, HealthStatus.HEALTHY), 3 * SECOND) == 7


def test_the_image_fills_in_what_is_not_said():
    image = RunConfig(healthcheck=Healthcheck(test=("CMD-SHELL", "a"), retries=5, timeout=SECOND))
    found = health.complete(None, image)
    assert found is not None
    assert (found.command, found.retries) == (("/bin/sh", "-c", "a"), 5)
    found = health.complete(HealthCheck(test=("CMD", "b", "c"), retries=1), image)
    assert found is not None
    assert (found.command, found.retries, found.timeout) == (("b", "c"), 1, SECOND)
    shell = replace(image, shell=("/bin/bash", "-c"))
    found = health.complete(HealthCheck(interval=SECOND), shell)
    assert found is not None
    assert (found.command, found.interval) == (("/bin/bash", "-c", "a"), SECOND)
    for kind in ("NONE", "SHELL"):
        found = health.complete(HealthCheck(test=(kind, "x")), image)
        assert found is not None
        assert (found.test, found.command) == ((kind, "x"), ())
    assert health.complete(None, RunConfig()) is None


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        (HealthCheck(test=("CMD", "x"), interval=1), "Interval in Healthcheck"),
        (HealthCheck(test=("CMD", "x"), start_period=-5), "StartPeriod in Healthcheck"),
        (HealthCheck(test=("CMD", "x"), retries=-1), "cannot be negative"),
        (HealthCheck(test=("CMD",)), "no command"),
    ],
)
def test_what_is_refused(check, sentence):
    with pytest.raises(InvalidArgument, match=sentence):
        health.complete(check, None)


class Endless:
    """A socket whose other end writes faster than anybody reads."""

    def __init__(self, real: socket.socket) -> None:
        self.fileno, self.close = real.fileno, real.close

    def recv(self, size: int) -> bytes:
        return b"y" * size


def test_a_child_that_writes_without_end_holds_nobody_up():
    """The check has ended, and what it left behind goes on."""
    turns = []

    async def others() -> None:
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    async def read() -> str:
        output = health._Output()
        with socket.socket(fileno=output.attachment().fd) as end:
            end.send(b"y")  # so that there is always something to read
            output._ours = Endless(output._ours)
            busy = asyncio.create_task(others())
            await output.drain()
            busy.cancel()
            output.close()
        return output.text

    assert len(asyncio.run(read())) == health.MAX_OUTPUT
    assert len(turns) > 1
