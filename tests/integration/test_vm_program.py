"""The program of machines as its shim drives it, with the agent on this kernel in place of QEMU.

What stands for QEMU has its name and a mount namespace of its own, so that what is shared takes the
same way as into a machine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import dockerlab
from sampan.kernel import numbers, process
from sampan.shim.program import Program
from sampan.vm import finding
from sampan.vm.words import MACHINE

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not dockerlab.BUSYBOX, reason="needs root and busybox"
)
SOURCE = Path(__file__).parents[2] / "src"
MACHINE_OF_OURS = """
import os, socket, sys
from sampan.kernel import mounts, namespaces, process
from sampan.kernel import numbers as n
from sampan.vm import agent, conversation
home, containers, source = sys.argv[1:]
namespaces.unshare(n.CLONE_NEWNS)
mounts.set_propagation("/", n.MS_REC | n.MS_SLAVE)
process.set_name("qemu-system-own")
process.set_child_subreaper()
conversation.SHARE, conversation.CONTAINERS = f"{home}/share", containers
conversation._RUNTIME = conversation._RUNTIME.replace(conversation.HOME, source)
agent.PORTS = f"{home}/none"
made = agent.Agent()
def accept(door):
    connection, _ = door.accept()
    connection.setblocking(False)
    talk = conversation.Conversation(made, connection.detach())
    made.watch(talk._port, talk.ready, agent._PORT)
for number in range(30):
    door = socket.socket(socket.AF_UNIX)
    door.bind(f"{home}/port{number}")
    door.listen()
    made.watch(door.fileno(), lambda _, door=door: accept(door))
print("ready", flush=True)
made.run()
"""


@pytest.fixture
def machine(tmp_path):
    """The bundle of a machine that runs."""
    home, containers = tmp_path / "m", tmp_path / "in"
    for place in (home, home / "share", home / "none", containers):
        place.mkdir()
    made = subprocess.Popen(
        [sys.executable, "-c", MACHINE_OF_OURS, str(home), str(containers), str(SOURCE)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        cwd=home,  # it is known by that
    )
    assert made.stdout.readline() == b"ready\n"
    (home / "init.pid").write_text(str(made.pid))
    yield home
    made.kill()
    made.wait()
    made.stdout.close()
    assert not os.listdir(home / "share")


@pytest.fixture
def bundle(tmp_path, machine, monkeypatch):
    """The bundle of a container; the current directory, as in a shim."""
    place = tmp_path / "c"
    place.mkdir()
    (place / "runtime").mkdir()
    dockerlab.make_root(place / "rootfs")
    (tmp_path / "volume").mkdir()
    (tmp_path / "file").write_text("a file\n")
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/mnt", "type": "bind", "source": str(tmp_path / "volume")},
        {
            "destination": "/etc/hosts",
            "type": "bind",
            "source": str(tmp_path / "file"),
            "options": ["rbind", "ro"],
        },
    ]
    script = "cat /etc/hosts; echo err >&2; echo new > /mnt/new; echo x > /own; read w; exit $w"
    spec = {
        "ociVersion": "1.0.2",
        "annotations": {MACHINE: str(machine)},
        "root": {"path": "rootfs"},
        "process": {
            "args": ["sh", "-c", script],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
        },
        "mounts": mounts,
        "linux": {"cgroupsPath": f"/sampan-test/vm-{os.getpid()}/c"},
    }
    (place / "config.json").write_text(json.dumps(spec))
    monkeypatch.chdir(place)
    process.set_child_subreaper()
    yield place
    # An orphan of a later test that nobody reaps would keep its pid namespace, and its cgroup.
    process.prctl(numbers.PR_SET_CHILD_SUBREAPER, 0)
    for tree in Path("/sys/fs/cgroup").glob(f"*/sampan-test/vm-{os.getpid()}"):
        for one in (*tree.iterdir(), tree):
            if one.is_dir():
                one.rmdir()


def words():
    """The program with its first words, as the engine has it."""
    return [sys.executable, "-I", "-S", "-B", "-c", finding._START, str(SOURCE)]


def test_a_container_in_a_machine(tmp_path, machine, bundle):
    program = Program(words(), "c1")
    stdin, into = os.pipe()
    out, into_out = os.pipe()
    err, into_err = os.pipe()
    made = program.create((stdin, into_out, into_err), terminal=False)
    for fd in (stdin, into_out, into_err):
        os.close(fd)
    program.start()
    spec = {"args": ["sh", "-c", "echo said; exit 3"], "cwd": "/", "env": ["PATH=/bin"]}
    spec["user"] = {"uid": 0, "gid": 0}
    said, into_said = os.pipe()
    execed = program.spawn(spec, (-1, into_said, into_said))
    os.close(into_said)
    assert process.wait_pidfd(execed.pidfd) == (3, 0)
    assert os.read(said, 100) == b"said\n"
    assert (tmp_path / "c/rootfs/bin/busybox").exists()
    os.write(into, b"7\n")
    assert process.wait_pidfd(made.pidfd) == (7, 0)
    assert os.read(out, 100) == b"a file\n"
    assert os.read(err, 100) == b"err\n"
    assert (tmp_path / "volume/new").read_text() == "new\n"
    assert not (tmp_path / "c/rootfs/own").exists()
    program.delete()
    assert not os.listdir(machine / "share")
    for fd in (into, out, err, said, made.pidfd, execed.pidfd):
        os.close(fd)


def test_what_cannot_be_executed(bundle):
    spec = json.loads((bundle / "config.json").read_text())
    spec["process"]["args"] = ["/nosuch"]
    (bundle / "config.json").write_text(json.dumps(spec))
    program = Program(words(), "c1")

    def launch():
        program.create((-1, -1, -1), terminal=False)
        program.start()

    with pytest.raises(OSError, match="nosuch") as error:
        launch()
    assert error.value.errno == 2
    program.delete()


def test_a_terminal_and_a_signal(bundle):
    spec = json.loads((bundle / "config.json").read_text())
    spec["process"] |= {"terminal": True, "args": ["sh", "-c", "stty size; sleep 1000"]}
    spec["mounts"] += [
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["newinstance", "ptmxmode=0666"],
        },
    ]
    (bundle / "config.json").write_text(json.dumps(spec))
    program = Program(words(), "c1")
    made = program.create((-1, -1, -1), terminal=True)
    program.start()
    assert b" " in os.read(made.master, 100)
    program.kill(signal.SIGKILL)
    assert process.wait_pidfd(made.pidfd) == (137, 0)
    program.delete()
    os.close(made.master)
    os.close(made.pidfd)


def test_a_machine_that_dies(machine, bundle):
    program = Program(words(), "c1")
    made = program.create((-1, -1, -1), terminal=False)
    program.start()
    os.kill(int((machine / "init.pid").read_text()), signal.SIGKILL)
    assert process.wait_pidfd(made.pidfd) == (137, 0)
    program.delete()
    os.close(made.pidfd)
