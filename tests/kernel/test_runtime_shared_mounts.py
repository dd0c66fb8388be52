"""Containers without a mount namespace: their mounts are among the caller's, and go with them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bundles import Bundle

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path)
    linux = made.config["linux"]
    linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] != "mount"]
    linux["maskedPaths"] = linux["readonlyPaths"] = []
    before = mounts()
    yield made
    done = made.oci("delete", "--force", made.id)
    assert mounts() == before, done
    assert made.cgroup_is_gone(), done


def mounts() -> list[str]:
    """Every mount of this namespace, with its propagation."""
    return Path("/proc/self/mountinfo").read_text().splitlines()


def points(below: Path) -> list[str]:
    """Where something is mounted, below a directory."""
    found = [line.split()[4] for line in mounts()]
    return [point for point in found if point.startswith(str(below))]


def test_its_mounts_are_among_the_callers_and_go_with_it(bundle: Bundle):
    bundle.start("echo inside > /tmp/f; sleep 1000")
    found = points(bundle.rootfs)
    assert found[0] == str(bundle.rootfs)
    assert f"{bundle.rootfs}/proc" in found
    assert f"{bundle.rootfs}/dev/pts" in found
    bundle.oci("delete", "--force", bundle.id, check=True)
    assert points(bundle.rootfs) == []


def test_a_run_leaves_no_mount(bundle: Bundle):
    before = mounts()
    result = bundle.run("ls /; readlink /proc/self/ns/mnt; cat /proc/1/comm")
    assert result.returncode == 0, result.stderr
    assert os.readlink("/proc/self/ns/mnt") in result.stdout
    assert "bin\n" in result.stdout
    assert "work\n" not in result.stdout
    assert mounts() == before


def test_an_exec_is_in_the_root_of_the_container(bundle: Bundle):
    bundle.start("touch /tmp/mine; sleep 1000")
    result = bundle.oci(
        "exec", bundle.id, "/bin/sh", "-c", "pwd; ls /; ls /..; readlink /proc/1/ns/mnt"
    )
    assert result.returncode == 0, result.stderr
    names = sorted(os.listdir(bundle.rootfs))
    lines = result.stdout.split()
    assert lines == ["/", *names, *names, os.readlink("/proc/self/ns/mnt")]


def test_shared_mounts_of_the_caller_stay_shared(bundle: Bundle, tmp_path: Path):
    subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=True)
    subprocess.run(["mount", "--make-shared", tmp_path], check=True)
    try:
        before = mounts()
        bundle.start()
        assert mounts()[: len(before)] == before
        inside = [line for line in mounts() if f" {bundle.rootfs}/" in line]
        assert inside
        assert not any("shared:" in line for line in inside)
        bundle.oci("delete", "--force", bundle.id, check=True)
        assert mounts() == before
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("link", ["{canary}", "../../../../../../../..{canary}"])
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_a_link_of_the_root_leads_no_mount_out_of_it(
    bundle: Bundle, tmp_path: Path, kind: str, link: str
):
    canary = tmp_path / "canary"
    canary.mkdir()
    (bundle.rootfs / "trap").symlink_to(link.format(canary=canary))
    entry = {"destination": "/trap/inside", "type": kind, "source": str(bundle.rootfs / "etc")}
    bundle.config["mounts"].append({**entry, "options": ["bind"] if kind == "bind" else []})
    before = mounts()
    bundle.shell("sleep 1000")
    bundle.save()
    null = subprocess.DEVNULL
    words = [bundle.runtime, "--root", str(bundle.root), "run", "--detach", bundle.id]
    subprocess.run(words, check=False, cwd=bundle.path, stdin=null, stdout=null, stderr=null)
    assert [one for one in points(tmp_path) if not one.startswith(str(bundle.rootfs))] == [
        one.split()[4] for one in before if one.split()[4].startswith(str(tmp_path))
    ]
    assert list(canary.iterdir()) == []


def test_a_failure_leaves_no_mount(bundle: Bundle):
    before = mounts()
    bundle.config["mounts"].append({"destination": "/mnt", "type": "nosuchfs", "source": "none"})
    result = bundle.run("true")
    assert result.returncode != 0
    assert "nosuchfs" in result.stderr
    assert mounts() == before


def test_a_creation_that_was_killed_leaves_what_delete_takes_away(bundle: Bundle):
    bundle.shell("sleep 1000")
    bundle.config["hooks"] = {
        "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"]}]
    }
    bundle.save()
    bundle.oci("create", bundle.id, stdin=subprocess.DEVNULL)
    assert points(bundle.rootfs)
    bundle.oci("delete", "--force", bundle.id, check=True)
    assert points(bundle.rootfs) == []


def test_a_mount_of_somebody_else_stays(bundle: Bundle):
    bundle.start()
    subprocess.run(["umount", "--recursive", "--lazy", bundle.rootfs], check=True)
    subprocess.run(["mount", "--bind", bundle.rootfs, bundle.rootfs], check=True)
    try:
        bundle.oci("delete", "--force", bundle.id, check=True)
        assert points(bundle.rootfs) == [str(bundle.rootfs)]
    finally:
        subprocess.run(["umount", bundle.rootfs], check=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"linux": {"maskedPaths": ["/proc/kcore"]}}, "linux.maskedPaths: unable to restrict sys"),
        ({"linux": {"readonlyPaths": ["/proc/sys"]}}, "linux.readonlyPaths: unable to restrict"),
        ({"root": {"path": "/"}}, "root.path: without a mount namespace"),
        ({"linux": {"namespaces": [{"type": "user"}]}}, "a mount namespace is needed"),
    ],
)
def test_what_needs_a_mount_namespace_is_refused(bundle: Bundle, change: dict, words: str):
    for place, fields in change.items():
        bundle.config[place].update(fields)
    result = bundle.run("true")
    assert result.returncode != 0
    assert words in result.stderr
    assert not (bundle.root / bundle.id).exists()
