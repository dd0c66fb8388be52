"""What `sampan-oci` loads for a command, and that it makes the same container in both ways.

A cold start is a sum of imports. Each of these runs a real command in a fresh interpreter and looks
at what was imported for it; a new name is a decision: measure it first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundles import PROBE, Bundle
from sampan.kernel import cgroups
from sampan.runtime import packing

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or os.uname().machine != "x86_64", reason="needs root on x86-64"
)

SOURCE = Path(__file__).parents[2] / "src"
SMALL = set(
    "sampan sampan.ids sampan.jsontext sampan.kernel sampan.kernel.identity sampan.runtime "
    "sampan.runtime.__main__ sampan.runtime.arguments sampan.runtime.commands "
    "sampan.runtime.failure sampan.runtime.recorded sampan.runtime.state".split()
)
VERBS = SMALL | {"sampan.runtime.verbs", "sampan.kernel.signal_names"}
LAUNCH = SMALL | set(
    "sampan.kernel.capabilities sampan.kernel.cgroups sampan.kernel.cgroups.applying "
    "sampan.kernel.cgroups.devices sampan.kernel.cgroups.fields sampan.kernel.cgroups.hierarchy "
    "sampan.kernel.cgroups.stats sampan.kernel.cgroups.tree sampan.kernel.cgroups.v1 "
    "sampan.kernel.cgroups.v1_limits sampan.kernel.elf sampan.kernel.fds sampan.kernel.filters "
    "sampan.kernel.keyrings sampan.kernel.libc sampan.kernel.loopback sampan.kernel.machine "
    "sampan.kernel.mounts sampan.kernel.namespaces sampan.kernel.numbers sampan.kernel.paths "
    "sampan.kernel.process sampan.kernel.rlimits sampan.kernel.trampoline "
    "sampan.runtime.assembly sampan.runtime.assembly_mounts sampan.runtime.assembly_process "
    "sampan.runtime.bundle sampan.runtime.calling sampan.runtime.calls "
    "sampan.runtime.credentials sampan.runtime.devices sampan.runtime.direct "
    "sampan.runtime.direct_create sampan.runtime.facts sampan.runtime.launch "
    "sampan.runtime.mountoptions sampan.runtime.operations sampan.runtime.passing "
    "sampan.runtime.plan sampan.runtime.readiness sampan.runtime.shapes sampan.runtime.stage "
    "sampan.runtime.stock sampan.runtime.unified "
    "sampan.runtime.validate sampan.runtime.variants".split()
)
if cgroups.mode() == "unified":
    LAUNCH = {name for name in LAUNCH if "v1" not in name} | set(
        "sampan.kernel.bpf sampan.kernel.cgroups.device_program sampan.kernel.cgroups.v2 "
        "sampan.kernel.cgroups.v2_limits".split()
    )
if cgroups.mode() == "hybrid":
    LAUNCH.add("sampan.kernel.cgroups.hybrid")
SHORTCUT = {"sampan.runtime.shortcut"}
LAUNCHERS = {f"sampan.runtime.{name}" for name in ("direct_create", "launch", "shapes")}
EXEC = (LAUNCH - LAUNCHERS) | {
    "sampan.runtime.direct_exec",
    "sampan.runtime.joining",
}
BARE = set(  # of a command of the small verbs: not even os
    "__main__ _abc _codecs _frozen_importlib _frozen_importlib_external _imp _io _signal _thread "
    "_warnings _weakref abc builtins codecs encodings encodings.aliases encodings.utf_8 io marshal "
    "posix sys time zipimport __future__ _json errno gc".split()
)
FOREIGN = BARE | set(
    "_collections_abc _socket _stat _struct fcntl genericpath os os.path posixpath pwd resource "
    "stat struct".split()
)
if cgroups.mode() == "unified":  # devices are a program, which the C library loads
    FOREIGN |= set("_ctypes ctypes ctypes._endian math types".split())
WATCH = """
import sys
sys.path.append({source!r})
from sampan.runtime.__main__ import main
sys.argv = ["-c", *{words!r}]
status = main()
with open({out!r}, "w") as file:
    file.write(" ".join(sys.modules))
sys.exit(status)
"""


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path)
    yield made
    done = made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone(), done


@pytest.fixture(scope="module")
def pack():
    """The pack of the sources as they are now."""
    packing.write()


def loaded(bundle: Bundle, *words: str) -> set[str]:
    """The modules that a command has loaded when it is done."""
    out = f"{bundle.path}/modules"
    code = WATCH.format(source=str(SOURCE), words=["--root", str(bundle.root), *words], out=out)
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        check=True,
        cwd=bundle.path,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    return set(Path(out).read_text().split())


def check(modules: set[str], ours: set[str], foreign: set[str]) -> None:
    own = {name for name in modules if name.partition(".")[0] == "sampan"}
    assert own - ours == set()
    assert modules - own - foreign == set()


def test_run_of_a_plain_bundle(bundle: Bundle):
    bundle.shell("exit 0")
    bundle.save()
    check(loaded(bundle, "run", bundle.id), LAUNCH, FOREIGN)


def test_run_of_the_default_bundle_of_runc(bundle: Bundle):
    os.unlink(bundle.path / "config.json") if (bundle.path / "config.json").exists() else None
    subprocess.run(["runc", "spec"], check=True, cwd=bundle.path)
    made = json.loads((bundle.path / "config.json").read_text())
    made["process"].update(terminal=False, args=["true"])
    made["linux"]["cgroupsPath"] = bundle.config["linux"]["cgroupsPath"]
    bundle.config = made
    bundle.save()
    check(loaded(bundle, "run", bundle.id), LAUNCH, FOREIGN)


def test_a_life_in_small_steps(bundle: Bundle):
    bundle.shell("sleep 1000")
    bundle.save()
    describing = SMALL | {"sampan.runtime.description", "sampan.version"}
    check(loaded(bundle, "create", bundle.id), LAUNCH | describing | SHORTCUT, FOREIGN)
    check(loaded(bundle, "state", bundle.id), describing, BARE | {"pwd"})
    check(loaded(bundle, "start", bundle.id), VERBS, BARE)
    check(loaded(bundle, "exec", bundle.id, "true"), EXEC, FOREIGN)
    check(loaded(bundle, "kill", bundle.id, "KILL"), VERBS, BARE)
    assert bundle.ended()
    check(loaded(bundle, "delete", bundle.id), VERBS, BARE)


def test_a_module_too_many_would_be_seen(bundle: Bundle):
    with pytest.raises(AssertionError):
        check(loaded(bundle, "features"), SMALL, BARE)


@pytest.mark.parametrize("filtered", [False, True], ids=["plain", "filtered"])
def test_both_ways_make_the_same_container(bundle: Bundle, filtered: bool):
    bundle.config["hostname"] = "box"
    bundle.config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}]
    bundle.config["process"]["user"] = {"uid": 33, "gid": 34, "additionalGids": [8]}
    if filtered:
        rule = {"names": ["chroot"], "action": "SCMP_ACT_ERRNO"}
        bundle.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    probe = PROBE.replace("cat /bound/f; touch /bound/new;", "")
    directly = bundle.run(probe)
    bundle.config["hooks"] = {"poststop": [{"path": "/bin/true"}]}  # for which it takes the other
    interpreted = bundle.run(probe)
    assert len(directly.stdout.splitlines()) > 60
    assert directly.stdout == interpreted.stdout
    assert directly.stderr == interpreted.stderr


def test_a_command_that_fails_after_the_gate(bundle: Bundle):
    (bundle.rootfs / "bin/script").write_text("#!/nosuch\n")
    (bundle.rootfs / "bin/script").chmod(0o755)
    bundle.command("script")
    bundle.save()
    failed = bundle.oci("run", bundle.id)
    assert failed.returncode == 1
    assert failed.stderr == "exec script: no such file or directory\n"
    words = [bundle.runtime, "--root", str(bundle.root), "create", bundle.id]
    with open(bundle.path / "out", "wb") as out:
        null = subprocess.DEVNULL
        subprocess.run(words, check=True, cwd=bundle.path, stdin=null, stderr=out, stdout=out)
    bundle.oci("start", bundle.id, check=True)
    assert bundle.ended()
    said = (bundle.path / "out").read_text()
    assert said == "sampan-oci: exec script: exec format error, or no such interpreter\n"


def test_exec_keeps_the_filter_of_the_first_process(bundle: Bundle):
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    bundle.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    bundle.start()
    refused = bundle.oci("exec", bundle.id, "mkdir", "/dev/shm/x")
    assert "Operation not supported" in refused.stderr
    assert bundle.oci("exec", bundle.id, "true").returncode == 0


def test_a_changed_source_is_not_taken_from_the_pack(tmp_path: Path):
    package = tmp_path / "sampan"
    subprocess.run(["cp", "-r", SOURCE / "sampan", package], check=True)
    cache = package / "runtime/__pycache__"
    for old in cache.glob("packed*"):
        old.unlink()
    words = ["-I", "-S", "-c", PACKED_START.format(source=str(tmp_path)), "--version"]

    def version() -> str:
        return subprocess.run(
            [sys.executable, *words], check=True, capture_output=True, text=True
        ).stdout.split()[2]

    first = version()
    (pack,) = cache.glob("packed*")
    written = pack.stat().st_mtime_ns
    assert version() == first
    assert pack.stat().st_mtime_ns == written
    (package / "version.py").write_text('VERSION = "changed"\nOCI_RUNTIME_SPEC_VERSION = "1"\n')
    assert version() == "changed"
    assert pack.stat().st_mtime_ns != written
    assert version() == "changed"


PACKED_START = """
import marshal, sys
sys.path.append({source!r})
try:
    name = {source!r} + "/sampan/runtime/__pycache__/packed." + sys.implementation.cache_tag
    with open(name, "rb") as pack:
        exec(marshal.load(pack))
        install(pack)
except FileNotFoundError:
    pass
from sampan.runtime.__main__ import start
start()
"""


def test_an_image_is_not_taken_when_one_of_its_sources_has_changed(tmp_path: Path):
    package = tmp_path / "sampan"
    subprocess.run(["cp", "-r", SOURCE / "sampan", package], check=True)
    for old in (package / "runtime/__pycache__").glob("packed*"):
        old.unlink()
    words = ["-I", "-S", "-c", PACKED_START.format(source=str(tmp_path)), "run", "--help"]

    def said() -> str:
        command = [sys.executable, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    first = said()
    assert said() == first
    commands = package / "runtime/commands.py"
    commands.write_text(commands.read_text().replace("create and run", "make and run"))
    assert "make and run" not in first
    assert [said() for _ in range(3)] == [first.replace("create and run", "make and run")] * 3


@pytest.mark.usefixtures("pack")
def test_a_part_stands_in_for_os_until_more_is_wanted():
    words = [sys.executable, "-I", "-S", "-c", PACKED_WATCH.format(source=str(SOURCE)), "run"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    before, after, *images = done.stdout.split()
    assert (before, after) == ("False", "True")
    assert "sampan.runtime.launch" in images
    assert "sampan.runtime.joining" not in images


@pytest.mark.usefixtures("pack")
def test_nothing_wants_the_whole_of_os(bundle: Bundle):
    bundle.root.mkdir()  # only to make this and its parents
    bundle.shell("sleep 1000")
    bundle.save()
    for step in (["run", "-d"], ["exec"], ["create"]):
        if step == ["create"]:
            bundle.oci("delete", "--force", bundle.id, check=True)
        command = ["true"] if step == ["exec"] else []
        words = ["--root", str(bundle.root), *step, bundle.id, *command]
        out = f"{bundle.path}/said"  # no pipe: the container would keep it open
        code = PACKED_MAIN.format(source=str(SOURCE), words=words, out=out)
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", code],
            check=True,
            cwd=bundle.path,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        assert Path(out).read_text() == "0 False"


PACKED_MAIN = """
import marshal, sys
sys.path.append({source!r})
sys.argv = ["sampan-oci", *{words!r}]
name = {source!r} + "/sampan/runtime/__pycache__/packed." + sys.implementation.cache_tag
with open(name, "rb") as pack:
    exec(marshal.load(pack))
    install(pack)
from sampan.runtime.__main__ import main
status = main()
with open({out!r}, "w") as file:
    file.write(f"{{status}} {{'_collections_abc' in sys.modules}}")
"""


PACKED_WATCH = """
import marshal, sys
sys.path.append({source!r})
name = {source!r} + "/sampan/runtime/__pycache__/packed." + sys.implementation.cache_tag
with open(name, "rb") as pack:
    exec(marshal.load(pack))
    install(pack)
import os
print("environ" in vars(os), end=" ")
assert os.fsencode(chr(0xdcff)) == bytes([255]) and os.fsdecode(bytes([255])) == chr(0xdcff)
assert os.path.join("a", "b") == "a/b"
environ = os.environ
from os import PathLike
import os.path
assert sys.modules["os"] is os and os.environ is environ and os.path.join("a", "b") == "a/b"
print("environ" in vars(os), *sys.modules)
"""


def test_four_mebibytes_are_enough_to_start(bundle: Bundle):
    """What the runtime itself needs is not charged to the container."""
    bundle.config["linux"]["resources"]["memory"] = {"limit": 4 << 20}
    bundle.command("true")
    bundle.save()
    assert bundle.oci("run", bundle.id).stderr == ""
    bundle.start()
    assert bundle.oci("exec", bundle.id, "true").returncode == 0
    assert bundle.group().oom_kills() == 0
    assert bundle.group().stats()["memory"]["max"] < 3 << 20
