"""Pods with a user namespace, images as mounts, devices of vendors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import crilab
from dockerlab import BUSYBOX
from sampan.pods import users
from sampan.wire.cri import api_pb2 as pb

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not BUSYBOX, reason="needs root and busybox")
needs_maps = pytest.mark.skipif(not users.are_possible(), reason="needs Linux 5.19")

FIRST = 1 << 20
MAP = [{"host_id": FIRST, "container_id": 0, "length": 65536}]


@pytest.fixture(scope="module")
def lab():
    with crilab.cri() as made:
        yield made


def users_pod(lab, pid=pb.CONTAINER, mappings=MAP, handler="", **fields):
    """(id, config) of a sandbox with a user namespace."""
    options = {
        "network": pb.POD,
        "pid": pid,
        "userns_options": {"mode": pb.POD, "uids": mappings, "gids": mappings},
    }
    config = lab.own_config(linux={"security_context": {"namespace_options": options}}, **fields)
    made = lab.call("RunPodSandbox", config=config, runtime_handler=handler)
    return made.pod_sandbox_id, config


def refused(lab, **fields):
    with pytest.raises(crilab.grpc.RpcError) as error:
        users_pod(lab, **fields)
    assert error.value.code().name == "INVALID_ARGUMENT"
    return error.value.details()


@needs_maps
def test_root_inside_is_nobody_outside(lab, tmp_path):
    features = {one.name: one.features for one in lab.call("Status").runtime_handlers}
    assert features[""].user_namespaces
    pod = users_pod(lab, hostname="mapped")
    status = lab.call("PodSandboxStatus", pod_sandbox_id=pod[0]).status
    assert status.linux.namespaces.options.userns_options.uids[0].host_id == FIRST
    tmp_path.chmod(0o755)
    (tmp_path / "mine").write_text("text")
    maps = {"uidMappings": MAP, "gidMappings": MAP}
    mount = {"container_path": "/data", "host_path": str(tmp_path), **maps}
    one = lab.start(pod, "sleep", "1000", mounts=[mount])
    assert lab.shell(one, "cat /proc/self/uid_map").split() == ["0", str(FIRST), "65536"]
    assert lab.shell(one, "id -u; hostname; cat /etc/hostname") == "0\nmapped\nmapped\n"
    assert lab.shell(one, "stat -c '%u %g' / /bin /data /data/mine").split() == ["0"] * 8
    lab.shell(one, "echo new > /data/new; echo new > /new; mkdir /dev/shm/x")
    assert ((tmp_path / "new").stat().st_uid, (tmp_path / "new").read_text()) == (0, "new\n")
    pid = lab.call("ContainerStatus", container_id=one, verbose=True).info["info"]
    pid = crilab.json.loads(pid)["pid"]
    assert Path(f"/proc/{pid}").stat().st_uid == FIRST
    user = lab.status(one).user.linux
    assert (user.uid, user.gid) == (0, 0)
    two = lab.start(pod, "sleep", "1000", security={"run_as_user": {"value": 1000}})
    assert lab.status(two).user.linux.uid == 1000
    assert lab.shell(two, "id -u") == "1000\n"
    for kind in ("net", "ipc", "uts"):
        script = f"ls -l /proc/self/ns/{kind}"
        texts = {lab.shell(each, script).split()[-1] for each in (one, two)}
        assert len(texts) == 1, kind
    # Ports below 1024 are open to everybody in such a pod.
    assert lab.exec(two, "sh", "-c", "nc -l -p 80 -e true & sleep 0; kill $!").exit_code == 0
    assert (
        "Permission denied"
        not in lab.exec(
            two, "sh", "-c", "nc -l -p 81 & p=$!; grep -q ':0051 ' /proc/net/tcp; kill $p"
        ).stderr.decode()
    )
    assert lab.exec(one, "sh", "-c", "echo 1 > /proc/sys/kernel/panic").exit_code != 0
    lab.remove(pod)


@needs_maps
def test_processes_are_shared_in_one_user_namespace(lab):
    pod = users_pod(lab, pid=pb.POD)
    first = lab.start(pod, "sleep", "12345", security={"namespace_options": {"pid": pb.POD}})
    second = lab.start(pod, "sleep", "1000", security={"namespace_options": {"pid": pb.POD}})
    assert "sleep 12345" in lab.shell(second, "ps -o args")
    assert lab.shell(second, "stat -c %u /proc/1; id -u").split() == ["65534", "0"]
    maps = [
        lab.shell(one, "readlink /proc/self/ns/user; cat /proc/self/uid_map")
        for one in (first, second)
    ]
    assert maps[0] == maps[1]
    assert maps[0].split()[1:] == ["0", str(FIRST), "65536"]
    lab.shell(second, "kill -9 $(pgrep -f 'sleep 12345')")
    lab.remove(pod)


@needs_maps
def test_a_container_joins_the_processes_of_another(lab):
    pod = users_pod(lab)
    first = lab.start(pod, "sleep", "12345")
    options = {"pid": pb.TARGET, "target_id": first}
    second = lab.start(pod, "sleep", "1000", security={"namespace_options": options})
    assert "sleep 12345" in lab.shell(second, "ps -o args")
    lab.remove(pod)


@needs_maps
def test_user_namespaces_that_cannot_be(lab):
    assert "node's pid" in refused(lab, pid=pb.NODE)
    assert "one mapping" in refused(lab, mappings=[*MAP, *MAP])
    assert "one mapping" in refused(lab, mappings=[{**MAP[0], "container_id": 1}])
    assert "empty" in refused(lab, mappings=[{**MAP[0], "length": 0}])
    if "runc" in {one.name for one in lab.call("Status").runtime_handlers}:
        assert "runc" in refused(lab, handler="runc")


def test_an_image_as_a_mount(lab):
    pod = lab.own_pod()
    mount = {"container_path": "/image", "image": {"image": crilab.IMAGE}, "readonly": True}
    container = lab.start(pod, "sleep", "1000", mounts=[mount])
    assert lab.shell(container, "cat /image/etc/passwd").startswith("root:")
    assert lab.exec(container, "touch", "/image/new").exit_code != 0
    assert lab.status(container).mounts[0].image.image == crilab.IMAGE
    missing = {"container_path": "/image", "image": {"image": "nosuch:1"}}
    with pytest.raises(crilab.grpc.RpcError) as error:
        lab.create(pod, "true", mounts=[missing])
    assert error.value.code().name == "NOT_FOUND"
    lab.remove(pod)


@needs_maps
def test_an_image_as_a_mount_of_a_mapped_container(lab):
    pod = users_pod(lab)
    mount = {"container_path": "/image", "image": {"image": crilab.IMAGE}}
    container = lab.start(pod, "sleep", "1000", mounts=[mount])
    assert lab.shell(container, "stat -c %u /image/etc/passwd") == "0\n"
    lab.remove(pod)


def test_a_device_of_a_vendor(tmp_path):
    kind = {
        "cdiVersion": "0.6.0",
        "kind": "vendor.example/null",
        "devices": [
            {
                "name": "one",
                "containerEdits": {
                    "env": ["VENDOR=yes"],
                    "deviceNodes": [{"path": "/dev/vendor", "hostPath": "/dev/null"}],
                    "mounts": [{"hostPath": str(tmp_path), "containerPath": "/vendor"}],
                },
            }
        ],
    }
    (tmp_path / "vendor.json").write_text(crilab.json.dumps(kind))
    with crilab.cri(cdi_directories=[str(tmp_path)]) as lab:
        pod = lab.own_pod()
        device = {"name": "vendor.example/null=one"}
        container = lab.start(pod, "sleep", "1000", CDI_devices=[device])
        said = lab.shell(
            container, "grep -c VENDOR=yes /proc/1/environ; ls /vendor; stat -c %F /dev/vendor"
        )
        assert said == "1\nvendor.json\ncharacter special file\n"
        with pytest.raises(crilab.grpc.RpcError) as error:
            lab.create(pod, "true", CDI_devices=[{"name": "vendor.example/null=two"}])
        assert error.value.code().name == "INVALID_ARGUMENT"
        assert "two" in error.value.details()
        lab.remove(pod)
