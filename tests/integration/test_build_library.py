"""`engine.build(...)`, blocking and asynchronous, against one daemon."""

from __future__ import annotations

import asyncio
import os

import pytest

import dockerlab
import sampan
from buildlab import context
from sampan import errors

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        yield made


@pytest.fixture(scope="module")
def engine(daemon):
    with sampan.Engine.open(host=daemon.host) as opened:
        opened.import_image([dockerlab.tar_of(f"{daemon.base}/rootfs")], "bb:1")
        yield opened


def test_a_directory_becomes_an_image(engine, tmp_path):
    (tmp_path / "f").write_text("ef\n")
    (tmp_path / "Dockerfile").write_text("FROM bb:1\nARG V\nRUN echo $V > /v\nCOPY f /f\n")
    told = []
    built = engine.build(
        tmp_path,
        tags="lib:1",
        build_args={"V": "vee"},
        labels={"a": "b"},
        secrets={"s": b"x"},
        add_hosts={"there": "192.0.2.1"},
        progress=told.append,
    )
    assert built.image.names == ("lib:1",)
    assert (built.steps, built.cached) == (2, 0)
    assert engine.run("lib:1", command=["cat", "/v", "/f"]).text == "vee\nef\n"
    assert {event.kind for event in told} >= {"started", "running", "done"}
    assert engine.build(tmp_path, build_args={"V": "vee"}).cached == 2
    assert engine.prune_builds(keep=1 << 40) == 0
    assert engine.prune_builds() >= 0


def test_a_build_without_an_engine_to_hold(daemon, engine, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM bb:1\nRUN echo once > /x\n")
    built = sampan.build(tmp_path, tags="once:1", host=daemon.host)
    assert engine.run("once:1", command=["cat", "/x"]).text == "once\n"
    assert built.image.names == ("once:1",)
    with pytest.raises(sampan.CommandFailed) as failed:
        sampan.build(None, dockerfile=b"FROM bb:1\nRUN exit 9\n", host=daemon.host)
    assert failed.value.exit_code == 9


def test_several_platforms(engine):
    text = b"FROM scratch\nARG TARGETARCH\nLABEL for=$TARGETARCH\n"
    built = engine.build(None, dockerfile=text, tags="two:1", platform="linux/amd64,linux/arm64")
    assert built.digest != built.image.id
    assert built.steps == 0


def test_archives_and_texts(engine):
    tar = context({"D": "FROM bb:1\nRUN echo tar > /x\n"})
    built = engine.build([tar], dockerfile="D")
    assert engine.run(built.image.id, command=["cat", "/x"]).text == "tar\n"
    built = engine.build(None, dockerfile=b"FROM bb:1\nRUN echo text > /x\n")
    assert engine.run(built.image.id, command=["cat", "/x"]).text == "text\n"


def test_failures_have_their_classes(engine, tmp_path):
    def build(text):
        (tmp_path / "Dockerfile").write_text(text)
        return engine.build(tmp_path)

    with pytest.raises(sampan.CommandFailed, match="non-zero code: 3") as failed:
        build("FROM bb:1\nRUN exit 3\n")
    assert failed.value.exit_code == 3
    with pytest.raises(errors.InvalidArgument, match="Dockerfile:1:1"):
        build("FORM bb:1\n")
    with pytest.raises(errors.InvalidArgument, match="file not found in build context"):
        build("FROM bb:1\nRUN true\nCOPY no /\n")
    with pytest.raises(errors.InvalidArgument, match="not found"):
        engine.build(tmp_path / "nowhere")
    warnings = engine.check_build(None, dockerfile=b"FROM bb:1\nMAINTAINER me\n")
    assert [(one.rule, one.line) for one in warnings] == [("MaintainerDeprecated", 2)]


def test_the_asynchronous_face(daemon, engine, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM bb:1\nCOPY --from=more a /a\nRUN cat /a\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/a").write_text("A")

    async def main():
        async with await sampan.AsyncEngine.open(host=daemon.host) as opened:
            contexts = {"more": tmp_path / "more"}
            one, two = await asyncio.gather(
                opened.build(tmp_path, contexts=contexts, tags=["a:1", "a:2"]),
                opened.build(tmp_path, contexts=contexts),
            )
            assert one.image.id == two.image.id
            assert one.cached + two.cached == 2  # work that is asked for twice is done once
            assert await opened.check_build(tmp_path) == []
            await opened.prune_builds()

    asyncio.run(main())
