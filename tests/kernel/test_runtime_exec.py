"""`sampan-oci exec` with each of its flags: what the process sees of it."""

from __future__ import annotations

import array
import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from bundles import Bundle

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
STATUS = (
    "grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs):' /proc/self/status"
)


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path)
    yield made
    done = made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone(), done


def execute(bundle: Bundle, script: str, *words: str) -> str:
    return bundle.oci("exec", *words, bundle.id, "sh", "-c", script, check=True).stdout


def status(bundle: Bundle, *words: str) -> dict[str, str]:
    lines = execute(bundle, STATUS, *words).splitlines()
    return dict(line.split(":", 1) for line in lines)


def wait_for(what: str, condition, seconds: float = 20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


def test_user_groups_directory_and_environment(bundle: Bundle):
    bundle.config["process"]["user"]["additionalGids"] = [7]
    bundle.start()
    words = "--user 33:34 -g 50 --additional-gids 51,52 --cwd /tmp -e A=1 --env B=2".split()
    text = execute(bundle, "id -u; id -g; pwd; echo $A$B; " + STATUS, *words)
    assert text.splitlines()[:4] == ["33", "34", "/tmp", "12"]
    assert "Groups:\t7 50 51 52" in text


def test_capabilities_and_new_privileges(bundle: Bundle):
    caps = bundle.config["process"]["capabilities"]
    bundle.config["process"]["noNewPrivileges"] = False
    bundle.start()
    plain = status(bundle)
    more = status(bundle, "--cap", "CAP_SYS_ADMIN", "--no-new-privs")
    bit = 1 << 21
    for kind in ("CapPrm", "CapEff", "CapBnd"):
        assert int(more[kind], 16) == int(plain[kind], 16) | bit
    assert int(more["CapAmb"], 16) == int(more["CapInh"], 16) == 0
    assert (plain["NoNewPrivs"].strip(), more["NoNewPrivs"].strip()) == ("0", "1")
    assert "inheritable" not in caps


def test_a_process_file_takes_the_place_of_all_flags(bundle: Bundle, tmp_path: Path):
    bundle.start()
    wanted = {
        "args": ["sh", "-c", STATUS + "; pwd; env"],
        "cwd": "/var",
        "env": ["PATH=/bin", "ONLY=this"],
        "user": {"uid": 33, "gid": 34},
        "noNewPrivileges": True,
    }
    (tmp_path / "process.json").write_text(json.dumps(wanted))
    result = bundle.oci("exec", "--process", str(tmp_path / "process.json"), bundle.id, check=True)
    assert "ONLY=this" in result.stdout
    assert "/var" in result.stdout.splitlines()
    assert "CapBnd:\t0000000000000000" in result.stdout


@pytest.mark.parametrize(
    ("process", "message"),
    [
        ({"cwd": "/", "args": []}, "process args cannot be empty"),
        ({"cwd": "x", "args": ["true"]}, "process.cwd"),
        (
            {"cwd": "/", "args": ["true"], "user": {"uid": -1}},
            "process.user.uid: must be a whole number, not below zero",
        ),
        ([], "not a JSON object"),
    ],
)
def test_a_bad_process_file_is_refused(bundle: Bundle, tmp_path: Path, process, message: str):
    bundle.start()
    (tmp_path / "process.json").write_text(json.dumps(process))
    result = bundle.oci("exec", "-p", str(tmp_path / "process.json"), bundle.id)
    assert result.returncode == 255
    assert message in result.stderr
    assert result.stderr.startswith("sampan-oci: exec failed: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--user", "web"], 'bad uid: "web" is not a number'),
        (["--user", "1:x"], 'bad gid: "x" is not a number'),
        (["-g", "-5"], "bad additional gid"),
        (["--preserve-fds", "40"], "unable to stat preserved-fd"),
        (["--cgroup", "pids:a", "--cgroup", "pids:b"], "invalid --cgroup argument"),
        (["--cgroup", "pids:../.."], "bad sub cgroup path: ../.."),
        (["--cgroup", "pids:nosuch"], "no such file or directory"),
        (["--cap", "CAP_NONSENSE"], "unknown capability"),
        (["-d", "-t"], "without setting console socket"),
    ],
)
def test_mistakes_are_named_and_start_nothing(bundle: Bundle, words: list[str], message: str):
    bundle.start()
    result = bundle.oci("exec", *words, bundle.id, "touch", "/dev/shm/ran")
    assert result.returncode != 0
    assert message in result.stderr
    assert not Path(f"/proc/{bundle.state()['pid']}/root/dev/shm/ran").exists()


def test_a_paused_container_takes_no_process_unless_told(bundle: Bundle):
    bundle.start()
    bundle.oci("pause", bundle.id, check=True)
    refused = bundle.oci("exec", bundle.id, "true")
    assert "cannot exec in a paused container (use --ignore-paused to override)" in refused.stderr
    words = [bundle.runtime, "--root", str(bundle.root), "exec", "--ignore-paused"]
    words += [bundle.id, "echo", "late"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as late:
        group = bundle.group()
        wait_for("the process to join", lambda: late.poll() is not None or len(group.pids()) == 2)
        bundle.oci("resume", bundle.id, check=True)
        out, err = late.communicate(timeout=20)
    assert (late.returncode, out) == (0, "late\n"), err


def test_a_sub_cgroup_is_joined_by_controller(bundle: Bundle):
    bundle.start()
    inner = Path("/sys/fs/cgroup/pids/sampan-test") / bundle.id / "inner"
    inner.mkdir()
    text = execute(bundle, "cat /proc/self/cgroup", "--cgroup", "pids:inner")
    paths = dict(line.split(":")[1:] for line in text.splitlines())
    assert paths["pids"] == "/inner"
    assert paths["memory"] == "/"


def with_pipe_as_third(bundle: Bundle, command: str) -> tuple[str, bytes]:
    """Run a shell command whose descriptors 3 and 4 are a pipe: its output, and the pipe's."""
    read, write = os.pipe()
    script = f"exec 3>&{write} 4>&{write}; {command}"
    result = subprocess.run(
        ["bash", "-c", script], stdout=subprocess.PIPE, text=True, cwd=bundle.path,
        pass_fds=[write], stdin=subprocess.DEVNULL, timeout=30, check=True,
    )  # fmt: skip
    os.close(write)
    with open(read, "rb") as stream:
        return result.stdout, stream.read()


def test_descriptors_are_preserved_and_no_others(bundle: Bundle):
    bundle.start()
    probe = "echo three >&3; (echo four >&4) 2>/dev/null || echo no >&3"
    words = f"--root {bundle.root} exec --preserve-fds 1 {bundle.id} sh -c '{probe}'"
    assert with_pipe_as_third(bundle, f"{bundle.runtime} {words}")[1] == b"three\nno\n"


def test_detached_it_goes_on_and_its_pid_is_written(bundle: Bundle, tmp_path: Path):
    bundle.start()
    pid_file, null = tmp_path / "pid", subprocess.DEVNULL
    words = [bundle.runtime, "--root", str(bundle.root), "exec", "-d", "--pid-file", str(pid_file)]
    words += [bundle.id, "sleep", "77"]
    subprocess.run(words, check=True, stdin=null, stdout=null, timeout=30)
    pid = int(pid_file.read_text())
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x0077\x00"
    assert pid in bundle.group().pids()


def receive_fd(listener: socket.socket) -> int:
    connection, _ = listener.accept()
    with connection:
        _, ancillary, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
    fds = array.array("i")
    fds.frombytes(ancillary[0][2][:4])
    return fds[0]


def test_a_terminal_goes_to_the_console_socket(bundle: Bundle, tmp_path: Path):
    bundle.start()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "console"))
        listener.listen()
        listener.settimeout(20)
        bundle.oci(
            "exec", "-t", "-d", "--console-socket", str(tmp_path / "console"), bundle.id,
            "sh", "-c", "test -t 0 && echo terminal; sleep 1000",
            check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        master = receive_fd(listener)
    with open(master, "rb", buffering=0) as stream:
        assert stream.read(10) == b"terminal\r\n"


def test_without_a_listener_the_process_does_not_stay(bundle: Bundle, tmp_path: Path):
    bundle.start()
    result = bundle.oci(
        "exec", "-t", "-d", "--console-socket", str(tmp_path / "nobody"), bundle.id, "sleep", "99"
    )
    assert result.returncode == 255
    wait_for("the process to be gone", lambda: len(bundle.group().pids()) == 1)


def test_a_pidfd_goes_to_its_socket(bundle: Bundle, tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "pidfd"))
        listener.listen()
        listener.settimeout(20)
        bundle.command("sleep", "1000")
        bundle.save()
        null = subprocess.DEVNULL
        words = [bundle.runtime, "--root", str(bundle.root), "run", "-d"]
        words += ["--pidfd-socket", str(tmp_path / "pidfd"), bundle.id]
        subprocess.run(words, check=True, cwd=bundle.path, stdin=null, stdout=null, timeout=30)
        pidfd = receive_fd(listener)
    fields = dict(
        line.split(":\t") for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    )
    os.close(pidfd)
    assert int(fields["Pid"]) == bundle.state()["pid"]


def test_activated_sockets_reach_the_container(bundle: Bundle):
    bundle.shell("echo $LISTEN_FDS $LISTEN_PID; echo here >&3")
    bundle.save()
    words = f"exec {bundle.runtime} --root {bundle.root} run {bundle.id}"
    output, passed = with_pipe_as_third(bundle, f"LISTEN_FDS=1 LISTEN_PID=$$ {words}")
    assert (output, passed) == ("1 1\n", b"here\n")


def test_create_with_a_terminal_lets_go_of_its_callers_pipes(bundle: Bundle, tmp_path: Path):
    bundle.config["process"]["terminal"] = True
    bundle.command("sleep", "1000")
    bundle.save()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "console"))
        listener.listen()
        listener.settimeout(20)
        # Both streams are pipes that are read to their end: it comes although the container waits.
        words = ["create", "--console-socket", str(tmp_path / "console"), bundle.id]
        assert bundle.oci(*words, check=True).stdout == ""
        os.close(receive_fd(listener))
    assert bundle.state()["status"] == "created"
