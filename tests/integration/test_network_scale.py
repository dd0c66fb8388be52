"""Many networks and endpoints: made, told apart, and gone without a trace.

Two hundred and five hundred take half a minute of the kernel's time, so a fifth of them is tried;
`SAMPAN_TEST_NETWORKS=200` tries them all.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess

import pytest
from tests.netlab import links, needs_net

from enginelab import Lab, eventually
from sampan.engine.model import Container, ContainerConfig, HostConfig
from sampan.ids import new_id
from sampan.network.model import Binding, EndpointRequest, NetworkConfig

pytestmark = needs_net

NETWORKS = int(os.environ.get("SAMPAN_TEST_NETWORKS", "40"))
ENDPOINTS = NETWORKS * 5 // 2
PATIENCE = 55 * NETWORKS / 40


def member(number):
    """What the engine's networks need to know of a container."""
    names = [f"net{(number * step) % NETWORKS}" for step in (1, 7)] if number % 5 == 0 else []
    names = list(dict.fromkeys(names)) or [f"net{number % NETWORKS}"]
    return Container(
        id=new_id(),
        name=f"c{number}",
        created_at=0,
        config=ContainerConfig(),
        host=HostConfig(network_mode=names[0], ports=(Binding(port=80),)),
        path="",
        args=(),
        networks={name: EndpointRequest() for name in names},
    )


@pytest.mark.timeout(PATIENCE + 60)
def test_many(tmp_path):
    lab = Lab(tmp_path)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))

    async def main():
        async with lab.engine() as engine:
            networks = engine.networks
            for number in range(NETWORKS):
                await networks.create(NetworkConfig(name=f"net{number}"))
            subnets = [pool.subnet for one in networks.list() for pool in one.pools]
            assert len(set(subnets)) == NETWORKS + 1
            members = [member(number) for number in range(ENDPOINTS)]
            for one in members:
                await networks.prepare(one)
            found = [one for owner in members for one in networks.endpoints(owner.id)]
            assert len({(one.network, one.ipv4) for one in found}) == len(found) > ENDPOINTS
            ports = [one.host_port for owner in members for one in networks.published(owner.id)]
            assert len(set(ports)) == ENDPOINTS
            for one in members:
                networks.release(one.id)
            for number in range(NETWORKS):
                await networks.remove(f"net{number}")
        async with lab.engine() as engine:
            assert [one.name for one in engine.networks.list()] == ["bridge", "host", "none"]

    try:
        asyncio.run(asyncio.wait_for(main(), PATIENCE))
        asyncio.run(eventually(lambda: not [one for one in links() if one.startswith("s")]))
        tables = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True)
        assert b"sampan" not in tables.stdout
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
        lab.check_clean()
        lab.close()
