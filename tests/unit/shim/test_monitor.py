"""A spawner and its shims, with plain processes in the place of containers."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from shimlab import (
    SOURCE,
    Lab,
    is_running,
    read_to_end,
    read_until,
    receive,
    unframe,
    wait_for,
)

ALL = {"stdin": True, "stdout": True, "stderr": True, "framing": "raw"}


@pytest.fixture
def lab(tmp_path):
    lab = Lab(tmp_path)
    yield lab
    lab.close()
    assert lab.complaints() == ""


def sh(script):
    return "/bin/sh", "-c", script


# Exits


@pytest.mark.parametrize("code", [0, 1, 7, 125, 255])
def test_the_exit_code_is_told_and_recorded(lab, code):
    shim = lab.launch(*sh(f"exit {code}"))
    started = shim.next_event("started")
    event = shim.next_event("exit")
    assert event["code"] == code
    assert event["signal"] == 0
    assert event["pid"] == started["pid"]
    record = shim.record()
    assert record == {key: value for key, value in event.items() if key != "event"}
    assert record["lost"] is False


def test_a_signal_is_told_as_128_and_its_number(lab):
    shim = lab.launch("/bin/sleep", "1000")
    shim.next_event("started")
    assert shim.call("signal", sig=signal.SIGTERM)["ok"]
    event = shim.next_event("exit")
    assert (event["code"], event["signal"]) == (128 + 15, 15)


def test_nothing_of_the_shim_is_left_but_the_records_and_the_log(lab):
    shim = lab.launch(*sh("echo x"))
    pid = shim.next_event("started")["pid"]
    shim.next_event("exit")
    shim_pid = shim.state()["shim_pid"]
    shim.ended()
    wait_for("the shim ends", lambda: not is_running(shim_pid))
    assert not is_running(pid)
    assert sorted(os.listdir(shim.directory)) == ["container.log", "exit.json", "state.json"]


def test_the_state_names_both_processes_by_pid_and_start_time(lab):
    shim = lab.launch("/bin/sleep", "1000")
    pid = shim.next_event("started")["pid"]
    state = shim.state()
    for key, start in (("pid", "start_time"), ("shim_pid", "shim_start_time")):
        fields = Path(f"/proc/{state[key]}/stat").read_bytes().rpartition(b")")[2].split()
        assert int(fields[19]) == state[start]
    assert state["pid"] == pid
    assert Path(f"/proc/{state['shim_pid']}/comm").read_text() == "sampan-shim\n"


def test_a_command_that_cannot_be_executed_is_a_failed_start(lab):
    shim = lab.launch("/nonexistent/command")
    event = shim.next_event("start-failed")
    assert event["errno"] == 2
    assert "/nonexistent/command" in event["error"]
    shim.ended()
    assert os.listdir(shim.directory) == []


def test_a_peer_of_a_failed_start_reads_the_end(lab):
    shim, peer = lab.launch_attached("/nonexistent/command")
    shim.next_event("start-failed")
    assert read_to_end(peer) == b""


def test_a_launch_that_is_no_message_is_refused(lab):
    ours, theirs = lab.pair(socket.SOCK_SEQPACKET)
    with theirs:
        socket.send_fds(lab.sock, [b"[]"], [theirs.fileno()])
    assert receive(ours)["event"] == "start-failed"
    assert receive(ours) is None


def test_a_launch_without_what_it_needs_is_refused(lab):
    ours, theirs = lab.pair(socket.SOCK_SEQPACKET)
    with theirs:
        socket.send_fds(lab.sock, [b'{"id":"x"}'], [theirs.fileno()])
    assert receive(ours)["event"] == "start-failed"
    lab.close()
    assert "KeyError" in lab.complaints() or lab.complaints() == ""
    lab.log = (lab.directory / "spawner.log").open("wb")


def test_a_container_can_wait_for_its_start(lab):
    shim = lab.launch(*sh("echo ran"), start=False)
    pid = shim.next_event("created")["pid"]
    assert shim.call("state")["state"]["status"] == "created"
    assert not (shim.directory / "container.log").exists()
    assert shim.call("start")["pid"] == pid
    shim.next_event("exit")
    assert shim.log()[0]["log"] == "ran\n"


def test_a_late_start_can_fail(lab):
    shim = lab.launch("/nonexistent/command", start=False)
    shim.next_event("created")
    assert shim.call("start")["errno"] == 2
    assert shim.next_event("start-failed")["errno"] == 2
    shim.ended()


def test_a_container_that_is_killed_before_its_start_has_an_exit(lab):
    shim = lab.launch(*sh("echo ran"), start=False)
    shim.next_event("created")
    shim.call("signal", sig=signal.SIGKILL)
    assert shim.next_event("exit")["code"] == 137


# Output


def test_output_is_logged_by_stream(lab):
    shim = lab.launch(*sh("echo out; echo err >&2; printf rest"))
    shim.next_event("exit")
    got = {(record["stream"], record["log"]) for record in shim.log()}
    assert got == {("stdout", "out\n"), ("stderr", "err\n"), ("stdout", "rest")}


def test_without_a_log_nothing_is_written(lab):
    shim = lab.launch(*sh("echo out"), log={"driver": "none"})
    shim.next_event("exit")
    assert not (shim.directory / "container.log").exists()


def test_a_log_that_cannot_be_opened_stops_nobody(lab):
    log = {"driver": "json-file", "path": "/nonexistent/dir/log"}
    shim, peer = lab.launch_attached(*sh("echo out; exit 3"), log=log)
    assert read_to_end(peer) == b"out\n"
    assert shim.next_event("exit")["code"] == 3


def test_frames_carry_both_streams_whole(lab):
    script = "i=0; while [ $i -lt 500 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
    shim, peer = lab.launch_attached(*sh(script), peer_framing="multiplexed")
    streams = unframe(read_to_end(peer))
    assert streams[1] == b"".join(b"out %d\n" % i for i in range(500))
    assert streams[2] == b"".join(b"err %d\n" % i for i in range(500))
    assert shim.next_event("exit")["code"] == 0


def test_a_peer_gets_only_what_it_asked_for(lab):
    _, peer = lab.launch_attached(*sh("echo out; echo err >&2"), peer_stdout=False)
    assert read_to_end(peer) == b"err\n"


def test_every_peer_and_the_log_get_everything(lab):
    pairs = [lab.pair() for _ in range(8)]
    attach = [(ALL | {"stdin": False}, theirs.fileno()) for _, theirs in pairs]
    shim = lab.launch(*sh("for i in 1 2 3; do echo line $i; done"), attach=attach)
    for ours, theirs in pairs:
        theirs.close()
        assert read_to_end(ours) == b"line 1\nline 2\nline 3\n"
    shim.next_event("exit")
    assert len(shim.log()) == 3


def test_much_output_arrives_whole(lab):
    size = 20_000_000
    script = f"head -c {size} /dev/zero | tr '\\0' 'x' | fold -w 99"
    shim, peer = lab.launch_attached(*sh(script))
    got = read_to_end(peer)
    assert got.count(b"x") == size
    shim.next_event("exit")
    assert "".join(record["log"] for record in shim.log()).encode() == got


def test_a_peer_can_come_late(lab):
    shim = lab.launch(*sh("read go; echo second"), stdin=True)
    shim.next_event("started")
    peer = shim.attach(**ALL)
    peer.sendall(b"go\n")
    assert read_to_end(peer) == b"second\n"


def test_a_slow_peer_holds_the_container_then_gets_everything(lab):
    size = 5_000_000
    shim, peer = lab.launch_attached(*sh(f"head -c {size} /dev/zero; echo done >&2"))
    peer.settimeout(20)
    got = b""
    while len(got) < size:  # smaller bites than the container's, within the patience
        got += peer.recv(20_000)
    got += read_to_end(peer)
    assert len(got) == size + len(b"done\n")
    assert b"done\n" in got
    assert shim.next_event("exit")["code"] == 0


def test_a_peer_that_does_not_read_is_dropped_and_the_log_is_whole(lab):
    size = 6_000_000
    script = f"head -c {size} /dev/zero | tr '\\0' 'x' | fold -w 999; echo"
    shim, peer = lab.launch_attached(*sh(script))
    assert shim.next_event("exit")["code"] == 0
    assert sum(record["log"].count("x") for record in shim.log()) == size
    assert len(read_to_end(peer)) < size


def test_a_peer_that_does_not_read_does_not_stop_another(lab):
    stuck, theirs = lab.pair()
    reader, their_reader = lab.pair()
    size = 6_000_000
    shim = lab.launch(
        *sh(f"head -c {size} /dev/zero"),
        attach=[(ALL, theirs.fileno()), (ALL, their_reader.fileno())],
        log={"driver": "none"},
    )
    theirs.close()
    their_reader.close()
    assert len(read_to_end(reader)) == size
    shim.next_event("exit")
    stuck.close()


def test_a_peer_that_vanishes_changes_nothing(lab):
    shim, peer = lab.launch_attached(*sh("read go; echo a; echo b; exit 4"), stdin=True)
    shim.next_event("started")
    second = shim.attach(**ALL)
    peer.close()
    second.sendall(b"go\n")
    assert read_to_end(second) == b"a\nb\n"
    assert shim.next_event("exit")["code"] == 4


# Input


def test_the_end_of_input_reaches_a_container_that_reads_once(lab):
    shim, peer = lab.launch_attached("/bin/cat", stdin=True, stdin_once=True)
    shim.next_event("started")
    data = os.urandom(300_000).hex().encode()
    peer.settimeout(20)
    sender = threading.Thread(target=lambda: (peer.sendall(data), peer.shutdown(socket.SHUT_WR)))
    sender.start()
    assert read_to_end(peer) == data
    sender.join()
    assert shim.next_event("exit")["code"] == 0


def test_the_end_of_one_input_is_not_the_end_where_stdin_stays_open(lab):
    shim, peer = lab.launch_attached("/bin/cat", stdin=True)
    peer.sendall(b"one\n")
    read_until(peer, b"one\n")
    peer.close()
    second = shim.attach(**ALL)
    second.sendall(b"two\n")
    read_until(second, b"two\n")
    assert shim.call("close-stdin")["ok"]
    assert shim.next_event("exit")["code"] == 0


def test_without_stdin_the_container_reads_the_end_at_once(lab):
    shim = lab.launch("/bin/cat")
    assert shim.next_event("exit")["code"] == 0


def test_input_to_a_container_that_closed_stdin_is_harmless(lab):
    shim, peer = lab.launch_attached(*sh("exec 0<&-; echo closed; sleep 1000"), stdin=True)
    shim.next_event("started")
    read_until(peer, b"closed\n")
    peer.sendall(b"x" * 1000)
    assert shim.call("state")["state"]["status"] == "running"


def test_a_client_that_writes_and_goes_has_its_input_delivered(lab):
    shim, peer = lab.launch_attached(
        *sh("read go </dev/fd/0; wc -c"), stdin=True, stdin_once=True, peer_stdout=False
    )
    shim.next_event("started")
    peer.sendall(b"go\n" + b"x" * 150_000)
    peer.close()
    assert shim.next_event("exit")["code"] == 0
    assert int(shim.log()[0]["log"]) >= 100_000


# Terminals


def test_a_terminal_is_a_terminal_and_can_be_resized(lab):
    script = "test -t 0 -a -t 1 -a -t 2 && stty size; read go; stty size; exit 5"
    shim, peer = lab.launch_attached(*sh(script), terminal=True, stdin=True, console_size=[30, 90])
    assert b"30 90" in read_until(peer, b"30 90")
    assert shim.call("resize", height=40, width=120)["ok"]
    peer.sendall(b"\n")
    assert b"40 120" in read_until(peer, b"40 120")
    assert shim.next_event("exit")["code"] == 5
    assert [record["stream"] for record in shim.log()][:1] == ["stdout"]


def test_detach_keys_close_the_peer_alone(lab):
    shim, peer = lab.launch_attached("/bin/cat", terminal=True, stdin=True)
    shim.next_event("started")
    peer.sendall(b"hello\n")
    read_until(peer, b"hello")
    peer.sendall(b"\x10")
    peer.sendall(b"\x11")
    read_to_end(peer)
    assert shim.call("state")["state"]["status"] == "running"
    again = shim.attach(**ALL)
    again.sendall(b"still\n")
    read_until(again, b"still")


@pytest.mark.parametrize("keys", [[1, 2, 3], "1,2,3"])
def test_detach_keys_can_be_chosen_and_a_begun_sequence_is_passed_on(lab, keys):
    shim, peer = lab.launch_attached(
        *sh("stty raw -echo; echo ready; dd bs=1 count=6 2>/dev/null; sleep 1000"),
        terminal=True,
        stdin=True,
        peer_detach_keys=keys,
    )
    shim.next_event("started")
    read_until(peer, b"ready")
    peer.sendall(b"\x01\x01\x02x\x10\x11")
    assert b"\x01\x01\x02x\x10\x11" in read_until(peer, b"\x10\x11")
    peer.sendall(b"\x01\x02\x03")
    read_to_end(peer)
    assert shim.call("state")["state"]["peers"] == 0


def test_detach_keys_mean_nothing_without_a_terminal(lab):
    _, peer = lab.launch_attached("/bin/cat", stdin=True, stdin_once=True)
    peer.sendall(b"a\x10\x11b")
    peer.shutdown(socket.SHUT_WR)
    assert read_to_end(peer) == b"a\x10\x11b"


def test_resize_without_a_terminal_is_refused(lab):
    shim = lab.launch("/bin/sleep", "1000")
    shim.next_event("started")
    assert "no terminal" in shim.call("resize", height=1, width=1)["error"]


# Execs


@pytest.fixture
def sleeper(lab):
    shim = lab.launch("/bin/sleep", "1000")
    init = str(shim.next_event("started")["pid"])
    pid = shim.state()["shim_pid"]
    assert Path(f"/proc/{pid}/task/{pid}/children").read_text().split() == [init]
    shim.call("state")  # it is awake from now on
    return shim


def attached_exec(shim, name, *args, **entry):
    ours, theirs = shim.lab.pair()
    with theirs:
        answer = shim.call(
            "exec",
            (theirs.fileno(),),
            exec=name,
            process={"args": list(args), "terminal": entry.get("terminal", False)},
            terminal=entry.pop("terminal", False),
            attach=[ALL | entry],
        )
    assert answer.get("ok"), answer
    return ours


def test_an_exec_has_its_own_code(sleeper):
    answer = sleeper.call("exec", exec="e1", process={"args": sh("exit 9")})
    assert answer["ok"]
    assert answer["pid"] > 0
    event = sleeper.next_event("exec-exit")
    assert (event["exec"], event["code"], event["signal"]) == ("e1", 9, 0)
    assert sleeper.call("state")["state"]["exec_exits"][0]["code"] == 9


def test_an_exec_has_its_own_streams(sleeper):
    peer = attached_exec(sleeper, "e", *sh("cat; echo err >&2"), framing="multiplexed")
    peer.sendall(b"input")
    peer.shutdown(socket.SHUT_WR)
    assert unframe(read_to_end(peer)) == {1: b"input", 2: b"err\n"}
    assert sleeper.next_event("exec-exit")["code"] == 0
    assert not (sleeper.directory / "container.log").exists()


def test_an_exec_has_its_own_terminal(sleeper):
    peer = attached_exec(sleeper, "e", *sh("read go; stty size"), terminal=True)
    assert sleeper.call("resize", exec="e", height=11, width=22)["ok"]
    peer.sendall(b"\n")
    assert b"11 22" in read_to_end(peer)


def test_an_exec_that_cannot_start_is_an_error_and_its_peer_reads_the_end(sleeper):
    ours, theirs = sleeper.lab.pair()
    with theirs:
        answer = sleeper.call(
            "exec", (theirs.fileno(),), exec="e", process={"args": ["/nope"]}, attach=[ALL]
        )
    assert answer["errno"] == 2
    assert read_to_end(ours) == b""
    assert sleeper.call("state")["state"]["execs"] == []


def test_an_exec_can_be_signalled(sleeper):
    sleeper.call("exec", exec="e", process={"args": ["/bin/sleep", "1000"]})
    assert sleeper.call("exec-signal", exec="e", sig=9)["ok"]
    assert sleeper.next_event("exec-exit")["code"] == 137
    assert sleeper.call("exec-signal", exec="e", sig=9)["errno"] == 3


def test_many_execs_at_once_each_have_their_code(sleeper):
    for number in range(60):
        sleeper.call("exec", exec=f"e{number}", process={"args": sh(f"exit {number}")})
    got = {}
    for _ in range(60):
        event = sleeper.next_event("exec-exit")
        got[event["exec"]] = event["code"]
    assert got == {f"e{number}": number for number in range(60)}


def test_an_exec_whose_child_keeps_its_output_ends_all_the_same(sleeper):
    peer = attached_exec(sleeper, "e", *sh("sleep 1000 & echo hi; exit 6"))
    assert sleeper.next_event("exec-exit")["code"] == 6
    assert read_to_end(peer) == b"hi\n"
    sleeper.call("signal", sig=9, all=True)


def test_an_exec_whose_child_writes_for_ever_ends_all_the_same(sleeper):
    peer = attached_exec(sleeper, "e", *sh("yes & exit 6"))
    assert sleeper.next_event("exec-exit")["code"] == 6
    peer.close()


def test_a_container_whose_child_keeps_its_output_ends_all_the_same(lab):
    shim = lab.launch(*sh("sleep 1000 & echo $!; exit 6"))
    assert shim.next_event("exit")["code"] == 6
    left = int(shim.log()[0]["log"])
    wait_for("what is left in the cgroup is killed", lambda: not is_running(left))


def test_execs_leave_no_descriptor_and_no_zombie_behind(sleeper):
    pid = sleeper.state()["shim_pid"]
    process = {"args": ["/bin/true"]}

    def look():
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return len(os.listdir(f"/proc/{pid}/fd")), len(children)

    before = look()
    for number in range(20):
        sleeper.call("exec", exec=str(number), process=process)
        sleeper.next_event("exec-exit")
        sleeper.call("exec", exec="x", process={"args": ["/nope"]})
        peer = attached_exec(sleeper, f"a{number}", "/bin/true")
        assert read_to_end(peer) == b""
        sleeper.next_event("exec-exit")
    wait_for("all is as before", lambda: look() == before)


def test_orphans_are_reaped_and_take_no_code_with_them(lab):
    script = "for i in 1 2 3 4 5 6 7 8; do (/bin/true & ); done; read go; exit 11"
    shim, peer = lab.launch_attached(*sh(script), stdin=True)
    shim.next_event("started")
    for number in range(10):
        shim.call("exec", exec=str(number), process={"args": sh(f"(/bin/true &); exit {number}")})
    codes = [shim.next_event("exec-exit") for _ in range(10)]
    assert {int(event["exec"]): event["code"] for event in codes} == {n: n for n in range(10)}
    peer.sendall(b"go\n")
    assert shim.next_event("exit")["code"] == 11


def test_an_orphan_does_not_stay_a_zombie(sleeper):
    peer = attached_exec(sleeper, "e", *sh("sleep 0.1 & echo $!; exec /bin/true"))
    orphan = int(read_until(peer, b"\n"))
    wait_for("the orphan is reaped", lambda: not Path(f"/proc/{orphan}").exists())


# Engines


def test_another_engine_is_greeted_and_hears_everything(sleeper):
    sleeper.sock.close()
    second = sleeper.reconnect()
    hello = second.next_event("hello")
    assert hello["state"]["status"] == "running"
    assert hello["state"]["pid"] == sleeper.state()["pid"]
    second.call("exec", exec="e", process={"args": ["/bin/sleep", "1000"]})
    third = sleeper.reconnect()
    assert [one["exec"] for one in third.next_event("hello")["state"]["execs"]] == ["e"]
    second.call("signal", sig=9)
    for engine in (second, third):
        assert engine.next_event("exit")["code"] == 137
        engine.sock.close()


def test_an_exit_that_nobody_heard_is_on_the_disk(lab):
    shim, peer = lab.launch_attached(*sh("read go; exit 21"), stdin=True)
    shim.next_event("started")
    shim.sock.close()
    peer.sendall(b"\n")
    wait_for("the record", (shim.directory / "exit.json").exists)
    assert shim.record()["code"] == 21
    peer.close()


def test_an_engine_that_comes_after_the_exit_hears_it_again(lab):
    shim, peer = lab.launch_attached(*sh("head -c 900000 /dev/zero; exit 3"))
    # The peer has not taken its output yet, so the shim lingers.
    assert shim.next_event("exit")["code"] == 3
    second = shim.reconnect()
    assert second.next_event("hello")["state"]["status"] == "exited"
    assert second.next_event("exit")["code"] == 3
    assert len(read_to_end(peer)) == 900_000
    shim.ended()


def test_an_engine_that_does_not_read_is_dropped_not_waited_for(sleeper):
    sleeper.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    second = sleeper.reconnect()
    second.next_event("hello")
    dropped = False
    for number in range(2000):
        second.call("state")
        try:
            sleeper.sock.send(json.dumps({"re": number, "op": "state"}).encode())
        except (BrokenPipeError, ConnectionResetError):
            dropped = True
            break
    assert dropped
    assert second.call("state")["ok"]


@pytest.mark.parametrize(
    "message",
    [
        {"op": "nonsense"},
        {"op": "signal"},
        {"op": "signal", "sig": "many"},
        {"op": "exec", "exec": "e"},
        {"op": "attach"},
        {"op": "resize", "height": None, "width": 2},
        {"op": "exec-signal", "exec": "none", "sig": 9},
        {"op": ["list"]},
    ],
)
def test_a_bad_request_is_answered_and_changes_nothing(sleeper, message):
    fields = dict(message)
    assert sleeper.call(fields.pop("op"), **fields)["error"]
    assert sleeper.call("state")["state"]["status"] == "running"


def test_descriptors_that_nobody_wanted_are_closed(sleeper):
    fds = f"/proc/{sleeper.state()['shim_pid']}/fd"
    before = len(os.listdir(fds))
    with Path(os.devnull).open() as null:
        sleeper.call("state", (null.fileno(), null.fileno()))
        sleeper.call("attach", (null.fileno(),), **ALL)
    assert len(os.listdir(fds)) == before


def test_the_socket_is_for_its_owner_alone(sleeper):
    mode = (sleeper.directory / "shim.sock").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert "@" not in Path("/proc/net/unix").read_text().replace("@/", "").split("shim")[0][-1:]


# The spawner


def test_a_shim_holds_nothing_of_the_spawner(lab, sleeper):
    shim_fds = Path(f"/proc/{sleeper.state()['shim_pid']}/fd")
    control = os.readlink(f"/proc/{lab.spawner.pid}/fd/3")
    assert control not in {os.readlink(entry) for entry in shim_fds.iterdir()}


def test_a_shim_keeps_only_what_it_needs(sleeper):
    fds = Path(f"/proc/{sleeper.state()['shim_pid']}/fd")
    kinds = sorted(os.readlink(fd).split(":")[0] for fd in fds.iterdir() if int(fd.name) > 2)
    assert kinds == [
        str(sleeper.directory),
        "anon_inode",  # epoll
        "anon_inode",  # pidfd of init
        "anon_inode",  # signalfd
        "pipe",
        "pipe",
        "socket",  # the engine
        "socket",  # the listener
    ]


def test_a_container_gets_three_descriptors(lab):
    shim = lab.launch(*sh("ls -l /proc/$$/fd | wc -l"))
    shim.next_event("exit")
    # "total", 0, 1, 2 and the shell's own pipe end or two.
    assert int(shim.log()[0]["log"]) <= 6


def test_shims_outlive_the_spawner(lab, sleeper):
    lab.spawner.kill()
    lab.spawner.wait()
    assert sleeper.call("exec", exec="e", process={"args": sh("exit 3")})["ok"]
    assert sleeper.next_event("exec-exit")["code"] == 3


def test_the_spawner_ends_with_its_engine_and_leaves_no_zombies(lab):
    for _ in range(5):
        lab.launch("/bin/true").next_event("exit")
    wait_for("only the spare shim is left", lambda: len(lab.children()) == 1)
    left = lab.children()
    lab.sock.close()
    assert lab.spawner.wait(20) == 0
    wait_for("the spare shim ends too", lambda: not any(map(is_running, left)))


def test_a_spare_shim_that_was_killed_costs_nothing(lab, sleeper):
    wait_for("the spare shim is there", lambda: len(lab.children()) == 2)
    spare = lab.children()[-1]  # the younger one
    os.kill(spare, signal.SIGKILL)
    wait_for("it is gone", lambda: spare not in lab.children())
    assert lab.launch(*sh("exit 5")).next_event("exit")["code"] == 5


def test_the_spawner_is_no_target_for_a_debugger(lab, sleeper):
    # Not dumpable: what is in /proc belongs to root, even for its own user.
    for pid in (lab.spawner.pid, sleeper.state()["shim_pid"]):
        assert Path(f"/proc/{pid}/environ").stat().st_uid == 0
        limits = Path(f"/proc/{pid}/limits").read_text()
        core = next(line for line in limits.splitlines() if "core file" in line)
        assert core.split()[4] == "0"


def test_a_hundred_containers_at_once(lab):
    shims = [lab.launch(*sh(f"exit {number}")) for number in range(100)]
    deadline = time.monotonic() + 60
    for number, shim in enumerate(shims):
        assert shim.next_event("exit")["code"] == number
        shim.sock.close()
        assert time.monotonic() < deadline


def test_the_spawner_can_be_run_as_a_file(tmp_path):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    entry = SOURCE / "sampan" / "shim" / "__main__.py"
    with theirs, ours:
        command = [sys.executable, "-I", "-S", "-B", str(entry), str(SOURCE), str(theirs.fileno())]
        spawner = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        comm = Path(f"/proc/{spawner.pid}/comm")
        wait_for("it is warm", lambda: comm.read_text() == "sampan-spawner\n")
        program = os.readlink(f"/proc/{spawner.pid}/exe") if os.geteuid() == 0 else "/memfd:"
        ours.close()
        assert spawner.wait(20) == 0
    assert program.startswith("/memfd:")
