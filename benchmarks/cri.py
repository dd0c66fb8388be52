"""The Kubernetes runtime interface beside Debian's containerd, in one run. Needs root.

    python benchmarks/cri.py [--rounds N] [--pods N] [--json FILE]

Both serve gRPC on a unix socket and connect pods by CNI's bridge plugin, each to a bridge of its
own. Times are of calls, through one client, in turns. With PODS pods of one container each it takes
the lists, and the memory that the lab is charged for a pod; then what an idle node costs: a second
of List calls as a kubelet makes them, as processor time of everything that the runtime runs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import lab
import memory
import noise
from google.protobuf import message_factory
from peers import BIN, BUSYBOX, REGISTRY, Containerd, Sampan, reach
from source import Registry, busybox
from timing import Row

from sampan.wire.cri import api_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE = f"{REGISTRY}/pause:1"
IDLE_SECONDS = 20
PROBES = 4
"""Execs of a container behind its first one, as the probes of a kubelet come."""

FIRST = "first ExecSync"
_CONTROLLERS = {"network": pb.POD, "pid": pb.CONTAINER}


def conflist(place: Path, number: int) -> str:
    """A directory with CNI's bridge plugin configured."""
    folder = place / "net.d"
    folder.mkdir(parents=True)
    ranges = [[{"subnet": f"10.{90 + number}.0.0/16"}]]
    ipam = {"type": "host-local", "ranges": ranges, "dataDir": str(place / "ipam")}
    bridge = {"type": "bridge", "bridge": f"bench{number}", "isGateway": True, "ipam": ipam}
    content = {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}
    (folder / "10-pods.conflist").write_text(json.dumps(content))
    return str(folder)


class SampanCri(Sampan):
    """Our daemon with its CRI socket."""

    cri = property(lambda self: f"{self.place}/state/cri.sock")

    def start(self) -> None:
        """As `Sampan`, with a CNI configuration."""
        self.place.mkdir(exist_ok=True)
        config = self.place / "config.toml"
        config.write_text(
            f'cgroup_parent = "{lab.CGROUP}/sampan"\n[cri]\n'
            f'cni_config = "{conflist(self.place, 0)}"\ncni_plugins = ["/usr/lib/cni"]\n'
        )
        config.chmod(0o600)
        words = ["daemon", "--root", f"{self.place}/root", "--state", f"{self.place}/state"]
        self.argv = [str(BIN / "sampan"), *words, "--config", str(config)]
        self.again()

    def again(self) -> None:
        """Start the daemon over what there is."""
        self.daemon(self.argv, lambda: reach(self.cri))


class ContainerdCri(Containerd):
    """containerd with its CRI plugin."""

    name = "containerd"
    cri = property(lambda self: self.address)

    def start(self) -> None:
        """As `Containerd`, with pods."""
        self.place.mkdir(exist_ok=True)
        config = self.place / "containerd.toml"
        plugin = 'plugins."io.containerd.grpc.v1.cri"'
        config.write_text(
            f'version = 2\nroot = "{self.place}/root"\nstate = "{self.place}/state"\n'
            f'[grpc]\naddress = "{self.address}"\n'
            f'[plugins."io.containerd.internal.v1.opt"]\npath = "{self.place}/opt"\n'
            f'[{plugin}]\nsandbox_image = "{PAUSE}"\nrestrict_oom_score_adj = true\n'
            f'[{plugin}.cni]\nbin_dir = "/usr/lib/cni"\nconf_dir = "{conflist(self.place, 1)}"\n'
            f'[{plugin}.registry.mirrors."{REGISTRY}"]\nendpoint = ["http://{REGISTRY}"]\n'
        )
        self.argv = ["containerd", "-c", str(config)]
        self.again()

    def again(self) -> None:
        """Start the daemon over what there is."""
        self.daemon(self.argv, lambda: reach(self.address))


@dataclass
class Client:
    """One runtime's calls, with the milliseconds that each took."""

    name: str
    path: str
    took: dict[str, list[float]] = field(default_factory=dict)
    count: int = 0
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.connect()
        services = pb.DESCRIPTOR.services_by_name.values()
        self._methods = {method.name: method for one in services for method in one.methods}

    def connect(self) -> None:
        """A new connection."""
        self._channel = grpc.insecure_channel(f"unix:{self.path}")

    def call(self, name: str, /, **fields: Any) -> Any:
        """One call, timed."""
        method = self._methods[name]
        request = message_factory.GetMessageClass(method.input_type)(**fields)
        answer = message_factory.GetMessageClass(method.output_type)
        path = f"/{method.containing_service.full_name}/{name}"
        write: Callable[[Any], bytes] = type(request).SerializeToString
        stub = self._channel.unary_unary(path, write, answer.FromString)
        begin = time.perf_counter()
        found = stub(request, timeout=120)
        self.took.setdefault(name, []).append((time.perf_counter() - begin) * 1000)
        return found

    def add_container(self, pod: str, config: dict[str, Any], name: str) -> str:
        """One more sleeping container, created; its id."""
        security = {"namespace_options": _CONTROLLERS}
        container = {
            "metadata": {"name": name},
            "image": {"image": BUSYBOX},
            "command": ["sleep", "1000000"],
            "linux": {"security_context": security},
        }
        made = self.call(
            "CreateContainer", pod_sandbox_id=pod, config=container, sandbox_config=config
        )
        return str(made.container_id)

    def start_pod(self) -> tuple[str, str]:
        """A pod with one sleeping container: their ids."""
        self.count += 1
        security = {"namespace_options": _CONTROLLERS}
        metadata = {"name": f"pod{self.count}", "namespace": "bench", "uid": f"u{self.count}"}
        parent = f"{lab.CGROUP}/{self.name}"
        linux = {"security_context": security, "cgroup_parent": parent}
        config = {"metadata": metadata, "linux": linux}
        pod = self.call("RunPodSandbox", config=config).pod_sandbox_id
        self.configs[pod] = config
        made = self.add_container(pod, config, "c")
        self.call("StartContainer", container_id=made)
        return pod, made

    def end_pod(self, pod: str) -> None:
        """Stop and remove it."""
        self.call("StopPodSandbox", pod_sandbox_id=pod)
        self.call("RemovePodSandbox", pod_sandbox_id=pod)

    def turn(self) -> None:
        """A pod's whole life, with execs in between."""
        pod, container = self.start_pod()
        self.probe(container)
        self.took.setdefault(FIRST, []).append(self.took["ExecSync"].pop())
        for _ in range(PROBES):
            self.probe(container)
        self.end_pod(pod)

    def probe(self, container: str) -> None:
        """Run a command that does nothing."""
        self.call("ExecSync", container_id=container, cmd=["true"], timeout=30)

    def rows(self) -> list[Row]:
        """What was taken, in the figures of the issue."""
        figures = {
            "start a pod": ("RunPodSandbox", "CreateContainer", "StartContainer"),
            "end a pod": ("StopPodSandbox", "RemovePodSandbox"),
            "ExecSync of true": ("ExecSync",),
            "the first ExecSync of a container": (FIRST,),
        }
        found = []
        for figure, names in figures.items():
            sums = [sum(values) for values in zip(*(self.took[one] for one in names), strict=True)]
            found.append(Row(figure=figure, case=self.name, unit="ms", values=tuple(sums)))
            for one in names if len(names) > 1 else ():
                values = tuple(self.took[one])
                found.append(Row(figure=one, case=self.name, unit="ms", values=values))
        return found


def after_kill(engine: SampanCri | ContainerdCri, client: Client, count: int) -> Row:
    """From the start of another daemon, after SIGKILL, to a list in which everything runs."""
    for process in engine.pids():
        os.kill(process, signal.SIGKILL)
    engine.stop()
    begin = time.perf_counter()
    engine.again()
    client.connect()
    while not lists_all(client, count):
        time.sleep(0.01)
    taken = (time.perf_counter() - begin) * 1000
    figure = f"first true list after kill -9 with {count} pods"
    return Row(figure=figure, case=client.name, unit="ms", values=(taken,))


def lists_all(client: Client, count: int) -> bool:
    """Whether `count` containers are listed as running; containerd answers before it can."""
    running = {"state": pb.CONTAINER_RUNNING}
    try:
        found = client.call("ListContainers", filter={"state": running})
    except grpc.RpcError:
        return False
    return len(found.containers) >= count


def with_pods(engine: SampanCri | ContainerdCri, client: Client, count: int) -> list[Row]:
    """Lists, memory, idle cost and recovery of a node with `count` pods."""
    before = memory._settled()[0]  # noqa: SLF001 - the same measure as the other figures
    pods = [client.start_pod()[0] for _ in range(count)]
    charged = (memory._settled()[0] - before) / count  # noqa: SLF001
    begin = lab.cpu_ms()
    for _ in range(IDLE_SECONDS):
        started = time.monotonic()
        client.call("ListContainers")
        client.call("ListPodSandbox")
        time.sleep(max(0.0, 1 - (time.monotonic() - started)))
    spent = (lab.cpu_ms() - begin) / IDLE_SECONDS
    for pod in pods:
        client.add_container(pod, client.configs[pod], "second")
    client.took.pop("ListContainers", None)
    for _ in range(20):
        client.call("ListContainers")
    lists = tuple(client.took["ListContainers"])
    killed = after_kill(engine, client, count)
    for pod in pods:
        client.end_pod(pod)
    name, of = client.name, f"with {count} pods"
    found = [
        Row(figure=f"ListContainers of {2 * count}", case=name, unit="ms", values=lists),
        Row(figure=f"memory for a pod, of {count}", case=name, unit="KiB", values=(charged,)),
        Row(figure=f"CPU in an idle second {of}", case=name, unit="ms", values=(spent,)),
        killed,
    ]
    for row in found:
        print(f"{row.figure}: {row.case} {row.median:.2f} {row.unit}", file=sys.stderr, flush=True)
    return found


def measure(place: Path, options: argparse.Namespace) -> int:
    """Everything, inside of the lab."""
    busybox(place)
    registry = Registry(place / "registry")
    registry.start()
    registry.push(place / "layout", BUSYBOX)
    registry.push(place / "pause", PAUSE)
    engines = [kind(place / kind.name) for kind in (SampanCri, ContainerdCri)]
    rows: list[Row] = []
    noises = [noise.sample("start")]
    clients = []
    for engine in engines:
        engine.start()
        client = Client(engine.name, engine.cri)
        clients.append(client)
        for name in (BUSYBOX, PAUSE):
            client.call("PullImage", image={"image": name})
        client.turn()
        client.took.clear()
    for _ in range(options.rounds):
        for client in clients:
            client.turn()
    for client in clients:
        rows += client.rows()
    show(rows, [], None)
    for engine, client in zip(engines, clients, strict=True):
        rows += with_pods(engine, client, options.pods)
    noises.append(noise.sample("end"))
    for engine in engines:
        engine.stop()
    registry.stop()
    show(rows, noises, options.json)
    return 0


def show(rows: list[Row], noises: list[dict[str, Any]], path: Path | None) -> None:
    """A table of medians, and everything into the file."""
    figures = dict.fromkeys(row.figure for row in rows)
    for figure in figures:
        both = [row for row in rows if row.figure == figure]
        ours, theirs = (row.median for row in both)
        words = "  ".join(f"{row.case} {row.median:8.2f} {row.unit}" for row in both)
        print(f"{figure:34} {words}  {ours / theirs:.2f}")
    print(json.dumps(noises))
    if path is not None:
        content = {"rows": [row.document() for row in rows], "noise": noises}
        path.write_text(json.dumps(content, indent=1))


def main() -> int:
    """The command line; inside of the lab the same again."""
    made = argparse.ArgumentParser(description="measure the CRI beside containerd's")
    made.add_argument("--rounds", type=int, default=20)
    made.add_argument("--pods", type=int, default=100)
    made.add_argument("--json", type=Path)
    made.add_argument("--directory", default="/var/tmp")
    options = made.parse_args()
    if options.json:
        options.json = options.json.absolute()
    if os.geteuid() != 0:
        print("benchmarks need root", file=sys.stderr)
        return 1
    place = lab.base()
    if place is None:
        return lab.enter([os.path.abspath(__file__), *sys.argv[1:]], options.directory)
    return lab.serve(partial(measure, place, options))


if __name__ == "__main__":
    sys.exit(main())
