"""Pods whose containers are made by other OCI runtimes: runc, crun, runsc, each where it is."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

import crilab
import spdylab
from dockerlab import BUSYBOX
from netdocker import eventually
from sampan.wire.cri import api_pb2 as pb

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not BUSYBOX, reason="needs root and busybox")

HANDLERS = [
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"needs {name}"))
    for name in ("runc", "crun", "runsc")
]


@pytest.fixture(scope="module")
def lab():
    with crilab.cri() as made:
        yield made


def pod_of(lab, handler):
    config = lab.own_config()
    made = lab.call("RunPodSandbox", config=config, runtime_handler=handler)
    return made.pod_sandbox_id, config


def shim_of(lab, container):
    record = json.loads(Path(f"{lab.base}/state/shims/{container}/state.json").read_text())
    return record["shim_pid"]


def program_of(pid):
    """The command line of a process' parent."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_the_handlers_are_listed(lab):
    listed = {one.name: one.features for one in lab.call("Status").runtime_handlers}
    assert listed[""].recursive_read_only_mounts
    for name in ("runc", "crun", "runsc"):
        assert (name in listed) is (shutil.which(name) is not None)
    config = lab.own_config()
    assert lab.code("RunPodSandbox", config=config, runtime_handler="nosuch") == "INVALID_ARGUMENT"


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_container_of_another_runtime(lab, handler):
    pod = pod_of(lab, handler)
    assert lab.call("PodSandboxStatus", pod_sandbox_id=pod[0]).status.runtime_handler == handler
    limits = {"memory_limit_in_bytes": 64 << 20}
    container = lab.start(pod, "sh", "-c", "echo out; echo err >&2; sleep 1000", resources=limits)
    assert "foreign" in program_of(shim_of(lab, container))
    address = lab.call("PodSandboxStatus", pod_sandbox_id=pod[0]).status.network.ip
    assert lab.shell(container, "echo $((6*7)); cat /etc/hostname").startswith("42\n")
    assert address.startswith("172.")
    assert lab.exec(container, "sh", "-c", "echo said; exit 9").exit_code == 9
    url = lab.call("Exec", container_id=container, cmd=["sh"], stdin=True, stdout=True, tty=True)
    with spdylab.Client(url.url, "v4.channel.k8s.io") as client:
        names = ("error", "stdin", "stdout", "resize")
        numbers = {name: client.open(streamtype=name) for name in names}
        client.send(numbers["stdin"], b"[ -t 0 ] && echo te''rm; exit 4\n")
        said = client.read()
    assert b"term\r\n" in said[numbers["stdout"]]
    assert json.loads(said[numbers["error"]])["details"]["causes"][0]["message"] == "4"
    lab.call("StopContainer", container_id=container, timeout=0)
    status = lab.status(container)
    # gVisor's first process is as mortal as any other.
    wanted = 143 if handler == "runsc" else 137
    assert (status.state, status.exit_code) == (pb.CONTAINER_EXITED, wanted)
    assert sorted(lab.log(container)) == [("stderr", "F", "err"), ("stdout", "F", "out")]
    assert os.listdir(f"{lab.base}/state/shims/{container}/runtime") == [] or handler == "runsc"
    lab.remove(pod)
    eventually(lambda: not os.path.exists(f"{lab.base}/state/shims/{container}"))


@pytest.mark.parametrize("handler", HANDLERS)
def test_what_cannot_be_executed(lab, handler):
    pod = pod_of(lab, handler)
    container = lab.create(pod, "/nosuch")
    assert lab.code("StartContainer", container_id=container) == "FAILED_PRECONDITION"
    status = lab.status(container)
    assert (status.state, status.exit_code) == (pb.CONTAINER_EXITED, 128)
    assert "nosuch" in status.message
    lab.remove(pod)


def test_what_a_foreign_handler_cannot_do(lab):
    if shutil.which("runc") is None:
        pytest.skip("needs runc")
    pod = pod_of(lab, "runc")
    for mount in (
        {"propagation": pb.PROPAGATION_BIDIRECTIONAL},
        {"recursive_read_only": True, "readonly": True},
    ):
        wanted = {"container_path": "/mnt", "host_path": "/tmp", **mount}
        with pytest.raises(crilab.grpc.RpcError) as error:
            lab.create(pod, "true", mounts=[wanted])
        assert error.value.code().name == "INVALID_ARGUMENT"
    lab.remove(pod)


def test_a_privileged_container_of_runc(lab):
    if shutil.which("runc") is None:
        pytest.skip("needs runc")
    options = {"network": pb.POD, "pid": pb.CONTAINER}
    security = {"namespace_options": options, "privileged": True}
    config = lab.own_config(linux={"security_context": security})
    made = lab.call("RunPodSandbox", config=config, runtime_handler="runc").pod_sandbox_id
    container = lab.start((made, config), "sleep", "1000", security={"privileged": True})
    # What we do not hold ourselves is left out, in place of a failure.
    assert "Seccomp:\t0" in lab.shell(container, "cat /proc/self/status")
    lab.remove((made, config))


def test_deaths(lab):
    if shutil.which("runc") is None:
        pytest.skip("needs runc")
    pod = pod_of(lab, "runc")
    stays = lab.start(pod, "sleep", "1000")
    lab.daemon.process.kill()
    lab.daemon.process.wait()
    lab.daemon.start()
    assert lab.status(stays).state == pb.CONTAINER_RUNNING
    assert lab.shell(stays, "echo there") == "there\n"
    os.kill(shim_of(lab, stays), signal.SIGKILL)
    status = lab.finish(stays)
    assert (status.state, status.exit_code) == (pb.CONTAINER_EXITED, 137)
    again = lab.start(pod, "true")
    assert lab.finish(again).exit_code == 0
    lab.remove(pod)
