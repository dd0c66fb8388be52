"""`sampan-oci` below the peers that people run: containerd, dockerd and podman call it.

Each peer runs once, in the private namespaces of the tests, with roots of its own. What a container
does is seen from inside of it, and by what its caller tells.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

import peerlab
from bundles import OCI, make_rootfs
from sampan.kernel import cgroups

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(
        bool(peerlab.missing("containerd", "ctr", "dockerd", "docker", "podman", "script")),
        reason="needs the peers",
    ),
]

GROUP = "/sampan-test/peers"
SERVICE = "trap 'echo bye; exit 9' TERM; echo started; while true; do sleep 0.05; done"


class Caller:
    """A client's command line, up to the words that vary."""

    def __init__(self, words: list[str], environ: dict[str, str]) -> None:
        self.words, self.environ = words, environ

    def __call__(self, *words: object, code: int = 0) -> str:
        """Run to the end; standard output. The exit code must be `code`."""
        done = subprocess.run(
            [*self.words, *map(str, words)],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            env=self.environ,
        )
        assert done.returncode == code, (words, done.stdout[-1000:], done.stderr[-2000:])
        return done.stdout + (done.stderr if code else "")

    def at_a_terminal(self, *words: object) -> str:
        """The same, called at a terminal: what is seen on it."""
        line = shlex.join([*self.words, *map(str, words)])
        done = subprocess.run(
            ["script", "-qec", line, "/dev/null"],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            env=self.environ,
        )
        assert done.returncode == 0, (words, done.stdout[-2000:])
        return done.stdout


@pytest.fixture(scope="module")
def place():
    made = Path(tempfile.mkdtemp(prefix="callers-", dir="/tmp"))  # podman wants it short
    make_rootfs(made / "rootfs")
    yield made
    shutil.rmtree(made, ignore_errors=True)
    cgroups.manager(GROUP).remove()
    # conmon makes plain directories where it expects controllers that this host has not mounted.
    trees = Path("/sys/fs/cgroup")
    for left in trees.glob(f"*{GROUP}"):
        if left.stat().st_dev == trees.stat().st_dev:
            shutil.rmtree(left)


@pytest.fixture(scope="module")
def docker(place):
    flags = ["--add-runtime", f"sampan={OCI}", "--default-runtime", "sampan"]
    flags += ["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", GROUP]
    (place / "d").mkdir()
    with peerlab.dockerd(place / "d", *flags, "--userland-proxy=false", network=True):
        environ = {**os.environ, "HOME": str(place)}
        call = Caller(["docker", "-H", f"unix://{place}/d/docker/docker.sock"], environ)
        subprocess.run(["tar", "-C", place / "rootfs", "-cf", place / "bb.tar", "."], check=True)
        call("import", place / "bb.tar", "bb")
        assert call("info", "--format", "{{.DefaultRuntime}}").strip() == "sampan"
        yield call


@pytest.fixture(scope="module")
def ctr(place):
    (place / "c").mkdir()
    with peerlab.containerd(place / "c"):
        yield Caller(["ctr", "-a", f"{place}/c/containerd/sock"], dict(os.environ))


@pytest.fixture(scope="module")
def ctr_run(place):
    rootfs = f"{place}/rootfs"

    def words(name: str, *command: str, flags: tuple[str, ...] = ()) -> list[str]:
        own = ["--runc-binary", OCI, "--runc-root", f"{place}/runc", "--cgroup", f"{GROUP}/{name}"]
        return ["run", *own, *flags, "--rootfs", rootfs, name, *command]

    return words


@pytest.fixture(scope="module")
def podman(place):
    environ = {**os.environ, "HOME": str(place), "XDG_RUNTIME_DIR": f"{place}/xdg"}
    os.makedirs(f"{place}/xdg", 0o700)
    words = ["podman", "--root", f"{place}/pod", "--runroot", f"{place}/run", "--runtime", OCI]
    words += ["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]
    words += ["--tmpdir", f"{place}/ptmp"]
    return Caller(words, environ)


@pytest.fixture(scope="module")
def podman_run(place):
    def words(*command: str, flags: tuple[str, ...] = ()) -> list[str]:
        own = ["run", "--network", "none", "--cgroup-parent", GROUP, "--log-driver", "k8s-file"]
        return [*own, *flags, "--rootfs", f"{place}/rootfs", *command]

    return words


class TestDocker:
    def test_a_command_in_a_bridged_network(self, docker):
        said = docker(
            "run", "--rm", "bb", "sh", "-c", "ip -4 addr show eth0; ip route; exit 3", code=3
        )
        assert "inet 172." in said
        assert "default via 172." in said

    def test_a_terminal(self, docker):
        assert "/dev/pts/0" in docker.at_a_terminal("run", "--rm", "-t", "bb", "tty")

    def test_what_is_asked_for_is_seen_inside(self, docker, place):
        flags = ["--read-only", "--tmpfs", "/x", "-v", f"{place}/rootfs/etc:/v:ro"]
        flags += ["--user", "web", "--pids-limit", "77"]
        script = (
            "id -u; touch /y; touch /x/z && echo writable; cat /v/passwd | head -1; grep Seccomp: "
        )
        script += "/proc/self/status; cat /sys/fs/cgroup/pids/pids.max"
        lines = docker("run", "--rm", "--network", "none", *flags, "bb", "sh", "-c", script).split(
            "\n"
        )
        assert lines[:3] == ["33", "writable", "root:x:0:0:root:/root:/bin/sh"]
        assert lines[3:5] == ["Seccomp:\t2", "77"]

    def test_a_life(self, docker):
        docker("run", "-d", "--name", "one", "-m", "64m", "bb", "sh", "-c", SERVICE)
        assert docker("exec", "one", "sh", "-c", "cat /proc/1/comm; exit 4", code=4) == "sh\n"
        assert docker("exec", "-u", "33:34", "-w", "/tmp", "one", "pwd") == "/tmp\n"
        assert "/dev/pts/0" in docker.at_a_terminal("exec", "-t", "one", "tty")
        docker("pause", "one")
        assert "(Paused)" in docker("ps", "--format", "{{.Status}}")
        docker("unpause", "one")
        docker("update", "-m", "96m", "--memory-swap", "96m", "one")
        limit = docker("exec", "one", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
        assert int(limit) == 96 << 20
        assert "sh -c" in docker("top", "one")
        docker("stop", "-t", "20", "one")
        assert docker("inspect", "-f", "{{.State.ExitCode}}", "one").strip() == "9"
        assert docker("logs", "one") == "started\nbye\n"
        docker("start", "one")
        docker("kill", "one")
        assert docker("inspect", "-f", "{{.State.ExitCode}}", "one").strip() == "137"
        docker("rm", "-f", "one")
        assert docker("ps", "-aq") == ""

    def test_namespaces_of_another_container(self, docker):
        docker("run", "-d", "--name", "two", "bb", "sleep", "1000")
        words = ["--network", "container:two", "--pid", "container:two", "bb"]
        said = docker("run", "--rm", *words, "sh", "-c", "ps; ip -4 addr show eth0")
        assert "sleep 1000" in said
        assert "inet 172." in said
        docker("rm", "-f", "two")

    def test_its_own_init_and_a_privileged_one(self, docker):
        said = docker("run", "--rm", "--init", "--network", "none", "bb", "cat", "/proc/1/comm")
        assert said == "docker-init\n"
        script = "grep CapEff /proc/self/status; ls /dev | grep -c tty"
        said = docker("run", "--rm", "--privileged", "--network", "none", "bb", "sh", "-c", script)
        assert "fffff" in said

    def test_a_command_that_is_missing(self, docker):
        said = docker("run", "--rm", "--network", "none", "bb", "nosuch", code=127)
        assert 'exec: "nosuch": executable file not found in $PATH' in said


class TestContainerd:
    def test_a_command(self, ctr, ctr_run):
        words = ctr_run("a1", "sh", "-c", "id -u; exit 3", flags=("--rm",))
        assert ctr(*words, code=3).split() == ["0"]

    def test_a_terminal(self, ctr, ctr_run):
        assert "/dev/pts/0" in ctr.at_a_terminal(*ctr_run("a2", "tty", flags=("--rm", "-t")))

    def test_a_life(self, ctr, ctr_run):
        flags = ("-d", "--memory-limit", str(50 << 20))
        ctr(*ctr_run("a3", "sleep", "1000", flags=flags))
        words = ["task", "exec", "--exec-id", "e1", "a3", "sh", "-c", "echo inside; exit 4"]
        assert ctr(*words, code=4).split() == ["inside"]
        seen = ctr.at_a_terminal("task", "exec", "-t", "--exec-id", "e2", "a3", "tty")
        assert "/dev/pts/0" in seen
        ctr("task", "pause", "a3")
        assert "PAUSED" in ctr("task", "ls")
        ctr("task", "resume", "a3")
        metrics = json.loads(ctr("task", "metrics", "--format", "json", "a3"))
        assert metrics["memory"]["usage"]["limit"] == 50 << 20
        assert metrics["pids"]["current"] == 1
        ctr("task", "kill", "-s", "KILL", "a3")
        ctr("task", "rm", "-f", "a3")
        ctr("container", "rm", "a3")
        assert "a3" not in ctr("container", "ls")

    def test_a_command_that_is_missing(self, ctr, ctr_run):
        said = ctr(*ctr_run("a4", "nosuch", flags=("--rm",)), code=1)
        assert 'exec: "nosuch": executable file not found in $PATH' in said


class TestPodman:
    def test_a_command(self, podman, podman_run):
        words = podman_run("sh", "-c", "id -u; hostname; exit 3", flags=("--rm", "-h", "box"))
        assert podman(*words, code=3).split()[:2] == ["0", "box"]

    def test_a_terminal(self, podman, podman_run):
        assert "/dev/pts/0" in podman.at_a_terminal(*podman_run("tty", flags=("--rm", "-t")))

    def test_a_life(self, podman, podman_run):
        podman(*podman_run("sh", "-c", SERVICE, flags=("-d", "--name", "one", "-m", "64m")))
        assert podman("exec", "one", "sh", "-c", "cat /proc/1/comm; exit 4", code=4) == "sh\n"
        assert "/dev/pts/0" in podman.at_a_terminal("exec", "-t", "one", "tty")
        podman("pause", "one")
        assert podman("inspect", "-f", "{{.State.Status}}", "one").strip() == "paused"
        podman("unpause", "one")
        podman("update", "--memory", "96m", "--memory-swap", "96m", "one")
        limit = podman("exec", "one", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
        assert int(limit) == 96 << 20
        podman("stop", "-t", "20", "one")
        assert podman("inspect", "-f", "{{.State.ExitCode}}", "one").strip() == "9"
        assert podman("logs", "one") == "started\nbye\n"
        podman("start", "one")
        podman("kill", "one")
        podman("rm", "-f", "one")
        assert podman("ps", "-aq") == ""

    def test_a_command_that_is_missing(self, podman, podman_run):
        said = podman(*podman_run("nosuch", flags=("--rm",)), code=127)
        assert 'exec: "nosuch": executable file not found in $PATH' in said
