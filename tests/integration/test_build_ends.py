"""How builds end before their time: a step that fails, a client that goes, a daemon that is killed.

Nothing may be left: no process, no mount, no unfinished image or snapshot; and what was done is not
done again. And what was secret is nowhere in anything that builds leave on purpose.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import signal
import subprocess
import tarfile
from glob import glob
from pathlib import Path

import pytest

import dockerlab
import sampanlab
from netdocker import eventually

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]
MARK = "98761"
STEPS = f"""\
FROM bb:1 AS side
RUN echo side > /side; sleep {MARK}
FROM bb:1
RUN echo one > /one
COPY f /f
RUN --mount=type=secret,id=s --mount=type=cache,target=/c touch /c/x; echo begun; sleep {MARK}
COPY --from=side /side /side
"""


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon(log_level="debug") as made:
        tar = dockerlab.tar_of(f"{made.base}/rootfs")
        status, _, _ = made.exchange("POST", "/images/create?fromSrc=-&repo=bb&tag=1", tar)
        assert status == 200
        yield made


@pytest.fixture
def place(tmp_path):
    (tmp_path / "f").write_text("ef\n")
    (tmp_path / "key").write_text("hush-4711\n")
    (tmp_path / "Dockerfile").write_text(STEPS)
    return tmp_path


@pytest.fixture
def sampan(daemon, place):
    run = sampanlab.command_line(daemon, place)
    yield run
    for name in ("e:1", "x:1"):
        run("image", "rm", "-f", name)
    run("builder", "prune", "-f")


def running():
    """The processes of the steps that wait."""
    found = []
    for path in glob("/proc/[0-9]*/cmdline"):
        try:
            words = Path(path).read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", MARK.encode()]:
            found.append(path)
    return found


def begun(daemon, place):
    """A build whose command runs."""
    flags = ("--network", "none", "--secret", "id=s,src=key", "--progress", "plain")
    process = subprocess.Popen(
        sampanlab.argv(daemon, "build", "-t", "e:1", *flags, "."),
        env=sampanlab.environ(daemon),
        cwd=place,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    said = ""
    while " begun\n" not in said:
        line = process.stderr.readline().decode()
        assert line, said
        said += line
    assert running()
    return process


def ended(process):
    """How a build ended: its code, and what else it said."""
    with process.stderr as stream:
        rest = stream.read().decode()
    return process.wait(dockerlab.PATIENCE), rest


def nothing_is_left(daemon, sampan, place):
    """Looks at everything, and builds again."""
    assert running() == []
    assert sampan("images", "--format", "{{.Repository}}:{{.Tag}}").out.split() == ["bb:1"]
    assert sampan("ps", "-aq").out == ""
    eventually(lambda: not glob(f"{daemon.base}/state/shims/*"))
    vault = hashlib.sha256(f"{daemon.base}/state".encode()).hexdigest()[:16]
    assert not glob(f"/dev/shm/sampan-build-{vault}*")
    with open("/proc/self/mountinfo") as mounts:
        assert f"{daemon.base}/root" not in mounts.read()
    assert "no problems" in sampan("system", "check").out
    (place / "Dockerfile").write_text(STEPS.replace(f"sleep {MARK}", "true"))
    flags = ("--network", "none", "--secret", "id=s,src=key")
    said = sampan("build", "-t", "e:1", *flags, ".").err
    assert said.count(" CACHED\n") == 2  # what was done in front of the step that never ended
    assert sampan("run", "--rm", "--network", "none", "e:1", "cat", "/one", "/f", "/side").out == (
        "one\nef\nside\n"
    )


def until_quiet(daemon):
    """Wait until the daemon has cleaned up: a request that it answers behind it."""
    while running():
        daemon.ask("GET", "/info")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGHUP])
def test_a_client_that_goes_takes_its_build_along(daemon, sampan, place, number):
    process = begun(daemon, place)
    process.send_signal(number)
    code, rest = ended(process)
    assert code == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in rest
    until_quiet(daemon)
    nothing_is_left(daemon, sampan, place)


def test_a_daemon_that_was_killed_goes_on(daemon, sampan, place):
    process = begun(daemon, place)
    daemon.stop(signal.SIGKILL)
    code, said = ended(process)
    assert code == 1
    assert "Traceback" not in said
    assert "in the middle of an answer" in said
    daemon.start()
    nothing_is_left(daemon, sampan, place)


def test_a_daemon_that_ends_takes_its_builds_along(daemon, sampan, place):
    process = begun(daemon, place)
    assert daemon.stop() == 0
    assert ended(process)[0] == 1
    daemon.start()
    nothing_is_left(daemon, sampan, place)


def test_a_step_that_fails_stops_the_others(daemon, sampan, place):
    text = STEPS.replace(f"echo begun; sleep {MARK}", "exit 3")
    (place / "Dockerfile").write_text(text)
    flags = ("--network", "none", "--secret", "id=s,src=key")
    assert "non-zero code: 3" in sampan("build", "-t", "e:1", *flags, ".", code=1).err
    nothing_is_left(daemon, sampan, place)


# secrets

SECRETS = {"file": b"hush-file-1", "variable": b"hush-env-2", "failed": b"hush-failed-3"}


def contents(path):
    """The bytes of every file below `path`, archives and compressed ones unpacked."""
    for folder, _, names in os.walk(path):
        for name in names:
            file = os.path.join(folder, name)
            if not os.path.isfile(file) or os.path.islink(file):
                continue
            data = Path(file).read_bytes()
            yield file, data
            if data[:2] == b"\x1f\x8b":
                yield file, gzip.decompress(data)
            elif tarfile.is_tarfile(file):
                with tarfile.open(file) as tar:
                    for member in filter(tarfile.TarInfo.isfile, tar):
                        inner = tar.extractfile(member).read()
                        yield f"{file}:{member.name}", inner
                        if inner[:2] == b"\x1f\x8b":
                            yield f"{file}:{member.name}", gzip.decompress(inner)


def test_a_secret_is_nowhere(daemon, sampan, place):
    (place / "Dockerfile").write_text(
        "FROM bb:1 AS made\n"
        "RUN --mount=type=secret,id=file,required wc -c < /run/secrets/file > /length\n"
        "RUN --mount=type=secret,id=variable,env=V,required env | grep -c ^V= > /count\n"
        "RUN --mount=type=secret,id=file,target=/etc/key,mode=0444 --mount=type=cache,target=/c "
        "cp /length /c/; cat /etc/key | wc -c\n"
        "FROM made\nRUN true\n"
        "FROM made AS failed\nRUN --mount=type=secret,id=failed,env=F false\n"
    )
    outside = place.parent / f"{place.name}-secrets"
    outside.mkdir()
    (outside / "file").write_bytes(SECRETS["file"])
    (outside / "failed").write_bytes(SECRETS["failed"])
    environ = {"VARIABLE": SECRETS["variable"].decode()}
    flags = ["--network", "none", "--secret", f"id=file,src={outside}/file"]
    flags += ["--secret", "id=variable,env=VARIABLE", "--secret", f"id=failed,src={outside}/failed"]
    said = [
        sampan("build", "-t", "x:1", "--target", "1", *flags, *more, ".", **environ)
        for more in (
            ("--cache-to", f"type=local,dest={place}/cache,mode=max"),
            ("-o", f"type=oci,dest={place}/oci.tar"),
            ("-o", f"type=docker,dest={place}/docker.tar"),
            ("-o", f"type=local,dest={place}/files"),
            ("--progress", "rawjson", "--no-cache", "--cache-to", "type=inline"),
        )
    ]
    said.append(sampan("build", "--target", "failed", *flags, ".", code=1, **environ))
    said.append(sampan("history", "--no-trunc", "x:1"))
    said.append(sampan("inspect", "x:1"))
    said.append(sampan("system", "df", "-v"))
    for result in said:
        assert not [one for one in SECRETS.values() if one.decode() in result.out + result.err]
    found = {
        name: value
        for root in (daemon.base, place)
        for name, data in contents(root)
        for value in SECRETS.values()
        if value in data
    }
    assert found == {}
    names = [name for name, _ in contents(daemon.base)]
    assert any(name.endswith("metadata.db") for name in names)
    assert any("/blobs/" in name for name in names)
    assert any(name.endswith("daemon.log") for name in names)
