"""Contexts and files from the web, from real servers on loopback."""

from __future__ import annotations

import gzip
import http.server
import os
import threading
from contextlib import contextmanager

import pytest

import dockerlab
import sampanlab
from buildlab import context
from gitlab import git, make_repository, served

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]
PATIENCE = 20


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves what the server's `files` have; counts; holds `/meet/*` until two have asked."""

    def do_GET(self):
        server = self.server
        server.asked.append(self.path)
        if self.path.startswith("/meet/"):
            server.barrier.wait(PATIENCE)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/ctx.tar.gz")
            self.end_headers()
            return
        content = server.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def web(files):
    """A server; its URL is `server.url`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.asked, server.barrier = files, [], threading.Barrier(2)
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        tar = dockerlab.tar_of(f"{made.base}/rootfs")
        status, _, _ = made.exchange("POST", "/images/create?fromSrc=-&repo=bb&tag=1", tar)
        assert status == 200
        yield made


@pytest.fixture
def sampan(daemon, tmp_path):
    return sampanlab.command_line(daemon, tmp_path)


def test_contexts_at_urls(sampan):
    tar = context({"Dockerfile": "FROM bb:1\nCOPY f /f\nRUN cat /f\n", "f": "from the web\n"})
    other = context({"sub/Other": "FROM bb:1\nRUN echo other\n"})
    files = {
        "/ctx.tar.gz": gzip.compress(tar),
        "/other.tar": other,
        "/Dockerfile": b"FROM bb:1\nRUN echo alone\n",
        "/page": b"<html>",
    }
    with web(files) as server:
        for path in ("ctx.tar.gz", "moved"):
            said = sampan("build", "--no-cache", "-t", "w:1", f"{server.url}/{path}").err
            assert " from the web\n" in said
        assert " other\n" in sampan("build", "-f", "sub/Other", f"{server.url}/other.tar").err
        assert " alone\n" in sampan("build", f"{server.url}/Dockerfile").err
        assert "answered 404" in sampan("build", f"{server.url}/none", code=1).err
        assert "unknown instruction" in sampan("build", f"{server.url}/page", code=1).err
    assert "refused" in sampan("build", f"{server.url}/ctx.tar.gz", code=1).err.lower()


def test_contexts_in_repositories(sampan, tmp_path):
    place = make_repository(tmp_path / "git")
    (place / "sub/Dockerfile").write_text("FROM bb:1\nCOPY one /x\nRUN cat /x\n")
    git(place, "add", ".")
    git(place, "commit", "-q", "-m", "third")
    with served(tmp_path / "git") as url:
        assert " two\n" in sampan("build", "-t", "g:1", url).err
        assert " two\n" in sampan("build", "--no-cache", f"{url}#main:sub").err
        assert " one $Format" in sampan("build", f"{url}#v1").err
        flags = ("--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", "--no-cache")
        assert " two\n" in sampan("build", *flags, f"{url}#main").err
        assert "failed" in sampan("build", f"{url}#none", code=1).err
        named = b"FROM scratch\nCOPY --from=repo sub/one /one\n"
        sampan("build", "-o", "out", "--build-context", f"repo={url}#main", "-", stdin=named)
    assert (tmp_path / "out/one").read_text() == "two\n"


def test_what_is_fetched_is_fetched_once_and_at_once(sampan):
    with web({"/meet/a": b"a", "/meet/b": b"b"}) as server:
        text = (
            f"FROM bb:1 AS one\nADD {server.url}/meet/a /a\nRUN cat /a\n"
            f"ADD {server.url}/meet/b /b\n"
            f"FROM one\nADD {server.url}/meet/a {server.url}/meet/b /again/\nRUN ls /again\n"
        )
        said = sampan("build", "-", stdin=text.encode()).err
        assert sorted(server.asked) == ["/meet/a", "/meet/b"]
    assert " a\n" in said
    assert " b\n" in said


def test_a_context_that_does_not_come(sampan):
    with web({}) as server:
        text = f"FROM bb:1\nRUN echo first\nADD {server.url}/none /x\n"
        assert "answered 404" in sampan("build", "-", stdin=text.encode(), code=1).err
        text = f"FROM bb:1 AS unused\nADD {server.url}/none /x\nFROM bb:1\nRUN true\n"
        sampan("build", "-", stdin=text.encode())
