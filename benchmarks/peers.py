"""The engines that are measured, each started by hand with roots, sockets and cgroups of its own.

An `Engine` knows how its commands are spelled; `start` and `stop` are for those that have a daemon.
`Sampan` is one of them and gets no treatment of its own. Versions and defaults are Debian's: docker
with its bridge, json-file logs and runc; containerd as Debian configures it, CRI included; podman
with crun, conmon and its file of events. All of them keep data below the lab's directory on the
same file system, and what belongs to a boot below the lab's own /run.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import lab
from timing import Process

if TYPE_CHECKING:
    from collections.abc import Callable

REGISTRY = "127.0.0.1:5000"
BUSYBOX = f"{REGISTRY}/busybox:1"
LARGE = f"{REGISTRY}/large:1"
TOOLS = f"{REGISTRY}/tools:1"
"""busybox, iperf3 and nginx."""
SUBNET = "172.31.0.0/16"
BIN = Path(sys.executable).parent


class Engine:
    """What every engine can be told; words of commands, ready to be run."""

    name = ""
    hide_v2 = False  # its runtime refuses a hybrid machine
    socket = ""  # of its Docker API, when it serves one

    def __init__(self, place: Path) -> None:
        self.place = place
        self.environ = lab.environ(place)
        self.inside: list[str] = []
        self._processes: list[Process] = []

    def enter(self, namespace: str) -> None:
        """Have everything done in another network namespace, by its path."""
        self.inside = ["nsenter", f"--net={namespace}"]

    def start(self) -> None:
        """Start the daemons, if it has any, and wait until they answer."""

    def stop(self) -> None:
        """End the daemons; the directories stay."""
        for process in reversed(self._processes):
            process.stop()
        self._processes.clear()

    def command(self, *words: str) -> list[str]:
        """One command of its command line."""
        raise NotImplementedError

    def pull(self, name: str) -> list[str]:
        """Pull and unpack an image."""
        return self.command("pull", name)

    def run(self, *argv: str) -> list[str]:
        """Run busybox's `argv` without a network, to the end, and remove the container."""
        return self.command("run", "--rm", "--network", "none", BUSYBOX, *argv)

    def detach(self, name: str, *argv: str) -> list[str]:
        """Run in the background."""
        return self.command("run", "-d", "--network", "none", "--name", name, BUSYBOX, *argv)

    def exec(self, name: str, *argv: str) -> list[str]:
        """Run in a running container."""
        return self.command("exec", name, *argv)

    def remove(self, *names: str) -> list[str]:
        """End and remove containers."""
        return self.command("rm", "-f", *names)

    def save(self, name: str, path: str) -> list[str]:
        """Write an archive of an image."""
        return self.command("save", "-o", path, name)

    def load(self, path: str) -> list[str]:
        """Read and unpack an archive."""
        return self.command("load", "-q", "-i", path)

    def tag(self, name: str, other: str) -> list[str]:
        """Give an image another name."""
        return self.command("tag", name, other)

    def push(self, name: str) -> list[str]:
        """Send an image to its registry."""
        return self.command("push", "-q", name)

    def daemon(self, argv: list[str], ready: Callable[[], object]) -> None:
        """Start one daemon and wait until `ready` no longer fails."""
        log = self.place / f"{os.path.basename(argv[0])}.log"
        process = Process([*self.inside, *argv], self.environ, str(log))
        self._processes.append(process)
        process.wait_until(ready)

    def pids(self) -> list[int]:
        """The daemons' processes."""
        return [process.pid for process in self._processes]


class Sampan(Engine):
    """This project's engine."""

    name = "sampan"

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.socket = f"{place}/state/docker.sock"

    def start(self) -> None:
        """Start the daemon in the foreground, as a service would."""
        self.place.mkdir(exist_ok=True)
        config = self.place / "config.toml"
        # Each engine takes the first subnet that it finds free; none has made its bridge yet.
        config.write_text(f'cgroup_parent = "{lab.CGROUP}/sampan"\nbridge_subnet = "{SUBNET}"\n')
        config.chmod(0o600)
        words = ["daemon", "--root", f"{self.place}/root", "--state", f"{self.place}/state"]
        argv = [str(BIN / "sampan"), *words, "--config", str(config)]
        self.daemon(argv, lambda: reach(self.socket))

    def command(self, *words: str) -> list[str]:
        """The installed command; with an address it never starts a daemon of its own."""
        return [str(BIN / "sampan"), "-H", f"unix://{self.socket}", *words]


class Containerd(Engine):
    """containerd through ctr."""

    name = "ctr"
    _namespace = lab.CGROUP.strip("/")  # ctr puts cgroups below a directory of this name

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.address = f"{place}/containerd.sock"
        self._last = 0

    def start(self) -> None:
        """Start containerd."""
        self.place.mkdir(exist_ok=True)
        config = self.place / "containerd.toml"
        config.write_text(
            f'version = 2\nroot = "{self.place}/root"\nstate = "{self.place}/state"\n'
            f'[grpc]\naddress = "{self.address}"\n'
            f'[plugins."io.containerd.internal.v1.opt"]\npath = "{self.place}/opt"\n'
            '[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "/usr/lib/cni"\n'
        )
        self.daemon(["containerd", "-c", str(config)], lambda: reach(self.address))

    def command(self, *words: str) -> list[str]:
        """ctr in a namespace of its own."""
        return ["ctr", "-a", self.address, "-n", self._namespace, *words]

    def pull(self, name: str) -> list[str]:
        """Over plain http."""
        return self.command("images", "pull", "--plain-http", name)

    def save(self, name: str, path: str) -> list[str]:
        """ctr's word is export."""
        return self.command("images", "export", path, name)

    def load(self, path: str) -> list[str]:
        """It unpacks by default."""
        return self.command("images", "import", path)

    def tag(self, name: str, other: str) -> list[str]:
        """A name that is taken is an error, so names are new."""
        return self.command("images", "tag", name, other)

    def push(self, name: str) -> list[str]:
        """Over plain http."""
        return self.command("images", "push", "--plain-http", name)

    def run(self, *argv: str) -> list[str]:
        """In a network namespace of its own, which is ctr's default."""
        self._last += 1
        return self.command("run", "--rm", BUSYBOX, f"run{self._last}", *argv)

    def detach(self, name: str, *argv: str) -> list[str]:
        """In the background."""
        return self.command("run", "-d", BUSYBOX, name, *argv)

    def exec(self, name: str, *argv: str) -> list[str]:
        """An exec needs an id of its own."""
        self._last += 1
        return self.command("tasks", "exec", "--exec-id", f"exec{self._last}", name, *argv)

    def remove(self, *names: str) -> list[str]:
        """Tasks first, then containers."""
        both = f"{' '.join(self.command('tasks', 'rm', '-f', *names))} && "
        return ["sh", "-c", both + " ".join(self.command("containers", "rm", *names))]


class Docker(Engine):
    """dockerd above a containerd of its own."""

    name = "docker"

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.socket = f"{place}/docker.sock"
        self._containerd = Containerd(place / "containerd")

    def enter(self, namespace: str) -> None:
        """Both daemons."""
        super().enter(namespace)
        self._containerd.enter(namespace)

    def start(self) -> None:
        """Start containerd, then dockerd."""
        self.place.mkdir(exist_ok=True)
        self._containerd.start()
        config = {
            "data-root": f"{self.place}/data",
            "exec-root": f"{self.place}/exec",
            "pidfile": f"{self.place}/docker.pid",
            "hosts": [f"unix://{self.socket}"],
            "containerd": self._containerd.address,
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "cgroup-parent": f"{lab.CGROUP}/docker",
            "insecure-registries": ["127.0.0.0/8"],
        }
        file = self.place / "docker.json"
        file.write_text(json.dumps(config))
        self.daemon(["dockerd", "--config-file", str(file)], lambda: reach(self.socket))

    def stop(self) -> None:
        """End dockerd, then containerd."""
        super().stop()
        self._containerd.stop()

    def command(self, *words: str) -> list[str]:
        """Debian's client; there may be another one in /usr/local."""
        return ["/usr/bin/docker", "-H", f"unix://{self.socket}", *words]

    def pids(self) -> list[int]:
        """Both daemons."""
        return self._containerd.pids() + super().pids()


class Podman(Engine):
    """podman, which has no daemon."""

    name = "podman"
    hide_v2 = True

    def start(self) -> None:
        """Nothing but its directory."""
        self.place.mkdir(exist_ok=True)

    def command(self, *words: str) -> list[str]:
        """With directories of its own."""
        places = ["--root", f"{self.place}/root", "--runroot", f"{self.place}/run"]
        places += ["--tmpdir", f"{self.place}/tmp", "--cgroup-manager", "cgroupfs"]
        return [*self.inside, "podman", *places, *words]

    def pull(self, name: str) -> list[str]:
        """Over plain http."""
        return self.command("pull", "--tls-verify=false", name)

    def save(self, name: str, path: str) -> list[str]:
        """docker's format is the default."""
        return self.command("save", "-q", "-o", path, name)

    def push(self, name: str) -> list[str]:
        """Over plain http."""
        return self.command("push", "-q", "--tls-verify=false", name)

    def run(self, *argv: str) -> list[str]:
        """Below the lab's cgroup."""
        return self.command("run", "--rm", *self._parts(), BUSYBOX, *argv)

    def detach(self, name: str, *argv: str) -> list[str]:
        """In the background."""
        return self.command("run", "-d", *self._parts(), "--name", name, BUSYBOX, *argv)

    def remove(self, *names: str) -> list[str]:
        """Without the ten seconds of grace."""
        return self.command("rm", "-f", "-t", "0", *names)

    def _parts(self) -> list[str]:
        return ["--network", "none", "--cgroup-parent", f"{lab.CGROUP}/podman"]


ENGINES: tuple[type[Engine], ...] = (Sampan, Docker, Containerd, Podman)


def reach(path: str) -> None:
    """Connect to a unix socket; OSError when nobody answers."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(path)
        if path.endswith("docker.sock"):
            probe.settimeout(30)
            probe.sendall(b"GET /_ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            if not probe.recv(64).startswith(b"HTTP/1.1 200"):
                raise OSError("not ready")
