"""Pods with a kernel of their own: the handler `vm`, with QEMU and the distribution's kernel."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

import crilab
import spdylab
from dockerlab import BUSYBOX
from netdocker import eventually
from sampan.vm import finding
from sampan.wire.cri import api_pb2 as pb

KERNEL = os.environ.get("SAMPAN_VM_KERNEL", "")
MODULES = os.environ.get("SAMPAN_VM_MODULES", "")
FOUND = finding.find(KERNEL, MODULES, memory=256, accelerator="tcg", cache="/nonexistent")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0 or not BUSYBOX, reason="needs root and busybox"),
    pytest.mark.skipif(not FOUND, reason="needs QEMU and a kernel with 9p"),
]


def dual_stack(place: Path) -> str:
    """A directory that configures CNI's bridge with both families, or no directory without it."""
    if not os.path.exists("/usr/lib/cni/bridge"):
        return "/nonexistent"
    ranges = [[{"subnet": "10.87.0.0/24"}], [{"subnet": "fd87::/64"}]]
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    ipam = {"type": "host-local", "ranges": ranges, "routes": routes, "dataDir": str(place / "ip")}
    bridge = {"type": "bridge", "bridge": "vmtest0", "isGateway": True, "ipam": ipam}
    content = {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}
    (place / "pods.conflist").write_text(json.dumps(content))
    return str(place)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    network = dual_stack(tmp_path_factory.mktemp("net"))
    settings = {"cni_config": network, "vm_accelerator": "tcg"}
    if KERNEL:
        settings |= {"vm_kernel": KERNEL, "vm_modules": MODULES}
    with crilab.cri(cri=settings) as made:
        yield made


@pytest.fixture(scope="module")
def pod(lab):
    """One machine for all tests that leave it as it was."""
    config = lab.own_config(hostname="inside")
    made = lab.call("RunPodSandbox", config=config, runtime_handler="vm").pod_sandbox_id
    yield made, config
    lab.remove((made, config))


def test_another_kernel(lab, pod):
    container = lab.start(
        pod, "sh", "-c", "echo out; echo err >&2; read x; echo got $x; exit 7", stdin=True
    )
    release = lab.exec(container, "busybox", "uname", "-r").stdout.decode().strip()
    assert release != os.uname().release
    assert release in lab.shell(container, "cat /proc/version")
    assert lab.shell(container, "busybox hostname") == "inside\n"
    done = lab.exec(container, "sh", "-c", "echo said; echo no >&2; exit 9")
    assert (done.stdout, done.stderr, done.exit_code) == (b"said\n", b"no\n", 9)
    assert lab.code("ExecSync", container_id=container, cmd=["/nosuch"]) != "OK"
    url = lab.call("Attach", container_id=container, stdin=True, stdout=True, stderr=True).url
    with spdylab.Client(url, "v4.channel.k8s.io") as client:
        numbers = {
            name: client.open(streamtype=name) for name in ("error", "stdin", "stdout", "stderr")
        }
        client.send(numbers["stdin"], b"word\n")
        said = client.read()
    assert b"got word" in said[numbers["stdout"]]
    status = lab.finish(container)
    assert (status.state, status.exit_code) == (pb.CONTAINER_EXITED, 7)
    lines = lab.log(container)
    assert ("stderr", "F", "err") in lines
    assert [one for one in lines if one[0] == "stdout"] == [
        ("stdout", "F", "out"),
        ("stdout", "F", "got word"),
    ]


def test_a_seccomp_profile_holds_inside(lab, pod, tmp_path):
    profile = tmp_path / "profile.json"
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    local = {"profile_type": pb.SecurityProfile.Localhost, "localhost_ref": str(profile)}
    container = lab.start(pod, "sleep", "1000", security={"seccomp": local})
    assert "Seccomp:\t2" in lab.shell(container, "cat /proc/self/status")
    assert b"not permitted" in lab.exec(container, "mkdir", "/new").stderr
    assert lab.shell(container, "echo > /file; ls /file") == "/file\n"
    lab.call("StopContainer", container_id=container, timeout=0)


def test_files_and_a_terminal(lab, pod, tmp_path):
    (tmp_path / "kept").write_text("from the node")
    mounts = [
        {"container_path": "/mnt", "host_path": str(tmp_path)},
        {"container_path": "/ro", "host_path": str(tmp_path), "readonly": True},
    ]
    container = lab.start(pod, "sleep", "1000", mounts=mounts)
    assert lab.shell(container, "cat /mnt/kept; echo there > /mnt/new") == "from the node"
    assert (tmp_path / "new").read_text() == "there\n"
    assert lab.exec(container, "sh", "-c", "echo x > /ro/y").exit_code != 0
    assert lab.shell(container, "echo mine > /own; cat /own") == "mine\n"
    url = lab.call("Exec", container_id=container, cmd=["sh"], stdin=True, stdout=True, tty=True)
    with spdylab.Client(url.url, "v4.channel.k8s.io") as client:
        numbers = {
            name: client.open(streamtype=name) for name in ("error", "stdin", "stdout", "resize")
        }
        client.send(numbers["stdin"], b"[ -t 0 ] && echo te''rm; exit 4\n")
        said = client.read()
    assert b"term\r\n" in said[numbers["stdout"]]
    assert json.loads(said[numbers["error"]])["details"]["causes"][0]["message"] == "4"
    lab.call("StopContainer", container_id=container, timeout=0)
    assert lab.status(container).exit_code == 137
    machine = Path(f"{lab.base}/state/shims")
    assert all(not os.listdir(share) for share in machine.glob("*/share"))


def test_the_pods_address_is_the_machines(lab, pod):
    network = lab.call("PodSandboxStatus", pod_sandbox_id=pod[0]).status.network
    container = lab.start(pod, "sh", "-c", "sleep 1000")
    shown = lab.shell(container, "busybox ip addr show eth0")
    assert network.ip in shown
    assert len(network.additional_ips) == os.path.exists("/usr/lib/cni/bridge")
    assert all(f"{one.ip}/64 scope global" in shown for one in network.additional_ips)
    # The pod is the machine itself: its kernel alone has tens of MiB.
    used = lab.call("PodSandboxStats", pod_sandbox_id=pod[0]).stats.linux
    assert used.memory.usage_bytes.value > 30 << 20
    assert used.cpu.usage_core_nano_seconds.value > 10**9
    lab.call("StopContainer", container_id=container, timeout=0)


def test_containers_are_counted_in_the_machine(lab, pod):
    limits = {"memory_limit_in_bytes": 96 << 20}
    eats = "dd if=/dev/zero of=/dev/shm/a bs=1M count=24; exec sleep 1000"
    large = lab.start(pod, "sh", "-c", eats, resources=limits)
    small = lab.start(pod, "sleep", "1000")
    lab.shell(large, "until [ $(cat /proc/1/comm) = sleep ]; do :; done")
    used = {one: lab.call("ContainerStats", container_id=one).stats for one in (large, small)}
    memory = used[large].memory
    assert 24 << 20 <= memory.usage_bytes.value < 64 << 20
    assert memory.available_bytes.value < 96 << 20
    assert 0 < used[small].memory.usage_bytes.value < 16 << 20
    assert used[large].cpu.usage_core_nano_seconds.value > 0
    whole = lab.call("PodSandboxStats", pod_sandbox_id=pod[0]).stats.linux
    assert {one.attributes.id for one in whole.containers} == {large, small}
    assert whole.process.process_count.value == 2
    listed = lab.call("ListContainerStats", filter={"pod_sandbox_id": pod[0]}).stats
    assert len(listed) == 2
    for one in (large, small):
        lab.call("StopContainer", container_id=one, timeout=0)


def test_a_port_of_the_machine(lab, pod):
    serve = "echo page > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"
    container = lab.start(pod, "sh", "-c", serve)
    lab.shell(container, "until wget -q -O- http://127.0.0.1:8080/; do sleep 0.1; done")
    network = lab.call("PodSandboxStatus", pod_sandbox_id=pod[0]).status.network
    for address in (network.ip, *(one.ip for one in network.additional_ips)):
        with socket.create_connection((address, 8080), timeout=10) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert sock.makefile("rb").read().endswith(b"page\n")
    url = lab.call("PortForward", pod_sandbox_id=pod[0]).url
    with spdylab.Client(url, "portforward.k8s.io") as client:
        error = client.open(streamtype="error", port="8080", requestid="1")
        data = client.open(streamtype="data", port="8080", requestid="1")
        client.send(data, b"GET / HTTP/1.0\r\n\r\n", fin=True)
        said = client.read(lambda one: one.connection.ended >= {error, data})
        assert said[data].endswith(b"page\n")
    lab.call("StopContainer", container_id=container, timeout=0)


def test_it_outlives_the_daemon_and_ends_with_its_machine(lab):
    config = lab.own_config()
    made = lab.call("RunPodSandbox", config=config, runtime_handler="vm").pod_sandbox_id
    container = lab.start((made, config), "sleep", "1000")
    lab.daemon.process.kill()
    lab.daemon.process.wait()
    lab.daemon.start()
    assert lab.shell(container, "echo there") == "there\n"
    told = lab.call("PodSandboxStatus", pod_sandbox_id=made, verbose=True).info["info"]
    qemu = json.loads(told)["pid"]
    assert Path(f"/proc/{qemu}/comm").read_text().startswith("qemu-system")
    os.kill(qemu, signal.SIGKILL)
    assert lab.finish(container).exit_code == 137

    def state() -> int:
        return {one.id: one.state for one in lab.call("ListPodSandbox").items}[made]

    eventually(lambda: state() == pb.SANDBOX_NOTREADY)  # containers and their machine end apart
    lab.remove((made, config))


def test_what_it_cannot_do(lab):
    config = lab.sandbox_config()
    assert lab.code("RunPodSandbox", config=config, runtime_handler="vm") == "INVALID_ARGUMENT"
    config = lab.own_config(linux={"sysctls": {"net.ipv4.ip_forward": "1"}})
    assert lab.code("RunPodSandbox", config=config, runtime_handler="vm") == "INVALID_ARGUMENT"


def test_what_its_containers_cannot_have(lab, pod):
    device = {"host_path": "/dev/null", "container_path": "/dev/x", "permissions": "r"}
    with pytest.raises(crilab.grpc.RpcError) as error:
        lab.create(pod, "true", devices=[device])
    assert error.value.code().name == "INVALID_ARGUMENT"
    assert "devices of the node" in error.value.details()
