"""The network of pods: a CNI configuration list of the node, or a network of the engine.

The first list of the directory, by file name, is the pods' network, as with every runtime. It is
read again when the directory has changed. While there is none, pods are in the engine's network
`fallback`, usually its bridge, and their ports are published by it. Which network a sandbox was
connected by is kept with it, so that it is released by the same one.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from sampan.engine.model import Container, ContainerConfig, HostConfig
from sampan.engine.wiring import why_not
from sampan.errors import InvalidArgument, NotFound, SampanError, Unavailable
from sampan.network.cni import Plugins
from sampan.network.conflist import load_conflists
from sampan.network.model import Binding, Driver, EndpointRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sampan.engine.networking import Networks
    from sampan.network.conflist import Conflist
    from sampan.pods.model import Sandbox

INTERFACE = "eth0"
_BURST = (1 << 31) - 1
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
NONE = "none"
"""The network of a pod that has loopback only."""

ENGINE = "engine:"
"""A network of the engine; its name follows. No list's name has a colon."""


class Network:
    """Connects sandboxes. `directory` holds the lists, `plugins` are the directories of plugins."""

    def __init__(
        self,
        directory: str,
        plugins: Sequence[str],
        cache: str,
        networks: Networks,
        fallback: str,
    ) -> None:
        self._networks = networks
        self._cache = cache
        self._problem = ""
        self.pod_cidr = ""
        self.set_places(directory, plugins, fallback)

    def set_places(self, directory: str, plugins: Sequence[str], fallback: str) -> None:
        """Where lists and plugins are, and what pods get while there is no list."""
        self._fallback = fallback
        self._directory = directory
        self._plugins = Plugins(plugins, self._cache)
        self._found: Conflist | None = None
        self._stamp: tuple[object, ...] | None = None

    def choose(self) -> str:
        """The network of a new pod.

        Raises:
            Unavailable: the configuration is broken.
        """
        self._look()
        if self._problem:
            raise Unavailable(f"pod network: {self._problem}")
        if self._found is not None:
            return self._found.name
        return NONE if self._why_no_fallback() else ENGINE + self._fallback

    async def condition(self) -> tuple[bool, str]:
        """Whether pods get a network, and why not."""
        self._look()
        if self._problem:
            return False, self._problem
        if self._found is None:
            why = self._why_no_fallback()
            return not why, why and f"no network configuration in {self._directory}, and {why}"
        try:
            await self._plugins.status(self._found)
        except SampanError as error:
            return False, str(error)
        return True, ""

    async def prepare(self, network: str, sandbox: Sandbox) -> str:
        """Join a network of the engine: the path of the namespace that comes with it, else "".

        Raises:
            StartFailed: a port of the node is taken. SampanError: the kernel refused.
        """
        if not network.startswith(ENGINE):
            return ""
        name = network.removeprefix(ENGINE)
        # A pod's name server is the kubelet's business: with one of its own it never asks ours.
        host = HostConfig(network_mode=name, ports=_bindings(sandbox), dns=("127.0.0.1",))
        member = Container(
            id=sandbox.id,
            name=sandbox.config.name,
            created_at=sandbox.created_at,
            config=ContainerConfig(),
            host=host,
            path="",
            networks={name: EndpointRequest()},
        )
        return await self._networks.prepare(member)

    async def attach(self, network: str, sandbox: Sandbox, path: str) -> tuple[str, ...]:
        """Connect the namespace at `path`; its addresses, the first one the pod's own."""
        if network == NONE:
            return ()
        if network.startswith(ENGINE):
            endpoints = self._networks.endpoints(sandbox.id)
            return tuple(ip for one in endpoints for ip in (one.ipv4, one.ipv6) if ip)
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
        if network.startswith(ENGINE):
            self._networks.release(sandbox.id)
            return
        conflist = self._plugins.find(sandbox.id, INTERFACE)
        if conflist is None:
            return  # never added, or undone: the plugins keep a file of what they added
        await self._plugins.delete(
            conflist, path, sandbox.id, INTERFACE, arguments(sandbox), capabilities(sandbox)
        )

    def _why_no_fallback(self) -> str:
        """Why there is no network of the engine to fall back on, "" when there is one."""
        if not self._fallback:
            return "no fallback_network is configured"
        try:
            network = self._networks.find(self._fallback)
        except SampanError as error:
            return str(error)
        if network.driver not in (Driver.BRIDGE, Driver.MACVLAN):
            return f"{network.name} gives no addresses"
        return why_not()

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


def _bindings(sandbox: Sandbox) -> tuple[Binding, ...]:
    return tuple(
        Binding(
            port=port.container,
            protocol=port.protocol,
            host=port.address,
            host_first=port.host,
            host_last=port.host,
        )
        for port in sandbox.config.ports
        if port.host > 0
    )


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
