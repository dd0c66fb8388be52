"""`sampan-oci` on a hybrid host: its containers are in the version 2 tree too, from their birth."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from bundles import Bundle
from sampan.kernel import cgroups

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or cgroups.mode() != "hybrid", reason="needs root on a hybrid host"
)
WAYS = pytest.mark.parametrize("way", ["machine", "interpreter", "users"])


@pytest.fixture
def bundle(tmp_path: Path, way: str):
    made = Bundle(tmp_path)
    if way == "interpreter":
        made.config["hooks"] = {"poststop": [{"path": "/bin/true"}]}
    if way == "users":
        os.chmod(tmp_path, 0o755)
        linux = made.config["linux"]
        linux["namespaces"].append({"type": "user"})
        mapping = {"containerID": 0, "hostID": 100000, "size": 65534}
        linux["uidMappings"] = linux["gidMappings"] = [mapping]
        subprocess.run(["chown", "-R", "100000:100000", made.rootfs], check=True)
    yield made
    done = made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone(), done


def place(pid: int) -> str:
    """Where a process is in the tree of version 2."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line for line in lines if line.startswith("0::"))[3:]


def tree() -> Path:
    """Where that tree is mounted."""
    (found,) = (one for one in cgroups.mounted() if one.version == 2)
    return Path(found.mountpoint)


@WAYS
def test_every_process_is_in_the_version_2_tree(bundle: Bundle, tmp_path: Path):
    bundle.start()
    name = f"/sampan-test/{bundle.id}"
    state = bundle.state()
    assert place(state["pid"]) == name
    pids = tmp_path / "pid"
    words = ["exec", "--detach", "--pid-file", str(pids), bundle.id, "sleep", "1000"]
    null = subprocess.DEVNULL
    words = [bundle.runtime, "--root", str(bundle.root), *words]
    subprocess.run(words, check=True, stdin=null, stdout=null, stderr=null, timeout=60)
    assert place(int(pids.read_text())) == name
    bundle.oci("delete", "--force", bundle.id, check=True)
    assert bundle.cgroup_is_gone()


@WAYS
def test_a_failed_creation_leaves_nothing_there(bundle: Bundle):
    bundle.config["linux"]["resources"]["memory"] = {"limit": 1 << 20, "swap": 1 << 19}
    result = bundle.run("true")
    assert result.returncode != 0
    assert "memory" in result.stderr
    assert bundle.cgroup_is_gone()


@pytest.mark.parametrize("way", ["machine"])
def test_what_the_container_has_made_there_goes_with_it(bundle: Bundle):
    bundle.start()
    below = tree() / "sampan-test" / bundle.id / "a/b"
    below.mkdir(parents=True)
    (below / "cgroup.procs").write_text(str(bundle.state()["pid"]))
    bundle.oci("delete", "--force", bundle.id, check=True)
    assert bundle.cgroup_is_gone()


@pytest.mark.parametrize("way", ["machine"])
def test_an_exec_goes_on_without_a_place_in_that_tree(bundle: Bundle):
    bundle.start()
    pid = bundle.state()["pid"]
    (tree() / "cgroup.procs").write_text(str(pid))
    (tree() / "sampan-test" / bundle.id).rmdir()
    result = bundle.oci("exec", bundle.id, "true")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("way", ["machine"])
def test_the_state_names_the_directory(bundle: Bundle):
    bundle.start()
    recorded = json.loads((bundle.root / bundle.id / "state.json").read_text())
    assert recorded["cgroup_paths"][""] == str(tree() / "sampan-test" / bundle.id)
