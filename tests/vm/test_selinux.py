"""SELinux on a kernel that has it: labels of processes and of mounts hold. For a machine that was
booted for it: it has no policy of its own, and gets a small one here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bundles import Bundle
from enginelab import Lab, with_engine
from sampan.engine.engine import Engine
from sampan.engine.model import HostConfig, LogQuery, WaitCondition
from sampan.runtime.labels import has_selinux


def _is_for_it() -> bool:
    return "selinuxfs" in Path("/proc/filesystems").read_text() and bool(
        os.environ.get("SAMPAN_VM")
    )


pytestmark = pytest.mark.skipif(not _is_for_it(), reason="for the virtual machine with SELinux")
FILESYSTEM = Path("/sys/fs/selinux")
BOX, OPEN, CLOSED = "u:r:box_t:s0", "u:object_r:open_t:s0", "u:object_r:closed_t:s0"
# The host may do everything, a box must not write to what is not open. What is not named is free,
# among it a change of type under no_new_privs.
POLICY = """
(handleunknown allow) (mls true) (policycap nnp_nosuid_transition)
(sensitivity s0) (sensitivityorder (s0)) (category c0) (categoryorder (c0))
(sensitivitycategory s0 (c0)) (level low (s0)) (levelrange range (low low))
(user u) (role r) (role object_r) (userrole u r) (userrole u object_r)
(userlevel u low) (userrange u range)
(type host_t) (type box_t) (type open_t) (type closed_t)
(typeattribute every) (typeattributeset every (host_t box_t open_t closed_t))
(roletype r host_t) (roletype r box_t) (roletype object_r every)
(class file (read write entrypoint)) (class process (transition dyntransition setexec))
(classorder (file process))
(allow host_t every (file (all))) (allow host_t every (process (all)))
(allow box_t every (process (all))) (allow box_t every (file (read entrypoint)))
(allow box_t open_t (file (write))) (allow box_t host_t (file (write)))
(sid kernel) (sid security) (sid unlabeled) (sid fs) (sid file)
(sidorder (kernel security unlabeled fs file))
(sidcontext kernel (u r host_t range)) (sidcontext security (u object_r host_t range))
(sidcontext unlabeled (u object_r host_t range)) (sidcontext fs (u object_r host_t range))
(sidcontext file (u object_r host_t range))
(fsuse xattr ext4 (u object_r host_t range)) (fsuse trans tmpfs (u object_r host_t range))
(genfscon proc "/" (u object_r host_t range))
"""
LOOK = "cat /proc/self/attr/current; echo; echo x > /box/written && echo written"


@pytest.fixture(scope="module", autouse=True)
def policy(tmp_path_factory):
    """The policy, loaded and enforced."""
    place = tmp_path_factory.mktemp("policy")
    (place / "policy.cil").write_text(POLICY)
    words = ["secilc", "-c", "31", "-M", "true", "-o", "policy", "-f", "contexts", "policy.cil"]
    subprocess.run(words, check=True, cwd=place)
    if not (FILESYSTEM / "load").exists():
        subprocess.run(["mount", "-t", "selinuxfs", "selinuxfs", FILESYSTEM], check=True)
    fd = os.open(FILESYSTEM / "load", os.O_WRONLY)
    os.write(fd, (place / "policy").read_bytes())  # all of it by one write, as the kernel wants it
    os.close(fd)
    (FILESYSTEM / "enforce").write_text("1")
    yield
    (FILESYSTEM / "enforce").write_text("0")


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path)
    box = {"destination": "/box", "type": "tmpfs", "source": "tmpfs"}
    made.config["mounts"].append({**box, "options": ["nosuid", "mode=755"]})
    yield made
    made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone()


def test_the_kernel_has_it():
    assert has_selinux()
    assert Path("/proc/self/attr/current").read_text() == "u:r:host_t:s0\0"


def test_a_label_holds_in_the_first_process(bundle: Bundle):
    bundle.config["process"]["selinuxLabel"] = BOX
    bundle.config["linux"]["mountLabel"] = OPEN
    said = bundle.run(f"{LOOK}; grep ' /box ' /proc/self/mounts")
    assert said.stdout.replace("\0", "").splitlines()[:2] == [BOX, "written"], said.stderr
    assert f"context={OPEN}" in said.stdout
    del bundle.config["linux"]["mountLabel"]
    bundle.config["mounts"][-1]["options"].append(f'context="{CLOSED}"')  # as mount(8) has it
    said = bundle.run(LOOK)
    assert said.stdout.replace("\0", "").splitlines() == [BOX]
    assert "Permission denied" in said.stderr


def test_a_label_holds_in_an_exec(bundle: Bundle):
    bundle.config["linux"]["mountLabel"] = CLOSED
    bundle.start()
    free = bundle.oci("exec", bundle.id, "sh", "-c", LOOK)
    assert free.stdout.replace("\0", "").splitlines() == ["u:r:host_t:s0", "written"], free.stderr
    held = bundle.oci("exec", "--process-label", BOX, bundle.id, "sh", "-c", LOOK)
    assert held.stdout.replace("\0", "").splitlines() == [BOX], held.stderr
    assert "Permission denied" in held.stderr


def test_a_label_that_the_policy_does_not_know_is_refused(bundle: Bundle):
    bundle.config["process"]["selinuxLabel"] = "u:r:nosuch_t:s0"
    said = bundle.run("true")
    assert said.returncode != 0
    assert "SELinux label u:r:nosuch_t:s0" in said.stderr


@with_engine
async def test_the_engine_gives_the_labels(lab: Lab, engine: Engine) -> None:
    words = ("user:u", "role:r", "type:box_t", "level:s0", "filetype:closed_t")
    host = HostConfig(security_opt=tuple(f"label={word}" for word in words))
    script = "cat /proc/self/attr/current; echo; echo x > /dev/shm/written && echo written"
    made = await engine.create(lab.config_of("sh", "-c", script), host)
    ended = engine.arm_wait(made.id, WaitCondition.NEXT_EXIT)
    await engine.start(made.id)
    await ended
    said = await lab.output(engine, made.id, LogQuery(stderr=False))
    assert said.replace("\0", "") == f"{BOX}\n"
    assert "Permission denied" in await lab.output(engine, made.id, LogQuery(stdout=False))
