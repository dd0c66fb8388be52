"""Version, Status, RuntimeConfig: what a kubelet asks of the runtime as a whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sampan.version import VERSION
from sampan.wire.cri import api_pb2 as pb

if TYPE_CHECKING:
    from sampan.api.cri.calls import Unary
    from sampan.pods.service import Pods

NAME = "sampan"
API_VERSION = "v1"
_KUBE_API_VERSION = "0.1.0"


class Runtime:
    """Answers for the runtime itself."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods

    def table(self) -> dict[str, Unary]:
        """Method -> answer."""
        return {
            "Version": self.version,
            "Status": self.status,
            "RuntimeConfig": self.runtime_config,
            "UpdateRuntimeConfig": self.update_runtime_config,
        }

    async def version(self, _request: pb.VersionRequest) -> pb.VersionResponse:
        """Who answers here."""
        return pb.VersionResponse(
            version=_KUBE_API_VERSION,
            runtime_name=NAME,
            runtime_version=VERSION,
            runtime_api_version=API_VERSION,
        )

    async def status(self, request: pb.StatusRequest) -> pb.StatusResponse:
        """Whether pods can run, and with what."""
        ready, why = await self._pods.network.condition()
        network = pb.RuntimeCondition(type="NetworkReady", status=ready)
        if not ready:
            network.reason, network.message = "NetworkPluginNotReady", why
        conditions = [pb.RuntimeCondition(type="RuntimeReady", status=True), network]
        return pb.StatusResponse(
            status=pb.RuntimeStatus(conditions=conditions),
            info=self._info() if request.verbose else {},
            runtime_handlers=[
                pb.RuntimeHandler(
                    name=one.name,
                    features=pb.RuntimeHandlerFeatures(
                        recursive_read_only_mounts=one.recursive_read_only,
                        user_namespaces=one.user_namespaces,
                    ),
                )
                for one in self._pods.handlers
            ],
            features=pb.RuntimeFeatures(supplemental_groups_policy=True),
        )

    def _info(self) -> dict[str, str]:
        config = self._pods.engine.config
        found = {
            "root": config.root,
            "state": config.state,
            "cgroupParent": config.cgroup_parent,
            "podCIDR": self._pods.network.pod_cidr,
        }
        return {"config": json.dumps(found)}

    async def runtime_config(self, _request: pb.RuntimeConfigRequest) -> pb.RuntimeConfigResponse:
        """Cgroups are made by us, as directories; a slice's name is taken as its path."""
        linux = pb.LinuxRuntimeConfiguration(cgroup_driver=pb.CGROUPFS)
        return pb.RuntimeConfigResponse(linux=linux)

    async def update_runtime_config(
        self, request: pb.UpdateRuntimeConfigRequest
    ) -> pb.UpdateRuntimeConfigResponse:
        """The addresses that the cluster gives to this node's pods."""
        self._pods.network.pod_cidr = request.runtime_config.network_config.pod_cidr
        return pb.UpdateRuntimeConfigResponse()
