"""Archives of pods' containers and of pods, where CRIU works: what is in them, and that the
processes go on, in the old containers and in those that are made of the archives."""

from __future__ import annotations

import asyncio
import json
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from enginelab import Lab, eventually
from podlab import close, config, opened, wish
from sampan.errors import AlreadyExists, InvalidArgument
from sampan.pods import checkpoints, podcheckpoints
from sampan.pods.model import ImageSpec, Mode

if TYPE_CHECKING:
    from sampan.pods.model import Sandbox
    from sampan.pods.service import Pods

pytestmark = pytest.mark.skipif(not os.environ.get("SAMPAN_VM"), reason="for the virtual machine")
COUNT = "i=0; echo text > /new; while true; do i=$((i+1)); echo $i; sleep 0.05; done"
COMMAND = ("sh", "-c", COUNT)
HANDLERS = pytest.mark.parametrize("handler", ["", "runc"])


async def start(pods: Pods, sandbox: Sandbox, name: str) -> str:
    made = await pods.containers.create(
        sandbox.id, wish(sandbox.config, name, command=COMMAND), None
    )
    await pods.containers.start(made)
    await eventually(lambda: count(pods, made) > 3)
    return made


def count(pods: Pods, container: str) -> int:
    """What the container counted to last; 0 before it does."""
    path = Path(pods.engine.get(container).log_path)
    lines = path.read_text().splitlines() if path.exists() else []
    return int(lines[-1].split(" ")[-1]) if lines else 0


def first(pods: Pods, container: str) -> int:
    return int(Path(pods.engine.get(container).log_path).read_text().split("\n")[0].split(" ")[-1])


OURS = pytest.param(
    "",
    Mode.POD,
    marks=pytest.mark.xfail(
        strict=True, reason="after an exec, a container that we restored is not stopped"
    ),
)


@pytest.mark.parametrize(("handler", "network"), [OURS, ("runc", Mode.NODE)])
def test_a_container_and_one_of_its_archive(tmp_path: Path, handler: str, network: Mode):
    lab = Lab(tmp_path)
    asyncio.run(take(lab, handler, network))
    close(lab)


async def take(lab: Lab, handler: str, network: Mode) -> None:
    async with opened(lab) as pods:
        sandbox = await pods.sandboxes.run(config(lab, "pod", network), handler)
        made = await start(pods, sandbox, "c")
        await checkpoints.create(pods, made, str(lab.path), 0)
        before = count(pods, made)
        archive = archive_in(lab.path)
        check(archive, made, handler or "sampan")
        with pytest.raises(AlreadyExists):
            await checkpoints.create(pods, made, str(archive), 0)
        await eventually(lambda: count(pods, made) > before)
        assert os.listdir(lab.path / "root/trash") == []
        await pods.sandboxes.remove(sandbox.id)
        other = await pods.sandboxes.run(config(lab, "other", network), handler)
        image = ImageSpec(image=str(archive))
        request = wish(other.config, "d", image=image)
        again = await pods.containers.create(other.id, request, None)
        await pods.containers.start(again)
        await goes_on(pods, again, before)
        root = Path(f"/proc/{pods.engine.get(again).state.pid}/root")
        assert (root / "new").read_text() == "text\n"
        assert await said(pods, again) == b"on\n"
        await pods.containers.stop(again, 0)
        await pods.sandboxes.remove(other.id)


async def goes_on(pods: Pods, container: str, before: int) -> None:
    """See that a restored container does not begin anew, nor behind what the old one said."""
    await eventually(lambda: count(pods, container) > 0)
    start = first(pods, container)
    assert 3 < start <= before + 1
    await eventually(lambda: count(pods, container) > start + 3)


async def said(pods: Pods, container: str) -> bytes:
    """What a command in the container says."""
    done = await pods.execs.run(pods.engine.get(container), ("echo", "on"), 60)
    return done.stdout


@HANDLERS
def test_a_pod_and_one_of_its_checkpoint(tmp_path: Path, handler: str):
    lab = Lab(tmp_path)
    asyncio.run(take_pod(lab, handler))
    close(lab)


async def take_pod(lab: Lab, handler: str) -> None:
    saved = lab.path / "saved"
    saved.mkdir()
    async with opened(lab) as pods:
        sandbox = await pods.sandboxes.run(config(lab, "pod"), handler)
        old = [await start(pods, sandbox, name) for name in ("one", "two")]
        await podcheckpoints.create(pods, sandbox.id, str(saved), old, {})
        before = [count(pods, one) for one in old]
        for one, number in zip(old, before, strict=True):
            await eventually(lambda one=one, number=number: count(pods, one) > number)
        await pods.sandboxes.remove(sandbox.id)
        new = config(lab, "new")
        wanted = [wish(new, name, command=COMMAND) for name in ("one", "two")]
        other = "" if handler else "runc"
        with pytest.raises(InvalidArgument, match="made by the runtime handler"):
            await podcheckpoints.restore(pods, str(saved), new, other, {}, wanted)
        made, names = await podcheckpoints.restore(pods, str(saved), new, handler, {}, wanted)
        for container, number in zip((names["one"], names["two"]), before, strict=True):
            assert count(pods, container) == 0
            await pods.containers.start(container)
            await goes_on(pods, container, number)
        await pods.sandboxes.remove(made)


def archive_in(path: Path) -> Path:
    (found,) = path.glob("checkpoint-pod_ns-c-*.tar")
    return found


def check(archive: Path, container_id: str, runtime: str) -> None:
    assert archive.stat().st_mode & 0o777 == 0o600
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
        assert {"config.dump", "spec.dump", "status.dump", "checkpoint", "dump.log"} <= names
        assert {"checkpoint/inventory.img", "checkpoint/pages-1.img"} <= names
        config = json.load(tar.extractfile("config.dump"))
        assert (config["id"], config["name"], config["runtime"]) == (container_id, "c", runtime)
        spec = json.load(tar.extractfile("spec.dump"))
        assert spec["annotations"]["io.kubernetes.cri.sandbox-name"] == "pod"
        assert spec["process"]["args"] == list(COMMAND)
        assert b"i=$((i+1))" in tar.extractfile("checkpoint/pages-1.img").read()
        with tarfile.open(fileobj=tar.extractfile("rootfs-diff.tar")) as changes:
            assert changes.extractfile("new").read() == b"text\n"
