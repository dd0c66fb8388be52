"""Documents of images: what is read, and what is refused because two readers could differ."""

from __future__ import annotations

import json

import pytest

from sampan.errors import InvalidArgument
from sampan.spec import mediatypes
from sampan.spec.digest import Digest
from sampan.spec.image import (
    MAX_MANIFEST,
    Descriptor,
    History,
    ImageConfig,
    Index,
    Manifest,
    RunConfig,
    media_type_of,
)
from sampan.spec.platform import Platform

A, B = Digest.of(b"a"), Digest.of(b"b")
CONFIG = {"mediaType": mediatypes.OCI_CONFIG, "digest": A, "size": 10}
LAYER = {"mediaType": mediatypes.OCI_LAYER_GZIP, "digest": B, "size": 20}


def manifest(**changes) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": CONFIG,
        "layers": [LAYER],
    }
    return json.dumps({**document, **changes}).encode()


def parse(content: bytes) -> Manifest:
    return Manifest.parse(content, mediatypes.OCI_MANIFEST)


def test_a_manifest_is_read_and_written():
    read = parse(manifest(annotations={"a": "b", "A": "c"}))
    assert read.config == Descriptor(mediatypes.OCI_CONFIG, A, 10)
    assert read.layers == (Descriptor(mediatypes.OCI_LAYER_GZIP, B, 20),)
    assert read.annotations == {"a": "b", "A": "c"}
    assert parse(read.encode()) == read


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not valid JSON"),
        (b"null", "an object is expected"),
        (b"[]", "an object is expected"),
        (b"\xff\xfe{}", "not valid JSON"),
        ("{}".encode("utf-16"), "not valid JSON"),
        (b'{"schemaVersion":2,"schemaVersion":2}', "is there twice"),
        (b'{"schemaVersion":2,"SchemaVersion":2}', "differ only by case"),
        (b'{"schemaVersion":NaN}', "not a number of JSON"),
        (b'{"schemaVersion":' + b"2" * 5000 + b"}", "too long"),
        (b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "nested"),
        (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "nested more than"),
        (b'{"a":[' + b"[]," * 300_000 + b"1]}", "parts"),
        (b" " * (MAX_MANIFEST + 1), "more than the limit"),
        (manifest(schemaVersion=1), "schema version 2"),
        (manifest(schemaVersion="2"), "an integer"),
        (manifest(schemaVersion=True), "an integer"),
        (manifest(mediaType=mediatypes.OCI_INDEX), "calls itself"),
        (manifest(mediaType=mediatypes.DOCKER_MANIFEST), "calls itself"),
        (manifest(manifests=[]), "as only an index may"),
        (manifest(config=None), "no config"),
        (manifest(layers={}), "a list is expected"),
        (manifest(layers=[LAYER] * 513), "more than 512"),
        (manifest(layers=[{**LAYER, "digest": "../../../etc/passwd"}]), "invalid digest"),
        (manifest(layers=[{**LAYER, "digest": 5}]), "a string is expected"),
        (manifest(layers=[{**LAYER, "size": -1}]), "an integer from 0"),
        (manifest(layers=[{**LAYER, "size": 1 << 63}]), "an integer from 0"),
        (manifest(layers=[{**LAYER, "size": 1.5}]), "an integer from 0"),
        (manifest(layers=[{**LAYER, "Digest": A}]), "differ only by case"),
        (manifest(layers=["x"]), "an object is expected"),
        (manifest(annotations={"a": 1}), "a string is expected"),
        (manifest(annotations={"a": "\ud800"}), "not allowed"),
        (manifest(annotations={"a": "x\0y"}), "not allowed"),
        (manifest(Layers=[LAYER]), "differ only by case"),
        (manifest().replace(b'"layers"', b'"Layers"'), "must be spelled 'layers'"),
        (manifest().replace(b'"config"', b'"con\\u017fig"'), "no config"),
        (manifest().replace(b'"layers"', b'"layer\\u017f"'), "must be spelled 'layers'"),
    ],
)
def test_what_two_readers_could_take_differently_is_refused(content, why):
    with pytest.raises(InvalidArgument, match=why):
        parse(content)


def test_a_manifest_is_not_read_as_another_type():
    with pytest.raises(InvalidArgument, match="not supported"):
        Manifest.parse(manifest(), mediatypes.OCI_INDEX)
    with pytest.raises(InvalidArgument, match="not supported"):
        Manifest.parse(manifest(), "application/vnd.docker.distribution.manifest.v1+prettyjws")
    with pytest.raises(InvalidArgument, match="as only a manifest may"):
        Index.parse(
            json.dumps({"schemaVersion": 2, "layers": [], "manifests": []}).encode(),
            mediatypes.OCI_INDEX,
        )


def test_an_index_is_read():
    entry = {
        "mediaType": mediatypes.OCI_MANIFEST,
        "digest": A,
        "size": 1,
        "platform": {"os": "linux", "architecture": "arm64", "variant": "v8", "os.version": "1"},
    }
    document = {"schemaVersion": 2, "manifests": [entry]}
    index = Index.parse(json.dumps(document).encode(), mediatypes.OCI_INDEX)
    assert index.manifests[0].platform == Platform("linux", "arm64")
    with pytest.raises(InvalidArgument, match="more than 1000"):
        Index.parse(
            json.dumps({"schemaVersion": 2, "manifests": [entry] * 1001}).encode(),
            mediatypes.OCI_INDEX,
        )


def test_a_type_is_told_by_shape_where_none_is_stated():
    assert media_type_of(b'{"manifests":[]}') == mediatypes.OCI_INDEX
    assert media_type_of(b'{"layers":[]}') == mediatypes.OCI_MANIFEST
    assert media_type_of(b'{"mediaType":"x"}') == "x"
    for neither in (b"{}", b'{"layers":[],"manifests":[]}'):
        with pytest.raises(InvalidArgument, match="neither"):
            media_type_of(neither)


def test_an_image_config_is_read_and_written():
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "docker_version": "ignored",
        "config": {
            "User": "1:2",
            "Env": ["A=b"],
            "Entrypoint": None,
            "Cmd": ["sh", "-c", "x"],
            "WorkingDir": "/w",
            "ExposedPorts": {"80/tcp": {}},
            "Volumes": {"/v": {}},
            "Labels": {"a": "1", "A": "2"},
            "StopSignal": "SIGINT",
            "Healthcheck": {"Test": ["NONE"], "Interval": 5},
        },
        "rootfs": {"type": "layers", "diff_ids": [A, B]},
        "history": [{"created_by": "x", "empty_layer": True}],
    }
    config = ImageConfig.parse(json.dumps(document).encode())
    assert config.platform == Platform("linux", "amd64")
    assert config.config.entrypoint == ()
    assert config.config.cmd == ("sh", "-c", "x")
    assert config.config.labels == {"a": "1", "A": "2"}
    assert config.config.exposed_ports == ("80/tcp",)
    assert config.config.healthcheck is not None
    assert config.config.healthcheck.interval == 5
    assert config.rootfs_diff_ids == (A, B)
    assert config.history == (History(created_by="x", empty_layer=True),)
    assert ImageConfig.parse(config.encode()) == config


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"rootfs": {"type": "other", "diff_ids": []}},
        {"rootfs": {"type": "layers", "diff_ids": ["sha256:x"]}},
        {"rootfs": {"type": "layers", "diff_ids": [A]}, "config": []},
        {"rootfs": {"type": "layers", "diff_ids": [A]}, "config": {"Env": "A=b"}},
        {"rootfs": {"type": "layers", "diff_ids": [A]}, "config": {"Cmd": [1]}},
        {"rootfs": {"type": "layers", "diff_ids": [A]}, "config": {"env": ["A=b"]}},
        {"rootfs": {"type": "layers", "diff_ids": [A]}, "history": [1]},
    ],
)
def test_a_config_with_wrong_fields_is_refused(document):
    with pytest.raises(InvalidArgument, match=r"image config|digest"):
        ImageConfig.parse(json.dumps(document).encode())


def test_what_we_write_is_stable():
    config = ImageConfig("amd64", "linux", config=RunConfig(cmd=("sh",)), rootfs_diff_ids=(A,))
    assert json.loads(config.encode()) == {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [A]},
    }
