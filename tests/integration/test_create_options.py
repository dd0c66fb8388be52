"""Options of create, seen from inside of the container."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from enginelab import Lab, needs_root, with_engine
from sampan import errors
from sampan.engine import initprogram
from sampan.engine.engine import Engine
from sampan.engine.model import BlockDevice, BlockLimit, ContainerConfig, Device, HostConfig
from sampan.kernel import reaper


async def run(lab: Lab, engine: Engine, script: str, **host: object) -> str:
    code, output = await lab.run(engine, "sh", "-c", script, host=HostConfig(**host))
    assert code == 0, output
    return output


@needs_root
@pytest.mark.parametrize("which", ["the host's or ours", "ours"])
def test_init_is_the_first_process_and_reaps(tmp_path, which: str) -> None:
    lab = Lab(tmp_path)
    own = tmp_path / "init"
    own.write_bytes(reaper.image())
    own.chmod(0o755)
    host = HostConfig(init=True)

    async def test() -> None:
        async with lab.engine(init_path=str(own) if which == "ours" else "") as engine:
            script = "sh -c 'true & exec true'; cat /proc/1/comm; ps"
            output = await run(lab, engine, script, init=True)
            assert output.startswith("docker-init\n")
            assert "[true]" not in output  # no zombie
            assert (await lab.run(engine, "sh", "-c", "exit 7", host=host))[0] == 7
            code, output = await lab.run(engine, "nosuch", host=host)
            assert code == 127
            assert "nosuch" in output
            script = "echo x 2>&1 > /sbin/docker-init || true"
            assert "Read-only" in await run(lab, engine, script, init=True)
            script = "trap 'exit 3' USR1; kill -USR1 1; while :; do sleep 0.01; done"
            assert (await lab.run(engine, "sh", "-c", script, host=host))[0] == 3

    try:
        asyncio.run(test())
        lab.check_clean()
    finally:
        lab.close()


@needs_root
def test_an_init_of_the_settings_must_be_static(tmp_path) -> None:
    lab = Lab(tmp_path)

    async def test() -> None:
        async with lab.engine(init_path="/bin/ls") as engine:
            made = await engine.create(lab.config_of("true"), HostConfig(init=True))
            with pytest.raises(errors.FailedPrecondition, match="/bin/ls of the settings"):
                await engine.start(made.id)
            await engine.remove(made.id)

    try:
        asyncio.run(test())
        lab.check_clean()
    finally:
        lab.close()


def test_our_own_program_is_written_once(tmp_path) -> None:
    own = str(tmp_path / "init")
    assert initprogram._write(own) == own
    before = os.stat(own)
    assert initprogram._write(own) == own
    assert os.stat(own) == before
    Path(own).write_bytes(b"damaged")
    initprogram._write(own)
    assert initprogram.is_static(own)


def test_a_dynamic_program_is_no_init(tmp_path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    assert not initprogram.is_static(str(script))
    assert not initprogram.is_static("/bin/ls")
    assert initprogram.is_static("/bin/busybox")


@with_engine
async def test_the_pid_namespace_of_another_container(lab: Lab, engine: Engine) -> None:
    other = await engine.create(lab.config_of("sleep", "987"), name="other")
    joined = HostConfig(pid_mode="container:other")
    made = await engine.create(lab.config_of("ps"), joined)
    assert engine.get(made.id).host.pid_mode == f"container:{other.id}"
    with pytest.raises(errors.Conflict, match="other: it is not running"):
        await engine.start(made.id)
    await engine.start("other")
    assert "sleep 987" in await run(lab, engine, "ps", pid_mode="container:other")
    assert "sleep 987" not in await run(lab, engine, "ps")
    with pytest.raises(errors.ContainerNotFound):
        await engine.create(lab.config_of("ps"), HostConfig(pid_mode="container:none"))


@with_engine
async def test_devices_and_rules(lab: Lab, engine: Engine) -> None:
    device = Device(host_path="/dev/null", container_path="/dev/mine", permissions="r")
    output = await run(lab, engine, "ls -l /dev/mine; cat /dev/mine", devices=(device,))
    assert output.startswith("crw")
    lists = "cat /sys/fs/cgroup/devices/devices.list 2>/dev/null || echo 'c 10:229 rwm'"
    allowed = await run(lab, engine, lists, device_rules=("c 10:229 rwm",))
    assert "c 10:229 rwm" in allowed
    limit = BlockDevice(limit=BlockLimit.READ_BPS, path="/dev/null", value=1)
    with pytest.raises(errors.InvalidArgument, match="is not a block device"):
        await engine.create(lab.config_of("true"), HostConfig(block_devices=(limit,)))


@with_engine
async def test_a_cgroup_parent_of_ones_own(lab: Lab, engine: Engine) -> None:
    parent = f"{lab.parent}/inner"
    made = await engine.create(lab.config_of("sleep", "100"), HostConfig(cgroup_parent=parent))
    await engine.start(made.id)
    pid = engine.get(made.id).state.pid
    with open(f"/proc/{pid}/cgroup") as file:  # noqa: ASYNC230
        assert f"{parent}/{made.id}" in file.read()
    await engine.remove(made.id, force=True)
    for tree in os.listdir("/sys/fs/cgroup"):
        try:
            os.rmdir(f"/sys/fs/cgroup/{tree}{parent}")
        except OSError:
            continue


@with_engine
async def test_a_setting_of_a_network_that_is_joined(lab: Lab, engine: Engine) -> None:
    """The namespace is not the host's, so its settings may be the container's."""
    other = await engine.create(lab.config_of("sleep", "987"), name="other")
    await engine.start(other.id)
    name = "net.ipv4.ip_unprivileged_port_start"
    joined = {"network_mode": "container:other", "sysctls": {name: "77"}}
    assert await run(lab, engine, f"cat /proc/sys/{name.replace('.', '/')}", **joined) == "77\n"
    host = HostConfig(network_mode="host", sysctls={name: "78"})
    made = await engine.create(lab.config_of("true"), host)
    with pytest.raises(errors.StartFailed, match="needs a network namespace"):
        await engine.start(made.id)


@pytest.mark.skipif(
    not Path("/sys/fs/cgroup/cpu").exists() or os.cpu_count() == 1, reason="needs cgroup version 1"
)
@with_engine
async def test_a_limit_that_the_kernel_refuses_says_which(lab: Lab, engine: Engine) -> None:
    made = await engine.create(lab.config_of("true"), HostConfig(cpu_rt_runtime=1000))
    with pytest.raises(errors.StartFailed, match=r"rt_runtime_us|realtimeRuntime"):
        await engine.start(made.id)


@pytest.mark.skipif(not shutil.which("crun"), reason="needs crun")
@with_engine
async def test_another_runtime(lab: Lab, engine: Engine) -> None:
    made = await engine.create(lab.config_of("sleep", "987"), HostConfig(runtime="crun"))
    assert engine.get(made.id).host.program[0].endswith("/crun")
    await engine.start(made.id)
    directory = f"{lab.path}/state/shims/{made.id}"
    assert os.listdir(f"{directory}/runtime") == [made.id]  # crun's own state
    with pytest.raises(errors.InvalidArgument, match="invalid runtime name: nosuch: known are"):
        await engine.create(lab.config_of("true"), HostConfig(runtime="nosuch"))
    assert "crun" in (await engine.info()).runtimes


@with_engine
async def test_a_size_that_cannot_be_kept_is_refused(lab: Lab, engine: Engine) -> None:
    """Where the file system has project quotas, tests/vm/test_quotas.py sees the limit."""
    before = os.listdir(lab.path / "root/snapshots")
    with pytest.raises(errors.FailedPrecondition, match="keeps no project quotas"):
        await engine.create(lab.config_of("true"), HostConfig(storage_opt={"size": "1m"}), "sized")
    assert os.listdir(lab.path / "root/snapshots") == before
    made = await engine.create(lab.config_of("true"), name="sized")
    await engine.start(made.id)
    await engine.wait(made.id)
    whole = ContainerConfig(rootfs=lab.rootfs, command=("true",))
    with pytest.raises(errors.InvalidArgument, match="no layer of its own"):
        await engine.create(whole, HostConfig(storage_opt={"size": "1m"}))


@with_engine
async def test_sizes_limits_and_settings(lab: Lab, engine: Engine) -> None:
    output = await run(
        lab,
        engine,
        "grep ' /dev/shm ' /proc/mounts; cat /proc/sys/kernel/shmmni; cat /proc/self/oom_score_adj",
        shm_size=1 << 20,
        sysctls={"kernel.shmmni": "77"},
        oom_score_adj=500,
    )
    first, shmmni, score = output.splitlines()
    assert "size=1024k" in first
    assert (shmmni, score) == ("77", "500")


@pytest.mark.parametrize("tty", [False, True])
def test_a_missing_directory_below_a_read_only_root(tmp_path, tty) -> None:
    """It is made, whichever of the two makes the container."""

    async def test(lab: Lab, engine: Engine) -> None:
        host = HostConfig(read_only=True, network_mode="none")
        code, output = await lab.run(
            engine, "sh", "-c", "pwd", host=host, cwd="/missing/dir", tty=tty
        )
        assert (code, output.strip()) == (0, "/missing/dir")

    with_engine(test)(tmp_path)
