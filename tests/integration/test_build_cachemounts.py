"""Directories of `RUN --mount=type=cache`: who shares them, and that they are volumes."""

from __future__ import annotations

import asyncio

import pytest

from buildlab import BuildLab, context, once, with_builder
from enginelab import eventually
from sampan.builder.cachemounts import LABEL, volume_name
from sampan.builder.model import BuildOptions, NoteKind
from sampan.engine.model import HostConfig
from sampan.errors import Conflict, InvalidArgument, NotFound

MEET = "touch /s/{me}; while ! [ -e /s/{other} ]; do sleep 0.02; done"
"""Wait for the other build; only where both have /s at the same time does it end."""


async def together(lab: BuildLab, text: str, **more) -> dict[str, str]:
    """Two builds at a time of `text`, in which {me} and {other} are a and b: what each printed."""

    async def one(me: str, other: str) -> str:
        said: list[str] = []
        dockerfile = text.replace("{me}", me).replace("{other}", other)
        tar = context({"Dockerfile": dockerfile})

        def listen(note) -> None:
            if note.kind is NoteKind.OUTPUT:
                said.append(note.text)

        await lab.builder.build(once(tar), BuildOptions(host=HostConfig(), **more), listen)
        return "".join(said)

    async with asyncio.TaskGroup() as tasks:
        a, b = tasks.create_task(one("a", "b")), tasks.create_task(one("b", "a"))
    return {"a": a.result(), "b": b.result()}


@with_builder
async def test_a_shared_directory_is_everyones_at_once(lab: BuildLab) -> None:
    await together(lab, f"FROM bb:1\nRUN --mount=type=cache,id=s,target=/s {MEET}\n")
    await lab.build("FROM bb:1\nRUN --mount=type=cache,id=s,target=/x,ro ls /x; ! touch /x/y\n")
    assert lab.output.split()[:2] == ["a", "b"]
    await lab.builder.prune()


@with_builder
async def test_a_private_directory_is_another_while_one_is_in_use(lab: BuildLab) -> None:
    found = await together(
        lab,
        "FROM bb:1\nRUN --mount=type=cache,id=s,target=/s "
        f"--mount=type=cache,id=p,target=/p,sharing=private touch /p/{{me}}; {MEET}; ls /p\n",
    )
    assert found == {"a": "a\n", "b": "b\n"}
    names = {volume.name for volume in lab.engine.volumes.list()}
    assert names == {volume_name("s"), volume_name("p"), volume_name("p") + "-1"}
    await lab.builder.prune()
    assert lab.engine.volumes.list() == []


@with_builder
async def test_a_locked_directory_is_ones_at_a_time(lab: BuildLab) -> None:
    work = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done"
    await together(
        lab,
        "FROM bb:1\nRUN --mount=type=cache,id=l,target=/l,sharing=locked "
        f"mkdir /l/busy && {work} && rmdir /l/busy && echo {{me}} >> /l/log\n",
    )
    await lab.build("FROM bb:1\nRUN --mount=type=cache,id=l,target=/l sort /l/log\n")
    assert lab.output == "a\nb\n"
    await lab.builder.prune()


@with_builder
async def test_a_directory_begins_as_its_words_say(lab: BuildLab) -> None:
    text = (
        "FROM bb:1 AS from\nRUN mkdir -p /seed/in; echo 1 > /seed/in/one\nFROM bb:1\n"
        "RUN --mount=type=cache,target=/c,from=from,source=/seed,uid=7,gid=8,mode=0711 "
        "cat /c/in/one; stat -c '%u:%g %a' /c; echo 2 > /c/in/one\n"
        "RUN --mount=type=cache,target=/c,from=from,source=/seed cat /c/in/one\n"
    )
    await lab.build(text)
    assert lab.output == "1\n7:8 711\n2\n"
    await lab.builder.prune()


@with_builder
async def test_a_directory_travels_as_a_volume(lab: BuildLab) -> None:
    mount = "--mount=type=cache,id=/root/.cache/pip,target=/c,uid=1001,mode=0750"
    await lab.build(f"FROM bb:1\nRUN {mount} echo it > /c/f; chown 5:6 /c/f; ln -s f /c/l\n")
    name = volume_name("/root/.cache/pip")
    assert name.startswith("build-root-.cache-pip-")
    (volume,) = lab.engine.volumes.list({"label": [LABEL]})
    assert (volume.name, volume.labels[LABEL]) == (name, "/root/.cache/pip")
    packed = b"".join([piece async for piece in await lab.builder.export_volume(name)])
    listed = {entry.kind: entry for entry in await lab.builder.usage()}
    assert listed["exec.cachemount"].shared  # a volume is counted as a volume
    await lab.engine.volumes.remove(name)
    assert "exec.cachemount" not in {entry.kind for entry in await lab.builder.usage()}
    await lab.builder.import_volume(name, once(packed))
    await lab.build(f"FROM bb:1\nRUN {mount} stat -c '%u:%g' /c /c/f; cat /c/l\n")
    assert lab.output == "1001:0\n5:6\nit\n"
    with pytest.raises(NotFound):
        await lab.builder.export_volume("none")
    with pytest.raises(InvalidArgument):
        await lab.builder.import_volume(name, once(b"no tar" * 200))
    await lab.builder.prune()


@with_builder
async def test_a_directory_in_use_stays(lab: BuildLab) -> None:
    text = (
        "FROM bb:1\nRUN --mount=type=cache,id=u,target=/c touch /c/f; echo in; "
        "while ! [ -e /c/go ]; do sleep 0.02; done; ls /c\n"
    )
    task = asyncio.create_task(lab.build(text))
    await eventually(lambda: "in" in lab.output)
    (volume,) = lab.engine.volumes.list()
    with pytest.raises(Conflict, match="in use"):
        await lab.engine.volumes.remove(volume.name)
    await lab.engine.volumes.prune({"all": ["true"]})
    await lab.builder.prune()
    assert lab.engine.volumes.list() == [volume]
    await lab.builder.import_volume(volume.name, once(context({"go": ""})))
    await task
    assert lab.output.split() == ["in", "f", "go"]
    await lab.builder.prune()
    assert lab.engine.volumes.list() == []
