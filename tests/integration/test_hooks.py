"""OCI hooks of the host's directories, by what they did and saw."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from enginelab import Lab, needs_root, with_engine
from sampan import errors
from sampan.engine.engine import Engine
from sampan.engine.hookfiles import STAGES
from sampan.engine.model import ExecConfig, HostConfig, WaitCondition

if TYPE_CHECKING:
    from pathlib import Path


def hook(lab: Lab, name: str, script: str, *, folder: str = "hooks", **file: Any) -> Path:
    """A hook file whose program is a shell with `script`."""
    path = lab.path / folder / name
    path.parent.mkdir(exist_ok=True)
    file.setdefault("when", {"always": True})
    program = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["TOLD=yes"]}
    path.write_text(json.dumps({"version": "1.0.0", "hook": program, **file}))
    return path


@with_engine
async def test_each_stage_runs_where_and_when_it_should(lab: Lab, engine: Engine) -> None:
    told = lab.path / "told"
    for stage in STAGES:
        # Inside there is another root at the end, and nothing of the host's but what is open.
        script = f"echo {stage} $TOLD $(cat) >> {told}"
        if stage == "startContainer":
            script = "cat > /started; echo $TOLD >> /started"
        hook(lab, f"{stage}.json", script, stages=[stage])
    host = HostConfig(annotations={"note": "of mine"})
    code, output = await lab.run(engine, "sh", "-c", "cat /started; exit 3", host=host)
    assert code == 3, output
    state, word = output.rsplit("}", 1)
    inside = json.loads(state + "}")
    assert word.split() == ["yes"]
    assert inside["status"] == "created"
    assert inside["annotations"] == {"note": "of mine"}
    lines = told.read_text().splitlines()
    stages = [line.split()[0] for line in lines]
    assert stages == ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    described = [json.loads(line.partition("yes ")[2]) for line in lines]
    assert [one["status"] for one in described] == [
        *("creating", "creating", "creating"),
        *("running", "stopped"),
    ]
    assert len({one["id"] for one in described}) == 1


@with_engine
async def test_when_decides_for_whom(lab: Lab, engine: Engine) -> None:
    told = lab.path / "told"

    def asked(name: str, when: dict[str, Any], folder: str = "hooks") -> None:
        word = f"echo {name} >> {told}"
        hook(lab, f"{name}.json", word, folder=folder, when=when, stages=["createRuntime"])

    asked("b-command", {"commands": ["^sh$", "nothing"]})
    asked("C-other", {"commands": ["^other"]})
    asked("a-note", {"annotations": {"^no[[:alpha:]]e$": "min"}})
    asked("both", {"annotations": {"note": "mine"}, "hasBindMounts": True})
    asked("binds", {"hasBindMounts": True})
    asked("no-binds", {"hasBindMounts": False})
    asked("never", {"always": False})
    asked("masked", {"always": True})
    asked("masked", {"always": False}, "more-hooks")
    (lab.path / "hooks/readme.txt").write_text("not a hook")

    async def of(command: str, **host: Any) -> list[str]:
        told.write_text("")
        code, output = await lab.run(engine, command, "-c", "true", host=HostConfig(**host))
        assert code == 0, output
        return told.read_text().split()

    assert await of("sh") == ["b-command", "no-binds"]
    assert await of("sh", annotations={"note": "mine"}) == ["a-note", "b-command", "no-binds"]
    everything = ["a-note", "b-command", "binds", "both"]
    binds = (f"{lab.path}:/mnt",)
    assert await of("sh", annotations={"note": "mine"}, binds=binds) == everything


@with_engine
async def test_a_hook_that_fails_is_the_start_s_failure(lab: Lab, engine: Engine) -> None:
    path = hook(lab, "fails.json", "echo no room; exit 4", stages=["createRuntime"])
    made = await engine.create(lab.config_of("true"))
    with pytest.raises(errors.StartFailed, match=r"createRuntime hook #0: exit status 4.*no room"):
        await engine.start(made.id)
    assert lab.shims() == []
    assert lab.cgroups() == []
    path.unlink()
    await engine.start(made.id)  # files are read at each start
    await engine.wait(made.id)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": "0.1.0"}, "version '0.1.0' is not known"),
        ({"when": {}}, "at least one condition"),
        ({"when": {"allways": True}}, "unknown field `allways`"),
        ({"stages": ["later"]}, "'later' is none of"),
        ({"stages": []}, "at least one is needed"),
        ({"hook": {"path": "relative"}}, "must be absolute"),
        ({"when": {"commands": ["("]}}, "unterminated subpattern"),
    ],
)
def test_a_file_without_sense_stops_the_start(tmp_path: Path, change: Any, words: str) -> None:
    @with_engine
    async def test(lab: Lab, engine: Engine) -> None:
        path = hook(lab, "x.json", "true", **{"stages": ["prestart"], **change})
        made = await engine.create(lab.config_of("true"))
        with pytest.raises(errors.InvalidArgument, match=words) as caught:
            await engine.start(made.id)
        assert str(path) in str(caught.value)

    test(tmp_path)


@with_engine
async def test_a_file_that_others_may_write_is_refused(lab: Lab, engine: Engine) -> None:
    hook(lab, "x.json", "true", stages=["prestart"]).chmod(0o666)
    made = await engine.create(lab.config_of("true"))
    with pytest.raises(errors.PermissionDenied, match="others than root may write it"):
        await engine.start(made.id)


@with_engine
async def test_the_daemon_s_umask_is_not_the_container_s(lab: Lab, engine: Engine) -> None:
    hook(lab, "x.json", "true", stages=["prestart"])
    script = "umask; for d in /sys/fs/cgroup /sys/fs/cgroup/*; do ls $d >/dev/null; done"
    before = os.umask(0o077)
    try:
        _, output = await lab.run(engine, "sh", "-c", script, user="bob")
    finally:
        os.umask(before)
    assert output == "0022\n"


@needs_root
def test_a_container_with_hooks_is_one_like_any_other(tmp_path: Path) -> None:
    """It has execs and a terminal, outlives the engine, and ends with its hooks."""
    lab = Lab(tmp_path)
    told = lab.path / "told"
    hook(lab, "x.json", f"echo x >> {told}", stages=["prestart", "poststop"])

    async def begin() -> str:
        async with lab.engine() as engine:
            script = "trap 'exit 5' TERM; test -t 1; echo $?; while :; do sleep 0.01; done"
            made = await engine.create(lab.config_of("sh", "-c", script, tty=True))
            await engine.start(made.id)
            exec_id = await engine.exec_create(made.id, ExecConfig(command=("sh", "-c", "exit 9")))
            await engine.exec_start(exec_id)
            assert await engine.exec_wait(exec_id) == 9
            await engine.pause(made.id)
            await engine.unpause(made.id)
            return made.id

    async def end(ref: str) -> None:
        async with lab.engine() as engine:
            ended = engine.arm_wait(ref, WaitCondition.NEXT_EXIT)
            await engine.stop(ref)
            assert (await ended).exit_code == 5
            assert told.read_text() == "x\nx\n"
            assert await lab.output(engine, ref) == "0\r\n"
            await engine.remove(ref)

    try:
        asyncio.run(end(asyncio.run(begin())))
        lab.check_clean()
    finally:
        lab.close()
