"""The short way of the small verbs: a shell answers for plain containers, and only for those."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundles import OCI, Bundle

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
SOURCE = Path(__file__).parents[2] / "src"
SLOW = f"""
import sys
sys.path.append({str(SOURCE)!r})
from sampan.runtime.__main__ import start
start()
"""
REFUSED = 99


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path)
    yield made
    done = made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone(), done


@pytest.fixture
def shell_alone(tmp_path: Path) -> str:
    """The launcher in an installation whose interpreter refuses."""
    home = tmp_path / "installed"
    (home / "bin").mkdir(parents=True)
    (home / "lib/python3.11/site-packages").mkdir(parents=True)
    (home / "lib/python3.11/site-packages/sampan.pth").write_text(f"{SOURCE}\n")
    (home / "bin/python3").write_text(f"#!/bin/sh\nexit {REFUSED}\n")
    (home / "bin/python3").chmod(0o755)
    (home / "bin/sampan-oci").write_bytes(Path(OCI).read_bytes())
    (home / "bin/sampan-oci").chmod(0o755)
    return str(home / "bin/sampan-oci")


def create(bundle: Bundle, script: str = "sleep 1000") -> None:
    bundle.shell(script)
    bundle.save()
    words = [OCI, "--root", str(bundle.root), "create", bundle.id]
    null = subprocess.DEVNULL
    subprocess.run(words, check=True, cwd=bundle.path, stdin=null, stdout=null, stderr=null)


def by_shell(launcher: str, bundle: Bundle, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [launcher, "--root", str(bundle.root), *words]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)


def by_interpreter(bundle: Bundle, *words: str) -> str:
    argv = [sys.executable, "-I", "-S", "-c", SLOW, "--root", str(bundle.root), *words]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


def test_a_plain_life_needs_no_interpreter(bundle: Bundle, shell_alone: str):
    bundle.config["annotations"] = {"a": 'q"uo\nte', "status": "x", "pid": "7"}
    create(bundle)
    seen = []
    for words in (["start"], ["kill", "KILL"]):
        state = by_shell(shell_alone, bundle, "state", bundle.id)
        assert state.stdout == by_interpreter(bundle, "state", bundle.id)
        seen.append(json.loads(state.stdout)["status"])
        done = by_shell(shell_alone, bundle, words[0], bundle.id, *words[1:])
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert bundle.ended()
    state = by_shell(shell_alone, bundle, "state", bundle.id)
    assert state.stdout == by_interpreter(bundle, "state", bundle.id)
    assert [*seen, json.loads(state.stdout)["status"]] == ["created", "running", "stopped"]
    assert by_shell(shell_alone, bundle, "delete", "--force", bundle.id).returncode == 0
    assert not (bundle.root / bundle.id).exists()
    assert bundle.cgroup_is_gone()


def test_callers_flags_are_understood(bundle: Bundle, shell_alone: str):
    create(bundle)
    log = f"--log={bundle.path}/log"
    words = ["--log-format", "json", log, "start", bundle.id]
    assert by_shell(shell_alone, bundle, *words).returncode == 0
    assert json.loads(by_interpreter(bundle, "state", bundle.id))["status"] == "running"


@pytest.mark.parametrize(
    "words",
    [
        ["start", "ID"],
        ["delete", "ID"],
        ["state", "nosuch"],
        ["state", "../ID"],
        ["state", "ID", "more"],
        ["kill", "ID", "NOSUCH"],
        ["kill", "ID", "0"],
        ["kill", "--all", "ID", "KILL"],
        ["--debug", "state", "ID"],
        ["--log-format", "xml", "state", "ID"],
        ["state", "--help"],
        ["list"],
    ],
    ids=" ".join,
)
def test_what_is_not_plain_is_left_alone(bundle: Bundle, shell_alone: str, words: list[str]):
    create(bundle)
    bundle.oci("start", bundle.id, check=True)
    before = by_interpreter(bundle, "state", bundle.id)
    named = [word.replace("ID", bundle.id) for word in words]
    done = by_shell(shell_alone, bundle, *named)
    assert (done.returncode, done.stdout, done.stderr) == (REFUSED, "", "")
    assert by_interpreter(bundle, "state", bundle.id) == before


def test_a_paused_container_is_seen_and_its_end_left_alone(bundle: Bundle, shell_alone: str):
    create(bundle)
    bundle.oci("start", bundle.id, check=True)
    bundle.oci("pause", bundle.id, check=True)
    state = by_shell(shell_alone, bundle, "state", bundle.id)
    assert json.loads(state.stdout)["status"] == "paused"
    assert by_shell(shell_alone, bundle, "kill", bundle.id, "KILL").returncode == REFUSED
    bundle.oci("kill", bundle.id, "KILL", check=True)
    assert bundle.ended()


def test_hooks_are_left_to_the_interpreter(bundle: Bundle, shell_alone: str):
    bundle.config["hooks"] = {"poststart": [{"path": "/bin/true"}]}
    create(bundle)
    assert by_shell(shell_alone, bundle, "start", bundle.id).returncode == REFUSED
    assert json.loads(by_interpreter(bundle, "state", bundle.id))["status"] == "created"


def test_a_hostile_name_of_the_process_deceives_nobody(bundle: Bundle, shell_alone: str):
    """The name in /proc/PID/stat is the container's to choose, with brackets and newlines."""
    name = "a) Z 1\nb"
    (bundle.rootfs / "bin" / name).write_text("#!/bin/sh\necho > /dev/shm/ready\nsleep 1000\n")
    (bundle.rootfs / "bin" / name).chmod(0o755)
    create(bundle, f"exec '/bin/{name}'")
    bundle.oci("start", bundle.id, check=True)
    pid = json.loads((bundle.root / bundle.id / "state.json").read_text())["pid"]
    while name.split("\n", maxsplit=1)[0] not in Path(f"/proc/{pid}/stat").read_text():
        pass  # until the execve; the test's own limit of time ends a loop that does not
    done = by_shell(shell_alone, bundle, "state", bundle.id)
    assert done.returncode in (0, REFUSED)
    if done.returncode == 0:
        assert json.loads(done.stdout)["status"] == "running"


def test_a_number_that_another_process_has_is_a_container_that_stopped(
    bundle: Bundle, shell_alone: str
):
    create(bundle)
    quick = bundle.root / bundle.id / "quick"
    words = quick.read_text().split(" ")
    quick.write_text(" ".join([str(os.getpid()), *words[1:]]))
    done = by_shell(shell_alone, bundle, "state", bundle.id)
    assert json.loads(done.stdout)["status"] == "stopped"
    assert by_shell(shell_alone, bundle, "kill", bundle.id, "KILL").returncode == REFUSED
    quick.write_text(" ".join(words))


def test_a_delete_that_finds_the_cgroup_in_use_is_left_alone(bundle: Bundle, shell_alone: str):
    create(bundle)
    bundle.oci("kill", bundle.id, "KILL", check=True)
    assert bundle.ended()
    sleeper = subprocess.Popen(["sleep", "1000"])
    bundle.group().join(sleeper.pid)
    assert by_shell(shell_alone, bundle, "delete", bundle.id).returncode == REFUSED
    assert (bundle.root / bundle.id).exists()
    bundle.oci("delete", bundle.id, check=True)  # which ends what is in it
    assert sleeper.wait(20) == -9
