"""The command line from outside: real processes, a real daemon, real containers."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

import dockerlab
from dockerlab import PATIENCE, SOURCES, Result

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]
PROGRAM = [sys.executable, "-m", "sampan.cli"]
ENVIRON = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCES}


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        done = call(made, "import", "-", "bb:1", stdin=dockerlab.tar_of(f"{made.base}/rootfs"))
        assert done.code == 0, done.err
        yield made


def argv(daemon, *words):
    return [*PROGRAM, "-H", daemon.host, *words]


def call(daemon, *words, stdin=b""):
    environ = {**ENVIRON, "HOME": daemon.base}
    done = subprocess.run(
        argv(daemon, *words),
        env=environ, input=stdin, check=False, capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def sampan(daemon):
    return lambda *words, stdin=b"": call(daemon, *words, stdin=stdin)


@pytest.fixture
def running(sampan):
    made = sampan("run", "-d", "--network", "none", "bb:1", "sleep", "1000")
    assert made.code == 0, made.err
    yield made.out.strip()
    sampan("rm", "-f", made.out.strip())


def run_words(*words):
    return ("run", "--rm", "--network", "none", *words)


def test_streams_and_exit_code(sampan):
    done = sampan(*run_words("bb:1", "sh", "-c", "echo out; echo err >&2; exit 3"))
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")


def test_directory_in_place_of_an_image(daemon, sampan):
    root = f"{daemon.base}/rootfs"
    script = "echo x > /made; cat /made"
    assert sampan(*run_words("--rootfs", f"{root}:O", "sh", "-c", script)).out == "x\n"
    assert not os.path.exists(f"{root}/made")
    assert sampan(*run_words("--rootfs", root, "sh", "-c", script)).out == "x\n"
    os.unlink(f"{root}/made")


@pytest.mark.parametrize(
    ("command", "code"), [("nosuch", 127), ("/etc", 126), ("/bin/refused", 126)]
)
def test_code_of_a_command_that_cannot_start(sampan, command, code):
    done = sampan(*run_words("bb:1", command))
    assert done.code == code, done.err
    assert done.err.startswith("sampan: Error response from daemon: ")
    assert "Traceback" not in done.err
    assert sampan("ps", "-aq").out == ""


def test_image_that_nobody_has(sampan):
    done = sampan("run", "--pull", "never", "nosuch:1")
    assert done.code == 125
    assert "No such image: nosuch:1" in done.err


def test_standard_input_reaches_the_container_and_ends(sampan):
    data = bytes(range(32, 127)) * 20_000
    done = sampan(*run_words("-i", "bb:1", "cat"), stdin=data)
    assert done.out.encode() == data


def test_limits_are_seen_by_inspect(sampan):
    words = ("-d", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "20", "--read-only")
    made = sampan("run", "--network=none", *words, "--name", "limited", "bb:1", "sleep", "99")
    assert made.code == 0, made.err
    layout = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}"
    assert sampan("inspect", "-f", layout, "limited").out == "67108864 500000000 20\n"
    stats = json.loads(sampan("stats", "--no-stream", "--format", "json", "limited").out)
    assert stats["MemUsage"].endswith(" / 64MiB")
    taken = sampan("run", "-d", "--network=none", "--name", "limited", "bb:1", "true")
    assert taken.code == 125
    assert 'The container name "/limited" is already in use' in taken.err
    assert sampan("rm", "-f", "limited").out == "limited\n"


def test_life_of_a_container(sampan, running):
    short = running[:12]
    assert sampan("ps", "-q").lines == [short]
    assert sampan("pause", short).code == 0
    assert sampan("ps", "--format", "{{.State}}").out == "paused\n"
    assert sampan("unpause", short).code == 0
    assert sampan("rename", short, "other").code == 0
    assert sampan("exec", "other", "sh", "-c", "echo in; exit 4").code == 4
    assert "sleep 1000" in sampan("top", "other").out
    assert sampan("restart", "-t", "0", "other").out == "other\n"
    assert sampan("stop", "-t", "0", "other").out == "other\n"
    assert sampan("stop", "other").code == 0
    assert sampan("wait", "other").out == "137\n"
    assert sampan("start", "other").out == "other\n"
    assert sampan("kill", "-s", "KILL", "other").code == 0


def test_exec_streams(sampan, running):
    done = sampan("exec", "-i", running, "cat", stdin=b"through")
    assert (done.code, done.out) == (0, "through")
    done = sampan("exec", running, "nosuch")
    assert done.code == 127


def test_logs_follow_to_the_end(daemon, sampan):
    script = "for i in 1 2 3; do echo line $i; done; echo bad >&2"
    made = sampan("run", "-d", "--network=none", "bb:1", "sh", "-c", script)
    done = sampan("logs", "-f", made.out.strip())
    assert (done.out, done.err) == ("line 1\nline 2\nline 3\n", "bad\n")
    last = sampan("logs", "--tail", "1", made.out.strip())
    assert (last.out + last.err).count("\n") == 1
    assert sampan("start", "-a", made.out.strip()).out == "line 1\nline 2\nline 3\n"
    assert sampan("rm", made.out.strip()).code == 0


def test_signal_is_passed_on(daemon):
    script = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    words = argv(daemon, *run_words("bb:1", "sh", "-c", script))
    with subprocess.Popen(words, env=ENVIRON, stdout=subprocess.PIPE) as client:
        assert client.stdout.readline() == b"ready\n"
        client.send_signal(signal.SIGTERM)
        assert client.stdout.readline() == b"got\n"
        assert client.wait(PATIENCE) == 9


def test_reader_that_leaves_is_no_error_of_ours(daemon, sampan):
    words = argv(daemon, *run_words("--name", "yes", "bb:1", "yes"))
    with subprocess.Popen(
        words, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as client:
        assert client.stdout.readline() == b"y\n"
        client.stdout.close()
        assert client.wait(PATIENCE) != 0
        assert client.stderr.read() == b""
    assert sampan("rm", "-f", "yes").code == 0


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, words):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            termios.tcsetwinsize(0, (24, 80))
            os.execve(words[0], words, ENVIRON)
        self.seen = b""

    def until(self, text):
        """Read until `text` was written."""
        while text not in self.seen:
            assert select.select([self.fd], [], [], PATIENCE)[0], self.seen
            try:
                piece = os.read(self.fd, 4096)
            except OSError:
                piece = b""
            assert piece, self.seen
            self.seen += piece

    def close(self):
        """Wait for the end; the exit code."""
        while True:
            try:
                if not os.read(self.fd, 4096):
                    break
            except OSError:
                break
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return code


def test_terminal(daemon):
    script = "tty; read word; stty size; echo got $word; exit 5"
    terminal = Terminal(argv(daemon, *run_words("-it", "bb:1", "sh", "-c", script)))
    terminal.until(b"/dev/pts/0\r\n")
    os.write(terminal.fd, b"it\r")
    terminal.until(b"it\r\n24 80\r\ngot it\r\n")
    assert terminal.close() == 5


def test_detach_leaves_the_container_running(daemon, sampan):
    terminal = Terminal(argv(daemon, *run_words("-it", "--name", "left", "bb:1", "cat")))
    os.write(terminal.fd, b"typed\r")
    terminal.until(b"typed\r\ntyped\r\n")
    os.write(terminal.fd, b"\x10\x11")
    assert terminal.close() == 0
    assert sampan("ps", "--format", "{{.Names}}").out == "left\n"
    assert sampan("rm", "-f", "left").code == 0


def test_no_terminal_no_tty(sampan):
    done = sampan(*run_words("-it", "bb:1", "sh"))
    assert (done.code, done.err) == (1, "the input device is not a TTY\n")


def test_images(sampan):
    assert sampan("tag", "bb:1", "bb:2").code == 0
    listed = sampan("images", "--format", "{{.Repository}}:{{.Tag}}").lines
    assert sorted(listed) == ["bb:1", "bb:2"]
    assert sampan("rmi", "bb:2").out == "Untagged: bb:2\n"
    assert "No such image: nosuch" in sampan("rmi", "nosuch").err
    assert json.loads(sampan("image", "inspect", "bb:1").out)[0]["RepoTags"] == ["bb:1"]


def test_paths_are_no_containers(sampan):
    for ref in ("../../etc", "/etc/passwd", ".."):
        done = sampan("start", ref)
        assert done.code == 1
        assert "Traceback" not in done.err
        assert done.err


def test_daemon_is_started_on_demand(tmp_path):
    base = Path(f"/tmp/sampan-cli-{os.getpid()}")
    cgroup = f"/sampan-test/cli-{os.getpid()}"
    base.mkdir()
    try:
        dockerlab.make_root(f"{base}/rootfs")
        (base / "config.toml").write_text(f'cgroup_parent = "{cgroup}"\n')
        (base / "config.toml").chmod(0o600)
        places = ("--root", f"{base}/root", "--state", f"{base}/state")
        words = [*PROGRAM, *places, "--config", f"{base}/config.toml"]
        run = [*words, *run_words("--rootfs", f"{base}/rootfs:O", "echo", "hello")]
        done = subprocess.run(
            run, env=ENVIRON, check=False, capture_output=True, timeout=PATIENCE
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
        pid = int((base / "state/sampan.pid").read_text())
        handle = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGTERM)
            assert select.select([handle], [], [], PATIENCE)[0]
        finally:
            os.close(handle)
    finally:
        for path in Path("/sys/fs/cgroup").glob(f"*{cgroup}/"):
            path.rmdir()
        shutil.rmtree(base)


def test_daemon_in_the_foreground():
    base = Path(f"/tmp/sampan-fg-{os.getpid()}")
    base.mkdir()
    try:
        places = ("--root", f"{base}/root", "--state", f"{base}/state")
        words = [*PROGRAM, "daemon", *places, "--log-format", "json"]
        with subprocess.Popen(words, env=ENVIRON, stderr=subprocess.PIPE) as process:
            line = json.loads(process.stderr.readline())
            assert f"{base}/state/docker.sock" in json.dumps(line)
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            assert process.wait(PATIENCE) == 0
    finally:
        shutil.rmtree(base)


@pytest.mark.parametrize("linked", [False, True])
def test_launcher_finds_an_editable_install(tmp_path, linked):
    site = "lib/python{}.{}/site-packages".format(*sys.version_info[:2])
    (tmp_path / "bin").mkdir()
    (tmp_path / site).mkdir(parents=True)
    (tmp_path / site / "__editable__.sampan-0.pth").write_text(SOURCES + "\n")
    (tmp_path / "bin/python3").symlink_to(sys.executable)
    shutil.copy(f"{SOURCES}/../bin/sampan", tmp_path / "bin/sampan")
    program = tmp_path / "bin/sampan"
    if linked:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/s").symlink_to(program)
        program = tmp_path / "elsewhere/s"
    done = subprocess.run(
        [program, "version", "--format", "{{.Client.Version}} $x 'y'"],
        check=True, capture_output=True, timeout=PATIENCE, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.stdout == b"0.1.0 $x 'y'\n"
