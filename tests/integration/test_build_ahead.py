"""COPY --link and ADD --link: made beside what stands in front of them, and put above it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from buildlab import BuildLab, with_builder
from enginelab import eventually
from sampan.builder.cachemounts import volume_name
from sampan.builder.failures import CommandFailed
from sampan.errors import InvalidArgument

FILES = {"f": "hello", "d": None, "d/a": "A"}
WAIT = "--mount=type=cache,id=gate,target=/gate while ! [ -e /gate/go ]; do sleep 0.02; done"
"""A command that ends when somebody says so."""


def made_apart(lab: BuildLab, name: str) -> list[Path]:
    """The files of a name in snapshots of builds that are no results yet."""
    rows = [row for row in lab.engine.services.snapshots.walk() if row.key.startswith("build-")]
    places = [lab.lab.path / "root/snapshots" / str(row.number) / "fs" / name for row in rows]
    return [path for path in places if path.exists()]


def gate(lab: BuildLab) -> Path:
    """The directory of the gate; not there before its command is about to run."""
    return lab.lab.path / "root/volumes" / volume_name("gate") / "_data"


@with_builder
async def test_linked_files_are_made_while_a_command_runs(lab: BuildLab) -> None:
    text = (
        f"FROM bb:1 AS other\nCOPY d /from\nFROM bb:1\nARG N=2\nRUN {WAIT}\n"
        "ENV P=/opt\nWORKDIR /w\n"
        "COPY --link f $P/first\nRUN echo between > /between\nCOPY --link --chown=7:8 f f$N\n"
        "COPY --link --from=other /from /third\nADD --link <<E /fourth\n$P\nE\n"
    )
    build = asyncio.create_task(lab.build(text, FILES))
    wanted = ("opt/first", "w/f2", "third/a", "fourth")
    await eventually(lambda: build.done() or all(made_apart(lab, name) for name in wanted))
    assert not build.done(), build.result()
    await eventually(gate(lab).exists)
    (gate(lab) / "go").touch()
    result = await build
    assert await lab.sh("cat /opt/first f2 /third/a /fourth /between; stat -c %u:%g f2") == (
        "hellohelloA/opt\nbetween\n7:8\n"
    )
    again = await lab.build(text, FILES)
    assert again.cached == again.steps
    assert again.image.id == result.image.id
    await lab.builder.prune()


@with_builder
async def test_the_same_image_ahead_and_in_turn(lab: BuildLab) -> None:
    steps = "COPY --link d /d\nCOPY --link f /d/sub/f\n"
    ahead = await lab.build(f"FROM bb:1\nRUN echo x > /x\n{steps}", FILES)
    in_turn = await lab.build(f"FROM bb:1\nRUN echo x > /x\n{steps}", FILES)
    assert ahead.cached == 0
    assert in_turn.image.id == ahead.image.id
    alone = await lab.build(f"FROM bb:1\n{steps}", FILES)
    layers = [image.config.rootfs_diff_ids[-2:] for image in (ahead.image, alone.image)]
    assert layers[0] == layers[1]


@with_builder
async def test_a_linked_copy_follows_nothing_that_is_below(lab: BuildLab) -> None:
    text = "FROM bb:1\nRUN ln -s /etc /conf; mkdir /d; touch /d/kept\n"
    await lab.build(text + "COPY f /conf/f\n", FILES)
    assert await lab.sh("cat /etc/f") == "hello"
    await lab.build(text + "COPY --link f /conf/f\nCOPY --link d /d\n", FILES)
    assert (
        await lab.sh("test -L /conf || cat /conf/f; ls /etc/f 2>/dev/null; ls /d")
        == "helloa\nkept\n"
    )
    await lab.build(text + "COPY --link --chown=bob f /conf/g\n", FILES)
    assert await lab.sh("stat -c %U /etc/g") == "bob\n"  # a name is looked up below, so no link


@with_builder
async def test_what_fails_ahead_is_told_in_its_turn(lab: BuildLab) -> None:
    with pytest.raises(InvalidArgument, match="stat nosuch: file does not exist"):
        await lab.build("FROM bb:1\nRUN true\nCOPY --link nosuch /x\n", FILES)
    with pytest.raises(CommandFailed, match="code: 3"):
        await lab.build("FROM bb:1\nRUN exit 3\nCOPY --link nosuch /x\nENV A=${B:?no}\n", FILES)


@with_builder
async def test_nothing_is_left_of_what_was_made_for_nothing(lab: BuildLab) -> None:
    text = "FROM bb:1\nRUN while ! [ -e /go ]; do sleep 0.02; done\nCOPY --link f /linked\n"
    build = asyncio.create_task(lab.build(text, FILES))
    await eventually(lambda: build.done() or made_apart(lab, "linked") != [])
    build.cancel()
    with pytest.raises(asyncio.CancelledError):
        await build
    assert made_apart(lab, "linked") == []
