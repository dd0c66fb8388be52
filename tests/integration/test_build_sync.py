"""Directories that are sent again: only what changed travels, and what is built is the same."""

from __future__ import annotations

import os

import pytest

from buildlab import BuildLab, once, with_builder
from sampan.builder.files.sources import MAX_KEPT, Synced
from sampan.builder.model import BuildOptions
from sampan.client import contexts
from sampan.engine.model import HostConfig
from sampan.errors import InvalidArgument

TEXT = "FROM bb:1\nCOPY . /c/\n"


@pytest.fixture(autouse=True)
def _no_tick(monkeypatch):
    """Files of tests are younger than the tick within which nobody trusts a clock."""
    monkeypatch.setattr(contexts, "_TICK", 0)


async def _pieces(pieces):
    for piece in pieces:
        yield piece


async def built(lab, place):
    """Build a directory: the image, and the names that were sent."""
    directory = contexts.Directory(str(place))
    found = await lab.builder.compare(directory.key, once(directory.manifest()))
    names = [name for name, _, _ in directory._entries()]
    sent = sorted(names) if found.missing is None else [names[number] for number in found.missing]
    pieces = directory.pieces(None if found.missing is None else frozenset(found.missing))
    options = BuildOptions(tags=("t:1",), host=HostConfig())
    result = await lab.builder.build(Synced(found, _pieces(pieces)), options, lab.notes.append)
    return result.image.id, sent


@with_builder
async def test_only_what_changed_is_sent(lab: BuildLab) -> None:
    place = lab.lab.path / "context"
    (place / "d").mkdir(parents=True)
    (place / "Dockerfile").write_text(TEXT)
    (place / "f").write_text("one")
    (place / "d/g").write_text("two")
    (place / "empty").write_text("")
    (place / "l").symlink_to("f")
    first, sent = await built(lab, place)
    assert sent == ["Dockerfile", "d", "d/g", "empty", "f", "l"]
    assert await built(lab, place) == (first, [])
    (place / "f").write_text("eno")  # as long as before
    second, sent = await built(lab, place)
    assert sent == ["f"]
    assert await lab.sh("cat /c/f /c/l /c/d/g") == "enoenotwo"
    os.utime(place / "d/g", (1, 1))
    third, sent = await built(lab, place)
    assert (third, sent) == (second, ["d/g"])
    (place / "d/g").unlink()
    (place / "d").rmdir()
    (place / "d").write_text("a file now")
    (place / "l").unlink()
    _, sent = await built(lab, place)
    assert sent == ["d"]
    assert await lab.sh("cat /c/d; ls /c") == "a file nowDockerfile\nd\nempty\nf\n"


@with_builder
async def test_modes_count_and_other_directories_do_not(lab: BuildLab) -> None:
    one, two = lab.lab.path / "one", lab.lab.path / "two"
    for place in (one, two):
        place.mkdir()
        (place / "Dockerfile").write_text(TEXT)
        (place / "f").write_text(place.name)
    first, _ = await built(lab, one)
    _, sent = await built(lab, two)
    assert sent == ["Dockerfile", "f"]
    assert await lab.sh("cat /c/f") == "two"
    (one / "f").chmod(0o751)
    second, sent = await built(lab, one)
    assert second != first
    assert await lab.sh("stat -c %a /c/f; cat /c/f") == "751\none"


@with_builder
async def test_what_is_kept_is_counted_bounded_and_pruned(lab: BuildLab) -> None:
    for number in range(MAX_KEPT + 1):
        place = lab.lab.path / f"place{number}"
        place.mkdir()
        (place / "Dockerfile").write_text("FROM bb:1\n")
        (place / "big").write_bytes(bytes(10_000))
        await built(lab, place)
    kept = [one for one in await lab.builder.usage() if one.kind == "source.local"]
    assert len(kept) == MAX_KEPT
    assert sum(one.size for one in kept) >= MAX_KEPT * 10_000
    pruned = await lab.builder.prune()
    assert pruned.reclaimed >= MAX_KEPT * 10_000
    assert await lab.builder.usage() == []
    _, sent = await built(lab, place)
    assert sent == ["Dockerfile", "big"]


@with_builder
async def test_hostile_manifests(lab: BuildLab) -> None:
    good = b"33188 0 0 1 0 0 x"
    key = "0" * 64
    cases = {
        b"f\0": "malformed",
        b"../f\0" + good + b"\0\0": "bad name",
        b"/f\0" + good + b"\0\0": "bad entry",
        b"f\0nothing\0\0": "bad entry",
        b"f\0a b c d e f g\0\0": "malformed",
        b"f\x0033188 0 0 0 0 0 x\0\0f/g\0" + good + b"\0\0": "no directory",
        b"f\x000 0 0 1 0 0 x\0\0": "unknown kind",
        b"f\0" + good + b"\0\0": "changed meanwhile",
    }
    for manifest, said in cases.items():
        found = await lab.builder.compare(key, once(manifest))
        with pytest.raises(InvalidArgument, match=said):
            await lab.builder.build(
                Synced(found, once(bytes(1024))), BuildOptions(), lab.notes.append
            )
    with pytest.raises(InvalidArgument, match="SHA-256"):
        await lab.builder.compare("../../etc", once(b""))
    directory = lab.lab.path / "root/builder/sources"
    assert os.listdir(directory) == []
