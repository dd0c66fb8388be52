"""The engine end to end: real spawner, shims, namespaces and cgroups, without a network."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
from dataclasses import replace

import pytest

from enginelab import Lab, eventually, with_engine
from sampan import errors
from sampan.engine.engine import Engine
from sampan.engine.model import (
    Attachment,
    ContainerConfig,
    ExecConfig,
    Framing,
    HostConfig,
    LogConfig,
    LogQuery,
    RestartName,
    RestartPolicy,
    Status,
    Ulimit,
    WaitCondition,
)
from sampan.wire.multiplex import STDOUT, Demultiplexer

SLEEP = ("sleep", "1000")


async def started(lab: Lab, engine: Engine, *command: str, name: str | None = None, **more) -> str:
    host = more.pop("host", None)
    made = await engine.create(lab.config_of(*command, **more), host, name)
    await engine.start(made.id)
    return made.id


@with_engine
async def test_exit_code_output_and_state(lab: Lab, engine: Engine) -> None:
    made = await engine.create(lab.config_of("sh", "-c", "echo out; echo err >&2; exit 3"))
    assert engine.get(made.id).status is Status.CREATED
    ended = engine.arm_wait(made.id, WaitCondition.NEXT_EXIT)
    await engine.start(made.id)
    assert (await ended).exit_code == 3
    state = engine.get(made.id).state
    assert (state.status, state.pid, state.exit_code) == (Status.EXITED, 0, 3)
    assert 0 < state.started_at <= state.finished_at
    records = [record async for record in engine.logs(made.id)]
    assert sorted((record.stream, record.data) for record in records) == [
        ("stderr", b"err\n"),
        ("stdout", b"out\n"),
    ]
    assert (await engine.wait(made.id)).exit_code == 3


@with_engine
async def test_a_container_can_start_again(lab: Lab, engine: Engine) -> None:
    made = await engine.create(lab.config_of("sh", "-c", "echo x >> /f; cat /f"))
    for _ in range(3):
        ended = engine.arm_wait(made.id, WaitCondition.NEXT_EXIT)
        await engine.start(made.id)
        await ended
    assert await lab.output(engine, made.id) == "x\n" * 6


@with_engine
async def test_commands_that_cannot_run(lab: Lab, engine: Engine) -> None:
    for command, code in (("nosuch", 127), ("/bin/none", 127), ("/bin/unexecutable", 126)):
        made = await engine.create(lab.config_of(command))
        with pytest.raises(errors.StartFailed) as failure:
            await engine.start(made.id)
        assert failure.value.exit_code == code
        container = engine.get(made.id)
        assert container.status is Status.CREATED
        assert container.state.exit_code == code
        assert command in container.state.error
        assert lab.shims() == []


@with_engine
async def test_names_are_taken_once(lab: Lab, engine: Engine) -> None:
    made = await engine.create(lab.config_of("true"), name="web")
    with pytest.raises(errors.NameInUse) as failure:
        await engine.create(lab.config_of("true"), name="/web")
    assert str(failure.value) == (
        f'Conflict. The container name "/web" is already in use by container "{made.id}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    await engine.rename("web", "api")
    assert engine.get("api").id == made.id
    second = await engine.create(lab.config_of("true"), name="web")
    with pytest.raises(errors.NameInUse):
        await engine.rename(second.id, "api")
    with pytest.raises(errors.ContainerNotFound, match="No such container: nobody"):
        engine.get("nobody")
    for bad in ("../x", "a/b", "x", ".hidden", "new\nline"):
        with pytest.raises(errors.InvalidArgument):
            await engine.create(lab.config_of("true"), name=bad)


@with_engine
async def test_states_that_refuse(lab: Lab, engine: Engine) -> None:
    made = await engine.create(lab.config_of(*SLEEP), name="one")
    with pytest.raises(errors.NotModified):
        await engine.stop("one")
    with pytest.raises(errors.Conflict) as failure:
        await engine.kill("one")
    assert str(failure.value) == f"Cannot kill container: one: container {made.id} is not running"
    with pytest.raises(errors.Conflict):
        await engine.exec_create("one", ExecConfig(command=("true",)))
    await engine.start("one")
    with pytest.raises(errors.NotModified):
        await engine.start("one")
    with pytest.raises(errors.Conflict) as failure:
        await engine.remove("one")
    assert str(failure.value) == (
        'cannot remove container "one": container is running: '
        "stop the container before removing or force remove"
    )
    with pytest.raises(errors.InvalidArgument):
        await engine.kill("one", "SIGNOTHING")


@with_engine
async def test_stop_sends_the_signal_then_kills(lab: Lab, engine: Engine) -> None:
    polite = await started(
        lab,
        engine,
        "sh",
        "-c",
        "trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done",
        stop_signal="SIGUSR1",
    )
    await _ready(engine, polite)
    await engine.stop(polite)
    assert engine.get(polite).state.exit_code == 7
    deaf = await started(lab, engine, "sh", "-c", "trap '' TERM; echo ready; sleep 1000")
    await _ready(engine, deaf)
    await engine.stop(deaf, timeout=0)
    assert engine.get(deaf).state.exit_code == 137


async def _ready(engine: Engine, ref: str) -> None:
    async for _ in engine.logs(ref, LogQuery(follow=True)):
        return


@with_engine
async def test_pause_and_unpause(lab: Lab, engine: Engine) -> None:
    ref = await started(lab, engine, *SLEEP, name="one")
    await engine.pause(ref)
    assert engine.get(ref).status is Status.PAUSED
    with pytest.raises(errors.Conflict):
        await engine.pause(ref)
    with pytest.raises(errors.Conflict, match="unpause"):
        await engine.exec_create(ref, ExecConfig(command=("true",)))
    with pytest.raises(errors.Conflict, match="unpaused first"):
        await engine.remove(ref)
    await engine.unpause(ref)
    with pytest.raises(errors.Conflict):
        await engine.unpause(ref)
    await engine.pause(ref)
    await engine.stop(ref, timeout=0)
    assert engine.get(ref).status is Status.EXITED


@with_engine
async def test_exec(lab: Lab, engine: Engine) -> None:
    ref = await started(lab, engine, *SLEEP, env=("A=1", "B=2"))
    ours, theirs = socket.socketpair()
    exec_id = await engine.exec_create(
        ref,
        ExecConfig(
            command=("sh", "-c", "cat; echo $A$B; id -u; exit 5"),
            env=("B=3",),
            user="bob",
            attach_stdin=True,
            attach_stdout=True,
        ),
    )
    await engine.exec_start(
        exec_id, Attachment(fd=theirs.detach(), stdin=True, framing=Framing.RAW)
    )
    with pytest.raises(errors.Conflict):
        await engine.exec_start(exec_id)
    ours.sendall(b"hello\n")
    ours.shutdown(socket.SHUT_WR)
    assert await asyncio.to_thread(_drain, ours) == b"hello\n13\n1001\n"
    assert await engine.exec_wait(exec_id) == 5
    assert engine.exec_inspect(exec_id).exit_code == 5
    missing = await engine.exec_create(ref, ExecConfig(command=("nosuch",)))
    with pytest.raises(errors.StartFailed) as failure:
        await engine.exec_start(missing)
    assert failure.value.exit_code == 127
    with pytest.raises(errors.NotFound):
        engine.exec_inspect("0" * 64)


@with_engine
async def test_the_same_exec_again_finds_what_has_changed(lab: Lab, engine: Engine) -> None:
    """Its program is kept, but not what the container's files say."""
    ref = await started(lab, engine, *SLEEP)

    async def shell(script: str, user: str) -> bytes:
        ours, theirs = socket.socketpair()
        config = ExecConfig(command=("sh", "-c", script), user=user, attach_stdout=True)
        exec_id = await engine.exec_create(ref, config)
        await engine.exec_start(exec_id, Attachment(fd=theirs.detach(), framing=Framing.RAW))
        return await asyncio.to_thread(_drain, ours)

    assert [await shell("echo $HOME", "4321") for _ in range(3)] == [b"/\n"] * 3
    assert await shell("echo new:x:4321:4321::/there:/bin/sh >> /etc/passwd", "0") == b""
    assert await shell("echo $HOME", "4321") == b"/there\n"
    assert await shell("echo $HOME; id -g", "4321") == b"/there\n4321\n"


def _drain(sock: socket.socket) -> bytes:
    with sock:
        sock.settimeout(20)
        return b"".join(iter(lambda: sock.recv(65536), b""))


@with_engine
async def test_attach_before_start_misses_nothing(lab: Lab, engine: Engine) -> None:
    made = await engine.create(
        lab.config_of("sh", "-c", "echo first; cat", open_stdin=True, stdin_once=True)
    )
    ours, theirs = socket.socketpair()
    await engine.attach(made.id, Attachment(fd=theirs.detach(), stdin=True))
    await engine.start(made.id)
    ours.sendall(b"second\n")
    ours.shutdown(socket.SHUT_WR)
    # One frame or two: what was written before the shim had read is one.
    output = Demultiplexer().feed(await asyncio.to_thread(_drain, ours))
    assert {stream for stream, _ in output} == {STDOUT}
    assert b"".join(piece for _, piece in output) == b"first\nsecond\n"
    await engine.wait(made.id)
    ours, theirs = socket.socketpair()
    await engine.attach(made.id, Attachment(fd=theirs.detach(), logs=True, stream=False))
    logged = b"\1\0\0\0\0\0\0\x06first\n\1\0\0\0\0\0\0\x07second\n"
    assert await asyncio.to_thread(_drain, ours) == logged


@with_engine
async def test_on_failure_gives_up(lab: Lab, engine: Engine) -> None:
    policy = RestartPolicy(name=RestartName.ON_FAILURE, max_retries=2)
    made = await engine.create(
        lab.config_of("sh", "-c", "echo run; exit 1"), HostConfig(restart=policy)
    )
    await engine.start(made.id)
    assert (await engine.wait(made.id)).exit_code == 1
    assert engine.get(made.id).state.restart_count == 2
    assert await lab.output(engine, made.id) == "run\n" * 3


@with_engine
async def test_always_comes_back_until_stopped(lab: Lab, engine: Engine) -> None:
    policy = RestartPolicy(name=RestartName.ALWAYS)
    ref = await started(lab, engine, *SLEEP, host=HostConfig(restart=policy))
    first = engine.get(ref).state.pid
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: engine.get(ref).state.pid not in (0, first))
    assert engine.get(ref).state.restart_count == 1
    await engine.kill(ref)
    assert (await engine.wait(ref)).exit_code == 137
    assert engine.get(ref).status is Status.EXITED


@with_engine
async def test_auto_remove(lab: Lab, engine: Engine) -> None:
    made = await engine.create(lab.config_of("sh", "-c", "exit 4"), HostConfig(auto_remove=True))
    gone = engine.arm_wait(made.id, WaitCondition.REMOVED)
    await engine.start(made.id)
    assert (await gone).exit_code == 4
    assert engine.list(all=True) == []
    made = await engine.create(lab.config_of("nosuch"), HostConfig(auto_remove=True))
    gone = engine.arm_wait(made.id, WaitCondition.REMOVED)
    with pytest.raises(errors.StartFailed):
        await engine.start(made.id)
    assert (await gone).exit_code == 127


@with_engine
async def test_force_remove_and_many_at_once(lab: Lab, engine: Engine) -> None:
    refs = await asyncio.gather(*(started(lab, engine, *SLEEP) for _ in range(6)))
    assert len(engine.list()) == 6
    await asyncio.gather(*(engine.remove(ref, force=True) for ref in refs))
    assert engine.list(all=True) == []


@with_engine
async def test_limits_are_real(lab: Lab, engine: Engine) -> None:
    memory = "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    script = f"cat {memory} 2>/dev/null || cat /sys/fs/cgroup/memory.max"
    host = HostConfig(memory=32 << 20, pids_limit=50, nano_cpus=5 * 10**8, cpu_shares=512)
    assert await lab.run(engine, "sh", "-c", script, host=host) == (0, f"{32 << 20}\n")
    eater = "x=a; while :; do x=$x$x$x$x; done"
    made = await engine.create(lab.config_of("sh", "-c", eater), HostConfig(memory=8 << 20))
    ended = engine.arm_wait(made.id, WaitCondition.NEXT_EXIT)
    await engine.start(made.id)
    assert (await ended).exit_code == 137
    assert engine.get(made.id).state.oom_killed


@with_engine
async def test_the_first_group_is_among_the_others(lab: Lab, engine: Engine) -> None:
    """Or a program that leaves it passes what is denied to the group."""
    words = "grep", "^Groups", "/proc/self/status"
    assert await lab.run(engine, *words, user="1234") == (0, "Groups:\t0 \n")


@with_engine
async def test_sandbox_inside(lab: Lab, engine: Engine) -> None:
    os.makedirs(lab.rootfs + "/home/bob")
    script = (
        "id -u; id -g; id -G; echo $HOME; hostname; cat /etc/hostname; ls /sys/class/net; "
        "grep -E 'NoNewPrivs|Seccomp:|CapEff' /proc/self/status; pwd; ulimit -n; "
        "head -n 1 /etc/hosts; touch /x 2>&1"
    )
    host = HostConfig(read_only=True, ulimits=(Ulimit(name="nofile", soft=99, hard=100),))
    code, output = await lab.run(
        engine, "sh", "-c", script, host=host, user="bob", hostname="inner", cwd="/home/bob"
    )
    lines = output.splitlines()
    assert lines[:7] == ["1001", "1002", "1002 1003", "/home/bob", "inner", "inner", "lo"]
    assert lines[7].split() == ["CapEff:", "0000000000000000"]
    assert lines[8].split() == ["NoNewPrivs:", "1"]
    assert lines[9].split() == ["Seccomp:", "2"]
    assert lines[10:13] == ["/home/bob", "99", "127.0.0.1\tlocalhost"]
    assert "Read-only" in lines[13]
    assert code == 1


@with_engine
async def test_binds_tmpfs_and_plain_rootfs(lab: Lab, engine: Engine) -> None:
    shared = lab.path / "shared"
    shared.mkdir()
    host = HostConfig(binds=(f"{shared}:/mnt",), tmpfs={"/scratch": "size=64k"})
    await lab.run(engine, "sh", "-c", "echo hi > /mnt/f; echo x > /scratch/y", host=host)
    assert (shared / "f").read_text() == "hi\n"
    assert sorted(os.listdir(lab.rootfs)) == ["bin", "etc"]
    code, _ = await lab.run(
        engine, "sh", "-c", "echo > /mnt/g", host=HostConfig(binds=(f"{shared}:/mnt:ro",))
    )
    assert code != 0


@with_engine
async def test_events_tell_everything_in_order(lab: Lab, engine: Engine) -> None:
    live = engine.events(filters={"type": ["container"]})
    made = await engine.create(lab.config_of("true"), name="one")
    ended = engine.arm_wait(made.id, WaitCondition.NEXT_EXIT)
    await engine.start(made.id)
    await ended
    await engine.remove("one")
    heard = []
    async for event in live:
        heard.append(event)
        if event.action == "destroy":
            break
    assert [event.action for event in heard] == ["create", "start", "die", "destroy"]
    assert heard[2].attributes["exitCode"] == "0"
    assert [event.id for event in heard] == sorted({event.id for event in heard})
    replayed = [event async for event in engine.events(since=1, until=heard[-1].time_ns)]
    assert replayed == heard


@with_engine
async def test_logs_tail_since_and_rotation(lab: Lab, engine: Engine) -> None:
    script = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); done"
    host = HostConfig(log=LogConfig(max_size=4096, max_file=3))
    made = await engine.create(lab.config_of("sh", "-c", script), host)
    await engine.start(made.id)
    await engine.wait(made.id)
    assert (lab.path / f"root/containers/{made.id}/container.log.2").exists()
    tail = [record async for record in engine.logs(made.id, LogQuery(tail=3))]
    assert [record.data for record in tail] == [b"line 397\n", b"line 398\n", b"line 399\n"]
    long = await lab.output(engine, made.id, LogQuery(tail=80))
    assert long.splitlines() == [f"line {i}" for i in range(320, 400)]
    since = [r async for r in engine.logs(made.id, LogQuery(since=tail[1].time_ns))]
    assert {record.time_ns >= tail[1].time_ns for record in since} == {True}
    assert await lab.output(engine, made.id, LogQuery(stdout=False)) == ""
    assert await lab.output(engine, made.id, LogQuery(tail=0)) == ""


@with_engine
async def test_follow_goes_through_rotations(lab: Lab, engine: Engine) -> None:
    script = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.001; done"
    host = HostConfig(log=LogConfig(max_size=8192, max_file=9))
    made = await engine.create(lab.config_of("sh", "-c", script), host)
    await engine.start(made.id)
    output = await lab.output(engine, made.id, LogQuery(follow=True))
    assert output.splitlines() == [f"line {i}" for i in range(300)]


@with_engine
async def test_stats_and_top(lab: Lab, engine: Engine) -> None:
    ref = await started(lab, engine, *SLEEP, host=HostConfig(memory=64 << 20, pids_limit=20))
    reading = await engine.stats(ref)
    assert reading.memory_limit == 64 << 20
    assert reading.pids_current == 1
    assert reading.pids_limit == 20
    assert reading.memory_usage > 0
    assert reading.networks == {}
    top = await engine.top(ref)
    assert len(top.processes) == 1
    assert "sleep 1000" in top.processes[0][-1]
    await engine.stop(ref, timeout=0)
    assert (await engine.stats(ref)).pids_current == 0
    with pytest.raises(errors.Conflict):
        await engine.top(ref)


@with_engine
async def test_list_filters_and_prune(lab: Lab, engine: Engine) -> None:
    running = await started(lab, engine, *SLEEP, name="runs", labels={"a": "1"})
    made = await engine.create(lab.config_of("true", labels={"a": "2"}), name="waits")
    assert [c.id for c in engine.list()] == [running]
    assert [c.id for c in engine.list(all=True)] == [made.id, running]
    assert [c.id for c in engine.list(filters={"status": ["created"]})] == [made.id]
    assert [c.name for c in engine.list(all=True, filters={"label": ["a=1"]})] == ["runs"]
    assert [c.name for c in engine.list(all=True, filters={"before": ["waits"]})] == ["runs"]
    assert [c.name for c in engine.list(limit=1)] == ["waits"]
    with pytest.raises(errors.InvalidArgument):
        engine.list(filters={"nonsense": ["x"]})
    assert (await engine.prune()).ids == (made.id,)


@with_engine
async def test_limits_of_a_running_container_change(lab: Lab, engine: Engine) -> None:
    ref = await started(lab, engine, *SLEEP, host=HostConfig(memory=32 << 20))
    await engine.update(ref, memory=48 << 20, restart=RestartPolicy(name=RestartName.ALWAYS))
    assert (await engine.stats(ref)).memory_limit == 48 << 20
    assert engine.get(ref).host.restart.name is RestartName.ALWAYS


@with_engine
async def test_a_terminal(lab: Lab, engine: Engine) -> None:
    made = await engine.create(
        lab.config_of("sh", "-c", "read x; stty size; echo $TERM", tty=True, open_stdin=True)
    )
    ours, theirs = socket.socketpair()
    await engine.attach(made.id, Attachment(fd=theirs.detach(), stdin=True, framing=Framing.RAW))
    await engine.start(made.id)
    await engine.resize(made.id, 33, 44)
    ours.sendall(b"\n")
    output = await asyncio.to_thread(_drain, ours)
    assert b"33 44\r\n" in output
    assert b"xterm\r\n" in output


@with_engine
async def test_privileged_and_the_hosts_network(lab: Lab, engine: Engine) -> None:
    script = (
        "grep -E 'NoNewPrivs|Seccomp:|CapBnd' /proc/self/status; sed -n 's/:.*//p' /proc/net/dev; "
        "echo; cat /etc/resolv.conf; hostname"
    )
    host = HostConfig(privileged=True, network_mode="host")
    code, output = await lab.run(engine, "sh", "-c", script, host=host)
    assert code == 0
    lines = output.splitlines()
    assert int(lines[0].split()[1], 16).bit_count() > 30
    assert [line.split()[1] for line in lines[1:3]] == ["0", "0"]
    own = sorted(name for _, name in socket.if_nameindex())
    assert sorted(line.strip() for line in lines[3 : lines.index("")]) == own
    assert lines[-1] == os.uname().nodename


@with_engine
async def test_the_sandbox_can_be_loosened_word_by_word(lab: Lab, engine: Engine) -> None:
    script = "grep -E 'NoNewPrivs|Seccomp:|CapEff' /proc/self/status"
    loose = ("no-new-privileges=false", "seccomp=unconfined")
    host = HostConfig(security_opt=loose, cap_drop=("ALL",), cap_add=("KILL",))
    _, output = await lab.run(engine, "sh", "-c", script, host=host)
    words = [line.split()[1] for line in output.splitlines()]
    assert words == [f"{1 << 5:016x}", "0", "0"]
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EOPNOTSUPP}
    forbidden = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    host = HostConfig(security_opt=(f"seccomp={forbidden}",))
    code, output = await lab.run(engine, "sh", "-c", "mkdir /x 2>&1", host=host)
    assert code == 1
    assert "not supported" in output


@with_engine
async def test_a_container_of_the_directory_itself(lab: Lab, engine: Engine) -> None:
    config = replace(lab.config_of("sh", "-c", "echo here > /kept"), rootfs=lab.rootfs)
    made = await engine.create(config)
    await engine.start(made.id)
    await engine.wait(made.id)
    assert (lab.path / "rootfs/kept").read_text() == "here\n"
    for rootfs in ("/", "relative", "/no/such/directory", "/etc/passwd", "/../:O"):
        with pytest.raises(errors.InvalidArgument):
            await engine.create(replace(config, rootfs=rootfs))
    with pytest.raises(errors.InvalidArgument):
        await engine.create(replace(config, rootfs=None))


@with_engine
async def test_an_image_that_is_not_here(lab: Lab, engine: Engine) -> None:
    with pytest.raises(errors.ImageNotFound):
        await engine.create(ContainerConfig(image="nobody/nothing:1", command=("true",)))
    assert engine.list(all=True) == []


@with_engine
async def test_a_client_that_comes_while_it_starts_is_attached(lab: Lab, engine: Engine) -> None:
    made = await engine.create(
        lab.config_of("sh", "-c", "read x; echo got $x", open_stdin=True, stdin_once=True)
    )
    starting = asyncio.ensure_future(engine.start(made.id))
    await asyncio.sleep(0)
    ours, theirs = socket.socketpair()
    await engine.attach(made.id, Attachment(fd=theirs.detach(), stdin=True, framing=Framing.RAW))
    await starting
    ours.sendall(b"it\n")
    assert await asyncio.to_thread(_drain, ours) == b"got it\n"


@with_engine
async def test_an_environment_larger_than_a_socket_buffer(lab: Lab, engine: Engine) -> None:
    env = tuple(f"V{number}={'x' * 100_000}" for number in range(8))
    code, output = await lab.run(engine, "sh", "-c", "echo ${#V7}", env=env)
    assert (code, output) == (0, "100000\n")
    ref = await started(lab, engine, *SLEEP, env=env)
    exec_id = await engine.exec_create(ref, ExecConfig(command=("true",)))
    await engine.exec_start(exec_id)
    assert await engine.exec_wait(exec_id) == 0


@with_engine
async def test_a_root_that_is_gone_is_no_missing_command(lab: Lab, engine: Engine) -> None:
    folder = lab.path / "short-lived"
    folder.mkdir()
    made = await engine.create(replace(lab.config_of("true"), rootfs=str(folder)))
    folder.rmdir()
    with pytest.raises(errors.StartFailed) as failure:
        await engine.start(made.id)
    assert failure.value.exit_code == 125
