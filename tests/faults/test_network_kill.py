"""kill -9 of the engine at each step of a network's life: reconciled, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from tests.netlab import links, needs_cni, needs_net

from enginelab import PATIENCE, Lab, eventually, shims_running
from sampan.engine.model import HostConfig
from sampan.network.model import Binding, EndpointRequest, NetworkConfig, Pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sampan.engine.engine import Engine

pytestmark = needs_net

VICTIM = """
import asyncio, sys
from sampan.engine.config import EngineConfig
from sampan.engine.engine import Engine
from sampan.engine.model import ContainerConfig, HostConfig
from sampan.network.model import Binding, EndpointRequest, NetworkConfig, Pool

async def main():
    config = EngineConfig(
        root=lab["root"], state=lab["state"], cgroup_parent=lab["parent"], fault=sys.argv[1]
    )
    engine = await Engine.open(config)
    pools = (Pool(subnet="10.88.0.0/24"),)
    wish = EndpointRequest(ipv4="10.88.0.9")
    config = NetworkConfig(name="back", pools=pools)
    if len(sys.argv) > 2:
        config = NetworkConfig(name="back", driver="cni", options={"conflist": sys.argv[2]})
        wish = EndpointRequest()
    await engine.networks.create(config)
    made = await engine.create(
        ContainerConfig(rootfs=rootfs + ":O", command=("sleep", "1000")),
        HostConfig(network_mode="bridge", ports=(Binding(port=80, host_first=18099),)),
        "victim",
    )
    await engine.start("victim")
    await engine.connect("back", "victim", wish)
    await engine.disconnect("back", "victim")
    await engine.networks.remove("back")
    await engine.remove("victim", force=True)

asyncio.run(main())
"""
STEPS = (
    "network-created",
    "network-leased",
    "network-joined",
    "network-wired",
    "start-launched",
    "network-connecting",
    "network-connected",
    "network-disconnecting",
    "network-disconnected",
    "network-removed",
)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.check_clean()
    made.close()


async def again(lab: Lab, engine: Engine) -> None:
    """Everything that the victim did can be done now, with the same names, address and port."""
    for network in engine.networks.list({"type": ["custom"]}):
        for one in engine.networks.members(network):
            await engine.disconnect(network.name, one.owner)
        await engine.networks.remove(network.id)
    for container in engine.list(all=True):
        await engine.remove(container.id, force=True)
    pools = (Pool(subnet="10.88.0.0/24"),)
    await engine.networks.create(NetworkConfig(name="back", pools=pools))
    host = HostConfig(network_mode="back", ports=(Binding(port=80, host_first=18099),))
    wish = EndpointRequest(ipv4="10.88.0.9")
    await engine.create(lab.config_of("sleep", "1000"), host, "victim", networks={"back": wish})
    await engine.start("victim")
    published = engine.networks.published(engine.get("victim").id)
    assert [(one.host, one.host_port) for one in published] == [("0.0.0.0", 18099), ("::", 18099)]
    await engine.remove("victim", force=True)
    await engine.networks.remove("back")


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at(lab: Lab, step: str) -> None:
    victim = lab.spawn(VICTIM, step)
    assert victim.wait(60) == -signal.SIGKILL, f"step {step} was not reached"

    async def main() -> None:
        async with asyncio.timeout(PATIENCE), lab.engine() as engine:
            for container in engine.list(all=True):
                attached = engine.networks.endpoints(container.id)
                assert bool(attached) == container.status.is_running
            await again(lab, engine)
        async with asyncio.timeout(20):
            await eventually(lambda: shims_running(str(lab.path)) == [])

    asyncio.run(main())
    tables = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True)
    assert "sampan" not in tables.stdout
    assert [name for name in links() if name.startswith("sb-")] == []
    deadline = time.monotonic() + 20  # the kernel removes a namespace when it finds the time
    while any(name.startswith("sv") for name in links()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@needs_cni
@pytest.mark.parametrize("step", ["network-added", "network-connected", "network-disconnecting"])
def test_a_kill_at_a_network_of_plugins(lab: Lab, tmp_path: Path, step: str) -> None:
    """What the plugins gave is taken back, and the container runs on without it."""
    leases = tmp_path / "leases"
    ranges = [[{"subnet": "10.88.0.0/24"}]]
    addresses = {"type": "host-local", "dataDir": str(leases), "ranges": ranges}
    bridge = {"type": "bridge", "bridge": "cni-kill", "isGateway": True, "ipam": addresses}
    path = tmp_path / "10-back.conflist"
    path.write_text(json.dumps({"cniVersion": "1.0.0", "name": "back", "plugins": [bridge]}))
    victim = lab.spawn(VICTIM, step, str(path))
    assert victim.wait(60) == -signal.SIGKILL, f"step {step} was not reached"

    def leased() -> list[str]:
        return [name for name in os.listdir(leases / "back") if name.startswith("10.")]

    async def main() -> None:
        async with asyncio.timeout(PATIENCE), lab.engine() as engine:
            container = engine.get("victim")
            assert container.status.is_running
            assert [one.interface for one in engine.networks.endpoints(container.id)] == ["eth0"]
            await eventually(lambda: leased() == [])
            await engine.connect("back", "victim")
            assert len(leased()) == 1
            await engine.remove("victim", force=True)
            await eventually(lambda: leased() == [])

    try:
        asyncio.run(main())
    finally:
        subprocess.run(["ip", "link", "del", "cni-kill"], check=True)
