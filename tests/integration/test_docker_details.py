"""What moby's own tests of the command line ask for: links, filters, ports, devices."""

from __future__ import annotations

import json
import socket
from contextlib import closing

import pytest
from tests import netdocker
from tests.netdocker import fetch, serve
from tests.netlab import needs_net

import dockerlab

pytestmark = [
    needs_net,
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
    pytest.mark.skipif(not dockerlab.DOCKER, reason="needs the docker CLI"),
]


@pytest.fixture(scope="module")
def daemon():
    with netdocker.daemon() as made:
        yield made


@pytest.fixture
def docker(daemon):
    with netdocker.docker(daemon) as call:
        yield call


def address_of(docker, name):
    [found] = json.loads(docker("inspect", name))
    return found["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]


def test_a_link_leads_to_who_runs_wherever_he_is(docker):
    serve(docker, "db", "--hostname", "h1")
    serve(docker, "app", "--hostname", "h2", "--link", "db:store")
    assert f"{address_of(docker, 'db')}\tstore" in docker("exec", "app", "cat", "/etc/hosts")
    assert "STORE_NAME=/app/store" in docker("exec", "app", "busybox", "env")
    docker("stop", "-t", "0", "db")
    said = docker("run", "--link", "db:store", "bb:1", "true", code=125)
    assert "Cannot link to a non running container: /db AS /" in said
    serve(docker, "other", "--hostname", "h3")  # has the address now
    docker("start", "db")
    now = address_of(docker, "db")
    assert f"{now}\tstore" in docker("exec", "app", "cat", "/etc/hosts")


def test_an_alias_counts_in_its_network_only(docker):
    for network in ("n1", "n2"):
        docker("network", "create", network)
    serve(docker, "first", "--hostname", "h1", "--network", "n1")
    serve(docker, "second", "--hostname", "h2", "--network", "n1", "--link", "first:called1",
          "--link", "nobody:later")  # fmt: skip
    docker("network", "connect", "n2", "first")
    docker("network", "connect", "--link", "first:called2", "n2", "second")
    for name in ("called1", "called2"):
        docker("exec", "second", "busybox", "nslookup", f"{name}.", code=0)
    docker("network", "disconnect", "n1", "first")
    docker("exec", "second", "busybox", "nslookup", "called2.", code=0)
    docker("exec", "second", "busybox", "nslookup", "called1.", code=1)


def test_networks_are_shared_along_a_chain(docker):
    serve(docker, "one", "--hostname", "h1")
    docker("run", "-d", "--name", "two", "--network", "container:one", "bb:1", "sleep", "1000")
    out = docker("run", "--rm", "--network", "container:two", "bb:1", "cat", "/etc/hostname")
    assert out == "h1"


def test_a_container_may_be_made_before_the_one_whose_network_it_shares(docker):
    made = docker("create", "--name", "guest", "--network", "container:host", "bb:1",
                  "cat", "/etc/hostname")  # fmt: skip
    assert "joining network namespace of container: No such container: host" in docker(
        "start", "guest", code=1
    )
    serve(docker, "host", "--hostname", "h7")
    docker("rename", "host", "called")
    docker("rename", "called", "host")
    assert docker("start", "-a", "guest") == "h7"
    [found] = json.loads(docker("inspect", made))
    [target] = json.loads(docker("inspect", "host"))
    assert found["HostConfig"]["NetworkMode"] == f"container:{target['Id']}"
    words = ("--name", "me", "--network", "container:me", "bb:1", "true")
    assert "cannot join own network" in docker("run", *words, code=125)


def test_ports_are_published_on_the_first_network_that_can(docker):
    docker("network", "create", "--internal", "closed")
    docker("network", "create", "open")
    serve(docker, "web", "--hostname", "h5", "--network", "closed", "-p", "18110:80")
    assert (docker("port", "web"), fetch("127.0.0.1", 18110)) == ("", "")
    with closing(socket.create_server(("0.0.0.0", 18110))):
        told = docker("network", "connect", "open", "web", code=1)
        assert "port is already allocated" in told
    [network] = json.loads(docker("network", "inspect", "open"))
    assert network["Containers"] == {}
    docker("network", "connect", "open", "web")
    assert docker("port", "web").split("\n")[0] == "80/tcp -> 0.0.0.0:18110"
    assert fetch("127.0.0.1", 18110) == "h5"
    docker("network", "disconnect", "open", "web")
    docker("network", "connect", "open", "web")
    assert fetch("127.0.0.1", 18110) == "h5"


def test_copies_of_what_a_stopped_container_has(docker, tmp_path):
    """Its own files of /etc are as it had them; its working directory is there before the start."""

    def copied(path):
        docker("cp", f"files:{path}", str(tmp_path / "got"))
        return (tmp_path / "got").read_text()

    docker("create", "--name", "files", "-h", "h6", "--add-host", "there:192.0.2.7", "--dns",
           "192.0.2.53", "-w", "/work/deep", "bb:1", "true")  # fmt: skip
    docker("cp", "files:/work", str(tmp_path))
    assert [one.name for one in (tmp_path / "work").iterdir()] == ["deep"]
    assert (tmp_path / "work" / "deep").stat().st_mode & 0o777 == 0o755
    docker("cp", __file__, "files:/work/deep/")
    docker("start", "-a", "files")
    assert copied("/etc/hostname") == "h6\n"
    assert "192.0.2.7\tthere\n" in copied("/etc/hosts")
    assert copied("/etc/resolv.conf").startswith("nameserver 192.0.2.53\n")


def test_the_size_is_what_is_in_the_files(docker):
    docker("run", "--name", "sized", "bb:1", "sh", "-c", "echo 1 >/file; busybox mkdir /empty")
    assert docker("ps", "-as", "--format", "{{.Size}}").startswith("2B (virtual ")


def test_keys_that_are_none(docker):
    """Docker's command prints what it finds in the stream, and of another answer the status; from
    the newer one it is the status always."""
    docker("run", "-dit", "--name", "keys", "bb:1", "sleep", "1000")
    path = "/containers/keys/attach?detachKeys=ctrl-A,a"
    sentence = b"Invalid detach keys (ctrl-A,a)"
    head = {"Connection": "Upgrade", "Upgrade": "tcp"}
    status, headers, told = docker.daemon.exchange("POST", path, **head)
    assert (status, headers["Connection"], told) == (400, "close", sentence + b" provided\r\n")
    status, headers, told = docker.daemon.exchange("POST", path)
    assert (status, headers["Content-Type"]) == (400, "application/json")
    assert told.startswith(b'{"message":"' + sentence)


def test_lists_are_filtered_by_ports_volumes_and_ancestors(docker):
    docker(
        "run", "-d", "--name", "pub", "-p", "18090:90", "-v", "files:/data", "bb:1", "sleep", "99"
    )
    docker("run", "-d", "--name", "exp", "--expose", "53/udp", "bb:1", "sleep", "99")

    def found(*filters):
        words = [word for one in filters for word in ("--filter", one)]
        return docker("ps", "--format", "{{.Names}}", *words).split()

    assert found("publish=18090") == found("expose=80-99") == found("volume=files") == ["pub"]
    assert found("expose=53/udp") == ["exp"]
    assert found("publish=90") == found("expose=53") == []
    assert found("ancestor=bb:1") == ["exp", "pub"]


def test_a_list_tells_the_id_of_an_image_whose_name_moved(docker):
    image = json.loads(docker("image", "inspect", "bb:1"))[0]["Id"]
    docker("tag", "bb:1", "moving:1")
    docker("run", "-d", "--name", "old", "moving:1", "sleep", "99")
    assert docker("ps", "--no-trunc", "--format", "{{.Image}}") == "moving:1"
    docker("commit", "--change", "LABEL new=1", "old", "moving:1")
    assert docker("ps", "--no-trunc", "--format", "{{.Image}}") == image
    docker("rmi", "moving:1")


def test_a_volume_at_etc_does_not_hide_what_is_ours(docker):
    words = ("--rm", "-h", "h9", "-v", "/etc", "bb:1", "cat", "/etc/hostname")
    assert docker("run", *words) == "h9"


def test_a_device_may_be_named_by_a_link(docker, tmp_path):
    (tmp_path / "zero").symlink_to("/dev/zero")
    out = docker("run", "--rm", "--device", f"{tmp_path}/zero:/dev/symzero", "bb:1", "sh", "-c",
                 "busybox head -c 3 /dev/symzero | busybox wc -c")  # fmt: skip
    assert out == "3"


def test_a_dockerfile_from_stdin_with_a_directory(daemon, docker, tmp_path):
    """Docker's command ends this archive with the last entry's data, without its padding."""
    (tmp_path / "word").write_text("hello")
    words = ("build", "-t", "piped", "-f", "-", str(tmp_path))
    built = daemon.docker(*words, stdin=b"FROM bb:1\nCOPY word /word\n")
    assert built.code == 0, built
    assert docker("run", "--rm", "piped", "cat", "/word") == "hello"
    docker("rmi", "piped")
