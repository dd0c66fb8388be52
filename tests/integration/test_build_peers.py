"""What our builder makes of the cases, against what dockerd and buildah made of them.

The recording was made with the peers themselves (`builddiff.py`); a few cases are built by them
again, so that it stays true. A difference is either in APART, with its reason, or a failure.
"""

from __future__ import annotations

import asyncio
import json
import os
from fnmatch import fnmatch

import pytest

import builddiff
import dockerlab
import peerlab
from buildcases import APART, BUILDAH, CASES, DOCKER
from enginelab import PATIENCE, Lab
from sampan.builder.builder import Builder
from sampan.builder.model import BuildOptions
from sampan.client.contexts import Directory
from sampan.engine.model import HostConfig
from sampan.errors import SampanError

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]
RECORDED = json.loads(builddiff.RECORDING.read_text())
AT_ONCE = 4
LIVE = {"env-pairs", "copy-everything", "copy-star", "add-tar", "onbuild", "stages", "run-links"}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What all cases come to here: name -> outcome, or the error's text."""
    base = tmp_path_factory.mktemp("builds")
    lab = Lab(base)
    try:
        return asyncio.run(_all(lab, base))
    finally:
        lab.close()


async def _all(lab, base):
    async with asyncio.timeout(2 * PATIENCE), lab.engine() as engine:
        await engine.images.import_tar(_once(builddiff.base_tar()), "bb:1")
        builder = await Builder.open(engine)
        found = {}
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(case):
            async with slots:
                if case.before:
                    await _build(builder, base, case, case.before, f"parent:{case.name}")
                try:
                    await _build(builder, base, case, case.dockerfile, f"case:{case.name}")
                except SampanError as error:
                    found[case.name] = {"error": str(error)}

        async with asyncio.TaskGroup() as tasks:
            for case in CASES:
                tasks.create_task(one(case))
        names = [f"case:{case.name}" for case in CASES if case.name not in found]
        pieces = [piece async for piece in await engine.images.save(names)]
        (base / "all.tar").write_bytes(b"".join(pieces))
    made = builddiff.read_docker_archive(base / "all.tar")
    return found | {name.removeprefix("case:"): each for name, each in made.items()}


async def _once(data):
    yield data


async def _build(builder, base, case, text, tag):
    place = base / tag.replace(":", "-")
    place.mkdir()
    builddiff.write_context(case, place, text)
    directory = Directory(str(place))
    is_parent = tag.startswith("parent")
    options = BuildOptions(
        dockerfile=directory.dockerfile,
        tags=(tag,),
        target="" if is_parent else case.target,
        args={} if is_parent else case.args,
        labels={} if is_parent else case.labels,
        host=HostConfig(),
    )
    await builder.build(_pieces(directory), options, lambda _: None)


async def _pieces(directory):
    for piece in directory.pieces():
        yield piece


def _same(ours, theirs):
    """Files that commands write have the newest time of the context here, and that of their
    writing there."""
    return ours == theirs or ours == f"{theirs} kept-time"


def differences(case, peer, ours, theirs):
    """Lines that say what is not the same, without what APART explains."""
    lines = []
    for part in sorted({*ours, *theirs}):
        mine, other = ours.get(part), theirs.get(part)
        if isinstance(mine, dict) and isinstance(other, dict):
            lines += [
                f"{part} {key}: {mine.get(key)!r} here, {other.get(key)!r} there"
                for key in sorted({*mine, *other})
                if not _same(mine.get(key), other.get(key))
            ]
        elif mine != other:
            lines.append(f"{part}: {mine!r} here, {other!r} there")
    rules = [rule for rule in APART if rule[0] in ("*", peer) and fnmatch(case.name, rule[1])]
    return [line for line in lines if not any(fnmatch(line, rule[2]) for rule in rules)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_build_is_what_others_make_of_it(outcomes, case):
    ours = outcomes[case.name]
    found = {peer: differences(case, peer, ours, RECORDED[case.name][peer]) for peer in case.peers}
    assert {peer: lines for peer, lines in found.items() if lines} == {}
    facts = {f"{path} {fact}" for path, fact in ours.get("files", {}).items()}
    for line in case.expect:
        if line.startswith("!"):
            assert line[1:] not in ours["files"]
        else:
            assert any(fact.removesuffix(" kept-time") == line for fact in facts), sorted(facts)


@pytest.mark.skipif(peerlab.missing("buildah"), reason="needs buildah")
def test_the_recording_of_buildah_is_true(tmp_path):
    _check(builddiff.run_buildah(tmp_path, LIVE), BUILDAH)


@pytest.mark.skipif(peerlab.missing("dockerd", "containerd", "docker"), reason="needs dockerd")
def test_the_recording_of_dockerd_is_true(tmp_path):
    _check(builddiff.run_docker(tmp_path, LIVE), DOCKER)


def _check(found, peer):
    assert found.keys() == LIVE
    for name, outcome in found.items():
        assert outcome == RECORDED[name][peer], name
