"""Checkpoints: of a container, of a pod, and the pod that is made of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.api.cri import requests
from sampan.errors import InvalidArgument
from sampan.wire.cri import api_pb2 as pb

if TYPE_CHECKING:
    from sampan.api.cri.calls import Unary
    from sampan.pods.service import Pods


class Checkpoints:
    """Answers about checkpoints. What does the work is imported when it is asked for."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods

    def table(self) -> dict[str, Unary]:
        """Method -> answer."""
        return {
            "CheckpointContainer": self.of_container,
            "CheckpointPod": self.of_pod,
            "RestorePod": self.restore_pod,
        }

    async def of_container(
        self, request: pb.CheckpointContainerRequest
    ) -> pb.CheckpointContainerResponse:
        """Write an archive of a container that goes on running."""
        from sampan.pods import checkpoints

        if not request.container_id:
            raise InvalidArgument("container_id is missing")
        wanted = request.container_id, request.location, request.timeout
        await checkpoints.create(self._pods, *wanted)
        return pb.CheckpointContainerResponse()

    async def of_pod(self, request: pb.CheckpointPodRequest) -> pb.CheckpointPodResponse:
        """Write archives of all containers of a pod, at one moment."""
        from sampan.pods import podcheckpoints

        if not request.pod_sandbox_id:
            raise InvalidArgument("pod_sandbox_id is missing")
        await podcheckpoints.create(
            self._pods,
            request.pod_sandbox_id,
            request.output_path,
            tuple(request.container_ids),
            dict(request.options),
        )
        return pb.CheckpointPodResponse()

    async def restore_pod(self, request: pb.RestorePodRequest) -> pb.RestorePodResponse:
        """Make a pod whose containers, when they are started, go on where the checkpoint was."""
        from sampan.pods import podcheckpoints

        if not request.HasField("config"):
            raise InvalidArgument("config is missing")
        sandbox, made = await podcheckpoints.restore(
            self._pods,
            request.checkpoint_path,
            requests.sandbox_config(request.config),
            request.runtime_handler,
            dict(request.options),
            tuple(requests.container(one) for one in request.container_configs),
        )
        found = [pb.RestoredContainer(name=name, container_id=one) for name, one in made.items()]
        return pb.RestorePodResponse(pod_sandbox_id=sandbox, restored_containers=found)
