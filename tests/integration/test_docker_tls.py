"""The API over TCP: for clients with certificates, and for nobody else."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest

import dockerlab
from certificates import Authority

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
    pytest.mark.skipif(not dockerlab.DOCKER, reason="needs the docker CLI"),
]
PORT = 23760


@pytest.fixture(scope="module")
def place():
    with tempfile.TemporaryDirectory(prefix="sampan-tls-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def authority(place):
    return Authority(place / "ours")


@pytest.fixture(scope="module")
def daemon(authority):
    certificate, key = authority.issue("server")
    os.chmod(key, 0o600)
    settings = {
        "tcp": f"tcp://127.0.0.1:{PORT}",
        "tls_ca": str(authority.path),
        "tls_cert": str(certificate),
        "tls_key": str(key),
    }
    with dockerlab.daemon(**settings) as made:
        tar = dockerlab.tar_of(f"{made.base}/rootfs")
        made.exchange("POST", "/images/create?fromSrc=-&repo=bb:1&changes=CMD+sh", tar)
        yield made


@pytest.fixture(scope="module")
def docker(daemon, authority):
    """The CLI over TCP; a function of words and standard input."""
    certificate, key = authority.issue("client")
    flags = [
        *("--tlsverify", f"--tlscacert={authority.path}"),
        *(f"--tlscert={certificate}", f"--tlskey={key}", "-H", f"tcp://127.0.0.1:{PORT}"),
    ]

    def run(*words, stdin=b""):
        done = subprocess.run(
            [dockerlab.DOCKER, *flags, *words],
            env={**daemon.environ, "DOCKER_HOST": ""},
            input=stdin,
            check=False,
            capture_output=True,
            timeout=dockerlab.PATIENCE,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_everything_works_through_it(docker):
    assert docker("version", "-f", "{{.Server.APIVersion}}")[1] == b"1.50\n"
    assert docker("run", "--rm", "bb:1", "sh", "-c", "echo out; exit 3")[:2] == (3, b"out\n")
    sent = os.urandom(1 << 20)
    assert docker("run", "--rm", "-i", "bb:1", "cat", stdin=sent) == (0, sent, b"")
    counted = docker("run", "--rm", "-i", "bb:1", "sh", "-c", "wc -c; echo over", stdin=sent)
    assert counted[1].split() == [b"1048576", b"over"]  # said after the end of its input
    assert docker("run", "-d", "--name", "far", "bb:1", "sleep", "1000")[0] == 0
    assert docker("exec", "-i", "far", "cat", stdin=b"text")[1] == b"text"
    assert docker("rm", "-f", "far")[0] == 0


def handshake(authority=None, files=None, trusted=None):
    """What the daemon answers to `GET /_ping` with this certificate; "" when it says nothing."""
    context = ssl.create_default_context(cafile=trusted)
    if files is not None:
        context.load_cert_chain(*files)
    with (
        socket.create_connection(("127.0.0.1", PORT), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as stream,
    ):
        stream.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return stream.recv(1000)


def test_nobody_without_a_certificate_of_ours(daemon, authority, place):
    ours = str(authority.path)
    assert b" 200 " in handshake(files=authority.issue("another"), trusted=ours)
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        handshake(trusted=ours)
    stranger = Authority(place / "theirs", "stranger")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        handshake(files=stranger.issue("client"), trusted=ours)
    with socket.create_connection(("127.0.0.1", PORT), timeout=30) as plain:
        plain.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" not in plain.recv(1000)
    assert daemon.ask("GET", "/_ping") == (200, b"OK")


def test_tcp_is_refused_without_certificates(daemon, place):
    (place / "config.toml").write_text(f'tcp = "tcp://127.0.0.1:{PORT + 1}"\n')
    done = daemon.run("--config", f"{place}/config.toml")
    assert done.code == 1
    assert "tcp, tls_ca, tls_cert and tls_key go together" in done.err
