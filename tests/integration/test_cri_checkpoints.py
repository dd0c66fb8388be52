"""Containers and pods from checkpoints: everything but CRIU, whose part tests/vm has.

The runtime handler `fake` is runc, but its checkpoint writes one word, and its restore runs the
command anew.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import grpc
import pytest

import crilab
from dockerlab import BUSYBOX
from sampan.wire.cri import api_pb2 as pb

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not BUSYBOX or shutil.which("runc") is None, reason="needs root and runc"
)
FAKE = """#!/bin/sh
for word; do
    [ "$last" = --image-path ] && images=$word
    case $word in checkpoint | restore) verb=$word ;; esac
    last=$word
done
case $verb in
checkpoint)
    [ -e {base}/broken ] && grep -q "$last" {base}/broken && exit 1
    [ -e {base}/began ] && echo $$ > {base}/began && read _ < {base}/hold
    echo memory > "$images/inventory.img"
    echo said > "$images/dump.log" ;;
restore)
    grep -q memory "$images/inventory.img" || exit 1
    exec runc --root "$2" --log "$4" --log-format json run --detach --bundle . \\
        --pid-file init.pid "$last" ;;
*) exec runc "$@" ;;
esac
"""
CHANGES = "echo $WORD > /kept; rm /etc/group; echo said; exec sleep 1000"
SPEC = {"process": {"args": ["sleep", "1000"], "env": [], "cwd": "/"}}
CONFIG = {"rootfsImageName": "docker.io/library/bb:1"}


@pytest.fixture(scope="module")
def lab():
    with crilab.cri() as made:
        program = Path(f"{made.base}/fake")
        program.write_text(FAKE.format(base=made.base))
        program.chmod(0o755)
        with open(f"{made.base}/config.toml", "a") as file:
            file.write(f'[runtimes]\nfake = "{program}"\n')
        made.daemon.stop()
        made.daemon.start()
        yield made


def fake_pod(lab):
    config = lab.sandbox_config()
    made = lab.call("RunPodSandbox", config=config, runtime_handler="fake")
    return made.pod_sandbox_id, config


def wish(pod, name="c", **fields):
    """What a container is created with."""
    options = pod[1].linux.security_context.namespace_options
    content = {
        "metadata": {"name": name},
        "image": {"image": "bb:1"},
        "log_path": f"{pod[0]}-{name}.log",
        "linux": {"security_context": {"namespace_options": options}},
    }
    return pb.ContainerConfig(**{**content, **fields})


def create(lab, pod, config):
    wanted = {"pod_sandbox_id": pod[0], "config": config, "sandbox_config": pod[1]}
    return lab.call("CreateContainer", **wanted).container_id


def begin(lab, pod, name="c", **fields):
    """A container that has changed its files."""
    fields.setdefault("envs", [{"key": "WORD", "value": name.encode()}])
    made = create(lab, pod, wish(pod, name, command=["sh", "-c", CHANGES], **fields))
    lab.call("StartContainer", container_id=made)
    assert lab.shell(made, "while [ -e /etc/group ]; do :; done; echo on") == "on\n"
    return made


def work_left(lab):
    """What is left of checkpoints in the making; removed snapshots may lie beside."""
    return [name for name in os.listdir(f"{lab.base}/root/trash") if "checkpoint" in name]


def check_restored(lab, container, word):
    """It is created only; when it is started, files and environment are the old ones."""
    assert lab.status(container).state == pb.CONTAINER_CREATED
    assert os.path.exists(f"{lab.base}/root/containers/{container}/checkpoints/archive")
    lab.call("StartContainer", container_id=container)
    assert lab.shell(container, "cat /kept; ls /etc/group 2>&1; echo $WORD").splitlines() == [
        word,
        "ls: /etc/group: No such file or directory",
        word,
    ]
    assert ("stdout", "F", "said") in lab.log(container)
    assert os.listdir(f"{lab.base}/root/containers/{container}/checkpoints") == []
    assert work_left(lab) == []


def test_a_container_from_its_archive(lab, tmp_path):
    pod, path = fake_pod(lab), str(tmp_path / "a.tar")
    old = begin(lab, pod, "one")
    lab.call("CheckpointContainer", container_id=old, location=path)
    assert lab.status(old).state == pb.CONTAINER_RUNNING
    lab.remove(pod)
    pod = fake_pod(lab)
    made = create(lab, pod, wish(pod, "two", image={"image": path}))
    status = lab.status(made)
    assert status.image.image == "docker.io/library/bb:1"
    assert status.metadata.name == "two"
    check_restored(lab, made, "one")
    # What it was given is its own now, and goes with it into the next archive.
    lab.call("CheckpointContainer", container_id=made, location=f"{path}2")
    lab.remove(pod)
    with (
        tarfile.open(f"{path}2") as tar,
        tarfile.open(fileobj=tar.extractfile("rootfs-diff.tar")) as changes,
    ):
        assert {"kept", "etc/.wh.group"} <= set(changes.getnames())


def test_volumes_are_those_of_the_checkpoint(lab, tmp_path):
    pod, path = fake_pod(lab), str(tmp_path / "a.tar")
    volume = {"container_path": "/data", "host_path": str(tmp_path)}
    old = begin(lab, pod, mounts=[volume])
    lab.call("CheckpointContainer", container_id=old, location=path)
    image = {"image": path}
    other = {**volume, "container_path": "/other"}
    for mounts in ([], [volume, other]):
        with pytest.raises(grpc.RpcError, match=r"mount on /(data|other)") as error:
            create(lab, pod, wish(pod, "n", image=image, mounts=mounts))
        assert error.value.code().name == "INVALID_ARGUMENT"
    made = create(lab, pod, wish(pod, "n", image=image, mounts=[volume]))
    lab.call("StartContainer", container_id=made)
    assert "a.tar" in lab.shell(made, "ls /data")
    lab.remove(pod)


def write(path, entries, config=CONFIG, spec=SPEC, **documents):
    """An archive; `entries` are (name, content or a changed TarInfo)."""
    documents = {"config.dump": config, "spec.dump": spec, **documents}
    with tarfile.open(path, "w") as tar:
        for name, content in [*documents.items(), *entries]:
            if content is None:
                continue
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    os.chmod(path, 0o600)


def special(path, name, **fields):
    """Add an entry that is no file."""
    with tarfile.open(path, "a") as tar:
        entry = tarfile.TarInfo(name)
        for key, value in fields.items():
            setattr(entry, key, value)
        tar.addfile(entry)


IMAGES = [("checkpoint/inventory.img", b"memory")]
HOSTILE = {
    "a name that leaves": ([*IMAGES, ("checkpoint/../../../out", b"x")], {}),
    "a name twice": ([*IMAGES, *IMAGES], {}),
    "no images": ([], {}),
    "no configuration": (IMAGES, {"config": None}),
    "no image": (IMAGES, {"config": {"id": "x"}}),
    "no JSON": (IMAGES, {"config": b"{"}),
    "deep JSON": (IMAGES, {"spec": b"[" * 100_000}),
    "large JSON": (IMAGES, {"spec": b" " * (5 << 20)}),
    "no process": (IMAGES, {"spec": {}}),
    "no command": (IMAGES, {"spec": {"process": {"args": []}}}),
    "a number for a command": (IMAGES, {"spec": {"process": {"args": 3}}}),
    "a terminal": (IMAGES, {"spec": {"process": {"args": ["x"], "terminal": True}}}),
    "a changed root that is none": ([*IMAGES, ("rootfs-diff.tar", b"x" * 2000)], {}),
}


def refusal(lab, pod, path):
    """How a container of an archive is refused; nothing of it is left."""
    before = os.listdir(f"{lab.base}/root/containers")
    with pytest.raises(grpc.RpcError) as error:
        create(lab, pod, wish(pod, image={"image": str(path)}))
    assert set(os.listdir(f"{lab.base}/root/containers")) <= set(before)
    assert work_left(lab) == []
    assert not lab.call("ListContainers").containers
    return error.value.code().name, error.value.details()


def test_hostile_archives_leave_nothing(lab, tmp_path):
    pod, path = fake_pod(lab), tmp_path / "a.tar"
    for what, (entries, documents) in HOSTILE.items():
        write(path, entries, **documents)
        assert refusal(lab, pod, path)[0] == "INVALID_ARGUMENT", what
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        write(path, IMAGES, config=None)
        special(path, "config.dump", type=kind, linkname="/etc/passwd")
        assert refusal(lab, pod, path)[0] == "INVALID_ARGUMENT"
    write(path, IMAGES)
    special(path, "checkpoint/core-1.img", type=tarfile.CHRTYPE, devmajor=1, devminor=3)
    assert refusal(lab, pod, path)[0] == "INVALID_ARGUMENT"
    write(path, [])
    special(path, "checkpoint/inventory.img", type=tarfile.SYMTYPE, linkname="../config.dump")
    assert "inventory.img is missing" in refusal(lab, pod, path)[1]
    path.write_bytes(b"no tar" * 1000)
    assert refusal(lab, pod, path)[0] == "INVALID_ARGUMENT"
    outside = io.BytesIO()
    with tarfile.open(fileobj=outside, mode="w") as tar:
        entry = tarfile.TarInfo("../../../../out")
        tar.addfile(entry)
    write(path, [*IMAGES, ("rootfs-diff.tar", outside.getvalue())])
    assert refusal(lab, pod, path)[0] == "INVALID_ARGUMENT"
    assert os.listdir(tmp_path) == ["a.tar"]
    lab.remove(pod)


def test_archives_that_are_not_ours(lab, tmp_path):
    pod, path = fake_pod(lab), tmp_path / "a.tar"
    assert refusal(lab, pod, path)[0] == "NOT_FOUND"
    assert refusal(lab, pod, tmp_path)[0] == "INVALID_ARGUMENT"
    os.mkfifo(path)
    assert refusal(lab, pod, path)[0] == "INVALID_ARGUMENT"
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert refusal(lab, pod, path)[0] == "INVALID_ARGUMENT"
    path.unlink()
    write(path, IMAGES, config={"rootfsImageName": "nosuch:1"})
    assert refusal(lab, pod, path)[0] == "NOT_FOUND"
    write(path, IMAGES)
    path.chmod(0o620)
    assert refusal(lab, pod, path)[0] == "PERMISSION_DENIED"
    path.chmod(0o600)
    os.chown(path, 1, 0)
    assert refusal(lab, pod, path)[0] == "PERMISSION_DENIED"
    lab.remove(pod)


def test_a_pod_from_its_checkpoint(lab, tmp_path):
    pod = fake_pod(lab)
    old = [begin(lab, pod, name) for name in ("one", "two")]
    saved = {"pod_sandbox_id": pod[0], "output_path": str(tmp_path), "container_ids": old}
    lab.call("CheckpointPod", **saved)
    assert sorted(os.listdir(tmp_path)) == ["container-0.tar", "container-1.tar", "pod.json"]
    for container in old:
        assert lab.shell(container, "echo on") == "on\n"  # nothing is paused any more
    lab.remove(pod)
    config = lab.sandbox_config()
    new = ("", config)

    def wanted_as(name, **more):
        more = {"command": ["sh", "-c", CHANGES], **more}
        return wish(new, name, envs=[{"key": "WORD", "value": name.encode()}], **more)

    wanted = [wanted_as(name) for name in ("two", "one")]
    request = {
        "checkpoint_path": str(tmp_path),
        "config": config,
        "runtime_handler": "fake",
        "container_configs": wanted,
    }
    for changes in (
        {"options": {"a": "b"}},
        {"container_configs": []},
        {"container_configs": wanted[:1]},
        {"container_configs": [wanted[0], wanted[0]]},
        {"runtime_handler": ""},
        {"runtime_handler": "nosuch"},
        {"container_configs": [wanted[0], wanted_as("one", command=["sleep", "7"])]},
        {"container_configs": [wanted[0], wanted_as("one", working_dir="/x")]},
        {"container_configs": [wanted[0], wanted_as("two", metadata={"name": "one"})]},
        {"checkpoint_path": "relative"},
    ):
        assert lab.code("RestorePod", **{**request, **changes}) == "INVALID_ARGUMENT", changes
    assert lab.code("RestorePod", **{**request, "checkpoint_path": "/nosuch"}) == "NOT_FOUND"
    assert not lab.call("ListPodSandbox").items
    assert work_left(lab) == []
    made = lab.call("RestorePod", **request)
    names = {one.name: one.container_id for one in made.restored_containers}
    assert sorted(names) == ["one", "two"]
    for name, container in names.items():
        assert lab.status(container).metadata.name == name
        check_restored(lab, container, name)
    lab.remove((made.pod_sandbox_id, config))
    assert sorted(os.listdir(tmp_path)) == ["container-0.tar", "container-1.tar", "pod.json"]


def test_a_checkpoint_of_a_pod_that_cannot_be_made_leaves_nothing(lab, tmp_path):
    pod, other = fake_pod(lab), fake_pod(lab)
    ids = [begin(lab, pod, name) for name in ("one", "two")]
    ended = begin(lab, pod, "three")
    lab.call("StopContainer", container_id=ended)
    saved = {"pod_sandbox_id": pod[0], "output_path": str(tmp_path), "container_ids": ids}
    for changes, code in (
        ({"options": {"a": "b"}}, "INVALID_ARGUMENT"),
        ({"container_ids": []}, "INVALID_ARGUMENT"),
        ({"container_ids": ids[:1]}, "INVALID_ARGUMENT"),
        ({"container_ids": [*ids, ids[0]]}, "INVALID_ARGUMENT"),
        ({"container_ids": [*ids, ended]}, "FAILED_PRECONDITION"),
        ({"container_ids": [*ids, "f" * 64]}, "NOT_FOUND"),
        ({"pod_sandbox_id": other[0]}, "INVALID_ARGUMENT"),
        ({"pod_sandbox_id": "f" * 64}, "NOT_FOUND"),
        ({"output_path": "relative"}, "INVALID_ARGUMENT"),
        ({"output_path": f"{tmp_path}/none"}, "INVALID_ARGUMENT"),
        ({"output_path": lab.base}, "INVALID_ARGUMENT"),
    ):
        assert lab.code("CheckpointPod", **{**saved, **changes}) == code, changes
    broken = Path(f"{lab.base}/broken")
    broken.write_text(ids[1])  # the second one, when the first one's archive is written
    assert lab.code("CheckpointPod", **saved) == "FAILED_PRECONDITION"
    broken.unlink()
    assert os.listdir(tmp_path) == work_left(lab) == []
    for container in ids:
        assert lab.shell(container, "echo on") == "on\n"
    lab.remove(pod)
    lab.remove(other)


@pytest.mark.parametrize("whole", [False, True])
def test_a_daemon_that_is_killed_in_a_checkpoint(lab, tmp_path, whole):
    pod = fake_pod(lab)
    container = begin(lab, pod)
    began, hold = f"{lab.base}/began", f"{lab.base}/hold"
    for path in (began, hold):
        os.mkfifo(path)
    location = str(tmp_path)
    if whole:
        pending = lab.future(
            "CheckpointPod",
            pod_sandbox_id=pod[0],
            output_path=location,
            container_ids=[container],
        )
    else:
        pending = lab.future("CheckpointContainer", container_id=container, location=location)
    Path(began).read_text()  # the program is in the middle of it
    lab.daemon.process.kill()
    lab.daemon.process.wait()
    os.unlink(began)
    Path(hold).write_text("go on\n")
    os.unlink(hold)
    assert pending.exception() is not None
    lab.daemon.start()
    assert lab.shell(container, "echo on") == "on\n"
    assert os.listdir(tmp_path) == work_left(lab) == []
    lab.remove(pod)
