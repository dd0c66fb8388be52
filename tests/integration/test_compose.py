"""docker-compose 1.29 and its six services: networks, volumes, health, order, ports.

Each service proves something to the next one: the application starts when the database is healthy,
reaches it by its alias over a network without a way out, and reads what another service wrote.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

import dockerlab

COMPOSE = shutil.which("docker-compose")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
    pytest.mark.skipif(COMPOSE is None, reason="needs docker-compose"),
    pytest.mark.timeout(120),
]
PROJECT = """\
version: "2.4"
services:
  db:
    image: bb:1
    command: ["sh", "-c", "touch /ready; while true; do echo from db | nc -l -p 5000; done"]
    healthcheck: {test: ["CMD", "stat", "/ready"], interval: 1s, timeout: 5s, retries: 20}
    networks: {back: {aliases: [database]}}
  init:
    image: bb:1
    command: sh -c 'echo written > /data/file'
    volumes: ["data:/data"]
    networks: [back]
  cache:
    image: bb:1
    command: sleep 1000
    mem_limit: 64m
    volumes: ["/kept"]
    mac_address: 02:42:ac:00:00:07
    networks: [back]
  app:
    image: bb:1
    command: sh -c 'echo $$MODE; nc database 5000 < /dev/null; exec sleep 1000'
    depends_on: {db: {condition: service_healthy}, init: {condition: service_started}}
    environment: {MODE: testing}
    volumes: ["data:/data:ro"]
    networks: [front, back]
  web:
    image: bb:1
    command: httpd -f -p 80 -h /etc
    depends_on: [app]
    ports: ["127.0.0.1:18080:80"]
    networks: [front]
  client:
    image: bb:1
    command: sh -c 'wget -qO- http://shop/group; exec sleep 1000'
    depends_on: [web]
    links: ["web:shop"]
    networks: [front]
networks: {front: {}, back: {internal: true}}
volumes: {data: {}}
"""


@pytest.fixture(scope="module")
def compose():
    """A function of words in the project's directory; what is left at its end is a failure."""
    with dockerlab.daemon() as daemon:
        rootfs = f"{daemon.base}/rootfs"
        tar = dockerlab.tar_of(rootfs)
        daemon.exchange("POST", "/images/create?fromSrc=-&repo=bb:1&changes=CMD+sh", tar)
        place = Path(f"{daemon.base}/project")
        place.mkdir()
        (place / "docker-compose.yml").write_text(PROJECT)

        def run(*words):
            done = subprocess.run(
                [COMPOSE, *words],
                env=daemon.environ,
                cwd=place,
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=100,
            )
            text = done.stdout.decode()
            assert done.returncode == 0, (words, text)
            return text

        yield run
        run("down", "-v", "-t", "0")
        assert daemon.ask("GET", "/containers/json?all=1")[1] == []
        # What a container got of the one before is named in it, and stays, as in dockerd.
        daemon.ask("POST", "/volumes/prune")
        assert daemon.ask("GET", "/volumes")[1]["Volumes"] == []
        names = {network["Name"] for network in daemon.ask("GET", "/networks")[1]}
        assert names == {"bridge", "host", "none"}


def test_six_services(compose):
    compose("up", "-d")
    table = compose("ps")
    assert "Up (healthy)" in table
    assert "127.0.0.1:18080->80/tcp" in table
    assert "Exit 0" in table
    with urllib.request.urlopen("http://127.0.0.1:18080/group", timeout=30) as answer:
        assert answer.read() == b"root:x:0:\n"
    assert compose("exec", "-T", "app", "cat", "/data/file") == "written\n"
    told = compose("logs", "--no-color", "app", "client")
    assert all(words in told for words in ("testing", "from db", "root:x:0:"))


def test_a_container_made_anew_has_what_its_volumes_had(compose):
    """And the address that it was promised, in a network that it left and joined again."""
    compose("exec", "-T", "cache", "touch", "/kept/here")
    before = compose("ps", "-q", "cache")
    compose("up", "-d", "--no-deps", "--force-recreate", "-t", "0", "cache")
    assert compose("ps", "-q", "cache") != before
    assert compose("exec", "-T", "cache", "ls", "/kept") == "here\n"
    assert "02:42:ac:00:00:07" in compose(
        "exec", "-T", "cache", "cat", "/sys/class/net/eth0/address"
    )


def test_scale_run_and_the_rest(compose):
    compose("up", "-d", "--no-deps", "--scale", "cache=3", "cache")
    assert compose("ps", "-q", "cache").count("\n") == 3
    assert "one-off" in compose("run", "--rm", "--no-deps", "cache", "echo", "one-off")
    compose("restart", "-t", "0", "cache")
