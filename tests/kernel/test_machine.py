"""The machine: a list of calls carried out without an interpreter, and containers made by it."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

import machinelab
from bundles import PROBE
from sampan.kernel import fds, machine, process
from sampan.kernel.cgroups import manager
from sampan.kernel.machine import ANY, OWN_SCRIPT, SYS, Label, Script
from sampan.runtime import create, machines, rootfs
from sampan.runtime.blank import make_blank
from sampan.runtime.failure import NeedsInterpreter
from sampan.runtime.specification import example

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not machine.is_available(), reason="needs root on x86-64"
)

TEST_CGROUP = "/sampan-test"
KINDS = ["ipc", "mount", "network", "pid", "uts"]
SYS_READ = 0
SYS_CLONE3 = 435


def carry_out(script: Script) -> tuple[int, bytes, bytes]:
    """(exit status, what it wrote to its standard output, its report)."""
    program = fds.sealed_memfd("machine", machine.image(script))
    out, out_end = os.pipe()
    report, report_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(out_end, 1)
        machine.become(program, report_end)
    for fd in (program, out_end, report_end):
        os.close(fd)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    written = [os.read(fd, 4096) for fd in (out, report)]
    os.close(out)
    os.close(report)
    return status, written[0], written[1]


def write(script: Script, text: bytes) -> None:
    script.call(SYS["write"], 1, text, len(text))


def end(script: Script) -> None:
    """exit_group(0)"""
    script.call(231, 0)


def test_a_result_or_any_error_can_go_on_elsewhere():
    script = Script(OWN_SCRIPT)
    child, parent, refused = Label(), Label(), Label()
    arguments = script.data(struct.pack("<8Q", 0, 0, 0, 0, process.SIGCHLD, 0, 0, 0))
    script.call(SYS_CLONE3, arguments, 64, equals=0, at=child, then=parent)
    script.place(child)
    write(script, b"child ")
    script.call(SYS["exit_group"], 7)
    script.place(parent)
    script.call(SYS["waitid"], 0, 0, 0, os.WEXITED, 0)
    write(script, b"parent ")
    script.call(SYS["close"], 99, tolerate=ANY, at=refused)
    write(script, b"never ")
    script.place(refused)
    write(script, b"refused")
    end(script)
    assert carry_out(script) == (0, b"child parent refused", b"")


def test_results_are_arguments_of_later_calls(tmp_path):
    (tmp_path / "file").write_text("content")
    script = Script(OWN_SCRIPT)
    fd = script.call(SYS["openat"], -100, os.fsencode(tmp_path / "file"), os.O_RDONLY, 0)
    buffer = script.data(bytes(16))
    count = script.call(SYS_READ, fd, buffer, 16)
    script.call(SYS["write"], 1, buffer, count)
    end(script)
    assert carry_out(script) == (0, b"content", b"")


def test_a_tolerated_error_goes_where_it_is_told():
    script = Script(OWN_SCRIPT)
    missing, over = Label(), Label()
    script.call(SYS["openat"], -100, b"/nonexistent", 0, 0, tolerate=(2,), at=missing)
    write(script, b"found ")
    script.place(missing)
    script.call(SYS["openat"], -100, b"/nonexistent", 0, 0, tolerate=(20, 2))
    script.call(SYS["write"], 1, b"one ", 4, then=over)
    write(script, b"skipped ")
    script.place(over)
    write(script, b"two")
    end(script)
    assert carry_out(script) == (0, b"one two", b"")


def test_any_other_error_ends_it_with_a_report():
    script = Script(OWN_SCRIPT)
    write(script, b"before")
    script.call(SYS["openat"], -100, b"/nonexistent", 0, 0, tolerate=(1, 13))
    write(script, b"after")
    status, out, report = carry_out(script)
    assert (status, out) == (127, b"before")
    assert machine.failure_of(report) == (OWN_SCRIPT + 72, 2)


def test_too_many_calls_are_refused():
    script = Script(OWN_SCRIPT)
    for _ in range(machine.ROOM // 72 + 1):
        script.call(SYS["umask"], 0)
    with pytest.raises(ValueError, match="more than fit"):
        script.pack()


def test_the_same_text_is_kept_once():
    script = Script(OWN_SCRIPT)
    assert script.text(b"here") == script.text(b"here") != script.text(b"there")


def test_started_from_inside_it_only_ends():
    program = fds.sealed_memfd("machine", machines.machine_for(frozenset(KINDS))[0].image)
    result = subprocess.run([f"/proc/self/fd/{program}"], pass_fds=[program], check=False)
    os.close(program)
    assert result.returncode == 127


def plain() -> dict:
    config = example()
    config["process"].update(terminal=False, args=["sh", "-c", PROBE], env=["PATH=/bin", "A=b=c"])
    config["root"]["readonly"] = False
    config["linux"]["namespaces"] = [{"type": kind} for kind in (*KINDS, "cgroup")]
    config["linux"]["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 100}}
    return config


def rich(tmp_path) -> dict:
    config = plain()
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    (tmp_path / "root/run").mkdir(mode=0o750, exist_ok=True)
    (source / "f").write_text("bound\n")
    config["hostname"], config["domainname"] = "box", "example"
    config["root"]["readonly"] = True
    config["process"].update(cwd="/bin", noNewPrivileges=True, oomScoreAdj=500)
    config["process"]["user"] = {"uid": 33, "gid": 34, "additionalGids": [8], "umask": 0o027}
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}]
    config["process"]["capabilities"]["ambient"] = ["CAP_NET_BIND_SERVICE"]
    config["process"]["capabilities"]["inheritable"] = ["CAP_NET_BIND_SERVICE"]
    config["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "0"}
    config["linux"]["readonlyPaths"] = ["/proc/sys", "/proc/nosuch", "/proc/sysrq-trigger"]
    config["linux"]["devices"] = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600, "uid": 33}
    ]
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["chroot"], "action": "SCMP_ACT_ERRNO"}],
    }
    options = ["rbind", "rprivate", "ro", "nosuid"]
    config["mounts"] += [
        {"destination": "/bound", "type": "bind", "source": str(source), "options": options},
        {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
        {"destination": "/run/sub", "type": "bind", "source": str(source), "options": ["bind"]},
        {
            "destination": "/etc/hosts",
            "type": "bind",
            "source": str(source / "f"),
            "options": ["bind", "ro"],
        },
    ]
    return config


@pytest.fixture
def place(tmp_path):
    """A root file system of busybox below `tmp_path`, and where it is attached."""
    (tmp_path / "at").mkdir()
    (tmp_path / "root/bin").mkdir(parents=True)
    subprocess.run(["cp", "/bin/busybox", tmp_path / "root/bin/busybox"], check=True)
    names = "sh cat cut sed grep hostname env sort ls wc find xargs ip stat touch head pwd".split()
    for name in names:
        (tmp_path / f"root/bin/{name}").symlink_to("busybox")
    yield tmp_path
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def output(place, config: dict, blank) -> str:
    """What the container of `config` writes."""
    config["linux"]["cgroupsPath"] = f"{TEST_CGROUP}/machine-{os.getpid()}"
    return machinelab.output(place, "machine", config, blank)


@pytest.mark.parametrize("kind", ["plain", "rich"])
def test_it_makes_the_same_container_as_an_interpreter(place, kind):
    def config() -> dict:
        return plain() if kind == "plain" else rich(place)

    interpreted = output(place, config(), make_blank(KINDS, is_spare=True))
    assert "no such applet" not in interpreted
    assert len(interpreted.splitlines()) > 60
    assert output(place, config(), machines.make_machine(KINDS)) == interpreted


def test_a_namespace_that_is_joined_is_joined(place):
    config = plain()
    config["process"]["args"] = ["sh", "-c", "readlink /proc/self/ns/net"]
    (place / "root/bin/readlink").symlink_to("busybox")
    spaces = [one for one in config["linux"]["namespaces"] if one["type"] != "network"]
    own = f"/proc/{os.getpid()}/ns/net"
    config["linux"]["namespaces"] = [*spaces, {"type": "network", "path": own}]
    kinds = [kind for kind in KINDS if kind != "network"]
    said = output(place, config, machines.make_machine(kinds))
    assert said.strip() == os.readlink(own)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("args", ["nosuch"]),
        ("args", ["/bin"]),
        ("cwd", "/bin/sh"),
        ("cwd", "/proc/self/fd/3"),
        ("rlimits", [{"type": "RLIMIT_NOFILE", "soft": 1 << 40, "hard": 1 << 41}]),
    ],
)
def test_what_it_cannot_do_is_undone_and_handed_on(place, key, value):
    config = plain()
    config["process"][key] = value
    before = os.listdir("/proc/self/fd")
    with pytest.raises(NeedsInterpreter):
        output(place, config, machines.make_machine(KINDS))
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert not manager(config["linux"]["cgroupsPath"]).exists()


@pytest.mark.parametrize("at", ["/link/x", "/proc/sys", "/proc/self/attr"])
def test_a_mount_point_behind_a_link_or_in_proc_is_handed_on(place, at):
    (place / "root/link").symlink_to("/proc")
    config = plain()
    config["mounts"].append({"destination": at, "type": "tmpfs", "source": "tmpfs"})
    with pytest.raises(NeedsInterpreter):
        output(place, config, machines.make_machine(KINDS))


@pytest.mark.parametrize("first", ["/dev", "/run"])
def test_a_mount_like_that_of_dev_is_another_one(place, first):
    """What containerd's clients ask for: /run with the very options of /dev."""
    config = plain()
    mounts = config["mounts"]
    [dev] = [mount for mount in mounts if mount["destination"] == "/dev"]
    run = {**dev, "destination": "/run"}
    at = mounts.index(dev)
    mounts[at : at + 1] = [dev, run] if first == "/dev" else [run, dev]
    config["process"]["args"] = ["sh", "-c", "ls /run; ls /dev; cut -d' ' -f2 /proc/self/mounts"]
    said = output(place, config, machines.make_machine(KINDS)).split()
    assert "/run" in said
    assert said.count("null") == said.count("/dev/pts") == 1
    assert said.index("null") > 0  # of /dev, which comes second
    assert "/run/pts" not in said


def test_a_terminal_and_a_gate_are_handed_on(place):
    config = plain()
    root = rootfs.bind(str(place / "root"))
    with pytest.raises(NeedsInterpreter):
        create.create(
            "machine",
            {**config, "linux": {**config["linux"], "cgroupsPath": f"{TEST_CGROUP}/gate"}},
            stdio=(0, 1, 2),
            root=root,
            attach_at=str(place / "at"),
            blank=machines.make_machine(KINDS),
        )
    os.close(root)


def test_an_order_without_a_script_ends_it():
    blank = machines.make_machine(KINDS)
    fds.send(blank.sync, b"O", [])
    report, _ = fds.receive(blank.sync, 64)
    assert struct.unpack("<QQ", report)[1] == 9  # EBADF: the order did not come
    blank.discard()


def test_signals_are_as_a_new_program_expects_them(place):
    config = plain()
    config["process"]["args"] = ["cat", "/proc/self/status"]
    text = output(place, config, machines.make_machine(KINDS))
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert status["SigIgn"] == status["SigBlk"] == "0" * 16
