"""The shim with the real runtime: what the kernel shows of it, and that nothing is left."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from realshims import process, real_lab, sh, started
from sampan.kernel import cgroups
from shimlab import is_running, read_to_end, read_until, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")

# Idle, of everything that is the shim's alone. Docker's has 2.7 MiB, podman's conmon 0.34.
IDLE_KIB = 1024


@pytest.fixture
def lab(tmp_path):
    yield from real_lab(tmp_path)


def test_a_container_lives_and_leaves_nothing(lab):
    before = len(Path("/proc/self/mountinfo").read_text().splitlines())
    shim = lab.run(*sh("echo out; echo err >&2; exit 7"))
    event = shim.next_event("exit")
    assert (event["code"], event["oom"]) == (7, False)
    assert sorted((r["stream"], r["log"]) for r in shim.log()) == [
        ("stderr", "err\n"),
        ("stdout", "out\n"),
    ]
    assert not cgroups.manager(lab.cgroups[0]).exists()
    shim.ended()
    wait_for("the shim ends", lambda: not is_running(shim.state()["shim_pid"]))
    assert len(Path("/proc/self/mountinfo").read_text().splitlines()) == before
    assert sorted(os.listdir(shim.directory)) == ["container.log", "exit.json", "state.json"]


def test_a_missing_command_fails_with_runcs_words_and_leaves_no_cgroup(lab):
    shim = lab.run("nosuch")
    event = shim.next_event("start-failed")
    assert event["error"] == 'exec: "nosuch": executable file not found in $PATH'
    assert event["errno"] == 2
    shim.ended()
    wait_for("no cgroup is left", lambda: not cgroups.manager(lab.cgroups[0]).exists())


def test_the_mounts_of_the_host_are_no_containers(lab):
    before = Path("/proc/self/mountinfo").read_text()
    spec = lab.spec("true")
    spec["linux"]["namespaces"] = [
        one for one in spec["linux"]["namespaces"] if one["type"] != "mount"
    ]
    shim = lab.run(spec=spec)
    event = shim.next_event("start-failed")
    assert event["error"] == "linux.namespaces: a mount namespace is needed"
    assert Path("/proc/self/mountinfo").read_text() == before


def test_a_kill_for_want_of_memory_is_seen(lab):
    spec = lab.spec(*sh("x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo $x"))
    spec["linux"]["resources"] = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    shim = lab.run(spec=spec)
    event = shim.next_event("exit")
    assert event["oom"] is True
    assert shim.record()["oom"] is True


def test_the_container_has_exactly_three_descriptors(lab):
    shim = lab.run("/bin/ls", "/proc/1/fd")
    shim.next_event("exit")
    # The fourth is ls reading the directory.
    assert [record["log"] for record in shim.log()] == ["0\n", "1\n", "2\n", "3\n"]


def test_an_exec_has_exactly_three_descriptors(lab):
    shim = lab.run("/bin/sleep", "1000")
    started(shim)
    ours, theirs = lab.pair()
    wish = {"stdout": True, "stderr": True, "framing": "raw"}
    with theirs:
        answer = shim.call(
            "exec",
            (theirs.fileno(),),
            exec="e",
            process=process("/bin/ls", "/proc/self/fd"),
            attach=[wish],
        )
    assert answer["ok"]
    assert read_to_end(ours) == b"0\n1\n2\n3\n"
    assert shim.next_event("exec-exit")["code"] == 0


def test_signals_are_as_a_new_program_expects_them(lab):
    shim = lab.run("/bin/grep", "Sig", "/proc/self/status")
    shim.next_event("exit")
    lines = dict(record["log"].split() for record in shim.log() if "Q" not in record["log"])
    assert int(lines["SigBlk:"], 16) == 0
    assert int(lines["SigIgn:"], 16) == 0


def test_a_terminal_is_the_containers_own(lab):
    shim, peer = lab.run_attached(
        *sh("tty; stty size; read go; exit 4"), terminal=True, stdin=True, console_size=[31, 91]
    )
    assert b"31 91" in read_until(peer, b"31 91")
    peer.sendall(b"\n")
    assert shim.next_event("exit")["code"] == 4


def test_an_exec_with_a_terminal(lab):
    shim = lab.run("/bin/sleep", "1000")
    started(shim)
    ours, theirs = lab.pair()
    wish = {"stdin": True, "stdout": True, "stderr": True, "framing": "raw"}
    with theirs:
        answer = shim.call(
            "exec",
            (theirs.fileno(),),
            exec="e",
            process=process(*sh("tty; stty size; read go; exit 8"), terminal=True),
            terminal=True,
            console_size=[12, 34],
            attach=[wish],
        )
    assert answer["ok"], answer
    assert b"12 34" in read_until(ours, b"12 34")
    ours.sendall(b"\n")
    assert shim.next_event("exec-exit")["code"] == 8


def test_execs_die_with_the_container(lab):
    shim = lab.run("/bin/sleep", "1000")
    started(shim)
    pid = shim.call("exec", exec="e", process=process("/bin/sleep", "1000"))["pid"]
    shim.call("signal", sig=signal.SIGKILL)
    assert shim.next_event("exit")["code"] == 137
    assert shim.next_event("exec-exit")["code"] == 137
    assert not is_running(pid)


def test_what_execs_left_behind_is_killed_where_the_pid_namespace_is_the_hosts(lab):
    spec = lab.spec("/bin/sleep", "1000")
    spaces = spec["linux"]["namespaces"]
    spec["linux"]["namespaces"] = [space for space in spaces if space["type"] != "pid"]
    shim = lab.run(spec=spec)
    started(shim)
    assert shim.call("exec", exec="e", process=process(*sh("sleep 1000 & exit 0")))["ok"]
    assert shim.next_event("exec-exit")["code"] == 0
    pids = shim.call("pids")["pids"]
    assert len(pids) == 2
    shim.call("signal", sig=signal.SIGKILL)
    assert shim.next_event("exit")["code"] == 137
    assert not any(is_running(pid) for pid in pids)
    assert not cgroups.manager(lab.cgroups[0]).exists()


def test_a_container_with_the_hosts_network_is_made_without_the_spare(lab):
    spec = lab.spec("/bin/readlink", "/proc/self/ns/net")
    spaces = spec["linux"]["namespaces"]
    spec["linux"]["namespaces"] = [space for space in spaces if space["type"] != "network"]
    shim = lab.run(spec=spec)
    assert shim.next_event("exit")["code"] == 0
    assert shim.log()[0]["log"] == os.readlink("/proc/self/ns/net") + "\n"


def test_many_containers_one_after_the_other_leave_no_process(lab):
    for number in range(20):
        assert lab.run(*sh(f"exit {number}")).next_event("exit")["code"] == number
    wait_for("a spare of each kind is left", lambda: len(lab.children()) == 4)


def test_an_idle_shim_is_small(lab):
    shims = [lab.run("/bin/sleep", "1000") for _ in range(3)]
    for shim in shims:
        started(shim)
    pid = shims[0].state()["shim_pid"]
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    private = [line.split()[1] for line in rollup.splitlines() if line.startswith("Private")]
    assert sum(map(int, private)) < IDLE_KIB


def test_a_long_state_directory_is_no_obstacle(lab, tmp_path):
    lab.directory = tmp_path / ("d" * 100)
    lab.directory.mkdir()
    shim = lab.run("/bin/sleep", "1000")
    started(shim)
    second = shim.reconnect()
    assert second.next_event("hello")["state"]["status"] == "running"
    lab.directory = tmp_path


def test_a_stranger_may_not_talk_to_a_shim(lab):
    shim = lab.run("/bin/sleep", "1000")
    started(shim)
    for path in (shim.directory, *shim.directory.parents[:3]):
        os.chmod(path, 0o755)
    os.chmod(shim.directory / "shim.sock", 0o777)  # the check of the peer is what is tested
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(shim.directory)
            os.setuid(65534)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.connect("shim.sock")
            status = 0 if not _read(sock) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _read(sock):
    try:
        return sock.recv(100)
    except ConnectionResetError:
        return b""
