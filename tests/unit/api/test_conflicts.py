"""What contradicts the namespaces that a request asks for."""

from __future__ import annotations

import pytest

from sampan.api.docker import conflicts
from sampan.engine.model import ContainerConfig, HostConfig
from sampan.errors import InvalidArgument
from sampan.network.model import Binding

OTHER = "container:other"


@pytest.mark.parametrize(
    ("config", "host", "sentence"),
    [
        ({"hostname": "n"}, {"uts_mode": "host"}, "hostname and the UTS mode"),
        ({"hostname": "n"}, {"network_mode": OTHER}, "hostname and the network mode"),
        ({}, {"network_mode": "host", "links": ("a:b",)}, "host type networking can't be used"),
        ({}, {"network_mode": OTHER, "links": ("a:b",)}, "container type network can't be used"),
        ({}, {"network_mode": OTHER, "dns": ("192.0.2.1",)}, "dns and the network mode"),
        ({}, {"network_mode": OTHER, "extra_hosts": ("a:192.0.2.1",)}, "custom host-to-IP mapping"),
        ({}, {"network_mode": OTHER, "publish_all": True}, "port publishing"),
        (
            {},
            {"network_mode": OTHER, "ports": (Binding(port=1, protocol="tcp"),)},
            "port publishing",
        ),
        ({"exposed_ports": ("1/tcp",)}, {"network_mode": OTHER}, "port exposing"),
    ],
)
def test_contradictions(config, host, sentence):
    with pytest.raises(InvalidArgument, match=f"^conflicting options: {sentence}"):
        conflicts.check(ContainerConfig(**config), HostConfig(**host))


def test_what_goes_together():
    conflicts.check(ContainerConfig(), HostConfig(memory=6 << 20, memory_reservation=6 << 20))
    conflicts.check(ContainerConfig(), HostConfig(network_mode=OTHER))
    conflicts.check(
        ContainerConfig(hostname="n", exposed_ports=("1/tcp",)),
        HostConfig(network_mode="bridge", links=("a:b",), dns=("192.0.2.1",)),
    )
