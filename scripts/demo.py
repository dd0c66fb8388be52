"""The demonstration: an image from a real registry to supervised containers, and nothing left.

It makes an image of Debian's busybox, pushes it to Debian's docker-registry on loopback, pulls it
back into an empty store and runs containers from it: with limits, out of memory, crashing, and
across a `kill -9` of the daemon. Each command is printed with its output, each result is checked,
and the first wrong one ends the run with a sentence and exit code 1. Everything lives below one
temporary directory and one cgroup. At the end, after a failure too, it proves that nothing is left.
"""

from __future__ import annotations

import io
import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import leftovers

SAMPAN = Path(sys.prefix) / "bin" / "sampan"
BUSYBOX = "/bin/busybox"
PATIENCE = 60
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)
CLOCK = 'i=0; while :; do echo "tick $i"; i=$((i + 1)); sleep 0.2; done'


class Wrong(Exception):
    """A step did not do what it should."""


def check(holds: object, sentence: str) -> None:
    """The demonstration goes on only when this holds."""
    if not holds:
        raise Wrong(sentence)


def say(text: str) -> None:
    """A line of our own between the commands."""
    print(text, flush=True)


class Demo:
    """One run: its places, its registry, and how it calls the command line."""

    def __init__(self, directory: str, cgroup: str) -> None:
        self.directory = directory
        self.environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": directory,
            "SAMPAN_ROOT": f"{directory}/root",
            "SAMPAN_STATE": f"{directory}/state",
            "SAMPAN_CONFIG": f"{directory}/config.toml",
        }
        settings = Path(f"{directory}/config.toml")
        settings.write_text(f'cgroup_parent = "{cgroup}"\n')
        settings.chmod(0o600)
        self.registry: subprocess.Popen[bytes] | None = None
        self.host = ""
        self.image_id = ""

    @property
    def image(self) -> str:
        """The image by its name in the registry."""
        return f"{self.host}/demo/busybox:1"

    def sampan(self, *words: str, code: int = 0, shown: bool = True) -> str:
        """Run a command, print it and its output, insist on its exit code; standard output."""
        if shown:
            say("$ " + shlex.join(["sampan", *words]))
        ended, output, errors = finish([SAMPAN, *words], self.environ)
        if shown or ended != code:
            print(output + errors, end="", flush=True)
        if code:
            say(f"[exit code {ended}]")
        check(ended == code, f"`sampan {words[0]}` ended with {ended} instead of {code}")
        return output.rstrip("\n")

    def inspect(self, name: str, template: str) -> str:
        """A fact about an object."""
        return self.sampan("inspect", "--format", template, name)

    def daemon(self) -> int:
        """The pid of the daemon."""
        return int(Path(f"{self.directory}/state/sampan.pid").read_text())

    def start_registry(self) -> None:
        """Debian's docker-registry on a free port of loopback."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{probe.getsockname()[1]}"
        config = Path(f"{self.directory}/registry.yml")
        settings = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": f"{self.directory}/registry"}},
            "http": {"addr": self.host},
            "log": {"level": "error", "accesslog": {"disabled": True}},
        }
        config.write_text(json.dumps(settings))  # JSON is YAML
        say(f"$ docker-registry serve {config} &")
        with open(f"{self.directory}/registry.log", "wb") as log:
            self.registry = subprocess.Popen(
                ["docker-registry", "serve", config], env=self.environ, stdout=log, stderr=log
            )
        end = time.monotonic() + 15
        while self.ask_registry("") is None:
            log_text = Path(f"{self.directory}/registry.log").read_text()
            check(self.registry.poll() is None, f"docker-registry ended: {log_text}")
            check(time.monotonic() < end, "docker-registry does not answer")
            time.sleep(0.02)

    def ask_registry(self, path: str) -> str | None:
        """The digest that the registry gives for a path; None when it does not answer."""
        request = urllib.request.Request(f"http://{self.host}/v2/{path}", method="HEAD")
        request.add_header("Accept", "application/vnd.oci.image.manifest.v1+json")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=5) as answer:
                return answer.headers.get("Docker-Content-Digest") or ""
        except urllib.error.HTTPError as error:
            error.close()
            return ""
        except OSError:
            return None

    def stop(self) -> None:
        """Remove the containers, end the daemon and the registry in order."""
        try:
            if Path(self.environ["SAMPAN_STATE"]).exists():
                # Until there is none: a request that we interrupted may still be carried out.
                while names := self.sampan("ps", "--all", "--quiet", shown=False).split():
                    self.sampan("rm", "--force", *names)
                say(f"$ kill {self.daemon()}   # the daemon, SIGTERM")
                end_process(self.daemon(), signal.SIGTERM)
        finally:
            if self.registry is not None:
                say(f"$ kill {self.registry.pid}   # the registry, SIGTERM")
                self.registry.terminate()
                self.registry.wait(PATIENCE)


def finish(words: list[str], environ: dict[str, str]) -> tuple[int, str, str]:
    """Run a command to its end: exit code, output, errors. Whoever interrupts us ends it.

    The signals wait while it is being started: otherwise it could live on, known to nobody.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)
    try:
        process = subprocess.Popen(
            words,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=listen,  # noqa: PLW1509 - there is one thread
        )
        with process:
            try:
                listen()
                output, errors = process.communicate(timeout=PATIENCE)
            except BaseException:
                process.kill()
                raise
    finally:
        listen()
    return process.returncode, output, errors


def listen() -> None:
    """Take interruptions again."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTIONS)


def end_process(pid: int, number: int) -> None:
    """Send a signal to a process and wait until it has ended."""
    watched = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(watched, number)
        check(select.select([watched], [], [], PATIENCE)[0], f"process {pid} does not end")
    finally:
        os.close(watched)


def busybox_tar() -> bytes:
    """A root file system of one program with many names, as a tar in memory."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        tar.add(BUSYBOX, "bin/busybox")
        applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
        for name in sorted(set(applets.stdout.split()) - {"busybox"}):
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        for name, text in (("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("group", "root:x:0:\n")):
            entry = tarfile.TarInfo(f"etc/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return target.getvalue()


def make_image(demo: Demo) -> None:
    """An image from Debian's busybox, pushed to a real registry."""
    Path(f"{demo.directory}/busybox.tar").write_bytes(busybox_tar())
    tar = f"{demo.directory}/busybox.tar"
    demo.sampan("import", "--change", 'CMD ["sh"]', tar, "demo/busybox:1")
    demo.image_id = demo.inspect("demo/busybox:1", "{{.Id}}")
    demo.start_registry()
    demo.sampan("tag", "demo/busybox:1", demo.image)
    demo.sampan("push", demo.image)
    check(demo.ask_registry("demo/busybox/manifests/1"), "the registry has no manifest")


def pull_image(demo: Demo) -> None:
    """The image comes back from the registry into an empty store, bit by bit the same."""
    demo.sampan("rmi", "demo/busybox:1", demo.image)
    check(not demo.sampan("images", "--quiet"), "an image is left after rmi")
    blobs = [path for path in Path(f"{demo.directory}/root/blobs").rglob("*") if path.is_file()]
    check(not blobs, f"rmi left blobs in the store: {blobs}")
    demo.sampan("pull", demo.image)
    demo.sampan("images")
    digest = demo.ask_registry("demo/busybox/manifests/1")
    found = demo.inspect(demo.image, "{{json .RepoDigests}}")
    check(f"@{digest}" in found, f"the registry has {digest}, the image has {found}")
    check(demo.inspect(demo.image, "{{.Id}}") == demo.image_id, "the pulled image is another one")


def run_commands(demo: Demo) -> None:
    """Containers run, and end with the codes that a shell expects."""
    said = demo.sampan("run", "--rm", demo.image, "echo", "hello from a container")
    check(said == "hello from a container", "the container's output is another")
    said = demo.sampan("run", "--rm", "--network", "none", demo.image, "ps")
    check(" ps" in said and len(said.splitlines()) == 2, "the container sees other processes")
    demo.sampan("run", "--rm", demo.image, "sh", "-c", "exit 42", code=42)
    demo.sampan("run", "--rm", demo.image, "nosuch", code=127)
    demo.sampan("run", "--rm", f"{demo.host}/demo/nosuch", "true", code=125)
    check(not demo.sampan("ps", "--all", "--quiet"), "--rm left a container")


def run_limited(demo: Demo) -> None:
    """A service with limits, looked at from all sides."""
    limits = ("--memory", "64m", "--cpus", "0.5", "--pids-limit", "32", "--network", "none")
    demo.sampan("run", "-d", "--name", "clock", *limits, demo.image, "sh", "-c", CLOCK)
    pid = int(demo.inspect("clock", "{{.State.Pid}}"))
    check(cgroup_value(pid, "memory") == 64 << 20, "the memory limit is not in the cgroup")
    check(cgroup_value(pid, "cpu") == 50_000, "the CPU limit is not in the cgroup")
    check(cgroup_value(pid, "pids") == 32, "the pids limit is not in the cgroup")
    demo.sampan("exec", "clock", "sh", "-c", "echo $$ sees; ps; ls /sys/class/net; id")
    demo.sampan("exec", "clock", "sh", "-c", "exit 3", code=3)
    listed = demo.sampan("ps")
    check("clock" in listed and "Up" in listed, "ps does not show the container")
    check("tick 0" in demo.sampan("logs", "clock").splitlines(), "the log has no first line")
    check("64MiB" in demo.sampan("stats", "--no-stream", "clock"), "stats knows no limit")
    demo.sampan("top", "clock")


def cgroup_value(pid: int, controller: str) -> int:
    """The limit that the kernel has for a process, from the files of cgroup v1 or v2."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            file = {
                "memory": "memory.limit_in_bytes",
                "cpu": "cpu.cfs_quota_us",
                "pids": "pids.max",
            }[controller]
            return read_limit(f"/sys/fs/cgroup/{names}{path}/{file}")
        if not names and Path(f"/sys/fs/cgroup{path}/{controller}.max").exists():
            return read_limit(f"/sys/fs/cgroup{path}/{controller}.max")
    raise Wrong(f"process {pid} is in no cgroup of {controller}")


def read_limit(path: str) -> int:
    """Print a limit's file; its first number."""
    text = Path(path).read_text().strip()
    say(f"$ cat {path}\n{text}")
    return int(text.split()[0])


def exceed(demo: Demo) -> None:
    """Who wants more than the limits gets what the kernel gives."""
    greedy = ("dd", "if=/dev/zero", "of=/dev/null", "bs=64M")
    demo.sampan("run", "--name", "greedy", "--memory", "16m", demo.image, *greedy, code=137)
    check(demo.inspect("greedy", "{{.State.OOMKilled}}") == "true", "it was not out of memory")
    many = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"
    say("# eight children where no more than five processes may be:")
    demo.sampan("run", "--rm", "--pids-limit", "5", demo.image, "sh", "-c", many, code=2)


def restart(demo: Demo) -> None:
    """What crashes is started again, as often as was said."""
    crash = "echo a try; exit 3"
    policy = ("--restart", "on-failure:2")
    demo.sampan("run", "-d", "--name", "crash", *policy, demo.image, "sh", "-c", crash)
    wait_for(demo, "crash", "{{.State.Status}} {{.RestartCount}}", "exited 2")
    check(demo.sampan("logs", "crash").split("\n") == ["a try"] * 3, "the log has no three tries")
    since = ("--since", "5m", "--until", "0s", "--filter", "container=crash")
    seen = demo.sampan("events", "--format", "{{.Action}} {{.Actor.Attributes.exitCode}}", *since)
    check(seen.count("die 3") == 3, "the events do not tell of three ends")


def wait_for(demo: Demo, name: str, template: str, wanted: str) -> None:
    """Ask until the answer is the wanted one; a restart has no other end to wait for."""
    end = time.monotonic() + 20
    words = ("inspect", "--format", template, name)
    while (found := demo.sampan(*words, shown=False)) != wanted:
        check(time.monotonic() < end, f"{name} is {found!r} and does not become {wanted!r}")
        time.sleep(0.05)
    say("$ " + shlex.join(["sampan", *words]) + f"\n{found}")


def wait_for_ticks(log: Path) -> None:
    """The log grows, although nobody but the container's shim is there."""
    before, end = log.read_bytes().count(b"tick"), time.monotonic() + PATIENCE
    while log.read_bytes().count(b"tick") < before + 4:
        check(time.monotonic() < end, "the log stood still without a daemon")
        time.sleep(0.05)


def kill_daemon(demo: Demo) -> None:
    """The daemon is killed; containers live on, and what happened meanwhile is not lost."""
    leave = "trap 'exit 7' TERM; while :; do sleep 0.1; done"
    demo.sampan("run", "-d", "--name", "brief", demo.image, "sh", "-c", leave)
    clock = int(demo.inspect("clock", "{{.State.Pid}}"))
    brief = int(demo.inspect("brief", "{{.State.Pid}}"))
    log = Path(demo.inspect("clock", "{{.LogPath}}"))
    killed = demo.daemon()
    say(f"$ kill -9 {killed}   # the daemon")
    end_process(killed, signal.SIGKILL)
    say(f"$ kill {brief}   # the process of `brief`, which ends with 7 then")
    end_process(brief, signal.SIGTERM)
    check(Path(f"/proc/{clock}").exists(), "the container `clock` died with the daemon")
    wait_for_ticks(log)
    say(f"# no daemon now; process {clock} of `clock` is alive. The next command starts a daemon:")
    listed = demo.sampan("ps", "--all")
    check(demo.daemon() != killed, "there is no new daemon")
    check("Exited (7)" in listed, "the exit without a daemon was lost")
    check(int(demo.inspect("clock", "{{.State.Pid}}")) == clock, "`clock` is another process now")
    ticks = demo.sampan("logs", "clock", shown=False).splitlines()
    check(ticks == [f"tick {at}" for at in range(len(ticks))], "lines of the log were lost")
    say(f"# the log went on meanwhile: {len(ticks)} lines by now, none missing")
    demo.sampan("exec", "clock", "echo", "the new daemon can enter it")


def clean_up(demo: Demo) -> None:
    """Containers and images go, and the store is empty then."""
    demo.sampan("stop", "--timeout", "1", "clock")
    demo.sampan("rm", "clock", "brief", "crash", "greedy")
    demo.sampan("rmi", demo.image)
    check(not demo.sampan("ps", "--all", "--quiet"), "a container is left")
    check(not demo.sampan("images", "--quiet"), "an image is left")
    names = ("root/blobs", "root/containers", "root/snapshots", "state/shims")
    patience = time.monotonic() + 5  # files are deleted a moment after their names are gone
    while files := [file for name in names for file in files_below(demo.directory, name)]:
        check(time.monotonic() < patience, f"the store has files left: {files[:5]}")
        time.sleep(0.05)


def files_below(*path: str) -> list[str]:
    """Everything but directories."""
    return [str(file) for file in Path(*path).rglob("*") if not file.is_dir()]


STEPS = (
    make_image,
    pull_image,
    run_commands,
    run_limited,
    exceed,
    restart,
    kill_daemon,
    clean_up,
)


def run_steps(demo: Demo) -> list[str]:
    """Run the steps in order and stop in order; sentences about what went wrong."""
    wrong = []
    try:
        for number, step in enumerate(STEPS, 1):
            say(f"\n== {number}. {(step.__doc__ or '').strip()}")
            step(demo)
        say("\n== Leaving: the daemon and the registry end.")
    except (Exception, KeyboardInterrupt) as error:  # whatever it is, nothing may be left
        wrong.append(str(error) or type(error).__name__)
        say(f"\n== Wrong: {wrong[-1]}. Cleaning up.")
    try:
        demo.stop()
    except (Exception, KeyboardInterrupt) as error:  # as above
        wrong.append(f"leaving: {error or type(error).__name__}")
    return wrong


def prove(watch: leftovers.Watch) -> list[str]:
    """Sentences about what is left; everything is removed then, whatever it was."""
    leftovers.wait_for_no_children()
    left = watch.found()
    watch.end_processes()
    watch.remove_networks()
    left += watch.remove_cgroups()
    shutil.rmtree(watch.directory)
    return [f"left behind: {thing}" for thing in left]


def interrupted(number: int, _frame: object) -> None:
    """Ctrl-C and a polite kill end the run, and the cleaning up is done all the same."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt(f"interrupted by {signal.Signals(number).name}")


def main(cgroup: str) -> int:
    """Run everything; the exit code."""
    if os.geteuid() != 0:
        sys.stderr.write("demo: needs root, for namespaces, mounts and cgroups\n")
        return 1
    for number in INTERRUPTIONS:
        signal.signal(number, interrupted)
    began = time.monotonic()
    directory = tempfile.mkdtemp(prefix="sampan-demo-")
    watch = leftovers.Watch(directory, cgroup)
    wrong = run_steps(Demo(directory, cgroup)) + prove(watch)
    if not wrong:
        say("# nothing is left: no process, mount, cgroup, network or file")
    for sentence in wrong:
        sys.stderr.write(f"demo: {sentence}\n")
    say(f"\ndemo: {'failed' if wrong else 'passed'} after {time.monotonic() - began:.1f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(f"/sampan-demo-{os.getpid()}"))
