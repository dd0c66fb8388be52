"""Many pods at once, a daemon that is killed among them, networks that fail: nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import crilab
from dockerlab import BUSYBOX
from sampan.wire.cri import api_pb2 as pb

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not BUSYBOX, reason="needs root and busybox")

PODS = 20


def start(lab, config):
    """(pod id, container id) of a new pod that sleeps."""
    pod = lab.call("RunPodSandbox", config=config).pod_sandbox_id, config
    return pod, lab.start(pod, "sleep", "1000")


def test_a_daemon_that_is_killed_among_many_pods():
    with crilab.cri() as lab:
        configs = [lab.own_config() for _ in range(PODS)]
        with ThreadPoolExecutor(PODS) as pool:
            made = list(pool.map(lambda config: start(lab, config), configs))
        assert len({pod for (pod, _), _ in made}) == PODS
        addresses = {
            lab.call("PodSandboxStatus", pod_sandbox_id=pod).status.network.ip
            for (pod, _), _ in made
        }
        assert len(addresses) == PODS
        lost = [container for _, container in made[:3]]
        pids = []
        for container in lost:
            record = Path(f"{lab.base}/state/shims/{container}/state.json").read_text()
            pids.append(json.loads(record)["pid"])
        lab.daemon.process.kill()
        lab.daemon.process.wait()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        lab.daemon.start()
        states = {one.id: one.state for one in lab.call("ListContainers").containers}
        for container in lost:
            lab.finish(container)
            status = lab.status(container)
            assert (status.state, status.exit_code) == (pb.CONTAINER_EXITED, 137)
        for _, container in made[3:]:
            assert states[container] == pb.CONTAINER_RUNNING
        ready = lab.call("ListPodSandbox", filter={"state": {"state": pb.SANDBOX_READY}}).items
        assert len(ready) == PODS
        events = lab.call("GetContainerEvents")
        events.initial_metadata()
        with ThreadPoolExecutor(PODS) as pool:
            list(pool.map(lab.remove, (pod for pod, _ in made)))
        ends = []
        while len(ends) < PODS - 3:
            event = next(events)
            if event.container_event_type == pb.CONTAINER_STOPPED_EVENT:
                ends.append(event.container_id)
        events.cancel()
        # Those that ended while nobody was there are not told again.
        assert sorted(ends) == sorted(container for _, container in made[3:])


def test_a_network_that_fails_leaves_nothing(tmp_path):
    plugins, lists, cache = tmp_path / "bin", tmp_path / "net.d", tmp_path / "said"
    for folder in (plugins, lists):
        folder.mkdir()
    program = plugins / "fails"
    said = '{"cniVersion": "1.0.0", "code": 11, "msg": "no more addresses"}'
    program.write_text(
        f'#!/bin/sh\necho "$CNI_COMMAND" >> {cache}\n[ "$CNI_COMMAND" = DEL ] && exit 0\n'
        f"echo '{said}'\nexit 1\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    conflist = {"cniVersion": "1.0.0", "name": "bad", "plugins": [{"type": "fails"}]}
    (lists / "10-bad.conflist").write_text(json.dumps(conflist))
    settings = {"cni_config": str(lists), "cni_plugins": [str(plugins)]}
    with crilab.cri(cri=settings) as lab:
        config = lab.own_config(pid=pb.POD)
        with pytest.raises(crilab.grpc.RpcError) as error:
            lab.call("RunPodSandbox", config=config)
        assert "no more addresses" in error.value.details()
        assert cache.read_text().split() == ["ADD", "DEL"]
        assert not lab.call("ListPodSandbox").items
        for folder in ("state/pods", "root/pods", "root/cni"):
            assert os.listdir(f"{lab.base}/{folder}") == []
        # The name is free again.
        (lists / "10-bad.conflist").unlink()
        pod = lab.call("RunPodSandbox", config=config).pod_sandbox_id
        lab.remove((pod, config))
