"""Debian's docker-registry on loopback, with or without a login, for tests of a real peer."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

USER, PASSWORD = "alice", "open sesame"
# bcrypt of the password, made once: what makes such hashes is not everywhere.
_HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n"

available = shutil.which("docker-registry") is not None


@contextmanager
def real_registry(directory, *, login=False, tls=None, client_ca=None, auth=None, name=""):
    """Serve from `directory`; the value is the registry's host and port, `name` if it is given.

    `tls` is the certificate and the key to serve with, `client_ca` who signs the clients' then,
    `auth` the registry's own setting in place of `login`.
    """
    name = name or f"127.0.0.1:{_free_port()}"
    config = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": f"{directory}/data"}},
        "http": {"addr": name},
        "log": {"level": "error", "accesslog": {"disabled": True}},
    }
    if tls:
        config["http"]["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
    if client_ca:
        config["http"]["tls"]["clientcas"] = [str(client_ca)]
    if login:
        (directory / "htpasswd").write_text(_HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": f"{directory}/htpasswd"}}
    if auth:
        config["auth"] = auth
    (directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", directory / "config.yml"], stdout=log, stderr=log
        )
        try:
            _wait_until_it_answers(name, process, directory, secure=tls is not None)
            yield name
        finally:
            process.terminate()
            process.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_it_answers(name, process, directory, *, secure: bool) -> None:
    end = time.monotonic() + 15
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError((directory / "log").read_text())
        try:
            if secure:
                host, _, port = name.partition(":")
                socket.create_connection((host, int(port)), 5).close()
                return
            with urllib.request.urlopen(f"http://{name}/v2/", timeout=5):
                return
        except urllib.error.HTTPError as answer:
            answer.close()  # it asks for a login: it is there
            return
        except OSError:
            time.sleep(0.02)  # polls a process that has no other way to say that it listens
    raise AssertionError("docker-registry does not answer")
