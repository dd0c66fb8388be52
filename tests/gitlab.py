"""A git repository for tests, and a real server of it on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import contextmanager

WHO = ("-c", "user.name=x", "-c", "user.email=x@example.invalid")


def git(place, *words):
    """One git command in a directory."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(place), "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *WHO, *words], cwd=place, env=environ, check=True, capture_output=True
    )
    return done.stdout.decode().strip()


def make_repository(base):
    """A repository with what a checkout would obey: attributes and links."""
    place = base / "repo.git"
    (place / "sub").mkdir(parents=True)
    git(place, "init", "-q", "-b", "main")
    (place / "Dockerfile").write_text("FROM bb:1\nCOPY sub /s/\nRUN cat /s/one\n")
    (place / ".gitattributes").write_text("sub/one export-ignore\n* export-subst\n")
    (place / "sub/one").write_text("one $Format:%H$\n")
    (place / "sub/run").write_text("#!/bin/sh\n")
    (place / "sub/run").chmod(0o755)
    (place / "sub/l").symlink_to("/etc/passwd")
    git(place, "add", ".")
    git(place, "commit", "-q", "-m", "first")
    git(place, "tag", "v1")
    (place / "sub/one").write_text("two\n")
    git(place, "commit", "-q", "-a", "-m", "second")
    return place


def _answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def served(base):
    """git's own server; the URL of a repository."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = ["git", "daemon", "--export-all", f"--base-path={base}", "--reuseaddr"]
    argv += ["--listen=127.0.0.1", f"--port={port}", str(base)]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, start_new_session=True) as server:
        try:
            end = time.monotonic() + 30
            while not _answers(port) and time.monotonic() < end:
                time.sleep(0.05)  # it has no way to say that it listens
            yield f"git://127.0.0.1:{port}/repo.git"
        finally:
            os.killpg(server.pid, 15)
