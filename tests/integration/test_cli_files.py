"""`cp`, `export`, `diff`, `commit` and `port` from outside, and the library's names for them.

What docker's own client does with the same words is what ours has to do.
"""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import dockerlab
import sampan as library
from dockerlab import PATIENCE, SOURCES, Result

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]
ENVIRON = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCES}
SAMPAN = (sys.executable, "-m", "sampan.cli")
CLIENTS = [SAMPAN, (dockerlab.DOCKER,)] if dockerlab.DOCKER else [SAMPAN]
SETUP = (
    "mkdir -p /d/sub /e /run /var; echo one >/d/one; echo two >/d/sub/two; chmod 600 /d/one;"
    "ln -s /d /link; ln /d/one /d/hard; ln -s one /d/soft; ln -s ../../../../etc /e/out;"
    "chown 12:34 /d/sub/two; ln -s /run /var/run; mkdir /ready; exec sleep 1000"
)


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        data = dockerlab.tar_of(f"{made.base}/rootfs")
        assert call(made, "import", "-", "bb:1", stdin=data).code == 0
        run = call(
            made, "run", "-d", "--name", "cc", "--network", "none", "bb:1", "sh", "-c", SETUP
        )
        assert run.code == 0, run.err
        ready = call(made, "exec", "cc", "sh", "-c", "until [ -d /ready ]; do :; done")
        assert ready.code == 0
        yield made
        call(made, "rm", "-f", "cc")


def call(daemon, *words, stdin=b"", program=SAMPAN, cwd=None):
    done = subprocess.run(
        [*program, "-H", daemon.host, *words],
        env={**ENVIRON, "HOME": daemon.base},
        input=stdin,
        check=False,
        capture_output=True,
        timeout=PATIENCE,
        cwd=cwd,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


def tree(top):
    """Names, kinds, modes, owners, contents and links below `top`."""
    found = {}
    for path in sorted(Path(top).rglob("*")):
        status = path.lstat()
        what = os.readlink(path) if path.is_symlink() else ""
        text = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        links = status.st_nlink if path.is_file() and not path.is_symlink() else 0
        name = str(path.relative_to(top))
        found[name] = (oct(status.st_mode), status.st_uid, status.st_gid, text, what, links)
    return found


OUT = {
    "directory into a directory": ("/d", "there"),
    "directory to a new name": ("/d", "new"),
    "content into a directory": ("/d/.", "there"),
    "content to a new name": ("/d/.", "new"),
    "file into a directory": ("/d/one", "there/"),
    "file to a new name": ("/d/sub/two", "new"),
    "file over a file": ("/d/sub/two", "file"),
    "link itself": ("/d/soft", "there"),
    "link with a slash": ("/link/", "there"),
    "link followed": ("/link", "there", "-L"),
    "link to a file followed": ("/d/soft", "new", "-L"),
    "through an absolute link": ("/var/run/", "new"),
}


@pytest.mark.parametrize("case", OUT)
def test_out_of_a_container(daemon, tmp_path, case):
    path, target, *flags = OUT[case]
    seen = []
    for number, program in enumerate(CLIENTS):
        base = tmp_path / str(number)
        (base / "there").mkdir(parents=True)
        (base / "file").write_text("before, and longer")
        done = call(daemon, "cp", *flags, f"cc:{path}", target, program=program, cwd=base)
        assert (done.code, done.out, done.err) == (0, b"", ""), (program, done.err)
        seen.append(tree(base))
    assert len(seen[0]) >= 2
    assert seen[1:] == seen[: len(seen) - 1]


def test_owners_are_kept_when_asked(daemon, tmp_path):
    """Docker's client takes the flag and keeps none."""
    assert call(daemon, "cp", "-a", "cc:/d/sub", "new", cwd=tmp_path).code == 0
    assert tree(tmp_path)["new/two"][1:3] == (12, 34)


IN = {
    "directory into a directory": ("d", "/in"),
    "directory to a new name": ("d", "/in/new"),
    "content into a directory": ("d/.", "/in"),
    "content to a new name": ("d/.", "/in/new"),
    "here": (".", "/in"),
    "file into a directory": ("d/one", "/in/"),
    "file to a new name": ("d/one", "/in/new"),
    "file over a file": ("d/one", "/in/file"),
    "link itself": ("link", "/in"),
    "link with a slash": ("link/", "/in"),
    "link followed": ("link", "/in", "-L"),
    "into a link": ("d/one", "/in/way"),
}


@pytest.mark.parametrize("case", IN)
def test_into_a_container(daemon, tmp_path, case):
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/one").write_text("one")
    os.chmod(tmp_path / "d/one", 0o640)
    (tmp_path / "d/sub/two").write_text("two")
    os.chown(tmp_path / "d/sub/two", 12, 34)
    (tmp_path / "link").symlink_to("d")
    source, path, *flags = IN[case]
    seen = []
    for program in CLIENTS:
        ready = "rm -rf /in; mkdir -p /in/real; ln -s real /in/way; echo x >/in/file"
        assert call(daemon, "exec", "cc", "sh", "-c", ready).code == 0
        done = call(daemon, "cp", *flags, source, f"cc:{path}", program=program, cwd=tmp_path)
        assert (done.code, done.out, done.err) == (0, b"", ""), (program, done.err)
        show = "cd /in; find . | sort | xargs stat -c '%n %F %a %u %g %s'"
        seen.append(call(daemon, "exec", "cc", "sh", "-c", show).out)
    assert seen[0].count(b"\n") >= 4
    assert seen[1:] == seen[: len(seen) - 1]


def test_archives_through_pipes(daemon, tmp_path):
    data = call(daemon, "cp", "cc:/d", "-").out
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert "d/sub/two" in tar.getnames()
    assert call(daemon, "exec", "cc", "mkdir", "-p", "/pipe").code == 0
    assert call(daemon, "cp", "-", "cc:/pipe", stdin=data).code == 0
    assert call(daemon, "exec", "cc", "cat", "/pipe/d/sub/two").out == b"two\n"
    done = call(daemon, "cp", "-", "cc:/pipe/d/one", stdin=data)
    assert (done.code, "must be a directory" in done.err) == (1, True)


def test_a_containers_links_lead_nowhere_here(daemon, tmp_path):
    """What was copied before cannot redirect what is copied later."""
    (tmp_path / "there").mkdir()
    (tmp_path / "etc").mkdir()
    assert call(daemon, "cp", "cc:/e", "there", cwd=tmp_path).code == 0
    assert os.readlink(tmp_path / "there/e/out") == "../../../../etc"
    assert (
        call(daemon, "exec", "cc", "sh", "-c", "mkdir -p /o/e/out; echo x >/o/e/out/evil").code == 0
    )
    done = call(daemon, "cp", "cc:/o/.", "there", cwd=tmp_path)
    assert (done.code, "cannot overwrite" in done.err) == (1, True), done.err
    assert list((tmp_path / "etc").iterdir()) == []


WRONG = [
    (("cp", "a", "b"), "must specify at least one container source"),
    (("cp", "cc:/a", "cc:/b"), "copying between containers is not supported"),
    (("cp", "cc:/nothing", "x"), "Could not find the file /nothing in container cc"),
    (("cp", "none:/a", "x"), "No such container: none"),
    (("cp", "cc:/d", "no/such"), "does not exist"),
    (("cp", "cc:/d", "file"), "cannot copy directory"),
    (("cp", "nothing", "cc:/"), "lstat nothing: no such file or directory"),
    (("cp", ".", "cc:/d/one"), "cannot copy directory"),
    (("cp", "file", "cc:/nothing/"), "no such directory"),
    (
        ("cp", "file", "cc:/nothing/deep/file"),
        "Could not find the file /nothing/deep in container cc",
    ),
    (("cp", "file", "cc:/dev/null"), "must be a directory or a regular file"),
    (("export", "none"), "No such container: none"),
    (("diff", "none"), "No such container: none"),
    (("commit", "none"), "No such container: none"),
    (("commit", "cc", "UPPER:1"), "invalid reference"),
    (("commit", "-c", "FROM x", "cc"), "FROM"),
    (("port", "cc", "80"), "No public port '80' published for cc"),
    (("export", "-o", "no/such.tar", "cc"), "does not exist"),
]


@pytest.mark.parametrize(("words", "text"), WRONG, ids=lambda value: str(value)[:40])
def test_errors_change_nothing(daemon, tmp_path, words, text):
    (tmp_path / "file").write_text("x")
    done = call(daemon, *words, cwd=tmp_path)
    assert (done.code, done.out) == (1, b"")
    assert text in done.err
    assert "Traceback" not in done.err
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("program", CLIENTS, ids=["sampan", "docker"][: len(CLIENTS)])
def test_diff_commit_export(daemon, tmp_path, program):
    script = "mkdir /m; rm /bin/wc"
    call(daemon, "run", "--name", "xx", "--network", "none", "bb:1", "sh", "-c", script)
    try:
        done = call(daemon, "diff", "xx", program=program)
        assert (done.code, done.err) == (0, "")
        assert {b"A /m", b"D /bin/wc", b"C /bin"} <= set(done.out.splitlines())
        words = [
            "-a",
            "me",
            "-m",
            "why",
            "-c",
            'CMD ["echo", "new"]',
            "-c",
            "ENV A=b",
            "xx",
            "made:1",
        ]
        done = call(daemon, "commit", *words, program=program)
        assert (done.code, done.err, done.out[:7]) == (0, "", b"sha256:")
        run = call(daemon, "run", "--rm", "--network", "none", "made:1")
        assert (run.code, run.out) == (0, b"new\n")
        run = call(
            daemon,
            "run",
            "--rm",
            "--network",
            "none",
            "made:1",
            "sh",
            "-c",
            "echo $A; ls /m /bin/wc",
        )
        assert (run.code, run.out) == (1, b"b\n/m:\n") or b"b\n" in run.out
        history = call(daemon, "history", "--format", "{{.Comment}}", "made:1").out
        assert history.startswith(b"why\n")
        done = call(daemon, "export", "-o", str(tmp_path / "x.tar"), "xx", program=program)
        assert done.code == 0, done.err
        with tarfile.open(tmp_path / "x.tar") as tar:
            names = [name.rstrip("/") for name in tar.getnames()]
        assert "m" in names
        assert "bin/wc" not in names
    finally:
        call(daemon, "rm", "-f", "xx")
        call(daemon, "rmi", "-f", "made:1")


def test_library(daemon, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").write_text("from here")
    with library.Engine.open(host=daemon.host) as engine:
        box = engine.container("cc")
        box.copy_to(tmp_path / "d", "/lib-sync")
        box.copy_from("/lib-sync", tmp_path / "back")
        assert (tmp_path / "back/file").read_text() == "from here"
        assert library.Change(path="/lib-sync/file", kind="added") in box.changes()
        buffer = io.BytesIO()
        box.read_archive("/lib-sync/file", buffer)
        box.write_archive("/tmp", [buffer.getvalue()]) if box.exec(
            ["mkdir", "-p", "/tmp"]
        ) else None
        assert box.exec(["cat", "/tmp/file"]).stdout == b"from here"
        box.export(tmp_path / "c.tar")
        with tarfile.open(tmp_path / "c.tar") as tar:
            assert "lib-sync/file" in tar.getnames()
        image = box.commit("lib:1", message="by the library", changes=['CMD ["true"]'])
        assert engine.history("lib:1")[0].comment == "by the library"
        assert [one.id for one in engine.images(filters={"reference": ["lib:1"]})] == [image.id]
        assert engine.disk_usage()["Images"]
        engine.tag("lib:1", "lib:2")
        engine.remove_image("lib:1")
        assert engine.prune_images(all=False).deleted == ()
        engine.remove_image("lib:2")
        with pytest.raises(library.errors.NotFound):
            box.copy_from("/nothing", tmp_path / "x")
        with pytest.raises(library.errors.NotFound):
            box.copy_to(tmp_path / "nothing", "/x")


def test_library_awaited(daemon, tmp_path):
    (tmp_path / "file").write_text("awaited")

    async def work():
        async with await library.AsyncEngine.open(host=daemon.host) as engine:
            box = await engine.container("cc")
            await box.copy_to(tmp_path / "file", "/lib-async")
            await box.copy_from("/lib-async", tmp_path / "back")
            assert "/lib-async" in [change.path for change in await box.changes()]
            await box.export(tmp_path / "c.tar")
            buffer = io.BytesIO()
            await box.read_archive("/lib-async", buffer)
            await box.write_archive("/d", [buffer.getvalue()])
            await box.commit("lib:3")
            assert len(await engine.history("lib:3")) >= 1
            assert len(await engine.images(filters={"reference": ["lib:3"]})) == 1
            await engine.remove_image("lib:3")
            await engine.prune_images()
            assert (await engine.disk_usage())["Images"]
            with pytest.raises(library.errors.NotFound):
                await box.copy_from("/nothing", tmp_path / "x")

    asyncio.run(work())
    assert (tmp_path / "back").read_text() == "awaited"
