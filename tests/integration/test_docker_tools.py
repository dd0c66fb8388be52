"""python-on-whales and testcontainers, unchanged, each in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

import dockerlab

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
    pytest.mark.skipif(not dockerlab.DOCKER, reason="needs the docker CLI"),
]
# Its models refuse an answer whose members have other types than docker's.
WHALES = """
from python_on_whales import DockerClient
docker = DockerClient()
made = docker.run(
    "bb:1", ["sleep", "1000"], detach=True, name="whale", envs={"A": "b"}, labels={"x": "y"},
    publish=[("127.0.0.1:18082", 80)],
)
assert made.state.status == "running"
assert "A=b" in made.config.env
assert made.network_settings.ports["80/tcp"][0]["HostPort"] == "18082"
assert [one.id for one in docker.container.list()] == [made.id]
assert docker.execute("whale", ["sh", "-c", "echo $A"]) == "b"
image = docker.image.inspect("bb:1")
assert image.repo_tags == ["bb:1"] and image.created.year > 2000
assert docker.system.info().containers == 1
volume = docker.volume.create("whale-volume")
network = docker.network.create("whale-network")
docker.network.connect(network, made)
made.reload()
assert set(made.network_settings.networks) == {"bridge", "whale-network"}
docker.network.disconnect(network, made)
assert [one.container_name for one in docker.stats()] == ["whale"]
assert docker.system.disk_free().images.total_count == 1
made.kill()
made.remove()
network.remove()
volume.remove()
"""
# It reaches a published port by the gateway of its network, and waits for words in logs.
CONTAINERS = """
import urllib.request
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy
web = DockerContainer("bb:1").with_command("sh -c 'echo ready; httpd -f -p 80 -h /etc'")
with web.with_exposed_ports(80).waiting_for(LogMessageWaitStrategy("ready")) as made:
    place = f"http://{made.get_container_host_ip()}:{made.get_exposed_port(80)}/group"
    assert urllib.request.urlopen(place, timeout=30).read() == b"root:x:0:\\n"
    assert made.exec("echo hi").output == b"hi\\n"
with Network() as network:
    one = DockerContainer("bb:1").with_command("httpd -f -p 80 -h /etc").with_network(network)
    two = DockerContainer("bb:1").with_command("sleep 1000").with_network(network)
    with one.with_network_aliases("one"), two:
        assert two.exec("wget -qO- http://one/group").output == b"root:x:0:\\n"
"""


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        tar = dockerlab.tar_of(f"{made.base}/rootfs")
        made.exchange("POST", "/images/create?fromSrc=-&repo=bb:1&changes=CMD+sh", tar)
        yield made


@pytest.mark.parametrize(
    ("module", "script"),
    [("python_on_whales", WHALES), ("testcontainers", CONTAINERS)],
    ids=["python_on_whales", "testcontainers"],
)
def test_scripts(daemon, module, script):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}")
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**daemon.environ, "TESTCONTAINERS_RYUK_DISABLED": "true"},
        check=False,
        capture_output=True,
        timeout=dockerlab.PATIENCE,
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
