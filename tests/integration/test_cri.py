"""The Kubernetes runtime interface, against a real daemon, by stubs of our own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import aiohttp
import grpc
import pytest

import crilab
from crilab import dockerlab_wait
from dockerlab import BUSYBOX
from sampan.wire.cri import api_pb2 as pb

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not BUSYBOX, reason="needs root and busybox")


@pytest.fixture(scope="module")
def lab():
    with crilab.cri() as made:
        yield made


def test_who_answers(lab):
    answer = lab.call("Version", version="0.1.0")
    assert (answer.runtime_name, answer.runtime_api_version) == ("sampan", "v1")
    assert answer.version
    assert answer.runtime_version


def test_the_conditions_and_features(lab):
    answer = lab.call("Status", verbose=True)
    conditions = {one.type: one.status for one in answer.status.conditions}
    assert conditions == {"RuntimeReady": True, "NetworkReady": True}
    assert "" in {one.name for one in answer.runtime_handlers}
    assert answer.features.supplemental_groups_policy
    assert "config" in answer.info


def test_the_cgroup_driver(lab):
    assert lab.call("RuntimeConfig").linux.cgroup_driver == pb.CGROUPFS


def test_a_checkpoint_that_cannot_be_made_leaves_nothing(lab, tmp_path):
    """What CRIU makes where it works is in tests/vm."""
    pod = lab.run_pod()
    container = lab.start(pod, "sleep", "1000")
    archive = str(tmp_path / "a.tar")
    wanted = {"container_id": container, "location": archive}
    assert lab.code("CheckpointContainer", **{**wanted, "location": "a"}) == "INVALID_ARGUMENT"
    unknown = lab.code("CheckpointContainer", **{**wanted, "container_id": "f" * 64})
    assert unknown == "NOT_FOUND"
    terminal = lab.start(pod, "sleep", "1000", tty=True)
    refused = lab.code("CheckpointContainer", **{**wanted, "container_id": terminal})
    assert refused == "INVALID_ARGUMENT"
    error = lab.error("CheckpointContainer", **wanted)
    if error is None:
        os.unlink(archive)  # CRIU works on this host
    else:
        assert (error.code().name, "criu" in error.details()) == ("FAILED_PRECONDITION", True)
        assert os.listdir(tmp_path) == []
    assert os.listdir(f"{lab.base}/root/trash") == []
    assert lab.shell(container, "echo on") == "on\n"
    lab.call("StopContainer", container_id=container)
    assert lab.code("CheckpointContainer", **wanted) == "FAILED_PRECONDITION"
    lab.remove(pod)


def test_a_pod_from_run_to_remove(lab):
    pod = lab.run_pod(labels={"a": "b"}, annotations={"c": "d"})
    status = lab.call("PodSandboxStatus", pod_sandbox_id=pod[0], verbose=True).status
    assert status.metadata == pod[1].metadata
    assert status.state == pb.SANDBOX_READY
    assert status.created_at > 0
    assert (dict(status.labels), dict(status.annotations)) == ({"a": "b"}, {"c": "d"})
    assert status.linux.namespaces.options.network == pb.NODE
    container = lab.start(pod, "sh", "-c", "echo out; echo err >&2; exit 3", labels={"x": "y"})
    ended = lab.finish(container)
    assert ended.state == pb.CONTAINER_EXITED
    assert (ended.exit_code, ended.reason) == (3, "Error")
    assert ended.created_at <= ended.started_at <= ended.finished_at
    assert dict(ended.labels) == {"x": "y"}
    assert sorted(lab.log(container)) == [("stderr", "F", "err"), ("stdout", "F", "out")]
    lab.remove(pod)
    assert lab.code("PodSandboxStatus", pod_sandbox_id=pod[0]) == "NOT_FOUND"
    assert lab.code("ContainerStatus", container_id=container) == "NOT_FOUND"


def test_stop_and_remove_are_repeated(lab):
    pod = lab.run_pod()
    container = lab.start(pod, "sleep", "1000")
    for _ in range(2):
        lab.call("StopContainer", container_id=container, timeout=0)
    for _ in range(2):
        lab.call("RemoveContainer", container_id=container)
    for _ in range(2):
        lab.remove(pod)
    lab.call("StopContainer", container_id="f" * 64)
    lab.call("RemovePodSandbox", pod_sandbox_id="f" * 64)


def test_names_are_taken_once(lab):
    pod = lab.run_pod()
    assert lab.code("RunPodSandbox", config=pod[1]) == "ALREADY_EXISTS"
    lab.create(pod, "true", metadata={"name": "same"})
    with pytest.raises(grpc.RpcError) as error:
        lab.create(pod, "true", metadata={"name": "same"})
    assert error.value.code().name == "ALREADY_EXISTS"
    lab.create(pod, "true", metadata={"name": "same", "attempt": 1})
    lab.remove(pod)
    again = lab.call("RunPodSandbox", config=pod[1]).pod_sandbox_id
    lab.remove((again, pod[1]))


def test_lists_are_filtered(lab):
    pod = lab.run_pod(labels={"app": "one"})
    other = lab.run_pod()
    container = lab.create(pod, "true", labels={"role": "x"})
    found = lab.call("ListPodSandbox", filter={"label_selector": {"app": "one"}}).items
    assert [one.id for one in found] == [pod[0]]
    ready = lab.call("ListPodSandbox", filter={"state": {"state": pb.SANDBOX_NOTREADY}}).items
    assert pod[0] not in [one.id for one in ready]
    for wanted in (
        {"label_selector": {"role": "x"}},
        {"pod_sandbox_id": pod[0]},
        {"id": container[:20]},
        {"pod_sandbox_id": pod[0], "state": {"state": pb.CONTAINER_CREATED}},
    ):
        found = lab.call("ListContainers", filter=wanted).containers
        assert [one.id for one in found] == [container], wanted
    parts = list(lab.call("StreamContainers", filter={"pod_sandbox_id": pod[0]}))
    assert [one.id for part in parts for one in part.containers] == [container]
    lab.remove(pod)
    lab.remove(other)


def test_a_program_that_is_not_there(lab):
    pod = lab.run_pod()
    container = lab.create(pod, "/nosuch")
    assert lab.code("StartContainer", container_id=container) == "FAILED_PRECONDITION"
    status = lab.status(container)
    assert (status.state, status.exit_code) == (pb.CONTAINER_EXITED, 128)
    assert status.reason == "StartError"
    name = f"{status.metadata.name}_{pod[1].metadata.name}_default_{pod[0][:12]}_0"
    assert f"start container {name}: " in status.message
    assert "nosuch" in status.message
    assert status.finished_at
    lab.remove(pod)


def test_containers_of_a_pod_share_and_do_not_share(lab):
    pod = lab.own_pod(hostname="shared")
    one = lab.start(pod, "sleep", "1000")
    two = lab.start(pod, "sleep", "1000")
    for kind, same in (("net", True), ("ipc", True), ("uts", True), ("pid", False), ("mnt", False)):
        script = f"ls -l /proc/self/ns/{kind}"
        texts = {lab.shell(each, script).split()[-1] for each in (one, two)}
        assert (len(texts) == 1) is same, kind
    assert lab.shell(one, "hostname; cat /etc/hostname") == "shared\nshared\n"
    lab.shell(one, "echo seen > /dev/shm/file")
    assert lab.shell(two, "cat /dev/shm/file") == "seen\n"
    lab.remove(pod)


def test_one_pid_namespace_for_the_pod(lab):
    pod = lab.own_pod(pid=pb.POD)
    one = lab.start(pod, "sleep", "1000")
    two = lab.start(pod, "sh", "-c", "sleep 77 & exec sleep 1000")
    seen = lab.shell(one, "ps")
    assert "/keeper" in seen
    assert "sleep 77" in seen
    assert lab.shell(two, "echo $PPID; ps | head -n 2").strip().split()[-1] == "/keeper"
    lab.remove(pod)


def test_the_keeper_reaps(lab):
    pod = lab.own_pod(pid=pb.POD)
    one = lab.start(pod, "sleep", "1000")
    lab.shell(one, "(sh -c 'exit 0' &) ; (sleep 0 &)")
    lab.shell(one, "while ps | grep -q '[Z]  '; do true; done")
    lab.remove(pod)


def test_processes_of_another_container(lab):
    pod = lab.run_pod()
    target = lab.start(pod, "sleep", "4242")
    options = {"network": pb.NODE, "pid": pb.TARGET, "target_id": target}
    other = lab.start(pod, "sleep", "1", security={"namespace_options": options})
    assert "sleep 4242" in lab.shell(other, "ps")
    lab.remove(pod)


def test_exec_sync(lab):
    pod = lab.run_pod()
    container = lab.start(pod, "sleep", "1000")
    done = lab.exec(container, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.exit_code) == (b"out\n", b"err\n", 7)
    assert lab.code("ExecSync", container_id=container, cmd=["/nosuch"]) == "FAILED_PRECONDITION"
    assert lab.code("ExecSync", container_id=container, cmd=[]) == "INVALID_ARGUMENT"
    assert lab.code("ExecSync", container_id="f" * 64, cmd=["true"]) == "NOT_FOUND"
    lab.remove(pod)


def test_exec_sync_ends_with_its_time_and_all_of_its_session(lab):
    pod = lab.own_pod(pid=pb.POD)  # its keeper reaps
    container = lab.start(pod, "sleep", "1000")
    before = lab.shell(container, "ps").count("\n")
    command = ["sh", "-c", "sleep 1000 & yes > /dev/null & wait"]
    assert lab.code("ExecSync", container_id=container, cmd=command, timeout=1) == (
        "DEADLINE_EXCEEDED"
    )
    lab.shell(container, "while ps | grep -q '[y]es'; do true; done")
    assert lab.shell(container, "ps").count("\n") == before
    lab.remove(pod)


def test_exec_sync_is_cut_at_its_cap(lab):
    pod = lab.run_pod()
    container = lab.start(pod, "sleep", "1000")
    done = lab.exec(container, "sh", "-c", "head -c 20000000 /dev/zero; exit 4")
    assert done.exit_code == 4
    assert done.stdout.endswith(b"[output truncated]\n")
    assert len(done.stdout) < 16 << 20
    lab.remove(pod)


def test_a_log_is_opened_anew(lab):
    pod = lab.run_pod()
    script = "echo old; touch /tmp/said; while ! [ -e /tmp/go ]; do sleep 0; done; echo new"
    container = lab.start(pod, "sh", "-c", script)
    path = lab.status(container).log_path
    lab.shell(container, "while ! [ -e /tmp/said ]; do sleep 0; done")
    os.rename(path, path + ".1")
    lab.call("ReopenContainerLog", container_id=container)
    assert os.path.exists(path)
    lab.shell(container, "touch /tmp/go")
    lab.finish(container)
    assert [text for _, _, text in lab.log(container)] == ["new"]
    lab.remove(pod)


def test_limits_are_set_and_changed(lab):
    pod = lab.run_pod()
    limits = {"memory_limit_in_bytes": 64 << 20, "cpu_shares": 512, "cpu_quota": 50000}
    container = lab.start(
        pod, "sleep", "1000", resources={**limits, "hugepage_limits": [{"page_size": "2MB"}]}
    )
    path = f"/sys/fs/cgroup/memory{lab.cgroup}/{container}/memory.limit_in_bytes"

    def limit():
        with open(path) as file:
            return int(file.read())

    assert limit() == 64 << 20
    lab.call(
        "UpdateContainerResources",
        container_id=container,
        linux={"memory_limit_in_bytes": 96 << 20, "oom_score_adj": 5},
    )
    assert limit() == 96 << 20
    shown = lab.status(container).resources.linux
    assert (shown.memory_limit_in_bytes, shown.cpu_shares) == (96 << 20, 512)
    lab.remove(pod)


def test_a_container_that_uses_too_much_memory(lab):
    pod = lab.run_pod()
    script = "x=a; while true; do x=$x$x; done"
    limits = {"memory_limit_in_bytes": 8 << 20, "memory_swap_limit_in_bytes": 8 << 20}
    container = lab.start(pod, "sh", "-c", script, resources=limits)
    ended = lab.finish(container)
    assert (ended.reason, ended.exit_code) == ("OOMKilled", 137)
    lab.remove(pod)


def test_who_a_process_is(lab):
    pod = lab.run_pod()
    security = {
        "run_as_user": {"value": 1000},
        "run_as_group": {"value": 2000},
        "supplemental_groups": [3000],
    }
    container = lab.start(pod, "sleep", "1000", security=security)
    assert lab.shell(container, "id -u; id -g; id -G") == "1000\n2000\n2000 3000\n"
    user = lab.status(container).user.linux
    assert (user.uid, user.gid, list(user.supplemental_groups)) == (1000, 2000, [2000, 3000])
    with pytest.raises(grpc.RpcError) as error:
        lab.create(pod, "true", security={"run_as_group": {"value": 1}})
    assert error.value.code().name == "INVALID_ARGUMENT"
    lab.remove(pod)


@pytest.mark.parametrize(
    ("profile", "mode"),
    [(None, "0"), ({"profile_type": pb.SecurityProfile.RuntimeDefault}, "2")],
    ids=["none", "default"],
)
def test_seccomp(lab, profile, mode):
    pod = lab.run_pod()
    container = lab.start(pod, "sleep", "1000", security={"seccomp": profile})
    assert lab.shell(container, "grep Seccomp: /proc/1/status").split()[-1] == mode
    lab.remove(pod)


def test_privilege_needs_a_privileged_pod(lab):
    pod = lab.run_pod()
    with pytest.raises(grpc.RpcError) as error:
        lab.create(pod, "true", security={"privileged": True})
    assert error.value.code().name == "INVALID_ARGUMENT"
    lab.remove(pod)
    options = {"network": pb.NODE, "pid": pb.CONTAINER}
    pod = lab.run_pod(
        linux={"security_context": {"privileged": True, "namespace_options": options}}
    )
    container = lab.start(pod, "sleep", "1000", security={"privileged": True})
    assert lab.shell(container, "grep Seccomp: /proc/1/status").split()[-1] == "0"
    lab.shell(container, "mkdir /sys/fs/cgroup/memory/x && rmdir /sys/fs/cgroup/memory/x")
    lab.remove(pod)


def test_mounts(lab, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_text("text\n")
    pod = lab.run_pod()
    mounts = [
        {"container_path": "/rw", "host_path": str(tmp_path / "a")},
        {"container_path": "/ro", "host_path": str(tmp_path / "a"), "readonly": True},
        {"container_path": "/new", "host_path": str(tmp_path / "made")},
        {"container_path": "/etc/hosts", "host_path": str(tmp_path / "a/file")},
    ]
    container = lab.start(pod, "sleep", "1000", mounts=mounts)
    assert lab.shell(container, "cat /etc/hosts") == "text\n"
    lab.shell(container, "echo x > /rw/written; echo x > /ro/refused")
    assert (tmp_path / "a/written").exists()
    assert not (tmp_path / "a/refused").exists()
    assert (tmp_path / "made").is_dir()
    recursive = {**mounts[0], "recursive_read_only": True}
    with pytest.raises(grpc.RpcError) as error:
        lab.create(pod, "true", mounts=[recursive])
    assert error.value.code().name == "INVALID_ARGUMENT"
    lab.remove(pod)


def test_names_and_settings_of_a_pod(lab):
    pod = lab.own_pod(
        dns_config={"servers": ["192.0.2.53"], "searches": ["a.b"], "options": ["ndots:5"]},
        linux={
            "sysctls": {"kernel.shm_rmid_forced": "1", "net.ipv4.ip_local_port_range": "1024 2048"}
        },
    )
    container = lab.start(pod, "sleep", "1000")
    text = lab.shell(container, "cat /etc/resolv.conf /proc/sys/net/ipv4/ip_local_port_range")
    assert text == "search a.b\nnameserver 192.0.2.53\noptions ndots:5\n1024\t2048\n"
    assert lab.shell(container, "cat /proc/sys/kernel/shm_rmid_forced") == "1\n"
    lab.remove(pod)
    options = {"network": pb.NODE, "pid": pb.CONTAINER}
    linux = {"security_context": {"namespace_options": options}, "sysctls": {"net.a": "1"}}
    config = lab.sandbox_config(linux=linux)
    assert lab.code("RunPodSandbox", config=config) == "INVALID_ARGUMENT"


def test_images(lab):
    images = lab.call("ListImages").images
    assert [list(one.repo_tags) for one in images] == [[crilab.IMAGE]]
    one = images[0]
    for name in ("bb:1", crilab.IMAGE, one.id):
        status = lab.call("ImageStatus", image={"image": name}, verbose=True)
        assert status.image.id == one.id
        assert status.image.size > 0
    assert not lab.call("ImageStatus", image={"image": "nosuch"}).HasField("image")
    lab.call("RemoveImage", image={"image": "nosuch"})
    room = lab.call("ImageFsInfo")
    assert os.path.isdir(room.image_filesystems[0].fs_id.mountpoint)
    assert room.image_filesystems[0].used_bytes.value > 0
    pod = lab.run_pod()
    container = lab.create(pod, "true", image={"image": one.id})
    assert lab.status(container).image_id == one.id
    lab.remove(pod)


def test_statistics(lab):
    pod = lab.run_pod(labels={"app": "stats"})
    container = lab.start(pod, "sleep", "1000")
    one = lab.call("ContainerStats", container_id=container).stats
    assert one.attributes.id == container
    assert one.cpu.usage_core_nano_seconds.value > 0
    assert 0 < one.memory.working_set_bytes.value <= one.memory.usage_bytes.value
    assert os.path.isdir(one.writable_layer.fs_id.mountpoint)
    found = lab.call("ListContainerStats", filter={"pod_sandbox_id": pod[0]}).stats
    assert [each.attributes.id for each in found] == [container]
    whole = lab.call("PodSandboxStats", pod_sandbox_id=pod[0]).stats
    assert whole.linux.cpu.usage_core_nano_seconds.value > 0
    found = lab.call("ListPodSandboxStats", filter={"label_selector": {"app": "stats"}}).stats
    assert [each.attributes.id for each in found] == [pod[0]]
    assert lab.code("ContainerStats", container_id="f" * 64) == "NOT_FOUND"
    lab.remove(pod)


def test_events(lab):
    pod = lab.run_pod()
    stream = lab.call("GetContainerEvents")
    stream.initial_metadata()  # it listens
    container = lab.create(pod, "true")
    seen = next(stream)
    assert (seen.container_id, seen.container_event_type) == (container, 0)
    lab.call("StartContainer", container_id=container)
    started, stopped = next(stream), next(stream)
    assert started.container_event_type == pb.CONTAINER_STARTED_EVENT
    assert stopped.container_event_type == pb.CONTAINER_STOPPED_EVENT
    assert stopped.pod_sandbox_status.id == pod[0]
    assert [one.exit_code for one in stopped.containers_statuses] == [0]
    lab.call("RemoveContainer", container_id=container)
    assert next(stream).container_event_type == pb.CONTAINER_DELETED_EVENT
    stream.cancel()
    lab.remove(pod)


def converse(url, *messages, protocol="v5.channel.k8s.io", **headers):
    """Everything that a stream says after `messages`: channel -> bytes."""

    async def run():
        said = {}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, protocols=(protocol,), headers=headers) as peer,
        ):
            assert peer.protocol == protocol
            for message in messages:
                await peer.send_bytes(message)
            async for message in peer:
                said[message.data[0]] = said.get(message.data[0], b"") + message.data[1:]
        return said

    return asyncio.run(asyncio.wait_for(run(), 30))


def test_exec_over_a_websocket(lab):
    pod = lab.run_pod()
    container = lab.start(pod, "sleep", "1000")
    streams = {"stdin": True, "stdout": True, "stderr": True}
    command = ["sh", "-c", "cat; echo err >&2; exit 5"]
    url = lab.call("Exec", container_id=container, cmd=command, **streams).url
    assert url.startswith("http://127.0.0.1:")
    said = converse(url, b"\0some ", b"\0input", b"\xff\0")
    assert (said[1], said[2]) == (b"some input", b"err\n")
    status = json.loads(said[3])
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "5"}]
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        converse(url)  # an address is good once
    assert error.value.status == 404
    url = lab.call("Exec", container_id=container, cmd=["true"], stdout=True).url
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        converse(url, Origin="http://evil.example")
    assert error.value.status == 403
    assert json.loads(converse(url, protocol="v4.channel.k8s.io")[3])["status"] == "Success"
    assert lab.code("Exec", container_id=container, cmd=["true"]) == "INVALID_ARGUMENT"
    lab.remove(pod)


def test_a_terminal_over_a_websocket(lab):
    pod = lab.run_pod()
    container = lab.start(pod, "sleep", "1000")
    command = ["sh", "-c", "read x; stty size"]
    url = lab.call("Exec", container_id=container, cmd=command, tty=True, stdin=True, stdout=True)
    said = converse(url.url, b'\4{"Width":77,"Height":33}', b"\0\n")
    assert said[1].split()[-2:] == [b"33", b"77"]
    lab.remove(pod)


def test_attach_over_a_websocket(lab):
    pod = lab.run_pod()
    container = lab.start(pod, "cat", stdin=True, stdin_once=True)
    url = lab.call("Attach", container_id=container, stdin=True, stdout=True).url
    assert converse(url, b"\0through\n", b"\xff\0")[1] == b"through\n"
    assert lab.finish(container).exit_code == 0
    assert lab.log(container) == [("stdout", "F", "through")]
    lab.remove(pod)


def test_a_log_path_stays_in_its_directory(lab):
    pod = lab.run_pod()
    with pytest.raises(grpc.RpcError) as error:
        lab.create(pod, "true", log_path="../outside.log")
    assert error.value.code().name == "INVALID_ARGUMENT"
    lab.remove(pod)


def test_docker_does_not_list_them(lab):
    pod = lab.run_pod()
    lab.start(pod, "sleep", "1000")
    assert lab.daemon.ask("GET", "/containers/json?all=1")[1] == []
    lab.remove(pod)


def test_the_engine_s_bridge_where_there_is_no_configuration(lab):
    script = "while :; do echo answer | nc -l -p 80; done"
    ports = [{"protocol": pb.TCP, "container_port": 80, "host_port": 18081}]
    pod = lab.own_pod(port_mappings=ports)
    lab.start(pod, "sh", "-c", script)
    address = lab.call("PodSandboxStatus", pod_sandbox_id=pod[0]).status.network.ip
    assert address.startswith("172.")
    assert fetch((address, 80)) == b"answer\n"
    assert fetch(("192.0.2.1", 18081)) == b"answer\n"
    taken = lab.own_config(port_mappings=ports)
    assert lab.code("RunPodSandbox", config=taken) != "OK"
    lab.daemon.process.kill()
    lab.daemon.process.wait()
    lab.daemon.start()
    assert fetch(("192.0.2.1", 18081)) == b"answer\n"
    assert lab.call("PodSandboxStatus", pod_sandbox_id=pod[0]).status.network.ip == address
    other = lab.own_pod(linux={"sysctls": {"net.ipv4.ip_unprivileged_port_start": "80"}})
    status = lab.call("PodSandboxStatus", pod_sandbox_id=other[0]).status
    assert status.network.ip not in ("", address)
    lab.call("StopPodSandbox", pod_sandbox_id=pod[0])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("192.0.2.1", 18081), 5).close()
    lab.remove(pod)
    lab.remove(other)


def fetch(address):
    """What a server says, once it is there."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(address, 5) as peer:
                if said := peer.recv(100):
                    return said
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise


@pytest.mark.skipif(not os.path.exists("/usr/lib/cni/bridge"), reason="needs CNI plugins")
def test_a_network_of_plugins(tmp_path):
    directory = tmp_path / "net.d"
    directory.mkdir()
    settings = {"cni_config": str(directory), "fallback_network": ""}
    with crilab.cri(cri=settings) as lab:
        assert not {c.type: c.status for c in lab.call("Status").status.conditions}["NetworkReady"]
        ipam = {
            "type": "host-local",
            "subnet": "10.213.0.0/24",
            "dataDir": str(tmp_path / "ipam"),
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        bridge = {"type": "bridge", "bridge": "cri-test0", "isGateway": True, "ipam": ipam}
        conflist = {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}
        (directory / "10-pods.conflist").write_text(json.dumps(conflist))
        assert {c.type: c.status for c in lab.call("Status").status.conditions}["NetworkReady"]
        pod = lab.own_pod()
        address = lab.call("PodSandboxStatus", pod_sandbox_id=pod[0]).status.network.ip
        assert address.startswith("10.213.0.")
        container = lab.start(pod, "sleep", "1000")
        assert "eth0" in lab.shell(container, "cat /proc/net/dev")
        lab.call("StopPodSandbox", pod_sandbox_id=pod[0])
        leases = [name for name in os.listdir(tmp_path / "ipam/pods") if name[0].isdecimal()]
        assert leases == []
        lab.remove(pod)
        bridge["type"] = "nosuch"
        (directory / "10-pods.conflist").write_text(json.dumps(conflist))
        config = lab.own_config()
        assert lab.code("RunPodSandbox", config=config) == "NOT_FOUND"
        assert not lab.call("ListPodSandbox").items
    subprocess.run(["ip", "link", "delete", "cri-test0"], check=True)


def test_a_daemon_that_was_killed(lab):
    pod = lab.own_pod(pid=pb.POD)
    stays = lab.start(pod, "sleep", "1000")
    ends = lab.start(pod, "sh", "-c", "read x < /dev/null; exec sleep 1000")
    lab.daemon.process.kill()
    lab.daemon.process.wait()
    lab.daemon.start()
    assert lab.status(stays).state == pb.CONTAINER_RUNNING
    assert lab.call("PodSandboxStatus", pod_sandbox_id=pod[0]).status.state == pb.SANDBOX_READY
    lab.call("StopContainer", container_id=ends, timeout=0)
    assert lab.status(ends).exit_code in (137, 143)
    third = lab.start(pod, "sleep", "1000")
    assert "sleep" in lab.shell(third, "ps")
    lab.remove(pod)


def test_a_pause_image_is_honoured():
    with crilab.cri(cri={"cni_config": "/nonexistent", "pause_image": "pause:1"}) as lab:
        config = lab.own_config()
        assert lab.code("RunPodSandbox", config=config) != "OK"  # there is no such image yet
        assert not lab.call("ListPodSandbox").items
        crilab.load_image(lab.daemon, "pause", "ENTRYPOINT%20%5B%22sleep%22,%2277777%22%5D")
        pod = lab.own_pod()
        told = lab.call("PodSandboxStatus", pod_sandbox_id=pod[0], verbose=True).info["info"]
        pid = json.loads(told)["pid"]
        assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x0077777\x00"
        (image,) = lab.call("ListImages", filter={"image": {"image": "pause:1"}}).images
        assert image.pinned
        assert lab.shell(lab.start(pod, "sleep", "1000"), "echo there") == "there\n"
        os.kill(pid, signal.SIGKILL)
        dockerlab_wait(lab.daemon, json.loads(told)["keeper"])
        states = [one.state for one in lab.call("ListPodSandbox").items]
        assert states == [pb.SANDBOX_NOTREADY]
        lab.remove(pod)


def test_metrics_have_the_names_of_cadvisor(lab):
    described = {one.name: one for one in lab.call("ListMetricDescriptors").descriptors}
    assert len(described) >= 56
    for kind in ("cpu", "memory", "io"):
        assert f"container_pressure_{kind}_stalled_seconds_total" in described
    assert all(one.help and one.label_keys for one in described.values())
    pod = lab.own_pod()
    limits = {"cpu_shares": 512, "memory_limit_in_bytes": 64 << 20}
    container = lab.start(pod, "sleep", "1000", resources=limits)
    found = {one.pod_sandbox_id: one for one in lab.call("ListPodSandboxMetrics").pod_metrics}
    own = found[pod[0]].container_metrics
    assert [one.container_id for one in own] == [container]
    metrics = [*own[0].metrics, *found[pod[0]].metrics]
    for one in metrics:
        assert len(one.label_values) == len(described[one.name].label_keys), one.name
    values = {one.name: one.value.value for one in metrics}
    assert values["container_processes"] == values["container_threads"] == 1
    assert values["container_spec_cpu_shares"] == 512
    assert values["container_spec_memory_limit_bytes"] == 64 << 20
    assert values["container_memory_usage_bytes"] > 0
    assert values["container_file_descriptors"] >= 3
    assert abs(values["container_start_time_seconds"] - time.time()) < 60
    assert "container_network_receive_bytes_total" in values
    streamed = [
        one.pod_sandbox_id
        for part in lab.call("StreamPodSandboxMetrics")
        for one in part.pod_sandbox_metrics
    ]
    assert pod[0] in streamed
    missing = described.keys() - values.keys()
    # What this kernel does not count, or what nobody has written yet.
    parts = ("container_fs_", "container_blkio_", "container_pressure_", "container_hugetlb_")
    assert all(name.startswith(parts) for name in missing)
    lab.remove(pod)


def test_statistics_of_a_pod(lab):
    pod = lab.own_pod()
    container = lab.start(pod, "sleep", "1000")
    stats = lab.call("PodSandboxStats", pod_sandbox_id=pod[0]).stats
    assert stats.linux.network.default_interface.name == "eth0"
    assert stats.linux.process.process_count.value == 1
    streams = list(lab.call("StreamPodSandboxStats", filter={"id": pod[0]}))
    assert [one.attributes.id for part in streams for one in part.pod_sandbox_stats] == [pod[0]]
    streams = list(lab.call("StreamContainerStats", filter={"pod_sandbox_id": pod[0]}))
    assert [one.attributes.id for part in streams for one in part.container_stats] == [container]
    lab.remove(pod)


def test_settings_are_read_again(tmp_path):
    with crilab.cri() as lab:
        config = Path(f"{lab.base}/config.toml")
        before = config.read_text()
        assert {one.name for one in lab.call("Status").runtime_handlers}.isdisjoint({"mine"})
        table = f'[runtimes]\nmine = "{shutil.which("true")}"\n'
        config.write_text(before.replace("/nonexistent", str(tmp_path)) + table)
        (tmp_path / "10-broken.conflist").write_text("{")
        reload(lab, "settings are reloaded")
        status = lab.call("Status")
        assert "mine" in {one.name for one in status.runtime_handlers}
        network = next(one for one in status.status.conditions if one.type == "NetworkReady")
        assert not network.status
        assert "10-broken.conflist" in network.message
        config.write_text('shm_size = 1\nlog_level = "debug"\n' + before)
        reload(lab, "shm_size has changed")
        config.write_text(before + 'nosuch = "x"\n')
        reload(lab, "unknown key 'cri.nosuch'")
        assert lab.call("Status").status.conditions[0].status


def reload(lab, wanted):
    """Send SIGHUP, and wait until the log says `wanted`."""
    deadline = time.monotonic() + 20
    lab.daemon.process.send_signal(signal.SIGHUP)
    while wanted not in lab.daemon.log:
        assert time.monotonic() < deadline, lab.daemon.log
        time.sleep(0.01)
