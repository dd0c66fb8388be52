"""Attacks on the runtime from a hostile root file system (SECURITY classes C1, C2, C3, C5).

Every shape is tried in every slot; afterwards a canary outside of the root must be untouched.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from bundles import Bundle

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SLOTS = (
    "dev dev/console dev/null dev/ptmx dev/pts dev/shm dev/fd proc sys sys/fs/cgroup etc "
    "etc/passwd etc/group tmp root work bound bound/file"
).split()
# Where callers put files into a container, and where a tmpfs begins with a copy.
MORE_SLOTS = "etc/hosts etc/resolv.conf run run/secrets data data/sub".split()
SHAPES = "absolute relative dangling fd exe loop fifo socket device file sparse hardlink".split()


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path / "bundle")
    yield made
    done = made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone(), done


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "canary"
    (path / "directory").mkdir(parents=True)
    (path / "secret").write_text("the secret of the host")
    (path / "directory/file").write_text("a file of the host")
    return path


def snapshot(path: Path) -> list[tuple[object, ...]]:
    found = []
    for entry in sorted([path, *path.rglob("*")]):
        info = entry.lstat()
        content = (
            hashlib.sha256(entry.read_bytes()).hexdigest() if stat.S_ISREG(info.st_mode) else ""
        )
        found.append(
            (
                str(entry),
                info.st_mode,
                info.st_ino,
                info.st_uid,
                info.st_gid,
                info.st_mtime_ns,
                content,
            )
        )
    return found


def plant(target: Path, shape: str, canary: Path) -> None:
    """Replace `target` by something that leads to the canary or that must not be followed."""
    if target.is_dir() and not target.is_symlink():
        subprocess.run(["rm", "-rf", str(target)], check=True)
    else:
        target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    match shape:
        case "absolute":
            target.symlink_to(canary / "directory")
        case "relative":
            target.symlink_to("../" * 20 + str(canary / "secret").lstrip("/"))
        case "dangling":
            target.symlink_to(canary / "new")
        case "fd":
            target.symlink_to("/proc/self/fd/7")
        case "exe":
            target.symlink_to("/proc/self/exe")
        case "loop":
            target.symlink_to(target.name)
        case "fifo":
            os.mkfifo(target)
        case "socket":
            before = os.getcwd()
            os.chdir(target.parent)  # a socket's path is limited to 108 bytes
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(target.name)
            os.chdir(before)
        case "device":
            os.mknod(target, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        case "file":
            target.write_text("not a directory")
        case "sparse":
            with target.open("wb") as file:
                file.truncate(10 << 30)
        case "hardlink":
            os.link(canary / "secret", target)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("slot", SLOTS)
def test_hostile_root_file_systems_leave_the_host_alone(
    bundle: Bundle, canary: Path, slot: str, shape: str
):
    source = bundle.path / "source"
    source.mkdir()
    (source / "file").write_text("bound")
    bundle.config["process"]["cwd"] = "/work"
    bundle.config["root"]["readonly"] = False
    bundle.config["mounts"] += [
        {"destination": "/bound", "type": "bind", "source": str(source), "options": ["rbind"]},
        {"destination": "/bound/file", "type": "bind", "source": str(source / "file")},
    ]
    plant(bundle.rootfs / slot, shape, canary)
    before = snapshot(canary)
    null_device = os.stat("/dev/null")
    result = bundle.run("(head -c 999 /etc/passwd /dev/console /tmp/* 2>/dev/null &); sleep 0.1")
    assert snapshot(canary) == before
    if shape != "hardlink":  # a hard link made by root before the start is the root's own file
        assert "secret of the host" not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    after = os.stat("/dev/null")
    assert (after.st_mode, after.st_uid, after.st_rdev) == (
        null_device.st_mode,
        null_device.st_uid,
        null_device.st_rdev,
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("slot", MORE_SLOTS)
def test_hostile_places_of_files_leave_the_host_alone(
    bundle: Bundle, canary: Path, slot: str, shape: str
):
    source = bundle.path / "source"
    source.mkdir()
    (source / "file").write_text("bound")
    (bundle.rootfs / "data/sub").mkdir(parents=True)
    (bundle.rootfs / "run").mkdir()
    file, tmpfs = {"type": "bind", "source": str(source / "file")}, {"type": "tmpfs"}
    secrets = {"destination": "/run/secrets", "type": "bind", "source": str(source)}
    bundle.config["root"]["readonly"] = False
    bundle.config["mounts"] += [
        {**file, "destination": "/etc/hosts"},
        {**file, "destination": "/etc/resolv.conf"},
        {**tmpfs, "destination": "/data", "source": "tmpfs", "options": ["tmpcopyup"]},
        *([secrets] if slot.startswith("run") else []),
        *([{**tmpfs, "destination": "/run", "source": "t"}] if slot == "run" else []),
    ]
    if shape == "sparse" and slot.startswith("data"):
        bundle.config["mounts"][-1]["options"] = ["tmpcopyup", "size=1m"]
    plant(bundle.rootfs / slot, shape, canary)
    before = snapshot(canary)
    places = "/etc/hosts /data/* /data/*/* /run/secrets/*"
    result = bundle.run(f"for f in {places}; do [ -f $f ] && head -c 99 $f; done 2>/dev/null")
    assert snapshot(canary) == before
    if shape != "hardlink":
        assert "secret of the host" not in result.stdout + result.stderr
        assert "file of the host" not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_a_working_directory_behind_a_descriptor_is_refused(bundle: Bundle):
    for number in range(40):
        bundle.config["process"]["cwd"] = f"/proc/self/fd/{number}"
        result = bundle.run("pwd; ls ../../../../etc/shadow")
        assert result.returncode != 0
        assert "shadow" not in result.stdout


def test_a_mount_over_proc_files_is_refused(bundle: Bundle):
    source = bundle.path / "file"
    source.write_text("x")
    for target in ("/proc/self/attr/exec", "/proc/sys/kernel/core_pattern", "/proc/1/status"):
        bundle.config["mounts"][-1] = {"destination": target, "type": "bind", "source": str(source)}
        result = bundle.run("true")
        assert result.returncode == 1
        assert "lies in /proc" in result.stderr


def test_the_interpreter_cannot_be_written_from_inside(bundle: Bundle):
    import sys

    program = Path(os.path.realpath(sys.executable))
    before = hashlib.sha256(program.read_bytes()).digest()
    (bundle.rootfs / "bin/attack").write_text("#!/proc/self/exe\n")
    (bundle.rootfs / "bin/attack").chmod(0o755)
    bundle.command("/bin/attack")
    bundle.run()
    bundle.start(
        "while true; do for p in /proc/[0-9]*; do echo x >> $p/exe; done; done 2>/dev/null"
    )
    for _ in range(10):
        bundle.oci("exec", bundle.id, "/bin/attack")
        bundle.oci("exec", bundle.id, "true")
    assert hashlib.sha256(program.read_bytes()).digest() == before


def test_nothing_of_the_root_is_loaded_by_the_runtime(bundle: Bundle, canary: Path):
    """Poisoned name services, loader configuration and modules leave no marker."""
    marker = canary / "directory/marker"
    poison = f"open({str(marker)!r}, 'w').close()\n"
    for name in ("usr/lib/python3.11", "usr/lib/python3", "lib/python3.11"):
        directory = bundle.rootfs / name
        directory.mkdir(parents=True)
        for module in ("os", "traceback", "encodings", "json", "sitecustomize", "warnings"):
            (directory / f"{module}.py").write_text(poison)
    (bundle.rootfs / "etc/nsswitch.conf").write_text("passwd: evil files\ngroup: evil\n")
    (bundle.rootfs / "etc/ld.so.preload").write_text("/lib/evil.so\n")
    result = bundle.run("nosuchcommand; true")
    assert result.returncode == 0
    bundle.command("nosuch")
    assert "executable file not found" in bundle.run().stderr
    assert not marker.exists()


def test_the_environment_of_the_caller_does_not_reach_the_runtime(bundle: Bundle, tmp_path: Path):
    marker = tmp_path / "marker"
    poison = tmp_path / "poison"
    poison.mkdir()
    (poison / "sitecustomize.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    (poison / "os.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    bundle.shell("env")
    bundle.save()
    result = bundle.oci(
        "run",
        bundle.id,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(poison), "SECRET": "x"},
    )
    assert not marker.exists()
    assert "SECRET" not in result.stdout
    assert sorted(line.split("=")[0] for line in result.stdout.split()) == [
        "HOME",
        "PATH",
        "PWD",
        "SHLVL",
    ]
