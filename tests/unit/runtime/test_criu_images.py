"""What is mended in CRIU's images."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from sampan.runtime import criu_images
from sampan.runtime.criu_words import decode, message


@pytest.mark.parametrize("signal", [9, 64, 300])
def test_the_signal_at_a_parents_death_is_forgotten(tmp_path: Path, signal: int):
    thread = message({1: 77, 8: signal, 10: b"credentials"})
    core = message({1: 1, 3: b"task", 5: thread})
    image = tmp_path / "core-1.img"
    image.write_bytes(b"magic..." + struct.pack("<I", len(core)) + core)
    criu_images.forget_parent(str(tmp_path), 1)
    data = image.read_bytes()
    assert data[: 8 + 4] == b"magic..." + struct.pack("<I", len(core))
    found = decode(data[12:])
    assert (found[1], found[3]) == (1, b"task")
    assert decode(bytes(found[5])) == {1: 77, 8: 0, 10: b"credentials"}


def test_an_image_without_it_stays_as_it_is(tmp_path: Path):
    core = message({1: 1, 5: message({1: 77})})
    image = tmp_path / "core-4.img"
    before = b"magic..." + struct.pack("<I", len(core)) + core
    image.write_bytes(before)
    criu_images.forget_parent(str(tmp_path), 4)
    assert image.read_bytes() == before
