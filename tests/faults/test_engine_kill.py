"""kill -9 of engine, spawner, shim and init at each step: nothing is lost, nothing is left.

A victim process runs an engine whose configuration names a step; there it kills itself. Then an
engine of ours opens the same root and must find the truth.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from dataclasses import replace
from glob import glob
from typing import TYPE_CHECKING

import pytest

from enginelab import PATIENCE, Lab, eventually, needs_root, shims_running
from sampan.engine.model import (
    ExecConfig,
    HostConfig,
    RestartName,
    RestartPolicy,
    Status,
    WaitCondition,
)
from sampan.tasks import recovery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from sampan.engine.engine import Engine
    from sampan.tasks.recovery import ExitRecord


def ends(lab: Lab) -> list[ExitRecord]:
    """What is recorded on the disk."""
    found = (recovery.read_exit(str(one)) for one in (lab.path / "state/shims").iterdir())
    return [record for record in found if record is not None]


VICTIM = """
import asyncio, sys
from sampan.engine.config import EngineConfig
from sampan.engine.engine import Engine
from sampan.engine.model import ContainerConfig, HostConfig

async def main():
    config = EngineConfig(
        root=lab["root"], state=lab["state"], cgroup_parent=lab["parent"], fault=sys.argv[1]
    )
    engine = await Engine.open(config)
    made = await engine.create(
        ContainerConfig(rootfs=rootfs + ":O", command=tuple(sys.argv[2:])), HostConfig(), "victim"
    )
    ended = engine.arm_wait(made.id, "next-exit")
    await engine.start(made.id)
    await ended
    await engine.remove(made.id)

asyncio.run(main())
"""

START_AGAIN = """
import asyncio, sys
from sampan.engine.config import EngineConfig
from sampan.engine.engine import Engine

async def main():
    config = EngineConfig(
        root=lab["root"], state=lab["state"], cgroup_parent=lab["parent"], fault=sys.argv[1]
    )
    engine = await Engine.open(config)
    await engine.start("victim")

asyncio.run(main())
"""

pytestmark = needs_root


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.check_clean()
    made.close()


def die_at(lab: Lab, step: str, *command: str) -> None:
    victim = lab.spawn(VICTIM, step, *command)
    assert victim.wait(60) == -signal.SIGKILL, f"step {step} was not reached"


def after(lab: Lab, check: Callable[[Engine], Awaitable[None]], **changes: object) -> None:
    """Open an engine over what is left, check, remove everything."""

    async def main() -> None:
        async with asyncio.timeout(PATIENCE), lab.engine(**changes) as engine:
            try:
                await check(engine)
            finally:
                for container in engine.list(all=True):
                    await engine.remove(container.id, force=True)
        async with asyncio.timeout(20):
            await eventually(lambda: shims_running(str(lab.path)) == [])

    asyncio.run(main())


async def can_be_used(engine: Engine, lab: Lab) -> None:
    """The name is free, and a new container runs."""
    for container in engine.list(all=True):
        await engine.remove(container.id, force=True)
    made = await engine.create(lab.config_of("sh", "-c", "exit 9"), name="victim")
    ended = engine.arm_wait(made.id, WaitCondition.NEXT_EXIT)
    await engine.start(made.id)
    assert (await ended).exit_code == 9


def test_before_the_row_there_is_nothing(lab: Lab) -> None:
    die_at(lab, "create", "true")

    async def check(engine: Engine) -> None:
        assert engine.list(all=True) == []
        await can_be_used(engine, lab)

    after(lab, check)


def test_behind_the_row_there_is_a_container(lab: Lab) -> None:
    die_at(lab, "created", "true")

    async def check(engine: Engine) -> None:
        container = engine.get("victim")
        assert container.status is Status.CREATED
        ended = engine.arm_wait("victim", WaitCondition.NEXT_EXIT)
        await engine.start("victim")
        assert (await ended).exit_code == 0
        await can_be_used(engine, lab)

    after(lab, check)


def test_before_the_launch(lab: Lab) -> None:
    die_at(lab, "start-directory", "true")

    async def check(engine: Engine) -> None:
        assert engine.get("victim").status is Status.CREATED
        assert lab.shims() == []
        await can_be_used(engine, lab)

    after(lab, check)


@pytest.mark.parametrize("attempt", range(4))
def test_behind_the_launch_the_container_is_found_or_came_to_nothing(
    lab: Lab, attempt: int
) -> None:
    """The shim races with the engine that comes: both ends are whole ones."""
    die_at(lab, "start-launched", "sleep", "1000")

    async def check(engine: Engine) -> None:
        container = engine.get("victim")
        if container.status is Status.CREATED and not lab.shims():
            await eventually(lambda: lab.cgroups() == [])
            await eventually(lambda: len(shims_running(str(lab.path))) == 0)
        else:
            await eventually(lambda: engine.get("victim").status is Status.RUNNING)
            assert lab.pids(engine.get("victim")) == [engine.get("victim").state.pid]
            events = [event async for event in engine.events(since=1, until=time.time_ns())]
            assert [event.action for event in events] == ["create", "start"]
        await can_be_used(engine, lab)

    after(lab, check)


def test_an_exit_that_was_heard_and_not_written(lab: Lab) -> None:
    die_at(lab, "exit", "sh", "-c", "exit 42")

    async def check(engine: Engine) -> None:
        state = engine.get("victim").state
        assert (state.status, state.exit_code) == (Status.EXITED, 42)
        assert 0 < state.started_at <= state.finished_at
        await can_be_used(engine, lab)

    after(lab, check)


def test_an_exit_is_told_once_however_often_its_record_is_read(lab: Lab) -> None:
    die_at(lab, "exit", "sh", "-c", "exit 42")

    async def check(engine: Engine) -> None:
        assert engine.get("victim").state.exit_code == 42
        events = engine.events(since=1, until=time.time_ns(), filters={"event": ["die"]})
        assert [event.attributes["exitCode"] async for event in events] == ["42"]

    async def again() -> None:
        for _ in range(2):
            async with lab.engine() as engine:
                await engine.info()

    asyncio.run(again())
    after(lab, check)


@pytest.mark.parametrize("step", ["remove", "removed"])
def test_a_removal_is_whole_or_can_be_repeated(lab: Lab, step: str) -> None:
    die_at(lab, step, "true")

    async def check(engine: Engine) -> None:
        left = engine.list(all=True)
        assert [container.name for container in left] == (["victim"] if step == "remove" else [])
        await can_be_used(engine, lab)

    after(lab, check)


def test_containers_live_through_the_death_of_the_engine(lab: Lab) -> None:
    script = "echo one; while [ ! -e /go ]; do sleep 0.02; done; echo two; exit 6"
    victim = lab.spawn(VICTIM, "none", "sh", "-c", script)

    async def before() -> None:
        await eventually(lambda: _logged(lab))

    asyncio.run(before())
    victim.kill()
    victim.wait()

    async def check(engine: Engine) -> None:
        container = engine.get("victim")
        assert container.status is Status.RUNNING
        assert lab.pids(container)[0] == container.state.pid
        ended = engine.arm_wait("victim", WaitCondition.NEXT_EXIT)
        exec_id = await engine.exec_create("victim", ExecConfig(command=("touch", "/go")))
        await engine.exec_start(exec_id)
        assert (await ended).exit_code == 6
        assert await lab.output(engine, "victim") == "one\ntwo\n"

    after(lab, check)


def _logged(lab: Lab) -> bool:
    folder = lab.path / "root/containers"
    return folder.is_dir() and any((path / "container.log").exists() for path in folder.iterdir())


def test_an_exit_while_no_engine_was_there(lab: Lab) -> None:
    """The end is in exit.json; policies act on it when an engine comes."""

    async def first() -> None:
        async with lab.engine() as engine:
            for name, host in (
                ("plain", HostConfig()),
                ("always", HostConfig(restart=RestartPolicy(name=RestartName.ALWAYS))),
                ("gone", HostConfig(auto_remove=True)),
            ):
                await engine.create(lab.config_of("sleep", "1000"), host, name)
                await engine.start(name)
            pids[:] = [engine.get(name).state.pid for name in ("plain", "always", "gone")]

    pids: list[int] = []
    asyncio.run(first())
    for pid in pids:
        os.kill(pid, signal.SIGKILL)

    async def recorded() -> None:
        await eventually(lambda: len(ends(lab)) == 3)

    asyncio.run(recorded())

    async def check(engine: Engine) -> None:
        state = engine.get("plain").state
        assert (state.status, state.exit_code, state.error) == (Status.EXITED, 137, "")
        await eventually(lambda: engine.get("always").status is Status.RUNNING)
        assert engine.get("always").state.pid not in pids
        await eventually(lambda: len(engine.list(all=True)) == 2)

    after(lab, check)


def test_the_death_of_a_shim(lab: Lab) -> None:
    """Nobody saw the end: lost, nothing stays, and the policy brings it back."""

    async def check(engine: Engine) -> None:
        always = HostConfig(restart=RestartPolicy(name=RestartName.ALWAYS))
        await engine.create(lab.config_of("sh", "-c", "sleep 1000 & sleep 1000"), name="plain")
        await engine.create(lab.config_of("sleep", "1000"), always, "always")
        for name in ("plain", "always"):
            await engine.start(name)
        first = engine.get("always").state.pid
        container = engine.get("plain")
        await eventually(lambda: len(lab.pids(container)) == 2)
        ended = engine.arm_wait("plain", WaitCondition.NEXT_EXIT)
        for name in ("plain", "always"):
            os.kill(_parent(engine.get(name).state.pid), signal.SIGKILL)
        result = await ended
        assert (result.exit_code, result.error) == (137, "the monitor of the container died")
        assert lab.pids(container) == []
        await eventually(lambda: engine.get("always").state.pid not in (0, first))

    after(lab, check)


def test_the_death_of_a_shim_while_no_engine_was_there(lab: Lab) -> None:
    async def first() -> None:
        async with lab.engine() as engine:
            await engine.create(lab.config_of("sleep", "1000"), name="victim")
            await engine.start("victim")
            pids.append(engine.get("victim").state.pid)

    pids: list[int] = []
    asyncio.run(first())
    os.kill(_parent(pids[0]), signal.SIGKILL)

    async def check(engine: Engine) -> None:
        # A monitor may still have been there, and record the end only now.
        await eventually(lambda: engine.get("victim").status is Status.EXITED)
        state = engine.get("victim").state
        assert state.exit_code == 137
        assert state.error == "the monitor of the container died"
        assert lab.cgroups() == []
        await can_be_used(engine, lab)

    after(lab, check)


def test_the_death_of_the_spawner(lab: Lab) -> None:
    """Running containers do not notice; the next start has another spawner."""

    async def check(engine: Engine) -> None:
        await engine.create(lab.config_of("sleep", "1000"), name="before")
        await engine.start("before")
        spawner = _spawner()
        os.kill(spawner, signal.SIGKILL)
        await engine.create(lab.config_of("sleep", "1000"), name="victim")
        await engine.start("victim")
        assert _spawner() != spawner
        assert engine.get("before").status is Status.RUNNING

    after(lab, check)


def test_the_death_of_init(lab: Lab) -> None:
    async def check(engine: Engine) -> None:
        await engine.create(lab.config_of("sleep", "1000"), name="victim")
        await engine.start("victim")
        ended = engine.arm_wait("victim", WaitCondition.NEXT_EXIT)
        os.kill(engine.get("victim").state.pid, signal.SIGKILL)
        assert (await ended).exit_code == 137

    after(lab, check)


def test_a_reboot(lab: Lab) -> None:
    """The state directory is gone and nothing runs: policies bring back what they promise."""
    policies = {
        "always": RestartName.ALWAYS,
        "always-stopped": RestartName.ALWAYS,
        "unless": RestartName.UNLESS_STOPPED,
        "unless-stopped": RestartName.UNLESS_STOPPED,
        "plain": RestartName.NO,
    }

    async def first() -> None:
        async with lab.engine() as engine:
            for name, policy in policies.items():
                host = HostConfig(restart=RestartPolicy(name=policy))
                await engine.create(lab.config_of("sleep", "1000"), host, name)
                await engine.start(name)
                if name.endswith("-stopped"):
                    await engine.stop(name, timeout=0)
                else:
                    shims.append(_parent(engine.get(name).state.pid))

    shims: list[int] = []
    asyncio.run(first())
    for shim in shims:
        os.kill(shim, signal.SIGKILL)
    while (lab.path / "state").exists():  # monitors may still write their last record
        shutil.rmtree(lab.path / "state", ignore_errors=True)

    async def check(engine: Engine) -> None:
        back = {"always", "always-stopped", "unless"}
        await eventually(lambda: {c.name for c in engine.list()} == back)
        assert engine.get("plain").state.exit_code == 137
        assert engine.get("unless-stopped").status is Status.EXITED

    after(lab, check)


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def _spawner() -> int:
    """The child of this process that waits for launches."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,comm=", "--ppid", str(os.getpid())],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    pids = [int(line.split()[0]) for line in listed.splitlines() if "sampan-spawn" in line]
    assert len(pids) == 1
    return pids[0]


def test_a_monitor_that_died_is_told_once(lab: Lab) -> None:
    """What an engine has seen of it is not a new end for the next one."""

    async def first() -> None:
        async with lab.engine() as engine:
            await engine.create(lab.config_of("sleep", "1000"), name="victim")
            ended = engine.arm_wait("victim", WaitCondition.NEXT_EXIT)
            await engine.start("victim")
            kill_shim(lab, "victim", engine)
            assert (await ended).exit_code == 137

    async def check(engine: Engine) -> None:
        events = [event async for event in engine.events(since=1, until=time.time_ns())]
        assert [event.action for event in events] == ["create", "start", "die"]
        await can_be_used(engine, lab)

    asyncio.run(first())
    after(lab, check)


def test_a_run_that_ended_before_the_last_one_by_the_clock_is_told(lab: Lab) -> None:
    """The clock was set back between two runs, and nobody heard of the second."""

    async def first() -> None:
        async with lab.engine() as engine:
            await engine.create(lab.config_of("sh", "-c", "exit 42"), name="victim")
            entry = engine.services.containers.find("victim")
            future = time.time_ns() + 3600 * 10**9
            state = replace(
                entry.container.state,
                status=Status.EXITED,
                exit_code=1,
                started_at=future - 10**9,
                finished_at=future,
            )
            await engine.services.containers.change(entry, replace(entry.container, state=state))

    asyncio.run(first())
    victim = lab.spawn(START_AGAIN, "start-launched")
    assert victim.wait(60) == -signal.SIGKILL

    async def recorded() -> None:
        await eventually(lambda: bool(ends(lab)))

    asyncio.run(recorded())

    async def check(engine: Engine) -> None:
        state = engine.get("victim").state
        assert (state.status, state.exit_code) == (Status.EXITED, 42)
        await can_be_used(engine, lab)

    after(lab, check)


def kill_shim(lab: Lab, name: str, engine: Engine) -> None:
    """kill -9 of the monitor of a running container."""
    path = lab.path / "state/shims" / engine.get(name).id / "state.json"
    os.kill(json.loads(path.read_bytes())["shim_pid"], signal.SIGKILL)


def test_the_death_of_a_shim_that_is_told_to_stop(lab: Lab) -> None:
    """It dies with the request unanswered; the stop succeeds, for nothing runs any more."""

    async def main() -> None:
        async with asyncio.timeout(PATIENCE), lab.engine() as engine:
            made = await engine.create(lab.config_of("sleep", "1000"))
            await engine.start(made.id)
            shim = _parent(engine.get(made.id).state.pid)
            os.kill(shim, signal.SIGSTOP)
            stop = asyncio.ensure_future(engine.stop(made.id, 0))
            await eventually(lambda: engine.get(made.id).state.stopped_by_user)
            os.kill(shim, signal.SIGKILL)
            await stop
            assert engine.get(made.id).status is Status.EXITED
            await engine.remove(made.id)

    asyncio.run(main())


def test_a_shim_without_a_row_is_buried_wherever_its_cgroup_is(lab: Lab) -> None:
    """The row was lost, as after a restored backup; its cgroup has a parent of its own."""
    parent = f"{lab.parent}/inner"

    async def first() -> None:
        async with lab.engine() as engine:
            host = HostConfig(cgroup_parent=parent)
            made = await engine.create(lab.config_of("sleep", "1000"), host, "victim")
            await engine.start("victim")
            found[:] = [made.id, engine.get("victim").state.pid]

    found: list[object] = []
    asyncio.run(first())
    database = sqlite3.connect(lab.path / "root/metadata.db")
    with database:
        database.execute("DELETE FROM containers")
        database.execute("DELETE FROM snapshots")
    database.close()

    async def check(engine: Engine) -> None:
        assert engine.list(all=True) == []
        await eventually(lambda: not os.path.exists(f"/proc/{found[1]}"))
        assert lab.shims() == []

    after(lab, check)
    for path in glob(f"/sys/fs/cgroup/*{parent}"):
        assert not os.path.exists(f"{path}/{found[0]}")
        os.rmdir(path)
