"""Namespaces of containers: their own, the host's, another container's, and of users."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from enginelab import Lab, with_engine
from sampan import errors
from sampan.engine.engine import Engine
from sampan.engine.model import ExecConfig, HostConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def run(lab: Lab, engine: Engine, script: str, **host: object) -> str:
    code, output = await lab.run(engine, "sh", "-c", script, host=HostConfig(**host))
    assert code == 0, output
    return output


async def ran(engine: Engine, ref: str, *command: str) -> int:
    """The exit code of an exec."""
    exec_id = await engine.exec_create(ref, ExecConfig(command=command))
    await engine.exec_start(exec_id)
    return await engine.exec_wait(exec_id)


async def put(engine: Engine, ref: str, name: str, content: bytes) -> None:
    """Copy a file into the root of a container."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))

    async def chunks() -> AsyncIterator[bytes]:
        yield tar.getvalue()

    await engine.write_archive(ref, "/", chunks())


async def owner(engine: Engine, ref: str, path: str) -> int:
    """The owner of a path, as a copy of it has it."""
    async with engine.read_archive(ref, path) as archive:
        data = b"".join([chunk async for chunk in archive.chunks()])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()[0].uid


@with_engine
async def test_the_ipc_namespace_and_shm_of_another_container(lab: Lab, engine: Engine) -> None:
    made = await engine.create(
        lab.config_of("sh", "-c", "echo shared > /dev/shm/note; sleep 1000"),
        HostConfig(ipc_mode="shareable", sysctls={"kernel.shmmni": "99"}),
        "other",
    )
    await engine.start(made.id)
    script = "while [ ! -s /dev/shm/note ]; do sleep 0.01; done; cat /dev/shm/note "
    script += "/proc/sys/kernel/shmmni; echo back > /dev/shm/answer"
    assert await run(lab, engine, script, ipc_mode="container:other") == "shared\n99\n"
    assert await ran(engine, made.id, "grep", "back", "/dev/shm/answer") == 0
    assert await run(lab, engine, "ls /dev/shm") == ""


@with_engine
async def test_the_uts_namespace_of_another_container(lab: Lab, engine: Engine) -> None:
    other = await engine.create(lab.config_of("sleep", "1000", hostname="boat"), name="other")
    await engine.start(other.id)
    assert await run(lab, engine, "hostname", uts_mode="container:other") == "boat\n"
    assert await run(lab, engine, "hostname") != "boat\n"


@with_engine
async def test_what_cannot_be_joined_says_why(lab: Lab, engine: Engine) -> None:
    await engine.create(lab.config_of("sleep", "1000"), name="other")
    joined = HostConfig(ipc_mode="container:other")
    made = await engine.create(lab.config_of("true"), joined)
    with pytest.raises(errors.Conflict, match="ipc namespace of other: it is not running"):
        await engine.start(made.id)
    await engine.start("other")
    with pytest.raises(errors.Conflict, match="non-shareable IPC; create that container"):
        await engine.start(made.id)
    for mode in ("container:", "nobody", "container"):
        with pytest.raises(errors.InvalidArgument, match="invalid ipc mode"):
            await engine.create(lab.config_of("true"), HostConfig(ipc_mode=mode))


@with_engine
async def test_a_user_namespace_of_its_own(lab: Lab, engine: Engine) -> None:
    script = "id -u; cat /proc/self/uid_map; touch /mine; ls -ln /etc/hosts /bin/busybox /mine"
    output = await run(lab, engine, script, userns_mode="auto")
    uid, maps, *files = output.splitlines()
    assert uid == "0"
    inside, outside, size = map(int, maps.split())
    assert (inside, size) == (0, 1 << 16)
    assert outside >= 1 << 30
    assert [line.split()[2:4] for line in files] == [["0", "0"]] * 3


@with_engine
async def test_every_user_namespace_has_ids_of_its_own(lab: Lab, engine: Engine) -> None:
    pids = []
    for mode in ("auto", "auto:size=1000", "auto"):
        made = await engine.create(lab.config_of("sleep", "1000"), HostConfig(userns_mode=mode))
        await engine.start(made.id)
        pids.append(engine.get(made.id).state.pid)
    owners = [os.stat(f"/proc/{pid}").st_uid for pid in pids]
    assert owners == [1 << 30, (1 << 30) + 65536, (1 << 30) + 66536]
    # The rights are none on the host: what the root of one owns there is nobody's of another.
    assert all(os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino
               for pid in pids)  # fmt: skip


@with_engine
async def test_files_of_a_user_namespace(lab: Lab, engine: Engine) -> None:
    """Copies, volumes and execs see the container's ids; the disk has the image's."""
    host = HostConfig(userns_mode="auto", binds=("data:/data",))
    made = await engine.create(lab.config_of("sleep", "1000"), host)
    await put(engine, made.id, "before", b"one")
    await engine.start(made.id)
    await put(engine, made.id, "after", b"two")
    script = "cat /before /after; touch /data/mine; id -u; stty 2>/dev/null; true"
    assert await ran(engine, made.id, "sh", "-c", script + " && touch /before /after") == 0
    assert await ran(engine, made.id, "sh", "-c", "[ -O /before ] && [ -O /after ]") == 0
    assert await owner(engine, made.id, "/after") == 0
    volume = engine.volumes.get("data")
    assert os.stat(f"{volume.path}/mine").st_uid == 0
    # Without a user namespace, the volume and its files are the same.
    both = await run(lab, engine, "ls -ln /data/mine", binds=("data:/data",))
    assert both.split()[2:4] == ["0", "0"]
    await engine.kill(made.id)
    await engine.wait(made.id)
    assert await owner(engine, made.id, "/after") == 0
    await engine.start(made.id)
    assert await ran(engine, made.id, "grep", "two", "/after") == 0


@with_engine
async def test_binds_are_shown_with_other_ids_where_asked(lab: Lab, engine: Engine) -> None:
    (lab.path / "plain").mkdir()
    binds = (f"{lab.path}/plain:/plain", f"{lab.path}/plain:/shown:idmap")
    output = await run(lab, engine, "ls -ldn /plain /shown", userns_mode="auto", binds=binds)
    assert [line.split()[2] for line in output.splitlines()] == ["65534", "0"]


@with_engine
async def test_a_user_namespace_is_refused_where_it_cannot_be(lab: Lab, engine: Engine) -> None:
    base = HostConfig(userns_mode="auto")
    for host, text in (
        (replace(base, privileged=True), "privileged"),
        (replace(base, pid_mode="host"), "pid namespace"),
        (replace(base, userns_mode="auto:size=0"), "size is not a number"),
        (replace(base, userns_mode="mine"), "invalid userns mode"),
        (replace(base, userns_mode="auto:size=9999999999"), "size is not a number"),
    ):
        with pytest.raises(errors.InvalidArgument, match=text):
            await engine.create(lab.config_of("true"), host)
    assert engine.list(all=True) == []
