"""kill -9 of the processes around a container, at each moment that can be held still."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from realshims import process, real_lab, sh, started
from shimlab import children, is_running, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")


@pytest.fixture
def lab(tmp_path):
    yield from real_lab(tmp_path)


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def test_init_dies_with_its_shim(lab):
    shim = lab.run("/bin/sleep", "1000")
    pid = started(shim)
    kill(shim.state()["shim_pid"])
    wait_for("init dies", lambda: not is_running(pid))
    # Nobody recorded the exit: whoever recovers finds the state, no record, and no process.
    assert not (shim.directory / "exit.json").exists()
    assert shim.state()["pid"] == pid


def test_init_dies_with_a_shim_that_was_awake(lab):
    shim = lab.run(*sh("echo awake; sleep 1000"))
    pid = started(shim)
    assert shim.call("state")["state"]["status"] == "running"
    kill(shim.state()["shim_pid"])
    wait_for("init dies", lambda: not is_running(pid))


def test_a_container_that_waits_for_its_start_dies_with_its_shim(lab):
    shim = lab.run("/bin/sleep", "1000", start=False)
    pid = shim.next_event("created")["pid"]
    shim_pid = shim.state()["shim_pid"]
    kill(shim_pid)
    wait_for("it dies", lambda: not is_running(pid))


def test_a_killed_init_is_an_exit(lab):
    shim = lab.run("/bin/sleep", "1000")
    kill(started(shim))
    assert shim.next_event("exit")["code"] == 137
    assert shim.record()["signal"] == 9


def test_shims_outlive_the_spawner_and_the_engine(lab):
    shim = lab.run("/bin/sleep", "1000")
    started(shim)
    shim.sock.close()
    lab.sock.close()
    lab.spawner.kill()
    lab.spawner.wait()
    second = shim.reconnect()
    assert second.next_event("hello")["state"]["status"] == "running"
    assert second.call("exec", exec="e", process=process("/bin/true"))["ok"]
    assert second.next_event("exec-exit")["code"] == 0
    second.call("signal", sig=signal.SIGTERM)
    second.call("signal", sig=signal.SIGKILL)
    assert second.next_event("exit")["code"] == 137


def test_the_spare_and_its_namespaces_die_with_the_spawner(lab):
    lab.run("/bin/true").next_event("exit")
    family = lab.spare()
    lab.spawner.kill()
    lab.spawner.wait()
    wait_for("all of it dies", lambda: not any(is_running(pid) for pid in family))


def test_a_launch_whose_engine_died_is_recorded_all_the_same(lab):
    shim = lab.run(*sh("exit 12"))
    shim.sock.close()
    wait_for("the record", (shim.directory / "exit.json").exists)
    assert shim.record()["code"] == 12


def test_a_nursery_that_died_is_replaced(lab):
    lab.run("/bin/true").next_event("exit")
    (nursery,) = children(lab.spawner.pid)
    family = nursery, *lab.spare()
    for pid in family:
        kill(pid)
    wait_for("they are dead", lambda: not any(is_running(pid) for pid in family))
    for _ in range(2):
        assert lab.run(*sh("exit 4")).next_event("exit")["code"] == 4
    wait_for("one nursery is there", lambda: len(children(lab.spawner.pid)) == 1)
    assert children(lab.spawner.pid) != [nursery]


def test_a_launch_whose_shim_was_killed_says_nothing_that_forbids_another(lab):
    """The word of a failure is the container's fault; silence is ours, and tried again."""
    lab.run("/bin/true").next_event("exit")
    spare, _ = lab.spare()
    asleep = Path(f"/proc/{spare}/syscall")
    epoll_wait = ("232 ", "281 ", "22 ")  # and epoll_pwait; the last of other machines
    wait_for("it has offered its child", lambda: asleep.read_text().startswith(epoll_wait))
    os.kill(spare, signal.SIGSTOP)
    # Another set of namespaces: the spawner must ask the spare, which does not answer.
    spec = lab.spec("/bin/true")
    spaces = spec["linux"]["namespaces"]
    spec["linux"]["namespaces"] = [one for one in spaces if one["type"] != "uts"]
    spec.pop("hostname", None)
    rootfs = {"type": "bind", "source": str(lab.root)}
    shim = lab.launch(rootfs=rootfs, spec=spec)
    wait_for("the launch has begun", (shim.directory / "shim.sock").exists)
    kill(spare)
    shim.ended()
    assert shim.events == []
    assert list(shim.directory.iterdir()) == []
