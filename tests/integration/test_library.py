"""`import sampan`, as a program uses it: connected and embedded, blocking and asynchronous."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from pathlib import Path

import pytest

import dockerlab
import sampan
from sampan import errors

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        yield made


@pytest.fixture(scope="module")
def engine(daemon):
    with sampan.Engine.open(host=daemon.host) as opened:
        opened.import_image([dockerlab.tar_of(f"{daemon.base}/rootfs")], "bb:1")
        yield opened


def test_run_waits_and_gives_code_and_output(engine):
    result = engine.run("bb:1", command=["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.exit_code, result.text, result.stderr) == (3, "out\n", b"err\n")
    with pytest.raises(sampan.CommandFailed, match="command ended with 3: err"):
        result.check()
    assert engine.containers(all=True) == []


def test_run_of_a_directory_with_input_and_limits(daemon, engine):
    data = os.urandom(300_000)
    result = engine.run(
        rootfs=f"{daemon.base}/rootfs:O",
        command=["cat"],
        input=data,
        memory="64m",
        cpus=0.5,
        pids_limit=10,
        read_only=True,
        env={"A": "b"},
    )
    assert result.stdout == data


def test_run_that_takes_too_long(engine):
    with pytest.raises(errors.DeadlineExceeded):
        engine.run("bb:1", command=["sleep", "1000"], timeout=0.3)
    assert engine.containers(all=True) == []


@pytest.mark.parametrize(("command", "code"), [("nosuch", 127), ("/bin/refused", 126)])
def test_command_that_cannot_start(engine, command, code):
    with pytest.raises(errors.StartFailed) as caught:
        engine.run("bb:1", command=[command])
    assert caught.value.exit_code == code
    assert engine.containers(all=True) == []


def test_detached_container(engine):
    with pytest.raises(errors.ContainerNotFound):
        engine.container("box")
    box = engine.run("bb:1", command=["sleep", "1000"], detach=True, name="box")
    try:
        assert engine.container("box").id == box.id
        assert box.exec(["sh", "-c", "cat; exit 4"], input=b"hi").exit_code == 4
        assert box.exec(["id", "-u"]).check().text == "0\n"
        assert box.inspect().running
        assert box.stats().pids == 1
        with pytest.raises(errors.NameInUse):
            engine.run("bb:1", command=["true"], name="box")
        with pytest.raises(errors.Conflict):
            box.remove()
        with pytest.raises(errors.DeadlineExceeded):
            box.wait(timeout=0.05)
        box.stop(timeout=0)
        box.stop()
        assert box.wait() == 137
    finally:
        box.remove(force=True)
    with pytest.raises(errors.ContainerNotFound):
        box.inspect()


def test_logs(engine):
    script = "echo one; echo two >&2; echo three"
    box = engine.run("bb:1", command=["sh", "-c", script], detach=True)
    try:
        followed = list(box.follow_logs())
        assert b"".join(c.data for c in followed if c.stream == "stdout") == b"one\nthree\n"
        assert box.logs().stderr == b"two\n"
        lines = [box.logs(tail=n) for n in (0, 1)]
        assert [len((o.stdout + o.stderr).splitlines()) for o in lines] == [0, 1]
    finally:
        box.remove(force=True)


def test_images_and_events(engine):
    engine.tag("bb:1", "bb:2")
    assert set(engine.image("bb:2").names) == {"bb:1", "bb:2"}
    engine.remove_image("bb:2")
    with pytest.raises(errors.ImageNotFound):
        engine.image("bb:2")
    result = engine.run("bb:1", command=["true"])
    now = engine.info()["SystemTime"]
    assert now
    seen = [
        e.action for e in engine.events(since="1", until="0s") if e.actor_id == result.container_id
    ]
    assert [action for action in seen if action in ("create", "start", "die", "destroy")] == [
        "create", "start", "die", "destroy",
    ]  # fmt: skip


def test_wrong_words(engine):
    with pytest.raises(errors.InvalidArgument):
        engine.run("bb:1", command=["true"], memory="lots")
    with pytest.raises(errors.InvalidArgument):
        engine.run()
    with pytest.raises(errors.ImageNotFound):
        engine.run("nosuch:1", pull="never")


def test_nobody_listens(tmp_path):
    with pytest.raises(errors.Unavailable):
        sampan.Engine.open(host=f"unix://{tmp_path}/none.sock")


def test_the_same_awaited(daemon, engine):
    async def program():
        async with await sampan.AsyncEngine.open(host=daemon.host) as opened:
            results = await asyncio.gather(
                *(opened.run("bb:1", command=["echo", str(n)]) for n in range(3))
            )
            box = await opened.run("bb:1", command=["sleep", "1000"], detach=True)
            process = await box.exec(["cat"], input=b"in")
            await box.kill()
            code = await box.wait()
            logs = await box.logs()
            await box.remove()
            return [r.text for r in results], process.text, code, logs.stdout

    assert asyncio.run(program()) == (["0\n", "1\n", "2\n"], "in", 137, b"")


def test_awaited_run_that_is_cancelled_is_undone(daemon, engine):
    async def program():
        async with await sampan.AsyncEngine.open(host=daemon.host) as opened:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await opened.run("bb:1", command=["sleep", "1000"])
            return await opened.containers(all=True)

    assert asyncio.run(program()) == []


@pytest.fixture
def place():
    """A root of its own, with its cgroups where tests may have them."""
    base = Path(tempfile.mkdtemp(prefix="sampan-", dir="/tmp"))
    cgroup = f"/sampan-test/library-{os.getpid()}"
    (base / "config.toml").write_text(f'cgroup_parent = "{cgroup}"\n')
    (base / "config.toml").chmod(0o600)
    dockerlab.make_root(f"{base}/rootfs")
    yield base
    for path in Path("/sys/fs/cgroup").glob(f"*{cgroup}/"):
        path.rmdir()
    shutil.rmtree(base)


def words(base):
    return {"root": base / "root", "state": base / "state", "config": base / "config.toml"}


def test_embedded_engine(place):
    with sampan.Engine.open(**words(place)) as embedded:
        result = embedded.run(rootfs=f"{place}/rootfs:O", command=["echo", "inside"])
        assert result.text == "inside\n"
        with pytest.raises(errors.Unavailable, match="held by process"):
            sampan.Engine.open(**words(place))
        box = embedded.run(rootfs=f"{place}/rootfs:O", command=["sleep", "1000"], detach=True)
    with sampan.Engine.open(**words(place)) as later:  # the container lived on without an engine
        assert later.container(box.id).inspect().running
        later.container(box.id).remove(force=True)
    assert not any(thread.name == "sampan-engine" for thread in threading.enumerate())


def test_embedded_engine_awaited(place):
    async def program():
        async with await sampan.AsyncEngine.open(**words(place)) as embedded:
            result = await embedded.run(rootfs=f"{place}/rootfs:O", command=["echo", "inside"])
            return result.text

    assert asyncio.run(program()) == "inside\n"
