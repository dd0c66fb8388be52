"""Health checks in real containers."""

from __future__ import annotations

import asyncio
import json

import pytest

from enginelab import Lab, eventually, needs_root, with_engine
from sampan import errors
from sampan.engine.engine import Engine
from sampan.engine.model import (
    HealthCheck,
    HealthStatus,
    HostConfig,
    OnUnhealthy,
    RestartName,
    RestartPolicy,
    Status,
    WaitCondition,
)

MS = 10**6
SLEEP = ("sleep", "1000")


def check(command: str, **more: int) -> HealthCheck:
    values = {"interval": 20 * MS, "retries": 2, "timeout": 20_000 * MS, **more}
    return HealthCheck(test=("CMD-SHELL", command), **values)


async def start(lab: Lab, engine: Engine, command: str, host=None, **more) -> str:
    config = lab.config_of(*SLEEP, healthcheck=check(command, **more))
    made = await engine.create(config, host)
    await engine.start(made.id)
    return made.id


def status(engine: Engine, ref: str) -> HealthStatus:
    health = engine.get(ref).state.health
    assert health is not None
    return health.status


@with_engine
async def test_a_container_becomes_well_and_ill_and_well(lab: Lab, engine: Engine) -> None:
    ref = await start(lab, engine, "echo seen by $(id -u); test -e /good")
    assert status(engine, ref) is HealthStatus.STARTING
    await eventually(lambda: status(engine, ref) is HealthStatus.UNHEALTHY)
    health = engine.get(ref).state.health
    assert (health.failing_streak, health.log[-1].exit_code) == (2, 1)
    assert health.log[-1].output == "seen by 0\n"
    assert [c.id for c in engine.list(filters={"health": ["unhealthy"]})] == [ref]
    assert engine.list(filters={"health": ["healthy", "none"]}) == []
    well = engine.arm_wait(ref, WaitCondition.HEALTHY)
    made = await engine.exec_create(ref, _exec("touch", "/good"))
    await engine.exec_start(made)
    await well
    assert status(engine, ref) is HealthStatus.HEALTHY
    await engine.remove(ref, force=True)
    actions = [
        event.action
        async for event in engine.events(since=1, until=engine_now(), filters={"container": [ref]})
    ]
    assert [a for a in actions if "health" in a] == [
        "health_status: unhealthy",
        "health_status: healthy",
    ]
    assert sum(a.startswith("exec_") for a in actions) == 3  # ours, none of the checks


def _exec(*command: str):
    from sampan.engine.model import ExecConfig

    return ExecConfig(command=command)


def engine_now() -> int:
    import time

    return time.time_ns()


@with_engine
async def test_checks_that_do_not_come_to_an_end(lab: Lab, engine: Engine) -> None:
    ref = await start(lab, engine, "sleep 1000 & sleep 1000", timeout=50 * MS, retries=1)
    await eventually(lambda: status(engine, ref) is HealthStatus.UNHEALTHY)
    result = engine.get(ref).state.health.log[0]
    assert (result.exit_code, result.output) == (-1, "Health check exceeded timeout (50ms)")
    # Nothing piles up: at most the check under way, two sleeps and a shell, and our own sleep.
    await engine.pause(ref)
    assert len(lab.pids(engine.get(ref))) <= 4
    await engine.unpause(ref)


@with_engine
async def test_a_check_that_floods_or_is_missing(lab: Lab, engine: Engine) -> None:
    ref = await start(lab, engine, "yes | head -c 3000000; exit 7", retries=1)
    await eventually(lambda: status(engine, ref) is HealthStatus.UNHEALTHY)
    result = engine.get(ref).state.health.log[-1]
    assert (result.exit_code, len(result.output)) == (7, 4096)
    config = lab.config_of(
        *SLEEP, healthcheck=HealthCheck(test=("CMD", "/no/such"), interval=20 * MS, retries=1)
    )
    other = await engine.create(config)
    await engine.start(other.id)
    await eventually(lambda: status(engine, other.id) is HealthStatus.UNHEALTHY)
    result = engine.get(other.id).state.health.log[-1]
    assert result.exit_code == 127
    assert "no such file or directory" in result.output


@with_engine
async def test_what_unhealthy_containers_get(lab: Lab, engine: Engine) -> None:
    again = await start(
        lab, engine, "false", HostConfig(on_unhealthy=OnUnhealthy.RESTART), retries=1
    )
    first = engine.get(again).state.started_at
    ended = await start(lab, engine, "false", HostConfig(on_unhealthy=OnUnhealthy.STOP), retries=1)
    killed = await start(
        lab,
        engine,
        "false",
        HostConfig(
            on_unhealthy=OnUnhealthy.KILL, restart=RestartPolicy(name=RestartName.ON_FAILURE)
        ),
        retries=1,
    )
    await eventually(lambda: engine.get(again).state.started_at not in (0, first))
    await eventually(lambda: engine.get(ended).status is Status.EXITED)
    await eventually(lambda: engine.get(killed).state.restart_count > 0)
    for ref in (again, ended, killed):
        await engine.remove(ref, force=True)


@with_engine
async def test_no_check_while_paused(lab: Lab, engine: Engine) -> None:
    ref = await start(lab, engine, "echo x >> /count")
    await eventually(lambda: status(engine, ref) is HealthStatus.HEALTHY)
    await engine.pause(ref)
    before = engine.get(ref).state.health
    await asyncio.sleep(0.2)  # several intervals; a check would fail or hang
    after = engine.get(ref).state.health
    assert after.status is HealthStatus.HEALTHY
    assert len(after.log) <= len(before.log) + 1
    await engine.unpause(ref)


@with_engine
async def test_bad_checks_are_refused(lab: Lab, engine: Engine) -> None:
    with pytest.raises(errors.InvalidArgument, match="Interval"):
        await engine.create(lab.config_of("true", healthcheck=check("true", interval=1)))
    made = await engine.create(lab.config_of("true", healthcheck=HealthCheck(test=("NONE",))))
    assert engine.get(made.id).config.checks is None


@needs_root
def test_checks_go_on_after_a_restart_of_the_engine(tmp_path) -> None:
    lab = Lab(tmp_path)

    async def main() -> None:
        async with lab.engine() as engine:
            ref = await start(lab, engine, "test -e /good")
            await eventually(lambda: status(engine, ref) is HealthStatus.UNHEALTHY)
        async with lab.engine() as engine:
            assert status(engine, ref) is HealthStatus.UNHEALTHY
            made = await engine.exec_create(ref, _exec("touch", "/good"))
            await engine.exec_start(made)
            await eventually(lambda: status(engine, ref) is HealthStatus.HEALTHY)
            await engine.remove(ref, force=True)

    try:
        asyncio.run(main())
        lab.check_clean()
    finally:
        lab.close()


def test_results_survive_in_the_record() -> None:
    from sampan.engine import records
    from sampan.engine.model import Container, ContainerConfig, Health, HealthResult, State
    from sampan.store.containers import ContainerRow

    health = Health(log=(HealthResult(start=1, end=2, exit_code=-1, output="é"),))
    one = Container(
        id="a" * 64, name="x", created_at=0, host=HostConfig(), path="x",
        config=ContainerConfig(image="x", healthcheck=check("true")), state=State(health=health),
    )  # fmt: skip
    text = records.encode(one)
    assert json.loads(text)["v"] == 1
    assert records.decode(ContainerRow(one.id, "x", text, None, None, 0)) == one
