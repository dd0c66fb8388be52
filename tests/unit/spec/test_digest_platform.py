"""Digests and platforms."""

from __future__ import annotations

import hashlib

import pytest

from sampan.errors import InvalidArgument
from sampan.spec import mediatypes
from sampan.spec.digest import Digest, Digester, chain_ids
from sampan.spec.platform import Platform, match_order


@pytest.mark.parametrize(("name", "size"), [("sha256", 64), ("sha384", 96), ("sha512", 128)])
def test_a_digest_is_algorithm_and_hex(name, size):
    digest = Digest.parse(f"{name}:{'0' * size}")
    assert (digest.algorithm, digest.hex, digest.short) == (name, "0" * size, "0" * 12)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "a" * 64 + "\n",
        "sha256:" + "\u0661" * 64,
        "sha512:" + "a" * 64,
        "md5:" + "a" * 32,
        "sha256:../" + "a" * 61,
        "../../x",
    ],
)
def test_what_is_no_digest_is_refused(text):
    with pytest.raises(InvalidArgument):
        Digest.parse(text)


def test_digests_are_made_from_bytes():
    assert Digest.of(b"x") == "sha256:" + hashlib.sha256(b"x").hexdigest()
    digester = Digester("sha512")
    digester.update(b"a")
    digester.update(memoryview(b"b"))
    assert digester.digest() == "sha512:" + hashlib.sha512(b"ab").hexdigest()
    with pytest.raises(InvalidArgument):
        Digester("md5")


def test_chain_ids_follow_the_specification():
    one, two, three = (Digest.of(name) for name in (b"1", b"2", b"3"))
    first, second, third = chain_ids((one, two, three))
    assert first == one
    assert second == Digest.of(f"{one} {two}".encode())
    assert third == Digest.of(f"{second} {three}".encode())
    assert chain_ids(()) == ()


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("Linux/x86_64", Platform("linux", "amd64")),
        ("aarch64", Platform("linux", "arm64")),
        ("linux/arm64/v8", Platform("linux", "arm64")),
        ("linux/arm", Platform("linux", "arm", "v7")),
        ("linux/arm/6", Platform("linux", "arm", "v6")),
        ("linux/i686", Platform("linux", "386")),
    ],
)
def test_platforms_are_normalised(text, platform):
    assert Platform.parse(text) == platform
    assert Platform.parse(str(platform)) == platform


@pytest.mark.parametrize("text", ["", "/", "a/b/c/d", "linux/", "li nux/amd64", "linux/amd64\n"])
def test_what_is_no_platform_is_refused(text):
    with pytest.raises(InvalidArgument):
        Platform.parse(text)


def test_a_machine_runs_what_is_older():
    amd64, arm = Platform("linux", "amd64"), Platform("linux", "arm", "v6")
    assert match_order(amd64) == [amd64, Platform("linux", "386")]
    assert match_order(arm) == [arm, Platform("linux", "arm", "v5")]
    arm64 = match_order(Platform("linux", "arm64"))
    assert [str(p) for p in arm64][:3] == ["linux/arm64", "linux/arm/v8", "linux/arm/v7"]
    assert Platform.host() in match_order(Platform.host())


def test_media_types_say_what_they_are():
    assert mediatypes.is_index(mediatypes.DOCKER_INDEX)
    assert mediatypes.is_manifest(mediatypes.OCI_MANIFEST)
    assert not mediatypes.is_manifest(mediatypes.OCI_INDEX)
    assert mediatypes.compression_of(mediatypes.OCI_LAYER_ZSTD) == "zstd"
    assert mediatypes.compression_of(mediatypes.DOCKER_LAYER_GZIP) == "gzip"
    assert mediatypes.compression_of("text/plain") == "none"
    assert not mediatypes.is_layer(mediatypes.OCI_CONFIG)
