"""Answers by the version that is asked for: what has gone since, and what was not there yet."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest

from sampan.api.docker import convert, endpoints, oldrequests, pictures, requests, system, versions
from sampan.engine import model
from sampan.errors import InvalidArgument, NotImplementedHere
from sampan.images.model import Image
from sampan.network.model import Endpoint, EndpointRequest
from sampan.spec.digest import Digest
from sampan.spec.image import Descriptor, History, ImageConfig
from sampan.wire import containers, hostconfig

LEGACY = {
    "Bridge": "",
    "HairpinMode": False,
    "LinkLocalIPv6Address": "",
    "LinkLocalIPv6PrefixLen": 0,
    "SecondaryIPAddresses": None,
    "SecondaryIPv6Addresses": None,
    "EndpointID": "e" * 64,
    "Gateway": "172.17.0.1",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "IPAddress": "172.17.0.2",
    "IPPrefixLen": 16,
    "IPv6Gateway": "",
    "MacAddress": "02:42:ac:11:00:02",
}


DIGEST = Digest("sha256:" + "a" * 64)
IMAGE = Image(
    id=DIGEST,
    names=("alpine:3.10",),
    digests=(),
    config=ImageConfig(architecture="amd64", os="linux"),
    created="",
    size=7,
    chain_id="",
    layers=(),
    target=Descriptor("application/vnd.oci.image.manifest.v1+json", DIGEST, 5),
)
INFO = model.EngineInfo(
    id="",
    name="",
    containers=0,
    containers_running=0,
    containers_paused=0,
    containers_stopped=0,
    images=0,
    driver="overlay",
    root="",
    state="",
    kernel_version="",
    operating_system="",
    architecture="",
    cpus=1,
    memory_total=0,
    cgroup_version="1",
    default_no_new_privileges=False,
    log_driver="json-file",
)


def minor(version):
    return int(version.partition(".")[2])


def plain(answer):
    return json.loads(msgspec.json.encode(answer))


@pytest.fixture
def inspect(make_container):
    """`inspect` of a container in the default bridge and in another network."""
    one = make_container(
        networks={"bridge": EndpointRequest(), "front": EndpointRequest(aliases=("web",))}
    )
    one = replace(one, host=replace(one.host, network_mode="bridge"))
    end = Endpoint(
        id="e" * 64,
        network="n",
        network_name="bridge",
        owner=one.id,
        interface="eth0",
        mac="02:42:ac:11:00:02",
        ipv4="172.17.0.2",
        prefix4=16,
        gateway4="172.17.0.1",
    )

    def inspected(version):
        answer = convert.inspect(one, endpoints.Live((end,)))
        versions.container(answer, minor(version))
        return plain(answer)

    return inspected


@pytest.mark.parametrize(("version", "has"), [("1.24", True), ("1.51", True), ("1.52", False)])
def test_the_default_bridge_beside_the_networks(inspect, version, has):
    answer = inspect(version)
    settings = answer["NetworkSettings"]
    assert settings["Networks"]["bridge"]["IPAddress"] == "172.17.0.2"
    assert {name: settings[name] for name in LEGACY if name in settings} == (LEGACY if has else {})
    assert ("GraphDriver" in answer, "Storage" in answer) == (has, not has)
    assert ("OnBuild" in answer["Config"]) is has


@pytest.mark.parametrize(("version", "more"), [("1.44", True), ("1.45", False)])
def test_a_container_s_own_names_among_its_aliases(inspect, version, more):
    answer = inspect(version)
    networks = answer["NetworkSettings"]["Networks"]
    assert networks["front"]["Aliases"] == (["web", answer["Id"][:12], "h1"] if more else ["web"])
    assert networks["bridge"]["Aliases"] is None


def test_they_are_not_there_before_it_was_started(make_container):
    networks = {"front": EndpointRequest(aliases=("web",))}
    host = model.HostConfig(network_mode="front")
    one = make_container(networks=networks, host=host, state=model.State())
    answer = convert.inspect(one)
    versions.container(answer, minor("1.41"))
    assert answer.network_settings.networks["front"].aliases == ["web"]


@pytest.mark.parametrize(
    ("version", "annotations", "health"),
    [
        ("1.45", None, None),
        ("1.51", {"a": "b"}, None),
        ("1.52", {"a": "b"}, {"Status": "starting", "FailingStreak": 0}),
    ],
)
def test_a_list_of_containers(make_container, version, annotations, health):
    one = make_container()
    state = replace(one.state, health=model.Health(status=model.HealthStatus.STARTING))
    one = replace(one, host=replace(one.host, annotations={"a": "b"}), state=state)
    answer = convert.summary(one, one.created_at)
    versions.container_summary(answer, minor(version))
    line = plain(answer)
    assert line["HostConfig"].get("Annotations") == annotations
    assert line.get("Health") == health


def test_an_image_loses_members_and_gets_others():
    def inspect(version):
        answer = pictures.inspect(IMAGE)
        versions.image(answer, minor(version))
        return plain(answer)

    oldest, found = inspect("1.24"), inspect("1.43")
    assert oldest == found
    assert found["VirtualSize"] == found["Size"]
    assert (found["Container"], found["ContainerConfig"]) == ("", found["Config"])
    assert (found["Config"]["Hostname"], found["Config"]["Tty"]) == ("", False)
    assert "Descriptor" not in found
    found = inspect("1.44")
    assert "VirtualSize" not in found
    assert "Container" in found
    found = inspect("1.45")
    assert "Container" not in found
    found = inspect("1.48")
    assert found["Descriptor"]["digest"].startswith("sha256:")
    found = inspect("1.50")
    assert "Hostname" not in found["Config"]
    assert found["ContainerConfig"]["Volumes"] == found["Config"]["Volumes"]  # compose 1.29
    assert found["Config"]["OnBuild"] is None
    assert found["GraphDriver"]["Name"] == "overlay"
    assert found["DockerVersion"] == ""
    found = inspect("1.52")
    assert not {"OnBuild", "Hostname"} & set(found["Config"])
    assert not {"GraphDriver", "DockerVersion", "Parent", "ContainerConfig"} & set(found)


def test_the_last_step_of_an_image_has_the_arguments_of_its_build():
    title = "RUN |1 version=2 /bin/sh -c echo ${version} more"
    config = replace(IMAGE.config, history=(History(created_by=title),))
    answer = pictures.inspect(replace(IMAGE, config=config))
    versions.image(answer, 38)
    found = plain(answer)["ContainerConfig"]["Cmd"]
    assert found == ["|1", "version=2", "/bin/sh", "-c", "echo ${version} more"]
    assert plain(answer)["Config"]["Cmd"] is None


def test_a_list_of_images():
    def listed(version, image=IMAGE):
        answer = pictures.summary(image, 1)
        versions.image_summary(answer, minor(version))
        return plain(answer)

    nameless = replace(IMAGE, names=())

    assert listed("1.43")["VirtualSize"] == listed("1.43")["Size"]
    assert "VirtualSize" not in listed("1.44")
    assert "Descriptor" not in listed("1.47")
    assert "Descriptor" in listed("1.48")
    assert (listed("1.50")["Containers"], listed("1.51")["Containers"]) == (-1, 1)
    assert listed("1.42", nameless)["RepoTags"] == ["<none>:<none>"]
    assert listed("1.43", nameless)["RepoTags"] == []


def test_what_the_daemon_says_of_itself():
    def told(version):
        answer = system.info_answer(INFO, 0)
        versions.info(answer, minor(version))
        return plain(answer)

    assert told("1.24")["SecurityOptions"][0] == "seccomp"
    assert told("1.25")["SecurityOptions"][0] == "name=seccomp,profile=builtin"
    assert "AllowNondistributableArtifactsCIDRs" in told("1.46")["RegistryConfig"]
    assert "AllowNondistributableArtifactsCIDRs" not in told("1.47")["RegistryConfig"]
    assert told("1.48")["RuncCommit"] == {"ID": "", "Expected": ""}
    assert told("1.49")["RuncCommit"] == {"ID": ""}
    assert "FirewallBackend" not in told("1.48")
    assert told("1.49")["FirewallBackend"]["Driver"] == "nftables"
    assert told("1.49")["BridgeNfIptables"] is False
    assert "BridgeNfIptables" not in told("1.50")


@pytest.mark.parametrize(
    ("version", "body", "sentence"),
    [
        (
            "1.43",
            b'{"Image":"a","NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{}}}}',
            "Container cannot be created with multiple network endpoints: a, b",
        ),
        (
            "1.43",
            (
                b'{"HostConfig":{"Mounts":[{"Type":"bind","Target":"/b","BindOptions":{"ReadOnlyForce'
                b'Recursive":true}}]}}'
            ),
            "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
        ),
        (
            "1.44",
            (
                b'{"Image":"a","HostConfig":{"Mounts":[{"Type":"volume","Target":"/b",'
                b'"VolumeOptions":{"Subpath":"x"}}]}}'
            ),
            "VolumeOptions.Subpath needs API v1.45 or newer",
        ),
        (
            "1.47",
            b'{"Image":"a","HostConfig":{"Mounts":[{"Type":"image","Target":"/b"}]}}',
            'Mount type "Image" needs API v1.48 or newer',
        ),
        (
            "1.52",
            b'{"Image":"a","MacAddress":"02:00:00:00:00:01"}',
            (
                "container-wide MAC address no longer supported; use endpoint-specific MAC "
                "address instead"
            ),
        ),
        (
            "1.43",
            b'{"Image":"a","MacAddress":"02:00:00:00:00:01","HostConfig":{"NetworkMode":"host"}}',
            "conflicting options: mac-address and the network mode",
        ),
    ],
)
def test_what_only_another_version_may_ask(version, body, sentence):
    with pytest.raises(InvalidArgument) as caught:
        made(version, body)
    assert str(caught.value) == sentence


def made(version, text):
    """The host's part, the networks and the warnings of a container that is asked for."""
    body = msgspec.json.decode(text, type=containers.ContainerCreate)
    warnings = oldrequests.create(body, minor(version))
    host = requests.host_config(body.host_config)
    return host, endpoints.wishes(body.networking_config), warnings


@pytest.mark.parametrize(
    ("version", "kind", "options", "refused"),
    [
        ("1.41", "bind", "Volume", True),
        ("1.41", "bind", "Tmpfs", False),
        ("1.41", "tmpfs", "Volume", False),
        ("1.41", "volume", "Bind", True),
        ("1.42", "tmpfs", "Volume", True),
        ("1.42", "bind", "Tmpfs", True),
    ],
)
def test_options_of_another_kind_of_mount(version, kind, options, refused):
    mount = f'{{"Type":"{kind}","Target":"/t","{options}Options":{{}}}}'
    body = f'{{"Image":"a","HostConfig":{{"Mounts":[{mount}]}}}}'.encode()
    if refused:
        with pytest.raises(InvalidArgument, match=f"{options}Options must not be specified"):
            made(version, body)
    else:
        assert made(version, body)[0].mounts[0].type == kind


def test_a_limit_of_kernel_memory_is_discarded_with_a_word():
    body = b'{"Image":"a","HostConfig":{"KernelMemory":1073741824}}'
    warnings = made("1.55", body)[2]
    assert [warning.partition(" (")[0] for warning in warnings] == [
        "Your kernel does not support kernel memory limit capabilities"
    ]
    assert made("1.55", b'{"Image":"a","HostConfig":{"KernelMemory":0}}')[2] == []


def test_an_address_for_the_whole_container():
    body = b'{"Image":"a","MacAddress":"02:00:00:00:00:01"}'
    for version, count in (("1.43", 0), ("1.44", 1), ("1.51", 1)):
        _, networks, warnings = made(version, body)
        assert networks["default"].mac == "02:00:00:00:00:01"
        assert len(warnings) == count


def test_members_that_came_later_are_ignored():
    body = (
        b'{"Image":"a","HostConfig":{"Annotations":{"a":"b"},"ConsoleSize":[20,80]},'
        b'"NetworkingConfig":{"EndpointsConfig":{"n":{"GwPriority":5,"MacAddress":"02::1"}}}}'
    )
    host, networks, _ = made("1.41", body)
    assert (host.annotations, host.console_size) == ({}, None)
    assert (networks["n"].gateway_priority, networks["n"].mac) == (0, "")
    host, networks, _ = made("1.55", body)
    assert (host.annotations, host.console_size) == ({"a": "b"}, (20, 80))
    assert (networks["n"].gateway_priority, networks["n"].mac) == (5, "02::1")


def test_a_port_without_a_binding_is_any():
    body = b'{"Image":"a","HostConfig":{"PortBindings":{"80/tcp":[]}}}'
    for version, count in (("1.51", 0), ("1.52", 1)):
        host, _, warnings = made(version, body)
        assert [one.port for one in host.ports] == [80]
        assert len(warnings) == count


@pytest.mark.parametrize(
    ("version", "accept", "kind", "before"),
    [
        ("1.51", "", "application/json", b""),
        ("1.52", "", "application/jsonl", b""),
        ("1.55", "application/x-ndjson", "application/x-ndjson", b""),
        ("1.55", "application/json-seq", "application/json-seq", b"\x1e"),
    ],
)
def test_the_words_and_the_type_of_events(scenario, version, accept, kind, before):
    async def play(client):
        event = model.Event(id=1, time_ns=1, type="container", action="start", actor_id="a")
        await client.send("GET", f"/v{version}/events", **({"Accept": accept} if accept else {}))
        answer = await client.head()
        assert answer.headers["content-type"] == kind
        await client.engine.feed.put(event)
        line = await client.chunk()
        assert line.startswith(before + b"{")
        assert (b'"status":"start"' in line) is (version == "1.51")

    scenario(play)


def test_an_old_wait_answers_as_a_whole(scenario):
    async def play(client):
        await client.send("POST", "/v1.29/containers/c1/wait?condition=removed")
        while not client.engine.waits:
            await client.another()
        client.engine.waits[0].future.set_result(model.WaitResult(exit_code=3))
        answer = await client.answer()
        assert "transfer-encoding" not in answer.headers
        assert answer.json == {"StatusCode": 3}

    scenario(play)


def test_limits_of_devices_in_an_update():
    body = hostconfig.HostConfig(
        blkio_device_read_bps=[hostconfig.ThrottleDevice(path="/", rate=1)]
    )
    oldrequests.update(body, 54)
    with pytest.raises(NotImplementedHere, match="can be given to create only"):
        oldrequests.update(body, 55)
