"""The network of pods: CNI configuration lists of the node, or nothing but loopback.

The first list of the directory, by file name, is the pods' network, as with every runtime. It is
read again when the directory has changed. Which list a sandbox was connected by is kept with it, so
that it is released by the same one.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import msgspec

from sampan.errors import InvalidArgument, NotFound, SampanError, Unavailable
from sampan.network.cni import Plugins
from sampan.network.conflist import load_conflists, parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sampan.network.conflist import Conflist
    from sampan.pods.model import Sandbox

INTERFACE = "eth0"
_BURST = (1 << 31) - 1
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
NONE = "none"
"""The network of a pod that has loopback only."""


class Network:
    """Connects sandboxes. `directory` holds the lists, `plugins` are the directories of plugins."""

    def __init__(self, directory: str, plugins: Sequence[str], cache: str) -> None:
        self._directory = directory
        self._plugins = Plugins(plugins, cache)
        self._found: Conflist | None = None
        self._stamp: tuple[object, ...] | None = None
        self._problem = ""
        self.pod_cidr = ""

    def choose(self) -> str:
        """The network of a new pod.

        Raises:
            Unavailable: the configuration is broken.
        """
        self._look()
        if self._problem:
            raise Unavailable(f"pod network: {self._problem}")
        return self._found.name if self._found is not None else NONE

    async def condition(self) -> tuple[bool, str]:
        """Whether pods get a network, and why not."""
        self._look()
        if self._problem:
            return False, self._problem
        if self._found is None:
            return False, f"no network configuration found in {self._directory}"
        try:
            await self._plugins.status(self._found)
        except SampanError as error:
            return False, str(error)
        return True, ""

    async def attach(self, network: str, sandbox: Sandbox, path: str) -> tuple[str, ...]:
        """Connect the namespace at `path`; its addresses, the first one the pod's own."""
        if network == NONE:
            return ()
        conflist = self._found
        if conflist is None or conflist.name != network:
            raise NotFound(f"pod network {network}: its configuration is gone")
        result = await self._plugins.add(
            conflist, path, sandbox.id, INTERFACE, arguments(sandbox), capabilities(sandbox)
        )
        if not result.ips:
            raise InvalidArgument(f"pod network {network}: its plugins gave no address")
        return tuple(address.partition("/")[0] for address in result.ips)

    async def detach(self, network: str, sandbox: Sandbox, path: str) -> None:
        """Release what `attach` took; `path` is "" when the namespace is gone."""
        if network == NONE:
            return
        conflist = self._kept(network, sandbox.id)
        if conflist is None:
            return  # never added, or undone: the plugins keep a file of what they added
        await self._plugins.delete(
            conflist, path, sandbox.id, INTERFACE, arguments(sandbox), capabilities(sandbox)
        )

    def _kept(self, network: str, sandbox_id: str) -> Conflist | None:
        """The list that a sandbox was connected by, as it was then."""
        for one in self._plugins.attachments(network):
            if one.id == sandbox_id:
                return parse(msgspec.json.encode(one.config))
        return None

    def _look(self) -> None:
        """Read the lists again if anything changed."""
        stamp = _stamp_of(self._directory)
        if stamp == self._stamp:
            return
        self._stamp, self._found, self._problem = stamp, None, ""
        try:
            lists = load_conflists(self._directory)
        except InvalidArgument as error:
            self._problem = str(error)
            return
        self._found = lists[0] if lists else None


def arguments(sandbox: Sandbox) -> dict[str, str]:
    """CNI_ARGS, as plugins for Kubernetes know them."""
    config = sandbox.config
    return {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": config.namespace,
        "K8S_POD_NAME": config.name,
        "K8S_POD_INFRA_CONTAINER_ID": sandbox.id,
        "K8S_POD_UID": config.uid,
    }


def capabilities(sandbox: Sandbox) -> dict[str, object]:
    """What plugins that declare it are told."""
    config = sandbox.config
    found: dict[str, object] = {}
    ports = [
        {
            "hostPort": port.host,
            "containerPort": port.container,
            "protocol": port.protocol,
            "hostIP": port.address,
        }
        for port in config.ports
        if port.host > 0
    ]
    if ports:
        found["portMappings"] = ports
    if config.dns is not None:
        found["dns"] = {
            "servers": list(config.dns.servers),
            "searches": list(config.dns.searches),
            "options": list(config.dns.options),
        }
    if config.cgroup_parent:
        found["cgroupPath"] = config.cgroup_parent
    if config.annotations:
        found["io.kubernetes.cri.pod-annotations"] = dict(config.annotations)
    bandwidth = _bandwidth(config.annotations)
    if bandwidth:
        found["bandwidth"] = bandwidth
    return found


def _bandwidth(annotations: Mapping[str, str]) -> dict[str, int]:
    """What the traffic shaping plugin is told: bits a second, and how much may come at once."""
    found: dict[str, int] = {}
    for word in ("ingress", "egress"):
        text = annotations.get(f"kubernetes.io/{word}-bandwidth")
        if text:
            found[f"{word}Rate"] = _quantity(text)
            found[f"{word}Burst"] = _BURST
    return found


def _quantity(text: str) -> int:
    """`10M`, `1Gi`, `1500` of Kubernetes' quantities, as far as bandwidths use them."""
    match = re.fullmatch(r"([0-9]{1,12})(k|M|G|Ki|Mi|Gi)?", text, re.ASCII)
    if match is None:
        raise InvalidArgument(f"bandwidth {text!r}: not a quantity")
    return int(match[1]) * _UNITS[match[2] or ""]


def _stamp_of(directory: str) -> tuple[object, ...]:
    try:
        with os.scandir(directory) as entries:
            facts = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        return ()
    return tuple(sorted((name, seen.st_mtime_ns, seen.st_size) for name, seen in facts))
