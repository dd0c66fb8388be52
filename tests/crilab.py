"""A daemon with the Kubernetes runtime interface, and a client of our own stubs.

`lab.call("Version", version="0.1.0")` finds the method, makes its request of the keywords and gives
its answer; a failure is a grpc.RpcError. The client is a process's own: gRPC and fork do not mix.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path

import grpc
from google.protobuf import message_factory

import dockerlab
from sampan.wire.cri import api_pb2 as pb

PATIENCE = 60
IMAGE = "docker.io/library/bb:1"


class Client:
    """Stubs for every method of both services."""

    def __init__(self, path):
        self.channel = grpc.insecure_channel(
            f"unix:{path}", options=[("grpc.max_receive_message_length", 16 << 20)]
        )
        self.methods = {
            method.name: method
            for service in pb.DESCRIPTOR.services_by_name.values()
            for method in service.methods
        }

    def call(self, name, request=None, patience=PATIENCE, **fields):
        """One unary call."""
        kind, stub = self.stub(name)
        return stub(request or kind(**fields), timeout=patience)

    def future(self, name, **fields):
        """One unary call that is not waited for."""
        kind, stub = self.stub(name)
        return stub.future(kind(**fields), timeout=PATIENCE)

    def stub(self, name):
        """(class of the request, what calls) of a method."""
        method = self.methods[name]
        kind = message_factory.GetMessageClass(method.input_type)
        answer = message_factory.GetMessageClass(method.output_type)
        path = f"/{method.containing_service.full_name}/{name}"
        shape = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        return kind, shape(path, kind.SerializeToString, answer.FromString)

    def error(self, name, **fields):
        """The error of a call, None where it succeeds."""
        try:
            self.call(name, **fields)
        except grpc.RpcError as error:
            return error
        return None

    def code(self, name, **fields):
        """The code of a call that fails."""
        error = self.error(name, **fields)
        return error.code().name if error else "OK"

    def close(self):
        self.channel.close()


class Lab(Client):
    """The client with what tests do again and again."""

    def __init__(self, daemon):
        super().__init__(f"{daemon.base}/state/cri.sock")
        self.daemon = daemon
        self.base = daemon.base
        self.cgroup = daemon.cgroup
        self.count = 0

    def sandbox_config(self, **fields):
        """A sandbox of the node's network, unless `fields` say otherwise."""
        self.count += 1
        security = {"namespace_options": {"network": pb.NODE, "pid": pb.CONTAINER}}
        logs = f"{self.base}/logs"
        os.makedirs(logs, exist_ok=True)
        config = {
            "metadata": {
                "name": f"pod{self.count}",
                "namespace": "default",
                "uid": f"u{self.count}",
            },
            "log_directory": logs,
            "linux": {"security_context": security},
        }
        config.update(fields)
        return pb.PodSandboxConfig(**config)

    def run_pod(self, **fields):
        """(id, config) of a new sandbox."""
        config = self.sandbox_config(**fields)
        return self.call("RunPodSandbox", config=config).pod_sandbox_id, config

    def own_config(self, pid=pb.CONTAINER, **fields):
        """A sandbox with a network of its own."""
        options = {"network": pb.POD, "pid": pid}
        linux = {"security_context": {"namespace_options": options}, **fields.pop("linux", {})}
        return self.sandbox_config(linux=linux, **fields)

    def own_pod(self, pid=pb.CONTAINER, **fields):
        """(id, config) of such a sandbox."""
        config = self.own_config(pid, **fields)
        return self.call("RunPodSandbox", config=config).pod_sandbox_id, config

    def create(self, pod, *command, **fields):
        """The id of a new container."""
        sandbox, config = pod
        self.count += 1
        options = config.linux.security_context.namespace_options
        security = {"namespace_options": options, **fields.pop("security", {})}
        content = {
            "metadata": {"name": f"c{self.count}"},
            "image": {"image": IMAGE},
            "command": command,
            "log_path": f"c{self.count}.log",
            "linux": {"security_context": security, "resources": fields.pop("resources", None)},
        }
        content.update(fields)
        made = self.call(
            "CreateContainer",
            pod_sandbox_id=sandbox,
            config=pb.ContainerConfig(**content),
            sandbox_config=config,
        )
        return made.container_id

    def start(self, pod, *command, **fields):
        """The id of a new container that runs."""
        made = self.create(pod, *command, **fields)
        self.call("StartContainer", container_id=made)
        return made

    def status(self, container):
        return self.call("ContainerStatus", container_id=container).status

    def exec(self, container, *command, timeout=30):
        return self.call("ExecSync", container_id=container, cmd=command, timeout=timeout)

    def shell(self, container, script, **more):
        """What a script says."""
        done = self.exec(container, "sh", "-c", script, **more)
        return done.stdout.decode()

    def log(self, container):
        """The records of a log: (stream, tag, text)."""
        text = Path(self.status(container).log_path).read_text()
        return [tuple(line.split(" ", 3)[1:]) for line in text.splitlines()]

    def finish(self, container):
        """Wait for the end of a container, by its events; its status."""
        dockerlab_wait(self.daemon, container)
        return self.status(container)

    def remove(self, pod):
        self.call("StopPodSandbox", pod_sandbox_id=pod[0])
        self.call("RemovePodSandbox", pod_sandbox_id=pod[0])

    def clear(self):
        """Remove every pod, and see that nothing of them is left."""
        for one in self.call("ListPodSandbox").items:
            self.call("StopPodSandbox", pod_sandbox_id=one.id)
            self.call("RemovePodSandbox", pod_sandbox_id=one.id)
        assert not self.call("ListContainers").containers
        assert os.listdir(f"{self.base}/state/pods") == []
        assert os.listdir(f"{self.base}/root/pods") == []


def dockerlab_wait(daemon, container):
    """The engine waits for the end; no polling."""
    status, answer = daemon.ask("POST", f"/containers/{container}/wait?condition=not-running")
    assert status == 200, answer


@contextmanager
def cri(**settings):
    """A daemon with the image IMAGE, and its client."""
    settings.setdefault("cri", {"cni_config": "/nonexistent"})
    table = settings.pop("cri")
    with dockerlab.daemon(**settings) as daemon:
        if table:
            lines = [f"{key} = {json.dumps(value)}\n" for key, value in table.items()]
            with open(f"{daemon.base}/config.toml", "a") as file:
                file.write("[cri]\n" + "".join(lines))
        daemon.stop()
        daemon.start()
        load_image(daemon)
        lab = Lab(daemon)
        try:
            yield lab
            lab.clear()
        finally:
            lab.close()


def load_image(daemon, name="bb", change=""):
    """Import the root file system as NAME:1; `change` is a line of a Dockerfile, quoted."""
    connection = dockerlab.UnixConnection(daemon.socket)
    try:
        body = dockerlab.tar_of(f"{daemon.base}/rootfs")
        change = change and f"&changes={change}"
        connection.request("POST", f"/images/create?fromSrc=-&repo={name}&tag=1{change}", body)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
    finally:
        connection.close()
