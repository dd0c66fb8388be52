"""Hooks of sampan-oci: where and when they run, what they read, and what a failing one does."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from bundles import Bundle

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

BESIDE = ("prestart", "createRuntime", "poststart", "poststop")
ALL = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path)
    made.config["root"]["readonly"] = False
    yield made
    made.config.pop("hooks", None)
    done = made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone(), done


def shell(script: str, **more: object) -> dict[str, object]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], **more}


def noted(bundle: Bundle, kind: str) -> dict[str, object]:
    """A hook that writes a line: its kind, directory, mount namespace and the state."""
    line = f'echo "{kind} $PWD $(readlink /proc/self/ns/mnt) $(cat)"'
    return shell(f"{line} >> {bundle.path}/notes")


def notes(bundle: Bundle) -> list[tuple[str, str, str, dict[str, object]]]:
    lines = (bundle.path / "notes").read_text().splitlines()
    split = [line.split(" ", 3) for line in lines]
    return [(kind, where, space, json.loads(state)) for kind, where, space, state in split]


def quiet(bundle: Bundle, *words: str) -> int:
    null = subprocess.DEVNULL
    command = [bundle.runtime, "--root", str(bundle.root), *words, bundle.id]
    return subprocess.run(
        command, check=False, cwd=bundle.path, stdin=null, stdout=null, timeout=60
    ).returncode


def test_hooks_beside_the_runtime_run_in_order_with_the_state(bundle: Bundle):
    bundle.config["hooks"] = {kind: [noted(bundle, kind)] * 2 for kind in BESIDE}
    bundle.config["annotations"] = {"key": 'a "value"'}
    bundle.shell("sleep 1000")
    bundle.save()
    assert quiet(bundle, "create") == 0
    pid = bundle.state()["pid"]
    created = notes(bundle)
    assert [note[0] for note in created] == ["prestart"] * 2 + ["createRuntime"] * 2
    ours = os.readlink("/proc/self/ns/mnt")
    for _, where, space, state in created:
        assert (where, space) == (str(bundle.path), ours)
        assert state["status"] == "creating"
        assert (state["pid"], state["id"]) == (pid, bundle.id)
        assert state["annotations"] == {"key": 'a "value"'}
        assert state["bundle"] == str(bundle.path)
    assert quiet(bundle, "start") == 0
    assert [(note[0], note[3]["status"]) for note in notes(bundle)[4:]] == [
        ("poststart", "running")
    ] * 2
    assert quiet(bundle, "delete", "--force") == 0
    last = notes(bundle)[6:]
    assert [(note[0], note[3]["status"], "pid" in note[3]) for note in last] == [
        ("poststop", "stopped", False)
    ] * 2
    assert not (bundle.root / bundle.id).exists()


def test_poststart_comes_after_the_command_was_executed(bundle: Bundle):
    bundle.config["hooks"] = {
        "poststart": [
            shell(f"readlink /proc/$(sed 's/.*pid\"://; s/[^0-9].*//')/exe > {bundle.path}/exe")
        ]
    }
    bundle.command("/bin/busybox", "sleep", "1000")
    bundle.save()
    assert quiet(bundle, "create") == 0
    assert quiet(bundle, "start") == 0
    assert (bundle.path / "exe").read_text().strip() == "/bin/busybox"


def test_create_container_hooks_run_inside_beside_the_root(bundle: Bundle):
    bundle.config["hooks"] = {"createContainer": [noted(bundle, "createContainer")]}
    bundle.run("true")
    ((_, where, space, state),) = notes(bundle)
    assert where == str(bundle.rootfs)
    assert space != os.readlink("/proc/self/ns/mnt")
    assert (state["pid"], state["status"]) == (1, "creating")


def test_a_prestart_hook_reaches_mounts_and_cgroup_of_the_container(bundle: Bundle):
    pid = "$(sed 's/.*\"pid\"://; s/[^0-9].*//')"
    look = f"cd /proc/{pid}; cat cgroup mountinfo > {bundle.path}/seen"
    bundle.config["hooks"] = {"prestart": [shell(look)]}
    assert bundle.run("true").returncode == 0
    seen = (bundle.path / "seen").read_text()
    assert f":/sampan-test/{bundle.id}" in seen
    assert f"{bundle.rootfs}/proc" in seen


def test_start_container_hooks_are_what_the_command_is(bundle: Bundle):
    script = (
        "cat > /tmp/state; id -u > /tmp/who; grep CapEff /proc/self/status > /tmp/caps; "
        "env > /tmp/env"
    )
    bundle.config["hooks"] = {"startContainer": [shell(script)]}
    bundle.config["process"]["user"] = {"uid": 33, "gid": 34}
    bundle.config["process"]["capabilities"] = {}
    bundle.config["process"]["env"] = ["PATH=/bin", "ONLY=here"]
    os.chmod(bundle.rootfs / "tmp", 0o777)
    result = bundle.run("cat /tmp/who /tmp/caps; grep ONLY /tmp/env; grep -c created /tmp/state")
    assert result.stdout.split() == ["33", "CapEff:", "0" * 16, "ONLY=here", "1"]


def test_a_hook_has_the_environment_that_it_names(bundle: Bundle):
    bundle.config["hooks"] = {
        "prestart": [shell(f"env > {bundle.path}/env", env=["ONE=1", "TWO=a=b"])]
    }
    assert bundle.run("true").returncode == 0
    found = (bundle.path / "env").read_text().split()
    assert {"ONE=1", "TWO=a=b"} <= set(found)
    assert not any(entry.startswith("PATH=") for entry in found)


@pytest.mark.parametrize("kind", ALL[:4])
def test_a_failing_hook_before_the_start_undoes_everything(bundle: Bundle, kind: str):
    note = noted(bundle, "poststop")
    bad = shell("echo said; echo complained >&2; exit 3")
    bundle.config["hooks"] = {kind: [shell("true"), bad], "poststop": [note]}
    result = bundle.run("echo ran")
    said = f"error running {kind} hook #1: exit status 3, stdout: said\n, stderr: complained"
    assert (result.returncode, result.stdout) == (1, "")
    assert said in result.stderr
    assert [note[0] for note in notes(bundle)] == ["poststop"]
    assert os.listdir(bundle.root) == []
    assert bundle.cgroup_is_gone()


def test_a_failing_poststart_hook_ends_the_container(bundle: Bundle):
    bundle.config["hooks"] = {"poststart": [{"path": "/bin/false"}]}
    result = bundle.run("sleep 1000")
    assert result.returncode == 1
    assert "error running poststart hook #0: exit status 1" in result.stderr
    assert os.listdir(bundle.root) == []


def test_a_failing_poststop_hook_is_told_and_the_next_runs(bundle: Bundle):
    bundle.config["hooks"] = {"poststop": [{"path": "/bin/false"}, noted(bundle, "poststop")]}
    result = bundle.run("exit 7")
    assert result.returncode == 7
    assert "warning: error running poststop hook #0" in result.stderr
    assert len(notes(bundle)) == 1


@pytest.mark.parametrize("kind", ["prestart", "createContainer"])
def test_a_hook_that_takes_too_long_is_killed(bundle: Bundle, kind: str):
    slow = {"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}
    bundle.config["hooks"] = {kind: [slow]}
    result = bundle.run("true")
    assert f"error running {kind} hook #0: hook ran past specified timeout of 1.0s" in result.stderr


def test_a_missing_hook_is_named(bundle: Bundle):
    bundle.config["hooks"] = {"prestart": [{"path": "/no/such/hook"}]}
    result = bundle.run("true")
    assert "prestart hook #0: fork/exec /no/such/hook: no such file or directory" in result.stderr


def test_a_hook_that_leaves_a_child_with_its_pipes_does_not_block(bundle: Bundle):
    bundle.config["hooks"] = {"prestart": [shell(f"sleep 1000 & echo $! > {bundle.path}/pid")]}
    assert bundle.run("echo ran").stdout == "ran\n"
    os.kill(int((bundle.path / "pid").read_text()), 9)


@pytest.mark.parametrize(
    ("hook", "field"),
    [
        ({"path": "relative"}, "hooks.prestart[0].path"),
        ({}, "hooks.prestart[0].path"),
        ({"path": "/bin/true", "args": "x"}, "hooks.prestart[0].args"),
        ({"path": "/bin/true", "env": [1]}, "hooks.prestart[0].env"),
        ({"path": "/bin/true", "timeout": 0}, "hooks.prestart[0].timeout"),
        ({"path": "/bin/true", "timeout": "1"}, "hooks.prestart[0].timeout"),
        ("/bin/true", "hooks.prestart[0]"),
    ],
)
def test_malformed_hooks_are_refused(bundle: Bundle, hook: object, field: str):
    bundle.config["hooks"] = {"prestart": [hook]}
    assert field in bundle.run("true").stderr
