"""Pod sandboxes: from RunPodSandbox to ListPodSandbox."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from sampan.api.cri import answers, requests
from sampan.api.cri.lists import Lines, pieces
from sampan.errors import InvalidArgument, NotFound
from sampan.wire.cri import api_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from sampan.api.cri.calls import Stream, Unary
    from sampan.pods.model import Sandbox
    from sampan.pods.service import Pods


class Sandboxes:
    """Answers about sandboxes."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods
        self._lines = Lines()

    def table(self) -> dict[str, Unary]:
        """Method -> answer."""
        return {
            "RunPodSandbox": self.run,
            "StopPodSandbox": self.stop,
            "RemovePodSandbox": self.remove,
            "PodSandboxStatus": self.status,
            "ListPodSandbox": self.all,
            "UpdatePodSandboxResources": self.update_resources,
        }

    def streams(self) -> dict[str, Stream]:
        """Method -> answers."""
        return {"StreamPodSandboxes": self.stream}

    async def run(self, request: pb.RunPodSandboxRequest) -> pb.RunPodSandboxResponse:
        """Make a sandbox; it is ready when this is answered."""
        config = requests.sandbox_config(request.config)
        sandbox = await self._pods.sandboxes.run(config, request.runtime_handler)
        return pb.RunPodSandboxResponse(pod_sandbox_id=sandbox.id)

    async def stop(self, request: pb.StopPodSandboxRequest) -> pb.StopPodSandboxResponse:
        """End everything in it; again and again if need be."""
        await self._pods.sandboxes.stop(_id(request.pod_sandbox_id))
        return pb.StopPodSandboxResponse()

    async def remove(self, request: pb.RemovePodSandboxRequest) -> pb.RemovePodSandboxResponse:
        """Remove it with its containers."""
        await self._pods.sandboxes.remove(_id(request.pod_sandbox_id))
        return pb.RemovePodSandboxResponse()

    async def status(self, request: pb.PodSandboxStatusRequest) -> pb.PodSandboxStatusResponse:
        """One sandbox; with `verbose` what it was asked to be."""
        one = self._pods.table.find(_id(request.pod_sandbox_id))
        status = answers.sandbox_status(one, self._pods.sandboxes.is_ready(one))
        info = {"info": _info(self._pods, one)} if request.verbose else {}
        return pb.PodSandboxStatusResponse(status=status, info=info, timestamp=time.time_ns())

    async def all(self, request: pb.ListPodSandboxRequest) -> bytes:
        """The sandboxes that pass the filter, newest first."""
        return b"".join(self._matching(request.filter))

    async def stream(self, request: pb.StreamPodSandboxesRequest) -> AsyncIterator[bytes]:
        """The same list in several messages."""
        for piece in pieces(self._matching(request.filter)):
            yield piece

    async def update_resources(
        self, request: pb.UpdatePodSandboxResourcesRequest
    ) -> pb.UpdatePodSandboxResourcesResponse:
        """The kubelet has resized the pod's cgroup itself; we only learn of it."""
        one = self._pods.table.find(_id(request.pod_sandbox_id))
        await self._pods.sandboxes.note_resources(
            one, requests.resources(request.resources), requests.resources(request.overhead)
        )
        return pb.UpdatePodSandboxResourcesResponse()

    def _matching(self, wanted: pb.PodSandboxFilter) -> list[bytes]:
        """The encoded lines of what passes."""
        state = wanted.state.state if wanted.HasField("state") else None
        found = []
        for one in self._pods.table:
            if wanted.id and not one.id.startswith(wanted.id):
                continue
            if not has_labels(one.config.labels, wanted.label_selector):
                continue
            ready = self._pods.sandboxes.is_ready(one)
            if state is not None and state != answers.sandbox_state(ready):
                continue
            found.append((one.created_at, self._line(one, ready)))
        found.sort(reverse=True)
        return [line for _, line in found]

    def _line(self, one: Sandbox, ready: bool) -> bytes:
        return self._lines.get(one.id, one, ready, lambda: answers.sandbox(one, ready))


def has_labels(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether every wanted label is there with its value."""
    return all(labels.get(key) == value for key, value in wanted.items())


def _id(text: str) -> str:
    if not text:
        raise InvalidArgument("pod_sandbox_id is missing")
    return text


def _info(pods: Pods, one: Sandbox) -> str:
    """What `crictl inspectp` shows besides the status."""
    pid = 0
    if one.keeper:
        try:
            pid = pods.engine.get(one.keeper).state.pid
        except NotFound:
            pid = 0
    place = pods.sandboxes.place(one)
    content = {
        "pid": pid,
        "keeper": one.keeper,
        "runtimeHandler": one.handler,
        "cgroupParent": one.config.cgroup_parent,
        "namespaces": place.pinned,
        "network": one.network,
        "addresses": list(one.addresses),
        "sysctls": dict(one.config.sysctls),
    }
    return json.dumps(content)
