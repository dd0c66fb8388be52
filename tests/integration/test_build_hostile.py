"""Dockerfiles and contexts of people who mean harm: refused with a sentence, or confined.

Each case says what the refusal is about, or what is seen from inside of the image afterwards.
Behind all of them the host is as it was: the canaries live, nothing runs, nothing is mounted, and
the engine builds on.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import http.server
import io
import os
import re
import tarfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from buildlab import BuildLab, context, once, with_builder
from sampan.builder.language.lines import MAX_FILE
from sampan.builder.model import BuildOptions
from sampan.engine.model import HostConfig
from sampan.errors import SampanError

BASE = "FROM bb:1\n"


def entry(name, kind=tarfile.REGTYPE, **fields):
    """One entry with fields that no honest tool writes."""
    made = tarfile.TarInfo(name)
    made.type = kind
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def raw(*entries, dockerfile="FROM bb:1\nCOPY . /c/\n", data=b""):
    """A context of entries that tarfile alone would not write, in that order."""
    target = io.BytesIO()
    first = tarfile.TarInfo("Dockerfile")
    first.size = len(dockerfile)
    target.write(first.tobuf(tarfile.PAX_FORMAT) + _padded(dockerfile.encode()))
    for one in entries:
        target.write(one.tobuf(tarfile.PAX_FORMAT))
        if one.isreg() and one.size:
            target.write(_padded(data))
    return target.getvalue() + bytes(1024)


def _padded(data):
    return data + bytes(-len(data) % 512)


def archive(*entries):
    """A tar without a Dockerfile, for ADD."""
    return raw(*entries)[1024:]


# Dockerfiles that are refused: name -> (text, what is said)
REFUSED = {
    "frontend": ("# syntax=evil/frontend:1\nFROM bb:1\n", "not supported"),
    "nul": ("FROM bb:1\nRUN echo \0\n", "NUL"),
    "no-utf8": (b"FROM bb:1\nRUN \xff\xfe\n", "not UTF-8"),
    "large": (b"#" * (MAX_FILE + 1), "larger than"),
    "long-line": ("FROM bb:1\nRUN " + "x" * (2 << 20) + "\n", "longer than"),
    "many-lines": ("FROM bb:1\n" + "ENV a=b\n" * 20_000, "more than"),
    "many-heredocs": ("FROM bb:1\nCOPY " + "<<E " * 100 + "/x/\n", "here-documents"),
    "open-heredoc": ("FROM bb:1\nCOPY <<E /x\nforever\n", "unterminated"),
    "nested": ("FROM bb:1\nENV a=" + "${b:-" * 5000 + "}" * 5000 + "\n", "nested"),
    "doubling": ("FROM bb:1\nENV a=0123456789\n" + "ENV a=$a$a$a$a$a$a$a$a\n" * 12, "longer than"),
    "replace": ("FROM bb:1\nENV a=" + "x" * 2000 + "\nENV b=${a//x/$a}\n", "longer than"),
    "onbuild-chain": ("FROM bb:1\nONBUILD ONBUILD RUN x\n", "isn't allowed"),
    "onbuild-from": ("FROM bb:1\nONBUILD FROM x\n", "isn't allowed"),
    "option-as-image": ("FROM --flag\n", "unknown flag"),
    "path-as-image": ("FROM ../../etc\n", "invalid reference"),
    "path-as-source": ("FROM bb:1\nCOPY --from=/etc passwd /\n", "invalid reference"),
    "later-stage": ("FROM bb:1 AS a\nCOPY --from=b /x /\nFROM bb:1 AS b\nFROM a\n", "later stage"),
    "heredoc-name": ("FROM bb:1\nCOPY <<../../x /h/\nhere\n../../x\n", "forbidden path"),
    "own-stage": ("FROM bb:1 AS a\nCOPY --from=a /x /\n", "itself"),
    "git-option": ("FROM bb:1\nADD https://h/x.git#--upload-pack=x /\n", "invalid ref"),
    "git-ssh-option": ("FROM bb:1\nADD git@-oProxyCommand=x:y.git /\n", "file not found"),
    "git-parent": ("FROM bb:1\nADD https://127.0.0.1:1/x.git#main:../../etc /\n", "invalid dir"),
    "git-dots": ("FROM bb:1\nADD https://127.0.0.1:1/x.git#a..b /\n", "invalid ref"),
    "git-ext": ("FROM bb:1\nADD ext::sh%20-c%20x.git /\n", "file not found"),
    "git-file": ("FROM bb:1\nADD file:///etc.git /\n", "file not found"),
    "url-metadata": ("FROM bb:1\nADD http://169.254.169.254/latest /\n", "is refused"),
    "url-mapped": ("FROM bb:1\nADD http://[::ffff:169.254.169.254]/x /\n", "is refused"),
    "url-unspecified": ("FROM bb:1\nADD http://0.0.0.0:1/x /\n", "is refused"),
    "url-file": ("FROM bb:1\nADD http:///etc/passwd /\n", "only http"),
    "copy-parent": ("FROM bb:1\nCOPY ../../etc/passwd /\n", "outside the build context"),
    "copy-parent-inside": ("FROM bb:1\nCOPY a/../../../etc /\n", "outside the build context"),
    "copy-parent-star": ("FROM bb:1\nCOPY ../*/passwd /\n", "outside the build context"),
    "chown-huge": ("FROM bb:1\nCOPY --chown=99999999999 Dockerfile /\n", "no such user|range"),
    "chown-nobody": ("FROM bb:1\nCOPY --chown=../x Dockerfile /\n", "no such user"),
    "chmod": ("FROM bb:1\nCOPY --chmod=77777 Dockerfile /\n", "invalid chmod"),
    "mount-root": ("FROM bb:1\nRUN --mount=target=/ true\n", "invalid mount target"),
    "mount-proc": ("FROM bb:1\nRUN --mount=target=/x/../proc true\n", "invalid mount target"),
    "mount-parent": ("FROM bb:1\nRUN --mount=source=../..,target=/m true\n", "outside the build"),
    "mount-kind": ("FROM bb:1\nRUN --mount=type=host,target=/m true\n", "unsupported mount type"),
    "mount-key": ("FROM bb:1\nRUN --mount=target=/m,propagation=shared true\n", "unexpected key"),
    "mount-cache-id": ("FROM bb:1\nRUN --mount=type=cache,id=a\\ b,target=/c true\n", "invalid"),
    "mount-secret-id": ("FROM bb:1\nRUN --mount=type=secret,id=%s true\n" % ("x" * 300), "invalid"),
    "insecure": ("FROM bb:1\nRUN --security=insecure true\n", "not allowed"),
    "host-network": ("FROM bb:1\nRUN --network=host true\n", "not allowed"),
    "other-network": ("FROM bb:1\nRUN --network=container:x true\n", "invalid value"),
    "health": ("FROM bb:1\nHEALTHCHECK --interval=99999999999999h CMD true\n", "invalid duration"),
    "signal": ("FROM bb:1\nSTOPSIGNAL ../../x\n", "invalid signal"),
    "ports": ("FROM bb:1\nEXPOSE 1-99999\n", "invalid"),
    "shell": ('FROM bb:1\nSHELL ["/bin/sh\\u0000"]\n', "NUL"),
    "platform": ("FROM --platform=linux/../../x bb:1\n", "platform"),
    "no-stage": ("RUN true\n", "FROM"),
    "mount-dev": (BASE + "RUN --mount=target=/dev true\n", "invalid mount target"),
    "mount-sys": (BASE + "RUN --mount=type=tmpfs,target=//sys/. true\n", "invalid mount target"),
    "mount-twice": (BASE + "RUN --mount=target=/a,dst=/b true\n", "given twice"),
    "mount-sharing": (BASE + "RUN --mount=type=cache,target=/c,sharing=all true\n", "sharing"),
    "mount-size": (BASE + "RUN --mount=type=tmpfs,target=/t,size=-1 true\n", "invalid size"),
    "mount-mode": (BASE + "RUN --mount=type=cache,target=/c,mode=777777 true\n", "invalid mode"),
    "mount-from": (BASE + "RUN --mount=from=../../etc,target=/m true\n", "invalid reference"),
    "cache-from-out": (
        BASE + "RUN --mount=type=cache,target=/c,id=o,from=bb:1,source=../../.. true\n",
        "outside|file not found",
    ),
    "secret-required": (BASE + "RUN --mount=type=secret,id=no,required true\n", "not found"),
    "agent-required": (BASE + "RUN --mount=type=ssh,required true\n", "not found"),
    "checksum-of-a-file": (
        f"FROM bb:1\nADD --checksum=sha256:{'0' * 64} Dockerfile /\n",
        "checksum can't be specified",
    ),
    "commit-in-part": (
        BASE + "ADD --checksum=abc1234 git://127.0.0.1:1/x.git /\n",
        "whole id of a commit",
    ),
    "option-by-argument": ("ARG X=--platform=a/b\nFROM $X\n", "invalid reference"),
    "onbuild-maintainer": (BASE + "ONBUILD MAINTAINER x\n", "isn't allowed"),
    "target-file": ("FROM bb:1\nCOPY Dockerfile /etc/passwd/x\n", "not a directory"),
}

# Contexts that are refused: name -> (tar, what is said)
CONTEXTS = {
    "parent": (raw(entry("../escape", size=1), data=b"x"), "bad name"),
    "parent-inside": (raw(entry("a/../../escape", size=1), data=b"x"), "bad name"),
    "hard-link-out": (raw(entry("l", tarfile.LNKTYPE, linkname="/etc/passwd")), "not in the arch"),
    "hard-link-parent": (raw(entry("l", tarfile.LNKTYPE, linkname="../../etc/shadow")), "bad name"),
    "huge": (raw(entry("big", size=1 << 62), data=b"x"), "archive|tar|size"),
    "cut": (raw(entry("f", size=5000), data=b"x" * 100)[:-1500], "archive|tar|end"),
    "noise": (os.urandom(4096), "archive|tar|header"),
    "empty": (b"", "archive|tar|Cannot locate"),
    "no-dockerfile": (context({"x": "y"}), "Cannot locate"),
    "dockerfile-link": (context({"Dockerfile": ("link", "/etc/shadow")}), "Cannot locate"),
    "dockerfile-directory": (context({"Dockerfile": None}), "not a regular file"),
    "dockerfile-fifo": (
        context({"Dockerfile": entry("Dockerfile", tarfile.FIFOTYPE)}),
        "not a regular file",
    ),
    "long-name": (raw(entry("n" * 5000, size=0)), "bad name"),
    "deep": (raw(entry("/".join("d" * 3000), tarfile.DIRTYPE)), "deep|too|name"),
    "link-loop": (
        context({"Dockerfile": "FROM bb:1\nCOPY a /\n", "a": ("link", "b"), "b": ("link", "a")}),
        "links",
    ),
    "ignore-binary": (
        context({"Dockerfile": "FROM bb:1\nCOPY . /\n", ".dockerignore": b"\xff\xfe"}),
        "not UTF-8",
    ),
    "ignore-class": (
        context({"Dockerfile": "FROM bb:1\nCOPY . /\n", ".dockerignore": "[z"}),
        "invalid pattern",
    ),
    "whiteout": (context({"Dockerfile": BASE + "COPY . /etc/\n", ".wh.passwd": ""}), "wh"),
}


@contextmanager
def canaries(lab):
    """Files of the host that are the same, and alone, afterwards."""
    place = lab.lab.path / "canary"
    place.mkdir()
    (place / "file").write_text("alive")
    before = {path: os.stat(path).st_mtime_ns for path in ("/etc", "/", "/tmp", "/root")}
    yield place
    assert os.listdir(place) == ["file"]
    assert (place / "file").read_text() == "alive"
    for path in ("/etc", "/root"):
        assert os.stat(path).st_mtime_ns == before[path], path
    assert not Path("/escape").exists()


async def refused(build):
    """The sentence of a refusal, or that there was none."""
    try:
        await build
    except SampanError as error:
        return str(error)
    return "not refused"


def test_what_is_refused(tmp_path):
    @with_builder
    async def check(lab: BuildLab) -> None:
        wrong = {}
        with canaries(lab):
            for name, (text, said) in REFUSED.items():
                content = text if isinstance(text, bytes) else text.encode()
                message = await refused(lab.build(content))
                if not re.search(said, message):
                    wrong[name] = message[:300]
            for name, (tar, said) in CONTEXTS.items():
                build = lab.builder.build(once(tar), BuildOptions(), lab.notes.append)
                message = await refused(build)
                if not re.search(said, message):
                    wrong[name] = message[:300]
            assert wrong == {}
            await lab.build("FROM bb:1\nRUN true\n")

    check(tmp_path)


def test_options_that_are_refused(tmp_path):
    cases = {
        "tag": ({"tags": ("../x",)}, "invalid reference"),
        "tag-digest": ({"tags": ("x@sha256:" + "0" * 64,)}, "digest"),
        "target": ({"target": "9" * 40}, "could not be found"),
        "platform": ({"platform": "a/b/c/d/e"}, "platform"),
        "epoch": ({"args": {"SOURCE_DATE_EPOCH": "-1"}}, "seconds since 1970"),
        "network-of-a-container": ({"host": HostConfig(network_mode="container:x")}, "No such"),
        "network-by-path": ({"host": HostConfig(network_mode="ns:/proc/1/ns/net")}, "network"),
        "context": ({"contexts": {"o": "file:///etc"}}, "context"),
        "context-image": ({"contexts": {"o": "docker-image://../x"}}, "invalid reference"),
        "host": ({"host": HostConfig(extra_hosts=("a\n10.0.0.1 b:10.0.0.2",))}, "host"),
        "cgroup": ({"host": HostConfig(cgroup_parent="../../..")}, "cgroup"),
    }

    @with_builder
    async def check(lab: BuildLab) -> None:
        with canaries(lab):
            wrong = {}
            for name, (options, said) in cases.items():
                text = f"FROM bb:1\nRUN echo {name}\nCOPY --from=o x /\n"
                message = await refused(lab.build(text, **options))
                if not re.search(said, message):
                    wrong[name] = message[:300]
            assert wrong == {}

    check(tmp_path)


@with_builder
async def test_files_stay_in_the_image(lab: BuildLab) -> None:
    """Links, whatever they say, lead to places in the image."""
    with canaries(lab) as canary:
        files = {
            "k/abs": ("link", str(canary)),
            "k/up": ("link", "../../../../../../../.." + str(canary)),
            "f": "f",
            "fifo": entry("fifo", tarfile.FIFOTYPE),
            "dev": entry("dev", tarfile.CHRTYPE, devmajor=1, devminor=1),
            "xattr": entry("xattr", pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"}),
            "p.tar": archive(
                entry("l", tarfile.SYMTYPE, linkname=str(canary)), entry("l/in", tarfile.DIRTYPE)
            ),
        }
        await lab.build(
            f"FROM bb:1\nCOPY k /l/\nCOPY f /l/abs/f1\nCOPY f /l/up/f2\nADD p.tar /p/\n"
            f"WORKDIR /l/abs/work\nCOPY fifo dev xattr /s/\n"
            f"RUN ls {canary}; ! cat /s/dev 2>/dev/null\n",
            files,
        )
        seen = lab.output.split()
        assert {"f1", "f2", "work"} <= set(seen)


@with_builder
async def test_what_mounts_leave_and_find(lab: BuildLab) -> None:
    with canaries(lab) as canary:
        await lab.build(
            "FROM bb:1 AS a\n"
            f"RUN busybox mkdir -p {canary} /real; echo in > {canary}/file; "
            f"busybox ln -s {canary} /l; busybox ln -s ../../../../..{canary} /r\n"
            "FROM a\n"
            "RUN --mount=from=a,source=/l,target=/m cat /m/file\n"
            "RUN --mount=type=tmpfs,target=/l/stub --mount=type=tmpfs,target=/r/more true\n"
            "RUN --mount=type=cache,target=/c,id=k busybox ln -s / /c/l\n"
            "RUN --mount=type=cache,target=/d,id=k ls /d/l/real\n"
            "RUN --mount=type=secret,id=s,target=/l/file cat /l/file\n"
            f"RUN rm -rf /l/ {canary}/file; rm -rf /../../..{canary}\n",
            secrets={"s": b"secret-9917\n"},
        )
        assert lab.output == "in\nsecret-9917\n"


@with_builder
async def test_commands_are_confined(lab: BuildLab) -> None:
    with canaries(lab):
        await lab.build(
            "FROM bb:1\n"
            "RUN ! busybox mount -t tmpfs x /tmp; ! busybox mknod /x b 8 0; "
            "! busybox unshare -m true; ! echo 1 > /proc/sysrq-trigger; "
            "! echo x > /proc/sys/kernel/hostname; true\n"
            "RUN busybox grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status\n"
            "RUN (sleep 1000 &) ; (busybox setsid sleep 1000 &); true\n"
            "RUN echo 6.6.6.6 evil >> /etc/hosts; echo x > /etc/resolv.conf || true\n"
        )
        assert "Seccomp:\t2" in lab.output
        assert "CapEff:\t00000000a80425fb" in lab.output
        assert "evil" not in await lab.sh("cat /etc/hosts 2>/dev/null; true")


@with_builder
async def test_a_server_that_lies(lab: BuildLab) -> None:
    """ADD of URLs: redirects to where nobody may go, other content than announced."""

    class Liar(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            where = {"/meta": "http://169.254.169.254/x", "/file": "file:///etc/passwd"}
            if self.path in where or self.path == "/loop":
                self.send_response(302)
                self.send_header("Location", where.get(self.path, "/loop"))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = b"short" if self.path == "/cut" else b"right\n"
            self.send_response(404 if self.path == "/gone" else 200)
            self.send_header("Content-Length", "500" if self.path == "/cut" else str(len(body)))
            self.send_header("Last-Modified", "Sun, 13 Sep 2020 12:26:40 GMT")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    base = f"http://127.0.0.1:{server.server_port}"
    try:
        for path, said in {
            "/meta": "is refused",
            "/file": "only http",
            "/loop": "redirects",
            "/cut": "read|incomplete|broke",
            "/gone": "404",
        }.items():
            assert re.search(said, await refused(lab.build(f"FROM bb:1\nADD {base}{path} /x\n"))), (
                path
            )
        wrong, right = "0" * 64, hashlib.sha256(b"right\n").hexdigest()
        with pytest.raises(SampanError, match="its digest is"):
            await lab.build(f"FROM bb:1\nADD --checksum=sha256:{wrong} {base}/y /x\n")
        await lab.build(
            f"FROM bb:1\nADD --checksum=sha256:{right} {base}/y /d/\n"
            "RUN cat /d/y; stat -c %a:%Y /d/y\n"
        )
        assert lab.output == "right\n600:1600000000\n"
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


@with_builder
async def test_archives_that_lie(lab: BuildLab) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    cases = {
        "sparse": archive(
            entry(
                "GNUSparseFile.0/big",
                size=0,
                pax_headers={
                    "GNU.sparse.major": "1",
                    "GNU.sparse.minor": "0",
                    "GNU.sparse.name": "big",
                    "GNU.sparse.realsize": str(1 << 62),
                },
            )
        ),
        "parent": archive(entry("../../x", size=0)),
        "links": archive(
            entry("l0", tarfile.SYMTYPE, linkname="l1"),
            entry("l1", tarfile.SYMTYPE, linkname="l0"),
            entry("l0/x", tarfile.DIRTYPE),
        ),
    }
    with canaries(lab):
        for name, content in cases.items():
            message = await refused(lab.build("FROM bb:1\nADD x.tar /x/\n", {"x.tar": content}))
            assert message != "not refused", name
        await lab.build("FROM bb:1\nADD x.gz /x/\nRUN ls /x\n", {"x.gz": bomb})
        assert lab.output == "x.gz\n"
