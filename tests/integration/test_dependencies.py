"""Containers that depend on others, devices of vendors, and memory that runs out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from enginelab import Lab, eventually, with_engine
from sampan import errors
from sampan.engine.engine import Engine
from sampan.engine.model import (
    Dependency,
    DependencyCondition,
    HealthCheck,
    HostConfig,
    RestartName,
    RestartPolicy,
    Status,
    WaitCondition,
)

SECOND = 10**9
QUICK = HealthCheck(test=("CMD", "true"), interval=SECOND // 20, retries=1)


def needs(name: str, condition: str = "started") -> HostConfig:
    wanted = Dependency(container=name, condition=DependencyCondition(condition))
    return HostConfig(depends_on=(wanted,))


@with_engine
async def test_what_is_needed_is_started_first(lab: Lab, engine: Engine) -> None:
    await engine.create(lab.config_of("sleep", "1000"), name="base")
    await engine.create(lab.config_of("sleep", "1000", healthcheck=QUICK), needs("base"), "db")
    await engine.create(lab.config_of("sleep", "1000"), needs("db", "healthy"), "web")
    await engine.start("web")
    assert engine.get("base").status is Status.RUNNING
    health = engine.get("db").state.health
    assert health is not None
    assert health.status == "healthy"
    times = [engine.get(name).state.started_at for name in ("base", "db", "web")]
    assert times == sorted(times)
    (wanted,) = engine.get("web").host.depends_on
    assert wanted.container == engine.get("db").id


@with_engine
async def test_what_ends_well_is_awaited(lab: Lab, engine: Engine) -> None:
    await engine.create(lab.config_of("sh", "-c", "sleep 0.1; exit 0"), name="migrate")
    await engine.create(lab.config_of("sleep", "1000"), needs("migrate", "completed"), "web")
    await engine.start("web")
    assert engine.get("migrate").state.exit_code == 0
    await engine.create(lab.config_of("sh", "-c", "exit 3"), name="broken")
    await engine.create(lab.config_of("true"), needs("broken", "completed"), "never")
    with pytest.raises(errors.Conflict, match="never depends on broken: it ended with 3"):
        await engine.start("never")
    assert engine.get("never").state.started_at == 0


@with_engine
async def test_dependencies_that_cannot_be(lab: Lab, engine: Engine) -> None:
    with pytest.raises(errors.ContainerNotFound):
        await engine.create(lab.config_of("true"), needs("nobody"))
    await engine.create(lab.config_of("sleep", "1000"), name="plain")
    await engine.create(lab.config_of("true"), needs("plain", "healthy"), "web")
    with pytest.raises(errors.Conflict, match="plain: it has no health check"):
        await engine.start("web")


@with_engine
async def test_a_policy_starts_what_is_needed_as_well(lab: Lab, engine: Engine) -> None:
    """As behind a reboot: the policy brings the container back, the engine what it needs."""
    await engine.create(lab.config_of("sleep", "1000"), name="base")
    policy = RestartPolicy(name=RestartName.ALWAYS)
    host = replace(needs("base"), restart=policy)
    await engine.create(lab.config_of("sh", "-c", "sleep 0.2; exit 1"), host, "web")
    await engine.start("web")
    await engine.kill("base")
    await engine.wait("base")
    await eventually(lambda: engine.get("base").status is Status.RUNNING)
    await engine.stop("web")


@with_engine
async def test_a_device_of_a_vendor(lab: Lab, engine: Engine) -> None:
    folder = lab.path / "cdi"
    folder.mkdir()
    (lab.path / "lib").write_text("vendor's library")
    one = {
        "name": "zero",
        "containerEdits": {
            "deviceNodes": [{"path": "/dev/vendor0", "hostPath": "/dev/zero"}],
            "mounts": [{"hostPath": f"{lab.path}/lib", "containerPath": "/vendor"}],
            "additionalGids": [4242],
        },
    }
    wrong = {"name": "wrong", "containerEdits": {"hooks": [{"hookName": "x", "path": "/x"}]}}
    cached = {"name": "cached", "containerEdits": {"intelRdt": {"closID": "x"}}}
    content = {"cdiVersion": "0.6.0", "kind": "vendor.com/dev", "devices": [one, wrong, cached]}
    content["containerEdits"] = {"env": ["VENDOR=yes"]}
    (folder / "vendor.json").write_text(json.dumps(content))
    (folder / "broken.json").write_text("{")
    script = "echo $VENDOR; cat /vendor; echo; head -c 3 /dev/vendor0 | wc -c; id -G"
    host = HostConfig(cdi_devices=("vendor.com/dev=zero",))
    code, output = await lab.run(engine, "sh", "-c", script.replace("wc -c", "cat"), host=host)
    lines = output.splitlines()
    assert code == 0, output
    assert lines[0] == "yes"
    assert lines[1] == "vendor's library"
    assert lines[2].startswith("\0\0\0")
    assert "4242" in output.split()[-1:] + output.split()
    for name, kind, text in (
        ("vendor.com/dev=none", errors.InvalidArgument, "unresolvable CDI device"),
        ("vendor.com/dev=wrong", errors.InvalidArgument, "makes no sense: hook '/x' at 'x'"),
        ("vendor.com/dev=cached", errors.NotImplementedHere, "Intel RDT"),
    ):
        made = await engine.create(lab.config_of("true"), HostConfig(cdi_devices=(name,)))
        with pytest.raises(kind, match=text):
            await engine.start(made.id)
    with pytest.raises(errors.InvalidArgument, match="invalid CDI device"):
        await engine.create(lab.config_of("true"), HostConfig(cdi_devices=("../x=1",)))


@with_engine
async def test_a_device_in_yaml_with_a_hook(lab: Lab, engine: Engine) -> None:
    folder = lab.path / "cdi"
    folder.mkdir()
    (folder / "vendor.yaml").write_text(
        f"""
cdiVersion: "0.6.0"
kind: vendor.com/net
devices:
- name: one
  containerEdits:
    deviceNodes:
    - path: /dev/vendor1
      hostPath: /dev/zero
    hooks:
    - hookName: createRuntime
      path: /bin/sh
      args: [sh, -c, "echo vendor > {lab.path}/told"]
"""
    )
    (folder / "bomb.yml").write_text("kind: &a vendor.com/bomb\ndevices: [{name: *a}]\n")
    host = HostConfig(cdi_devices=("vendor.com/net=one",))
    code, output = await lab.run(engine, "head", "-c", "3", "/dev/vendor1", host=host)
    assert (code, output) == (0, "\0\0\0")
    assert (lab.path / "told").read_text() == "vendor\n"
    made = await engine.create(
        lab.config_of("true"), HostConfig(cdi_devices=("vendor.com/bomb=vendor.com",))
    )
    with pytest.raises(errors.InvalidArgument, match="unresolvable"):
        await engine.start(made.id)


@with_engine
async def test_memory_that_runs_out_is_told_at_once(lab: Lab, engine: Engine) -> None:
    """A child is killed and the container goes on: its end is not what tells."""
    eat = "head -c 100000000 /dev/zero | { sleep 0.1; grep -c x; }"
    script = f"sh -c '{eat}'; echo went on; sleep 1000"
    host = HostConfig(memory=16 << 20, memory_swap=16 << 20)
    made = await engine.create(lab.config_of("sh", "-c", script), host)
    events = engine.events(filters={"event": ["oom"]})
    await engine.start(made.id)
    event = await anext(events)
    assert event.actor_id == made.id
    assert engine.get(made.id).status is Status.RUNNING
    await engine.kill(made.id)
    await engine.wait(made.id, WaitCondition.NOT_RUNNING)
    assert engine.get(made.id).state.oom_killed
