"""AppArmor on a kernel that has it: profiles hold, and what is unknown is said. For the machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bundles import Bundle
from enginelab import Lab, with_engine
from sampan.engine.engine import Engine
from sampan.engine.model import HostConfig, LogQuery, WaitCondition
from sampan.runtime.labels import has_apparmor

pytestmark = pytest.mark.skipif(not os.environ.get("SAMPAN_VM"), reason="for the virtual machine")
NAME = "sampan-test"
RULES = f"""profile {NAME} flags=(attach_disconnected,mediate_deleted) {{
  file,
  capability,
  network,
  signal,
  ptrace,
  umount,
  deny /tmp/denied w,
}}
"""
LOOK = "cat /proc/self/attr/current; echo x > /tmp/allowed && echo x > /tmp/denied"


@pytest.fixture(scope="module", autouse=True)
def profile(tmp_path_factory):
    """The profile, loaded by AppArmor's own program."""
    file = tmp_path_factory.mktemp("profile") / NAME
    file.write_text(RULES)
    subprocess.run(["apparmor_parser", "--skip-cache", "--replace", file], check=True)
    yield
    subprocess.run(["apparmor_parser", "--skip-cache", "--remove", file], check=True)


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path)
    yield made
    made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone()


def test_the_kernel_has_it():
    assert has_apparmor()


def test_a_profile_holds_in_the_first_process(bundle: Bundle):
    bundle.config["root"]["readonly"] = False
    bundle.config["process"]["apparmorProfile"] = NAME
    said = bundle.run(LOOK)
    assert said.stdout == f"{NAME} (enforce)\n", said.stderr
    assert "Permission denied" in said.stderr
    assert (bundle.rootfs / "tmp/allowed").exists()
    assert not (bundle.rootfs / "tmp/denied").exists()


def test_a_profile_holds_in_an_exec(bundle: Bundle):
    bundle.config["root"]["readonly"] = False
    bundle.start()
    free = bundle.oci("exec", bundle.id, "sh", "-c", LOOK)
    assert free.returncode == 0, free.stderr
    assert free.stdout == "unconfined\n"
    (bundle.rootfs / "tmp/denied").unlink()
    held = bundle.oci("exec", "--apparmor", NAME, bundle.id, "sh", "-c", LOOK)
    assert held.stdout == f"{NAME} (enforce)\n", held.stderr
    assert held.returncode != 0
    assert not (bundle.rootfs / "tmp/denied").exists()


def test_a_profile_that_is_not_loaded_is_refused(bundle: Bundle):
    bundle.config["process"]["apparmorProfile"] = "nosuch"
    said = bundle.run("true")
    assert said.returncode != 0
    assert "AppArmor label nosuch" in said.stderr


@with_engine
async def test_the_engine_gives_the_profile(lab: Lab, engine: Engine) -> None:
    host = HostConfig(security_opt=(f"apparmor={NAME}",))
    made = await engine.create(lab.config_of("sh", "-c", f"mkdir -p /tmp; {LOOK}"), host)
    ended = engine.arm_wait(made.id, WaitCondition.NEXT_EXIT)
    await engine.start(made.id)
    await ended
    said = await lab.output(engine, made.id, LogQuery(stderr=False))
    assert said == f"{NAME} (enforce)\n"
    errors = await lab.output(engine, made.id, LogQuery(stdout=False))
    assert "Permission denied" in errors
