"""Inflating: every kind, damaged or whole, within bounds."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os

import pytest
import zstandard

from sampan.layers.compression import Compression, detect
from sampan.layers.inflate import open_stream
from sampan.layers.limits import LayerError

DATA = bytes(range(256)) * 5000
PACK = {
    Compression.NONE: bytes,
    Compression.GZIP: gzip.compress,
    Compression.ZSTD: zstandard.compress,
    Compression.XZ: lzma.compress,
    Compression.BZIP2: bz2.compress,
}
PACKED = [kind for kind in PACK if kind is not Compression.NONE]


def inflate(blob: bytes, *, limit: int = 1 << 40, size: int = 1 << 16) -> bytes:
    fd = os.memfd_create("blob")
    try:
        os.write(fd, blob)
        stream = open_stream(fd, limit=limit)
        buffer = memoryview(bytearray(size))
        out = b""
        while count := stream.readinto(buffer):
            out += buffer[:count]
    finally:
        os.close(fd)
    assert stream.produced == len(out)
    return out


@pytest.mark.parametrize("kind", PACK)
def test_detect_and_inflate(kind: Compression) -> None:
    blob = PACK[kind](DATA)
    assert detect(blob[:6]) is kind
    assert inflate(blob) == DATA


@pytest.mark.parametrize("kind", PACKED)
def test_members_follow_one_another(kind: Compression) -> None:
    assert inflate(PACK[kind](b"one ") + PACK[kind](b"two")) == b"one two"


def test_zstd_may_begin_with_a_skippable_frame() -> None:
    skippable = b"\x51\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"
    assert detect(skippable) is Compression.ZSTD
    assert inflate(skippable + zstandard.compress(DATA)) == DATA


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.XZ, Compression.BZIP2])
def test_cut_short(kind: Compression) -> None:
    with pytest.raises(LayerError, match="damaged"):
        inflate(PACK[kind](DATA)[:-5])


@pytest.mark.parametrize("kind", PACKED)
def test_damaged_in_the_middle(kind: Compression) -> None:
    noise = os.urandom(100_000)
    blob = bytearray(PACK[kind](noise))
    blob[len(blob) // 2 : len(blob) // 2 + 8] = b"damaged!"
    try:
        assert inflate(bytes(blob)) != noise  # zstd has no checksum by default
        assert kind is Compression.ZSTD
    except LayerError:
        pass


def test_garbage_behind_gzip() -> None:
    with pytest.raises(LayerError, match="damaged"):
        inflate(gzip.compress(DATA) + b"garbage")


@pytest.mark.parametrize("kind", PACK)
def test_size_limit(kind: Compression) -> None:
    with pytest.raises(LayerError, match="larger than 100000 bytes"):
        inflate(PACK[kind](DATA), limit=100_000)


def test_ratio_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sampan.layers.inflate.RATIO_FLOOR", 1 << 20)
    with pytest.raises(LayerError, match="bytes out of each byte in"):
        inflate(zstandard.compress(bytes(64 << 20)))


def test_zstd_window_limit() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=False)
    machine = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    blob = machine.compress(os.urandom(1 << 16)) + machine.flush()
    with pytest.raises(LayerError, match="damaged"):
        inflate(blob)


def test_formats_for_lazy_pulls_are_read_as_what_they_are_based_on() -> None:
    """zstd:chunked puts its table into skippable frames, eStargz into an empty last member."""
    note = b"\x50\x2a\x4d\x18" + (10).to_bytes(4, "little") + bytes(10)
    pack = zstandard.ZstdCompressor().compress
    assert inflate(pack(DATA) + note + pack(DATA) + note) == DATA + DATA
    place = b"SG" + (22).to_bytes(2, "little") + b"%016x" % 4096 + b"STARGZ"
    head = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + len(place).to_bytes(2, "little") + place
    footer = head + b"\x01\x00\x00\xff\xff" + bytes(8)
    assert inflate(gzip.compress(DATA) + gzip.compress(DATA) + footer) == DATA + DATA


def test_many_tiny_members_are_not_quadratic() -> None:
    member = gzip.compress(b"x", mtime=0)
    assert inflate(member * 100_000) == b"x" * 100_000
