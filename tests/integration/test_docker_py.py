"""docker-py against a real daemon: what its users lean on, seen from Python."""

from __future__ import annotations

import gc
import io
import os
import socket
import tarfile
import time
from contextlib import closing

import pytest

import dockerlab

docker = pytest.importorskip("docker")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
    # docker-py leaves the sockets of streams to the collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        yield made


@pytest.fixture(scope="module")
def client(daemon):
    """A client, with the image bb:1."""
    with closing(docker.DockerClient(daemon.host, version="auto", timeout=60)) as made:
        tar = dockerlab.tar_of(f"{daemon.base}/rootfs")
        made.api.import_image_from_data(tar, "bb", "1")
        yield made
    gc.collect()  # what it left is closed here, where the mark above holds


@pytest.fixture
def container(client):
    """One that runs `sleep`."""
    made = client.containers.run("bb:1", ["sleep", "1000"], detach=True, network_mode="none")
    yield made
    made.remove(force=True)


def run(client, *words, **options):
    """The output of a container that is gone then."""
    return client.containers.run("bb:1", list(words), remove=True, network_mode="none", **options)


def test_run_gives_the_output(client):
    assert run(client, "echo", "hello") == b"hello\n"
    with pytest.raises(docker.errors.ContainerError) as failed:
        run(client, "sh", "-c", "echo no >&2; exit 3")
    assert failed.value.exit_status == 3
    with pytest.raises(docker.errors.ImageNotFound):
        client.containers.create("nosuch:1")


def test_a_killed_container_has_ended(client, container):
    container.kill()
    container.reload()
    assert container.attrs["State"]["Running"] is False
    assert container.attrs["State"]["ExitCode"] == 137


def test_frames_of_an_exec_are_as_its_start_says(client, container):
    command = ["sh", "-c", "echo out; echo err >&2"]
    made = client.api.exec_create(container.id, command, tty=True)
    assert client.api.exec_start(made) == b"out\r\nerr\r\n"  # in frames, although it has a terminal
    made = client.api.exec_create(container.id, command)
    assert client.api.exec_start(made, demux=True) == (b"out\n", b"err\n")
    made = client.api.exec_create(container.id, ["sh", "-c", "echo out; exit 4"])
    assert client.api.exec_start(made, tty=True) == b"out\n"  # raw, although it has none
    assert client.api.exec_inspect(made)["ExitCode"] == 4


def test_detach_keys_of_the_client(client, container):
    client.api._general_configs["detachKeys"] = "ctrl-p"
    try:
        made = client.api.exec_create(container.id, ["cat"], stdin=True, tty=True)
        sock = client.api.exec_start(made, tty=True, socket=True)
    finally:
        del client.api._general_configs["detachKeys"]
    os.write(sock.fileno(), b"\x10")
    assert sock.read(100) in (b"", b"\x10")  # the stream is over
    sock.close()
    assert client.api.exec_inspect(made)["Running"] is True


def test_a_wait_sees_each_end_of_a_restarting_container(client):
    made = client.containers.run(
        "bb:1", ["false"], detach=True, network_mode="none", restart_policy={"Name": "always"}
    )
    assert made.wait(timeout=50)["StatusCode"] == 1
    made.remove(force=True)


def test_files_in_a_volume_of_a_stopped_container(client):
    made = client.containers.create(
        "bb:1",
        ["sh", "-c", "echo -n text > /vol/one"],
        volumes={"dockerpy": {"bind": "/vol"}},
        network_mode="none",
    )
    made.start()
    made.wait()
    stream, facts = made.get_archive("/vol/one")
    assert facts["size"] == 4
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        assert tar.extractfile("one").read() == b"text"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("two")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"other"))
    assert made.put_archive("/vol", archive.getvalue())
    assert run(client, "cat", "/vol/two", volumes=["dockerpy:/vol"]) == b"other"
    made.remove()
    client.volumes.get("dockerpy").remove()


def test_a_commit_of_what_is_just_ending(client):
    for _ in range(5):
        made = client.containers.create("bb:1", ["touch", "/new"], network_mode="none")
        made.start()
        image = made.commit("committed", "1")
        made.remove(force=True)
        client.images.remove(image.id, force=True)


def test_a_name_without_a_value_takes_a_variable_away(client):
    made = client.containers.create(
        "bb:1", ["env"], environment=["GONE", "KEPT=1", "EMPTY="], network_mode="none"
    )
    assert {"GONE", "KEPT=1", "EMPTY="} <= set(made.attrs["Config"]["Env"])
    made.start()
    made.wait()
    told = made.logs().decode().splitlines()
    assert "KEPT=1" in told
    assert "EMPTY=" in told
    assert not [line for line in told if line.startswith("GONE")]
    made.remove()


def test_names_of_the_runtime(client):
    made = client.api.create_container(
        "bb:1", "true", host_config={"Isolation": "default"}, runtime="runc"
    )
    host = client.api.inspect_container(made)["HostConfig"]
    assert (host["Runtime"], host["Isolation"]) == ("runc", "default")
    client.api.remove_container(made)
    with pytest.raises(docker.errors.APIError, match="unknown or invalid runtime name: nosuch"):
        client.api.create_container("bb:1", "true", runtime="nosuch")


def test_what_belongs_to_somebody_else_is_not_docker_s(client, daemon):
    """A builder's containers are neither counted nor told of."""

    def created():
        wanted = {"type": "container", "event": "create"}
        until = int(time.time()) + 1
        return [one["id"] for one in client.api.events(0, until, wanted, decode=True)]

    before = created()
    archive = io.BytesIO(b"FROM bb:1\nRUN true\n")
    client.images.build(fileobj=archive, tag="built:1", rm=True)
    assert created() == before
    assert client.info()["Containers"] == len(client.containers.list(all=True))
    client.images.remove("built:1")


def test_a_load_that_fails_tells_it_in_its_stream(client):
    with pytest.raises(docker.errors.ImageLoadError):
        client.images.load(b"no archive")


def test_a_commit_knows_its_parent(client, container):
    image = container.commit("child", "1")
    assert image.attrs["Parent"] == client.images.get("bb:1").id
    assert client.images.get("bb:1").attrs["Parent"] == ""
    client.images.remove("child:1")


def test_events_of_copies_and_names(client, container):
    began = time.time()
    list(container.get_archive("/etc/passwd")[0])
    client.images.get("bb:1").tag("bb", "named")
    until = time.time() + 0.5
    told = list(client.api.events(f"{began:.6f}", f"{until:.6f}", decode=True))
    assert [one["Action"] for one in told if one["Type"] == "container"] == ["archive-path"]
    assert [one["Actor"]["Attributes"]["name"] for one in told if one["Type"] == "image"] == [
        "bb:named"
    ]
    client.images.remove("bb:named")


def test_what_the_engine_puts_where_nothing_was_asked(client, container):
    host = client.api.inspect_container(container.id)["HostConfig"]
    assert host["ShmSize"] == 64 << 20
    assert "/proc/kcore" in host["MaskedPaths"]
    assert "/proc/sys" in host["ReadonlyPaths"]


def test_attach_over_websocket(client, daemon):
    websocket = pytest.importorskip("websocket")
    made = client.containers.create(
        "bb:1", ["sh", "-c", "echo ready; cat; echo over"], stdin_open=True, network_mode="none"
    )
    plain = socket.socket(socket.AF_UNIX)
    plain.connect(daemon.socket)
    path = f"ws://localhost/containers/{made.id}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1"
    with closing(websocket.create_connection(path, socket=plain)) as stream:  # of http://localhost
        made.start()
        assert stream.recv() == b"ready\n"
        stream.send("text\n")
        assert stream.recv() == b"text\n"
        made.stop(timeout=0)
        assert not stream.recv()  # the close
    made.remove()
    with socket.socket(socket.AF_UNIX) as plain:
        plain.connect(daemon.socket)
        with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
            websocket.create_connection(path, socket=plain, origin="http://evil.example")


def test_an_exec_of_an_earlier_run_is_gone(client, container):
    """What was prepared belongs to that run; the process id of one that has ended is still told."""
    done = client.api.exec_create(container.id, ["true"])["Id"]
    client.api.exec_start(done)
    assert client.api.exec_inspect(done)["Pid"] > 1
    left = client.api.exec_create(container.id, ["true"])["Id"]
    container.restart(timeout=0)
    with pytest.raises(docker.errors.NotFound, match="No such exec instance"):
        client.api.exec_start(left, detach=True)
    container.pause()
    with pytest.raises(docker.errors.APIError, match=f"Container {container.name} is paused"):
        client.api.exec_create(container.name, ["true"])
    container.unpause()


def test_less_memory_than_docker_grants(client, container):
    for limit in ({"mem_limit": (6 << 20) - 1}, {"mem_reservation": 1024}):
        with pytest.raises(docker.errors.APIError, match="allowed is 6MB"):
            client.containers.create("bb:1", "true", **limit)
    with pytest.raises(docker.errors.APIError, match="Minimum memory limit allowed is 6MB"):
        container.update(mem_limit="2m")
    made = client.containers.create("bb:1", "true", mem_limit=6 << 20)
    assert made.attrs["HostConfig"]["Memory"] == 6 << 20
    made.remove()


def test_limits_beside_the_image(daemon):
    """Where they stood before there was a HostConfig."""
    body = {"Image": "bb:1", "Cmd": ["true"], "Memory": 8 << 20}
    status, made = daemon.ask("POST", "/containers/create", body)
    assert status == 201, made
    host = daemon.ask("GET", f"/containers/{made['Id']}/json")[1]["HostConfig"]
    assert host["Memory"] == 8 << 20
    assert daemon.ask("DELETE", f"/containers/{made['Id']}")[0] == 204
    told = daemon.ask("POST", "/v1.44/containers/create", {"HostConfig": {}})
    message = "config cannot be empty in order to create a container"
    assert told == (400, {"message": message})


def test_a_forced_disconnect_of_what_is_not_connected(client, container):
    network = client.networks.create("forced")
    with pytest.raises(docker.errors.APIError, match="is not connected to network"):
        network.disconnect(container, force=True)
    network.remove()


def test_what_was_said_before_is_there_at_once(client):
    """The output of a container that has ended comes after the head of the answer, not with it."""
    made = client.containers.run("bb:1", ["echo", "said"], detach=True, network_mode="none")
    made.wait()
    assert all(made.attach(stream=False, logs=True) == b"said\n" for _ in range(20))
    made.remove()


def test_a_pull_that_cannot_be_is_an_error(client):
    with pytest.raises(docker.errors.APIError):
        client.images.pull("127.0.0.1:1/nosuch", tag="1")


def test_a_link_on_the_default_bridge(client):
    """The environment tells of the other container, and its alias is a name."""
    other = client.containers.run(
        "bb:1", ["sleep", "1000"], detach=True, ports={"5432/tcp": None}, environment={"FOO": "1"}
    )
    try:
        script = "env; cat /etc/hosts"
        told = client.containers.run(
            "bb:1",
            ["sh", "-c", script],
            name="linked",
            links={other.name: "my-store"},
            network_mode="bridge",
            remove=True,
        ).decode()
        networks = client.api.inspect_container(other.id)["NetworkSettings"]["Networks"]
        address = networks["bridge"]["IPAddress"]
        for line in (
            "MY_STORE_NAME=/linked/my-store",
            "MY_STORE_ENV_FOO=1",
            f"MY_STORE_PORT=tcp://{address}:5432",
            f"MY_STORE_PORT_5432_TCP_ADDR={address}",
            f"{address}\tmy-store {other.id[:12]} {other.name}",
        ):
            assert line in told.splitlines(), told
    finally:
        other.remove(force=True)


def test_a_link_is_one_more_name(client):
    """`PARENT/ALIAS`, in the list and as a reference, also when either has another name."""
    other = client.containers.create("bb:1", "true", network_mode="bridge", name="linked-one")
    links = {"linked-one": "/store"}
    parent = client.containers.create(
        "bb:1", "true", network_mode="bridge", name="parent", links=links
    )
    try:
        assert client.api.inspect_container("parent/store")["Id"] == other.id
        parent.rename("parents")
        other.rename("linked-two")
        assert client.api.inspect_container("parents/store")["Id"] == other.id
        names = {one["Id"]: one["Names"] for one in client.api.containers(all=True)}
        assert names[other.id] == ["/linked-two", "/parents/store"]
        parent.reload()
        assert parent.attrs["HostConfig"]["Links"] == ["/linked-two:/parents/store"]
        for ref in ("parents/other", "parent/store", "linked-two/store"):
            with pytest.raises(docker.errors.NotFound):
                client.containers.get(ref)
    finally:
        parent.remove()
        other.remove()
    assert not client.containers.list(all=True, filters={"name": "linked-two"})


def test_a_container_finds_itself_by_its_host_name(client):
    network = client.networks.create("selves")
    script = "echo 127.0.0.1 localhost > /etc/hosts; ping -c 1 myself"
    try:
        client.containers.run(
            "bb:1", ["sh", "-c", script], hostname="myself", network="selves", remove=True
        )
    finally:
        network.remove()


def test_a_network_may_be_made_after_its_container(client):
    """It must be there at the start."""
    with pytest.raises(docker.errors.NotFound, match="network later not found"):
        client.containers.run("bb:1", "true", network="later", name="early")
    made = client.containers.get("early")
    assert made.status == "created"
    network = client.networks.create("later")
    try:
        made.start()
        assert made.wait()["StatusCode"] == 0
        made.reload()
        assert made.attrs["NetworkSettings"]["Networks"]["later"]["NetworkID"] == network.id
    finally:
        made.remove(force=True)
        network.remove()


@pytest.mark.parametrize("until", ["1000000h", "1970-01-02T00:00:00Z", "100"])
def test_everything_is_pruned_until_a_moment(client, until):
    """An age, of more than a century too, a date, and seconds: nothing here is so old."""
    network = client.networks.create("young")
    filters = {"until": until}
    assert client.images.prune(filters={"dangling": False, **filters})["ImagesDeleted"] is None
    assert client.networks.prune(filters=filters)["NetworksDeleted"] is None
    assert client.containers.prune(filters=filters)["ContainersDeleted"] is None
    network.remove()


def test_a_resize_without_a_terminal_means_nothing(client):
    made = client.containers.run("bb:1", ["sleep", "1000"], detach=True, network_mode="none")
    made.resize(40, 40)
    made.remove(force=True)
    with pytest.raises(docker.errors.NotFound):
        made.resize(40, 40)


def test_a_volume_that_was_named_stays(client):
    """Also one that was made without a name; only a container's own go with it."""
    volume = client.volumes.create()
    mounts = [f"{volume.name}:/given", "/own"]
    made = client.containers.create("bb:1", "true", volumes=mounts, network_mode="none")
    made.remove(v=True)
    assert [one.name for one in client.volumes.list()] == [volume.name]
    volume.remove()


def test_a_link_local_address_and_a_name_with_a_space(client):
    network = client.networks.create("front 01")
    config = client.api.create_networking_config(
        {"front 01": client.api.create_endpoint_config(link_local_ips=["169.254.8.8"])}
    )
    host = client.api.create_host_config(network_mode="front 01")
    made = client.api.create_container(
        "bb:1", ["ip", "-4", "addr", "show", "eth0"], networking_config=config, host_config=host
    )
    try:
        client.api.start(made)
        assert client.api.wait(made)["StatusCode"] == 0
        assert b"inet 169.254.8.8/16" in client.api.logs(made)
        told = client.api.inspect_container(made)["NetworkSettings"]["Networks"]["front 01"]
        assert told["IPAMConfig"] == {"LinkLocalIPs": ["169.254.8.8"]}
    finally:
        client.api.remove_container(made, force=True)
        network.remove()


def test_only_the_cache_that_is_named(client):
    """dockerd's builder uses no other step where images with a cache are named."""
    text = b"FROM bb:1\nENV FOO=bar\nRUN true\n"

    def built(**options):
        said = client.api.build(fileobj=io.BytesIO(text), tag="cached:1", decode=True, **options)
        return sum("Using cache" in line.get("stream", "") for line in said)

    built()
    assert built(cache_from=["cached:1"]) == 2
    assert built(cache_from=["127.0.0.1:1/nosuch:1"]) == 0
    client.images.remove("cached:1")


def test_a_link_that_is_taken_away(client, container):
    made = client.api.create_container(
        "bb:1",
        ["true"],
        host_config=client.api.create_host_config(links={container.name: "store"}),
    )
    try:
        name = client.api.inspect_container(made)["Name"].removeprefix("/")
        assert client.api.inspect_container(made)["HostConfig"]["Links"] is not None
        client.api.remove_container(f"{name}/store", link=True)
        assert client.api.inspect_container(made)["HostConfig"]["Links"] is None
        with pytest.raises(docker.errors.NotFound, match="has none that is store"):
            client.api.remove_container(f"{name}/store", link=True)
    finally:
        client.api.remove_container(made)


def test_a_platform_that_is_none(client):
    for ask in (
        lambda: list(client.api.build(fileobj=io.BytesIO(b"FROM bb:1\n"), platform="foobar")),
        lambda: client.api.pull("127.0.0.1:1/x", platform="foobar"),
    ):
        with pytest.raises(docker.errors.APIError, match="unknown operating system") as refused:
            ask()
        assert refused.value.response.status_code == 400
