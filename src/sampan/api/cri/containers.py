"""Containers: from CreateContainer to ReopenContainerLog."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sampan.api.cri import answers, requests
from sampan.api.cri.lists import Lines, Whole, pieces
from sampan.api.cri.sandboxes import has_labels
from sampan.errors import InvalidArgument
from sampan.wire.cri import api_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sampan.api.cri.calls import Stream, Unary
    from sampan.pods.containers import PodContainer
    from sampan.pods.service import Pods


class Containers:
    """Answers about containers."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods
        self._own = pods.containers
        self._lines = Lines()
        self._whole = Whole()

    def table(self) -> dict[str, Unary]:
        """Method -> answer."""
        return {
            "CreateContainer": self.create,
            "StartContainer": self.start,
            "StopContainer": self.stop,
            "RemoveContainer": self.remove,
            "ListContainers": self.all,
            "ContainerStatus": self.status,
            "UpdateContainerResources": self.update,
            "ReopenContainerLog": self.reopen_log,
            "ExecSync": self.exec_sync,
        }

    def streams(self) -> dict[str, Stream]:
        """Method -> answers."""
        return {"StreamContainers": self.stream}

    async def create(self, request: pb.CreateContainerRequest) -> pb.CreateContainerResponse:
        """Make a container in a sandbox."""
        config = None
        if request.HasField("sandbox_config"):
            config = requests.sandbox_config(request.sandbox_config)
        wanted = requests.container(request.config)
        made = await self._own.create(request.pod_sandbox_id, wanted, config)
        return pb.CreateContainerResponse(container_id=made)

    async def start(self, request: pb.StartContainerRequest) -> pb.StartContainerResponse:
        """Start it; the program runs when this is answered."""
        await self._own.start(_id(request.container_id))
        return pb.StartContainerResponse()

    async def stop(self, request: pb.StopContainerRequest) -> pb.StopContainerResponse:
        """Stop it, within its grace; again and again if need be."""
        await self._own.stop(_id(request.container_id), request.timeout)
        return pb.StopContainerResponse()

    async def remove(self, request: pb.RemoveContainerRequest) -> pb.RemoveContainerResponse:
        """Remove it; again and again if need be."""
        await self._own.remove(_id(request.container_id))
        return pb.RemoveContainerResponse()

    async def all(self, request: pb.ListContainersRequest) -> bytes:
        """The containers that pass the filter, newest first."""
        if request.filter.ListFields():
            return b"".join(self._matching(request.filter))
        return self._whole.get(self._own.current(), self._everything)

    async def stream(self, request: pb.StreamContainersRequest) -> AsyncIterator[bytes]:
        """The same list in several messages."""
        for piece in pieces(self._matching(request.filter)):
            yield piece

    async def status(self, request: pb.ContainerStatusRequest) -> pb.ContainerStatusResponse:
        """One container; with `verbose` what runs and where."""
        one = self._own.find(_id(request.container_id))
        info = {"info": _info(one)} if request.verbose else {}
        return pb.ContainerStatusResponse(status=self.status_of(one), info=info)

    def status_of(self, one: PodContainer) -> pb.ContainerStatus:
        """The status of a container."""
        own = one.container
        return answers.container_status(one, self._own.failed_at(own), self._own.user(own))

    async def update(
        self, request: pb.UpdateContainerResourcesRequest
    ) -> pb.UpdateContainerResourcesResponse:
        """Change limits in place."""
        await self._own.update(_id(request.container_id), requests.resources(request.linux))
        return pb.UpdateContainerResourcesResponse()

    async def reopen_log(
        self, request: pb.ReopenContainerLogRequest
    ) -> pb.ReopenContainerLogResponse:
        """Write to a new file; it is there when this is answered."""
        await self._own.reopen_log(_id(request.container_id))
        return pb.ReopenContainerLogResponse()

    async def exec_sync(self, request: pb.ExecSyncRequest) -> pb.ExecSyncResponse:
        """Run a command to its end, or to the end of the time that it is given."""
        one = self._own.find(_id(request.container_id))
        done = await self._pods.execs.run(one.container, tuple(request.cmd), request.timeout)
        return pb.ExecSyncResponse(stdout=done.stdout, stderr=done.stderr, exit_code=done.code)

    def _everything(self) -> bytes:
        return b"".join([self._line(one) for one in self._own.all()])

    def _matching(self, wanted: pb.ContainerFilter) -> list[bytes]:
        """The encoded lines of what passes."""
        everything = self._own.all()
        state = wanted.state.state if wanted.HasField("state") else None
        found = []
        for one in everything:
            if wanted.id and not one.container.id.startswith(wanted.id):
                continue
            if wanted.pod_sandbox_id and not one.notes.sandbox.startswith(wanted.pod_sandbox_id):
                continue
            if not has_labels(one.notes.request.labels, wanted.label_selector):
                continue
            if state is not None and state != answers.container_state(one):
                continue
            found.append(self._line(one))
        return found

    def _line(self, one: PodContainer) -> bytes:
        own = one.container
        return self._lines.get(own.id, own, None, lambda: answers.container(one))


def _id(text: str) -> str:
    if not text:
        raise InvalidArgument("container_id is missing")
    return text


def _info(one: PodContainer) -> str:
    """What `crictl inspect` shows besides the status."""
    own, request = one.container, one.notes.request
    content = {
        "sandboxID": one.notes.sandbox,
        "pid": own.state.pid,
        "command": [own.path, *own.args],
        "env": list(own.config.env),
        "user": own.config.user,
        "privileged": own.host.privileged,
        "restartCount": own.state.restart_count,
        "stdin": request.stdin,
        "tty": request.tty,
        "snapshotKey": own.id,
    }
    return json.dumps(content)
