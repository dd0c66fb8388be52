"""Archives of pods' containers, where CRIU works: what is in them, and that nothing has stopped."""

from __future__ import annotations

import asyncio
import json
import os
import tarfile
from pathlib import Path

import pytest

from dockerlab import tar_of
from enginelab import Lab, eventually, shims_running
from sampan.errors import AlreadyExists
from sampan.pods import checkpoints
from sampan.pods.model import ImageSpec, Mode, Namespaces, Request, SandboxConfig, Security
from sampan.pods.service import Pods
from sampan.pods.settings import PodSettings

pytestmark = pytest.mark.skipif(not os.environ.get("SAMPAN_VM"), reason="for the virtual machine")
COUNT = "i=0; echo text > /new; while true; do i=$((i+1)); echo $i > /dev/shm/n; sleep 0.05; done"
COMMAND = ("sh", "-c", COUNT)


@pytest.mark.parametrize("handler", ["", "runc"])
@pytest.mark.parametrize("network", [Mode.POD, Mode.NODE])
def test_an_archive_of_a_container_that_goes_on(tmp_path: Path, handler: str, network: Mode):
    lab = Lab(tmp_path)
    asyncio.run(take(lab, handler, network))
    asyncio.run(eventually(lambda: shims_running(str(tmp_path)) == []))
    assert (lab.shims(), lab.cgroups()) == ([], [])
    assert os.listdir(tmp_path / "root/containers") == []  # a layer of the image stays
    lab.close()


async def take(lab: Lab, handler: str, network: Mode) -> None:
    async with lab.engine() as engine:
        await engine.images.import_tar(body(lab), "bb:1")
        pods = await Pods.open(engine, PodSettings(cni_config="/nonexistent"))
        namespaces = Namespaces(network=network, pid=Mode.CONTAINER)
        security = Security(namespaces=namespaces)
        config = SandboxConfig(name="pod", namespace="ns", uid="u", security=security)
        sandbox = await pods.sandboxes.run(config, handler)
        request = Request(
            name="c", image=ImageSpec(image="bb:1"), command=COMMAND, security=security
        )
        made = await pods.containers.create(sandbox.id, request, None)
        await pods.containers.start(made)
        pid = engine.get(made).state.pid
        await eventually(lambda: count(pid) != "")
        await checkpoints.create(pods, made, str(lab.path), 0)
        before = count(pid)
        archive = archive_in(lab.path)
        check(archive, made, handler or "sampan")
        with pytest.raises(AlreadyExists):
            await checkpoints.create(pods, made, str(archive), 0)
        await eventually(lambda: count(pid) not in ("", before))
        assert os.listdir(lab.path / "root/trash") == []
        await pods.sandboxes.remove(sandbox.id)


def archive_in(path: Path) -> Path:
    (found,) = path.glob("checkpoint-pod_ns-c-*.tar")
    return found


def count(pid: int) -> str:
    """What the process counts to; "" before it does."""
    file = Path(f"/proc/{pid}/root/dev/shm/n")
    return file.read_text() if file.exists() else ""


async def body(lab: Lab):
    yield tar_of(lab.rootfs)


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
