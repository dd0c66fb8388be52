"""kill -9 of the processes around a container, at each moment that can be held still."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from realshims import RealLab, process, real_lab, sh, started
from sampan.kernel import cgroups
from sampan.tasks import recovery
from shimlab import is_running, wait_for

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
    assert recovery.read_exit(str(shim.directory)) is None
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
    family = lab.spares()
    lab.spawner.kill()
    lab.spawner.wait()
    wait_for("all of it dies", lambda: not any(is_running(pid) for pid in family))


def test_a_launch_whose_engine_died_is_recorded_all_the_same(lab):
    shim = lab.run(*sh("exit 12"))
    shim.sock.close()
    wait_for("the record", lambda: recovery.read_exit(str(shim.directory)) is not None)
    assert shim.record()["code"] == 12


def test_a_nursery_that_died_is_replaced(lab):
    lab.run("/bin/true").next_event("exit")
    nursery = lab.nursery()
    family = nursery, *lab.spares()
    for pid in family:
        with contextlib.suppress(ProcessLookupError):  # blanks die with their parents
            kill(pid)
    wait_for("they are dead", lambda: not any(is_running(pid) for pid in family))
    for _ in range(2):
        assert lab.run(*sh("exit 4")).next_event("exit")["code"] == 4
    wait_for("another nursery is there", lambda: lab.nursery() not in (0, nursery))


def test_a_launch_whose_shim_was_killed_says_nothing_that_forbids_another(lab):
    """The word of a failure is the container's fault; silence is ours, and tried again."""
    first = lab.run("/bin/true")
    first.next_event("exit")
    first.ended()  # or it could be taken for the spare
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


def monitor_of(shim):
    """The monitor of a container, the nursery's child or its keeper's own; 0 for none."""
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text() != "sampan-monitor\n":
                continue
            links = [os.readlink(link) for link in comm.parent.joinpath("fd").iterdir()]
        except FileNotFoundError:
            continue
        if str(shim.directory) in links:
            return int(comm.parent.name)
    return 0


def test_a_quiet_container_has_no_interpreter_for_a_parent(lab):
    shim = lab.run("/bin/sleep", "1000")
    started(shim)
    keeper = shim.state()["shim_pid"]
    assert os.readlink(f"/proc/{keeper}/exe").startswith("/memfd:sampan-shim")
    assert monitor_of(shim) == 0
    assert shim.call("state")["state"]["status"] == "running"
    assert monitor_of(shim)


def test_a_container_survives_its_first_monitor_and_not_its_second(lab):
    shim = lab.run("/bin/sleep", "1000")
    pid = started(shim)
    assert shim.call("state")["ok"]
    first = monitor_of(shim)
    assert first
    kill(first)
    again = shim.reconnect()
    assert again.next_event("hello")["state"]["status"] == "running"
    assert again.call("exec", exec="e", process=process(*sh("exit 3")))["ok"]
    assert again.next_event("exec-exit")["code"] == 3
    second = monitor_of(shim)
    assert second not in (0, first)
    kill(second)
    wait_for("init dies", lambda: not is_running(pid))


def test_a_monitor_is_to_be_had_without_the_nursery(lab):
    shim = lab.run(*sh("trap 'exit 6' TERM; while :; do sleep 0.01; done"))
    await_trap(started(shim))
    nursery = lab.nursery()
    lab.spawner.kill()
    lab.spawner.wait()
    kill(nursery)
    wait_for("it is dead", lambda: not is_running(nursery))
    assert shim.call("state")["state"]["status"] == "running"
    shim.call("signal", sig=signal.SIGTERM)
    assert shim.next_event("exit")["code"] == 6


def test_a_monitor_is_to_be_had_from_the_next_nursery(lab):
    shim = lab.run("/bin/sleep", "1000")
    started(shim)
    nursery = lab.nursery()
    os.kill(nursery, signal.SIGSTOP)
    second = shim.reconnect()  # it asks, and is not heard
    kill(nursery)
    assert second.next_event("hello")["state"]["status"] == "running"


def test_a_full_state_directory_costs_no_exit_code(tmp_path):
    """The keeper tells its monitor, and that the engine; neither needs the disk for it."""
    lab, place = RealLab(tmp_path), tmp_path / "full"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "full", place], check=True)
    lab.directory = place
    try:
        shim = lab.run(*sh("trap 'exit 8' TERM; while :; do sleep 0.01; done"), log={})
        await_trap(started(shim))
        assert shim.call("state")["state"]["status"] == "running"
        with contextlib.suppress(OSError), open(place / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        shim.call("signal", sig=signal.SIGTERM)
        assert shim.next_event("exit")["code"] == 8
    finally:
        subprocess.run(["umount", "-l", place], check=True)
        lab.directory = tmp_path
        lab.close()
    assert "No space left" in lab.complaints()
    assert not cgroups.manager(lab.cgroups[0]).exists()


def test_output_at_the_very_end_is_not_lost(lab):
    for number in range(20):
        shim = lab.run(*sh(f"echo word{number}; exit {number}"))
        assert shim.next_event("exit")["code"] == number
        assert [record["log"] for record in shim.log()] == [f"word{number}\n"]


def test_a_container_without_output_may_go_on(lab):
    shim = lab.run(*sh("trap 'exit 9' TERM; exec >&- 2>&-; while :; do sleep 0.01; done"))
    await_trap(started(shim))
    shim.call("signal", sig=signal.SIGTERM)
    assert shim.next_event("exit")["code"] == 9


def test_what_a_container_made_below_its_cgroup_goes_with_it(lab):
    spec = lab.spec("/bin/sleep", "1000")
    shim = lab.run(spec=spec)
    pid = started(shim)
    cgroup = cgroups.manager(spec["linux"]["cgroupsPath"])
    tree, path = cgroup.places()[0]
    os.mkdir(f"{path}/below", dir_fd=tree.fd)
    kill(pid)
    assert shim.next_event("exit")["code"] == 137
    assert not cgroup.exists()


def await_trap(pid):
    """Wait until the shell catches SIGTERM, which the first process of a container ignores."""
    status = Path(f"/proc/{pid}/status")
    caught = 1 << (signal.SIGTERM - 1)
    wait_for(
        "it listens", lambda: int(status.read_text().split("SigCgt:")[1].split()[0], 16) & caught
    )
