"""Volumes and mounts as containers see them, and what is left of them afterwards."""

from __future__ import annotations

import asyncio
import os
import socket
import stat

import pytest

from enginelab import Lab, eventually, needs_root, with_engine
from sampan import errors
from sampan.engine.engine import Engine
from sampan.engine.model import ContainerConfig, HostConfig, Mount, MountType, WaitCondition
from sampan.volumes.backing import is_mounted
from sampan.volumes.local import VolumeNotFound


async def run(lab: Lab, engine: Engine, script: str, host: HostConfig, **more) -> str:
    code, output = await lab.run(engine, "sh", "-c", script, host=host, **more)
    assert code == 0, output
    return output


def volume(source: str, target: str, **more) -> Mount:
    return Mount(type=MountType.VOLUME, source=source, target=target, **more)


@with_engine
async def test_a_named_volume_outlives_containers(lab: Lab, engine: Engine) -> None:
    host = HostConfig(binds=("data:/data",))
    await run(lab, engine, "echo kept > /data/file", host)
    assert await run(lab, engine, "cat /data/file", host) == "kept\n"
    found = engine.volumes.get("data")
    assert (found.anonymous, engine.volumes.users("data")) == (False, [])
    async with asyncio.timeout(5):
        assert await engine.volumes.size(found) > 0
    readonly = HostConfig(binds=("data:/data:ro",))
    assert "Read-only" in await run(lab, engine, "echo x 2>&1 > /data/y || true", readonly)
    await engine.volumes.remove("data")
    assert os.listdir(lab.path / "root/volumes") == []
    with pytest.raises(VolumeNotFound, match="get data: no such volume"):
        engine.volumes.get("data")


@with_engine
async def test_volumes_are_counted_and_kept_while_used(lab: Lab, engine: Engine) -> None:
    made = await engine.create(lab.config_of("true"), HostConfig(mounts=(volume("v1", "/a"),)))
    assert engine.volumes.users("v1") == [made.id]
    with pytest.raises(errors.Conflict, match=f"volume is in use - \\[{made.id}\\]"):
        await engine.volumes.remove("v1")
    assert [v.name for v in engine.volumes.list({"dangling": ["true"]})] == []
    await engine.remove(made.id, volumes=True)  # it has a name: it stays
    assert [v.name for v in engine.volumes.list({"dangling": ["true"]})] == ["v1"]
    assert (await engine.volumes.prune()).ids == ()
    assert (await engine.volumes.prune({"all": ["true"]})).ids == ("v1",)
    await engine.volumes.remove("v1", force=True)
    with pytest.raises(VolumeNotFound):
        await engine.volumes.remove("v1")


@with_engine
async def test_volumes_without_a_name_go_with_their_container(lab: Lab, engine: Engine) -> None:
    config = lab.config_of("sh", "-c", "echo 1 > /anon/x", volumes=("/anon",))
    kept = await engine.create(config)
    name = engine.get(kept.id).mounts[0].source
    assert engine.volumes.get(name).anonymous
    await engine.remove(kept.id)
    assert engine.volumes.users(name) == []
    again = await engine.create(config)
    await engine.remove(again.id, volumes=True)
    assert [v.name for v in engine.volumes.list()] == [name]
    third = await engine.create(config, HostConfig(auto_remove=True))
    gone = engine.arm_wait(third.id, WaitCondition.REMOVED)
    await engine.start(third.id)
    await gone
    assert (await engine.volumes.prune()).ids == (name,)
    assert engine.volumes.list() == []


@with_engine
async def test_an_empty_volume_is_filled_from_the_image_once(lab: Lab, engine: Engine) -> None:
    seed = lab.path / "rootfs/seed"
    (seed / "sub").mkdir(parents=True)
    (seed / "file").write_text("from the image")
    os.chown(seed / "file", 7, 8)
    (seed / "file").chmod(0o4751)
    os.link(seed / "file", seed / "sub/hard")
    (seed / "link").symlink_to("/etc/passwd")
    os.mkfifo(seed / "fifo")
    os.setxattr(seed / "sub", "user.note", b"x")
    seed.chmod(0o1777)
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(seed / "socket"))
    bound.close()
    host = HostConfig(mounts=(volume("vol", "/seed"),))
    # Two first containers at once: the second finds it filled.
    one, two = await asyncio.gather(
        *(engine.create(lab.config_of("true"), host, name) for name in ("one", "two"))
    )
    data = lab.path / "root/volumes/vol/_data"
    assert sorted(os.listdir(data)) == ["fifo", "file", "link", "sub"]
    found = os.stat(data / "file")
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o4751, 7, 8)
    assert found.st_ino == os.stat(data / "sub/hard").st_ino
    assert os.readlink(data / "link") == "/etc/passwd"
    assert os.getxattr(data / "sub", "user.note") == b"x"
    assert stat.S_IMODE(os.stat(data).st_mode) == 0o1777
    (data / "file").write_text("changed")
    await engine.remove(one.id)
    await engine.remove(two.id)
    assert await run(lab, engine, "cat /seed/file", host) == "changed"
    for name in os.listdir(data):
        if name != "sub":
            os.unlink(data / name)
    assert await run(lab, engine, "ls /seed", host) == "sub\n"  # not empty: nothing comes back


@with_engine
async def test_a_hostile_image_cannot_lead_a_copy_out(lab: Lab, engine: Engine) -> None:
    (lab.path / "rootfs/evil").symlink_to("../../../../../.." + str(lab.path))
    (lab.path / "secret").write_text("of the host")
    await engine.create(lab.config_of("true"), HostConfig(mounts=(volume("vol", "/evil"),)))
    assert os.listdir(lab.path / "root/volumes/vol/_data") == []
    nocopy = HostConfig(mounts=(volume("wol", "/bin", copy=False),))
    await engine.create(lab.config_of("true"), nocopy)
    assert os.listdir(lab.path / "root/volumes/wol/_data") == []


@with_engine
async def test_a_subpath_is_below_its_volume(lab: Lab, engine: Engine) -> None:
    await engine.volumes.create("vol")
    data = lab.path / "root/volumes/vol/_data"
    (data / "in").mkdir()
    (data / "in/f").write_text("inside\n")
    (data / "out").symlink_to("/")
    (data / "lnk").symlink_to("in")
    host = HostConfig(mounts=(volume("vol", "/m", subpath="in"),))
    assert await run(lab, engine, "cat /m/f", host) == "inside\n"
    for path in ("out", "out/etc", "lnk", "none"):
        made = await engine.create(
            lab.config_of("true"), HostConfig(mounts=(volume("vol", "/m", subpath=path),))
        )
        with pytest.raises(errors.StartFailed):
            await engine.start(made.id)
    for path in ("../v", "/etc", "a/../../b"):
        with pytest.raises(errors.InvalidArgument, match="relative path"):
            await engine.create(
                lab.config_of("true"), HostConfig(mounts=(volume("vol", "/m", subpath=path),))
            )


@with_engine
async def test_mounts_of_another_container(lab: Lab, engine: Engine) -> None:
    (lab.path / "dir").mkdir()
    first = HostConfig(binds=("data:/data", f"{lab.path}/dir:/dir"))
    await engine.create(lab.config_of("true", volumes=("/anon",)), first, "first")
    host = HostConfig(volumes_from=("first",))
    await run(lab, engine, "echo 1 > /data/a; echo 2 > /dir/b; echo 3 > /anon/c", host)
    assert (lab.path / "dir/b").read_text() == "2\n"
    quiet = HostConfig(volumes_from=("first:ro",), binds=(f"{lab.path}/dir:/data",))
    output = await run(lab, engine, "ls /data; cat /anon/c; ! touch /anon/d", quiet)
    assert output.splitlines()[:2] == ["b", "3"]
    with pytest.raises(errors.ContainerNotFound):
        await engine.create(lab.config_of("true"), HostConfig(volumes_from=("nobody",)))
    with pytest.raises(errors.InvalidArgument):
        await engine.create(lab.config_of("true"), HostConfig(volumes_from=("first:xx",)))
    assert len(engine.volumes.list()) == 2


@with_engine
async def test_tmpfs_and_bind_mounts_by_type(lab: Lab, engine: Engine) -> None:
    tmpfs = Mount(type=MountType.TMPFS, target="/t", size=65536, mode=0o700)
    output = await run(
        lab, engine, "grep ' /t ' /proc/mounts; ls -ld /t", HostConfig(mounts=(tmpfs,))
    )
    assert "size=64k" in output
    assert "noexec" in output
    assert output.splitlines()[1].startswith("drwx------")
    missing = Mount(type=MountType.BIND, source=f"{lab.path}/none", target="/m")
    with pytest.raises(errors.InvalidArgument, match="bind source path does not exist"):
        await engine.create(lab.config_of("true"), HostConfig(mounts=(missing,)))
    assert not (lab.path / "none").exists()
    await run(lab, engine, "touch /m/x", HostConfig(binds=(f"{lab.path}/none:/m",)))
    assert (lab.path / "none/x").exists()


@with_engine
async def test_the_local_driver_has_options(lab: Lab, engine: Engine) -> None:
    (lab.path / "dir").mkdir()
    await engine.volumes.create("bvol", options={"type": "none", "o": "bind,ro,nodev", "device":
                                              f"{lab.path}/dir"})  # fmt: skip
    await engine.volumes.create(
        "tvol", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    )
    output = await run(
        lab, engine, "! touch /b/x; grep -e ' /b ' -e ' /t ' /proc/mounts",
        HostConfig(binds=("bvol:/b", "tvol:/t")),
    )  # fmt: skip
    assert "nodev" in next(line for line in output.splitlines() if " /b " in line)
    assert "size=1024k" in output
    data = lab.path / "root/volumes/tvol/_data"
    one = await engine.create(lab.config_of("sleep", "100"), HostConfig(binds=("tvol:/t",)))
    await engine.start(one.id)
    assert is_mounted(str(data))
    assert (
        await run(lab, engine, "echo shared > /t/x; ls /t", HostConfig(binds=("tvol:/t",))) == "x\n"
    )
    assert (data / "x").read_text() == "shared\n"  # as long as one of them runs
    await engine.remove(one.id, force=True)
    await eventually(lambda: not is_mounted(str(data)))
    for options in ({"size": "1g"}, {"type": "nfs", "device": ":/x"}, {"o": "bind"},
                    {"o": "bind", "device": "x/y"}, {"o": "uid=1"}, {"type": "tmpfs"},
                    {"device": "tmpfs"}):  # fmt: skip
        with pytest.raises(errors.SampanError, match="create volume"):
            await engine.volumes.create("bad", options=options)
    assert "bad" not in [v.name for v in engine.volumes.list()]


@with_engine
async def test_propagation_of_binds(lab: Lab, engine: Engine) -> None:
    source = lab.path / "shared"
    source.mkdir()
    (source / "later").mkdir()
    bind = Mount(
        type=MountType.BIND, source=str(source), target="/s", propagation="rslave", recursive=True
    )
    output = await run(lab, engine, "grep ' /s ' /proc/self/mountinfo", HostConfig(mounts=(bind,)))
    assert " /s " in output
    with pytest.raises(errors.InvalidArgument, match="propagation"):
        await engine.create(
            lab.config_of("true"),
            HostConfig(mounts=(Mount(type=MountType.BIND, source="/", target="/s",
                                     propagation="sideways"),)),
        )  # fmt: skip


@with_engine
async def test_bad_mounts_change_nothing(lab: Lab, engine: Engine) -> None:
    good = lab.config_of("true")
    for host in (
        HostConfig(binds=("../x:/y",)),
        HostConfig(binds=("aa:b",)),
        HostConfig(binds=("vol:/",)),
        HostConfig(binds=("vol:/x/../..",)),
        HostConfig(binds=("vol:/x:shared",)),
        HostConfig(binds=("vol:/x:ro,rw",)),
        HostConfig(binds=("/a:/x:nocopy",)),
        HostConfig(binds=("vol:/x:ro:z",)),
        HostConfig(mounts=(volume("../etc", "/x"),)),
        HostConfig(mounts=(Mount(type=MountType.IMAGE, source="", target="/x"),)),
        HostConfig(mounts=(Mount(type=MountType.TMPFS, source="y", target="/x"),)),
    ):
        with pytest.raises(errors.InvalidArgument):
            await engine.create(good, host)
    for host in (
        HostConfig(binds=("vol:/x", "wol:/x/")),
        HostConfig(binds=("vol:/x",), tmpfs={"/x": ""}),
    ):
        with pytest.raises(errors.Conflict, match="Duplicate mount point"):
            await engine.create(good, host)
    with pytest.raises(errors.SampanError):
        await engine.create(
            ContainerConfig(image="nosuch:1", command=("true",)), HostConfig(binds=("vol:/x",))
        )
    assert engine.volumes.list() == []
    assert os.listdir(lab.path / "root/volumes") == []


@needs_root
def test_what_a_kill_leaves_is_put_right(tmp_path) -> None:
    lab = Lab(tmp_path)
    volumes = tmp_path / "root/volumes"

    async def main() -> None:
        async with lab.engine() as engine:
            for name in ("gone", "stays"):
                await engine.volumes.create(name)
        (volumes / "gone/_data").rmdir()  # a removal that came half-way
        (volumes / "gone").rmdir()
        (volumes / "empty/_data").mkdir(parents=True)  # a creation that came half-way
        (volumes / "full/_data").mkdir(parents=True)
        (volumes / "full/_data/precious").touch()
        unnamed = volumes / ("ab" * 32)
        (unnamed / "_data").mkdir(parents=True)
        (unnamed / "_data/x").touch()
        async with lab.engine() as engine:
            assert [v.name for v in engine.volumes.list()] == ["stays"]
            assert sorted(os.listdir(volumes)) == ["full", "stays"]
            await engine.volumes.create("full")
        assert (volumes / "full/_data/precious").exists()

    asyncio.run(main())
    lab.close()


@with_engine
async def test_volumes_have_events(lab: Lab, engine: Engine) -> None:
    await run(lab, engine, "true", HostConfig(binds=("vol:/x",)))
    await engine.volumes.remove("vol")
    now = engine.events(since=1, until=2**62, filters={"type": ["volume"]})
    seen = []
    async for event in now:
        seen.append(event.action)
        if event.action == "destroy":
            break
    assert seen == ["create", "mount", "unmount", "destroy"]
