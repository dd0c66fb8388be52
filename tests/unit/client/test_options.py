"""The library's words become docker's body."""

from __future__ import annotations

import re

import pytest

from sampan.cli import container_options
from sampan.client.options import ContainerOptions, container_body
from sampan.errors import InvalidArgument


def test_body():
    body = container_body(
        "busybox",
        None,
        ["sh", "-c", "x"],
        {
            "memory": "64m",
            "cpus": 1.5,
            "env": {"A": "b"},
            "volumes": ["/a:/b:ro"],
            "restart": "on-failure:3",
            "ulimits": {"nofile": (10, 20)},
            "remove": True,
            "pids_limit": 7,
            "cap_drop": ("ALL",),
        },
    )
    assert body == {
        "Image": "busybox",
        "Cmd": ["sh", "-c", "x"],
        "Env": ["A=b"],
        "HostConfig": {
            "AutoRemove": True,
            "Binds": ["/a:/b:ro"],
            "CapDrop": ["ALL"],
            "Memory": 64 << 20,
            "NanoCpus": 1_500_000_000,
            "NetworkMode": "default",
            "PidsLimit": 7,
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
            "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}],
        },
    }


def test_rootfs_is_absolute_and_keeps_its_overlay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert container_body(None, "r:O", (), {})["Rootfs"] == f"{tmp_path}/r:O"
    assert container_body(None, tmp_path / "r", (), {})["Rootfs"] == f"{tmp_path}/r"


@pytest.mark.parametrize(
    ("image", "rootfs", "options"),
    [
        (None, None, {}),
        ("i", "/r", {}),
        ("i", None, {"memory": "lots"}),
        ("i", None, {"restart": "on-failure:x"}),
        ("i", None, {"memroy": "1g"}),
    ],
)
def test_wrong_options_are_refused(image, rootfs, options):
    with pytest.raises(InvalidArgument):
        container_body(image, rootfs, (), options)


def test_ports_and_networks():
    body = container_body(
        "i",
        None,
        (),
        {
            "ports": ["127.0.0.1:8080:80", "53/udp"],
            "expose": ["90-91"],
            "network": ["a", "b"],
            "network_aliases": ["x"],
            "ip": "10.0.0.5",
            "link_local_ips": ["169.254.1.1"],
            "dns": ["1.1.1.1"],
            "extra_hosts": {"h": "1.2.3.4"},
        },
    )
    assert sorted(body["ExposedPorts"]) == ["53/udp", "80/tcp", "90/tcp", "91/tcp"]
    assert body["HostConfig"] == {
        "Dns": ["1.1.1.1"],
        "ExtraHosts": ["h:1.2.3.4"],
        "NetworkMode": "a",
        "PortBindings": {
            "53/udp": [{"HostIp": "", "HostPort": ""}],
            "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
        },
    }
    assert body["NetworkingConfig"]["EndpointsConfig"] == {
        "a": {
            "Aliases": ["x"],
            "IPAMConfig": {"IPv4Address": "10.0.0.5", "LinkLocalIPs": ["169.254.1.1"]},
        },
        "b": {},
    }


def test_devices_and_what_is_rare():
    body = container_body(
        "i",
        None,
        (),
        {
            "devices": ["/dev/fuse", "vendor.com/net=one"],
            "gpus": 2,
            "device_read_bps": {"/dev/sda": "1mb"},
            "blkio_weight_device": {"/dev/sda": 300},
            "storage_options": {"size": "1g"},
            "annotations": {"a": "b"},
            "depends_on": ["db:healthy"],
            "userns": "auto",
            "domainname": "d",
            "memory_reservation": "1k",
            "cpu_rt_runtime": 5,
        },
    )
    host = body["HostConfig"]
    assert body["Domainname"] == "d"
    assert [one["PathOnHost"] for one in host["Devices"]] == ["/dev/fuse"]
    assert host["DeviceRequests"] == [
        {"Driver": "cdi", "DeviceIDs": ["vendor.com/net=one"]},
        {"Driver": "", "Capabilities": [["gpu"]], "Count": 2},
    ]
    assert host["BlkioDeviceReadBps"] == [{"Path": "/dev/sda", "Rate": 1 << 20}]
    assert host["BlkioWeightDevice"] == [{"Path": "/dev/sda", "Weight": 300}]
    assert host["StorageOpt"] == {"size": "1g"}
    assert host["MemoryReservation"] == 1024
    for gpus, wish in (("all", {"Count": -1}), (["U-1"], {"DeviceIDs": ["U-1"]})):
        (request,) = container_body("i", None, (), {"gpus": gpus})["HostConfig"]["DeviceRequests"]
        assert request == {"Driver": "", "Capabilities": [["gpu"]], **wish}


def test_there_is_a_word_for_every_flag_of_run():
    other = {
        "add-host": "extra_hosts", "device": "devices", "device-cgroup-rule": "device_cgroup_rules",
        "dns-option": "dns_options", "label": "labels", "link": "links", "log-opt": "log_options",
        "link-local-ip": "link_local_ips",
        "mount": "mounts", "network-alias": "network_aliases", "annotation": "annotations",
        "publish": "ports", "rm": "remove", "storage-opt": "storage_options", "sysctl": "sysctls",
        "ulimit": "ulimits", "volume": "volumes",
    }  # fmt: skip
    # Of the command line's own streams and files, health checks (`healthcheck`), Linux's only
    # isolation, and a directory, which is an argument.
    elsewhere = re.compile(
        "attach|cidfile|detach.*|env-file|health-.*|help|interactive|isolation|label-file|"
        "no-healthcheck|quiet|rootfs|sig-proxy"
    )
    flags = re.findall(r"^ +(?:-\w, )?--([a-z0-9-]+)", container_options.OPTIONS, re.MULTILINE)
    words = {other.get(name, name.replace("-", "_")) for name in flags if not elsewhere.match(name)}
    assert len(words) > 60
    assert words - set(ContainerOptions.__annotations__) == set()
