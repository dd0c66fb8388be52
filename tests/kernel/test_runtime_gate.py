"""What a container is between `create` and `start`: a process that waits, and holds nothing."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

import pytest

from bundles import Bundle
from sampan.kernel import cgroups

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(params=["machine", "interpreter"])
def bundle(tmp_path: Path, request: pytest.FixtureRequest):
    made = Bundle(tmp_path)
    if request.param == "interpreter":
        made.config["hooks"] = {"poststop": [{"path": "/bin/true"}]}
    made.shell("sleep 1000")
    yield made
    done = made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone(), done


def create(bundle: Bundle, *words: str, inherited: int = -1) -> subprocess.CompletedProcess[bytes]:
    bundle.save()
    with open(bundle.path / "said", "wb") as said:
        return subprocess.run(
            [bundle.runtime, "--root", str(bundle.root), *words, "create", bundle.id],
            cwd=bundle.path,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            pass_fds=[inherited] if inherited >= 0 else [],
            timeout=60,
            check=False,
        )


def test_nothing_of_the_host_lies_open(bundle: Bundle):
    inherited = os.open("/etc", os.O_PATH)
    try:
        assert create(bundle, inherited=inherited).returncode == 0
    finally:
        os.close(inherited)
    there = Path(f"/proc/{bundle.state()['pid']}/fd")
    found = {os.readlink(one) for one in there.iterdir() if int(one.name) > 2}
    others = {one for one in found if not one.startswith(("socket:", "anon_inode:"))}
    assert others == {f"{bundle.root}/{bundle.id}/exec.fifo"}


@pytest.mark.parametrize("signal", ["TERM", "INT"])
def test_a_signal_ends_what_was_not_started(bundle: Bundle, signal: str):
    assert create(bundle).returncode == 0
    bundle.oci("kill", bundle.id, signal, check=True)
    assert bundle.ended()
    assert bundle.state()["status"] == "stopped"


def test_a_started_container_handles_its_signals_itself(bundle: Bundle):
    bundle.shell("trap 'exit 7' TERM; touch /ready; while :; do sleep 0.01; done")
    bundle.config["root"]["readonly"] = False
    assert create(bundle).returncode == 0
    bundle.oci("start", bundle.id, check=True)
    while not (bundle.rootfs / "ready").exists():
        pass
    bundle.oci("kill", bundle.id, "TERM", check=True)
    assert bundle.ended()


def test_a_frozen_cgroup_is_refused(bundle: Bundle):
    group = cgroups.manager(f"/sampan-test/frozen-{uuid.uuid4().hex[:8]}")
    group.create({})
    group.freeze()
    try:
        bundle.config["linux"]["cgroupsPath"] = group.path
        assert create(bundle).returncode == 1
        assert "cgroup unexpectedly frozen" in (bundle.path / "said").read_text()
        assert group.is_frozen()
    finally:
        group.thaw()
        group.remove()


def test_debug_tells_how_far_it_has_come(bundle: Bundle):
    assert create(bundle, "--debug", "--log", str(bundle.path / "log")).returncode == 0
    lines = (bundle.path / "log").read_text().splitlines()
    assert all(" level=debug msg=" in line for line in lines)
    for stage in ("nsexec container setup", "child process in init()", "init: closing the pipe"):
        assert any(f'msg="{stage}' in line for line in lines)
    assert (bundle.path / "said").read_text() == ""
    assert create(bundle, "--debug").returncode == 1  # without a file
    assert "level=debug" in (bundle.path / "said").read_text()


def test_a_link_answers_to_its_own_name(bundle: Bundle):
    link = bundle.path / "runc"
    link.symlink_to(bundle.runtime)
    said = subprocess.run([link, "--version"], check=True, capture_output=True, text=True).stdout
    assert said.startswith("runc version ")
    assert said.splitlines()[1].startswith("commit: sampan-")
    said = subprocess.run([link, "create", "-h"], check=True, capture_output=True, text=True).stdout
    assert "runc create - " in said
