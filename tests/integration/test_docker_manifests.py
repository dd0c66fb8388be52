"""What an index has, over the API: manifests of images and attestations, and their statements."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile

import pytest

import dockerlab

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]
OCI = "application/vnd.oci.image."
PREDICATE = "https://slsa.dev/provenance/v0.2"
STATEMENT = {"_type": "https://in-toto.io/Statement/v0.1", "predicateType": PREDICATE}


class Layout:
    """An OCI layout that grows out of one that was saved."""

    def __init__(self, saved):
        with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
            files = {one.name: tar.extractfile(one).read() for one in tar if one.isfile()}
        self.index = json.loads(files["index.json"])
        self.blobs = {name: data for name, data in files.items() if name.startswith("blobs/")}

    def put(self, document, kind, **more):
        """The descriptor of a document that is a blob now."""
        data = json.dumps(document).encode()
        name = hashlib.sha256(data).hexdigest()
        self.blobs[f"blobs/sha256/{name}"] = data
        return {"mediaType": kind, "digest": f"sha256:{name}", "size": len(data), **more}

    def tar(self, *entries):
        index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
        files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index, **self.blobs}
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w") as tar:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return target.getvalue()


def attested(saved):
    """The archive of `att:1`: the image that was saved, and a statement about it."""
    layout = Layout(saved)
    image = {**layout.index["manifests"][0], "platform": {"os": "linux", "architecture": "amd64"}}
    image.pop("annotations", None)
    layer = layout.put(
        STATEMENT,
        "application/vnd.in-toto+json",
        annotations={"in-toto.io/predicate-type": PREDICATE},
    )
    config = layout.put(
        {
            "architecture": "unknown",
            "os": "unknown",
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        },
        f"{OCI}config.v1+json",
    )
    statement = layout.put(
        {
            "schemaVersion": 2,
            "mediaType": f"{OCI}manifest.v1+json",
            "config": config,
            "layers": [layer],
        },
        f"{OCI}manifest.v1+json",
        platform={"os": "unknown", "architecture": "unknown"},
        annotations={
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": image["digest"],
        },
    )
    index = layout.put(
        {
            "schemaVersion": 2,
            "mediaType": f"{OCI}index.v1+json",
            "manifests": [image, statement],
        },
        f"{OCI}index.v1+json",
        annotations={"io.containerd.image.name": "docker.io/library/att:1"},
    )
    return layout.tar(index), image["digest"]


def test_an_image_with_an_attestation():
    with dockerlab.daemon() as daemon:
        tar = dockerlab.tar_of(f"{daemon.base}/rootfs")
        daemon.exchange("POST", "/images/create?fromSrc=-&repo=bb:1&changes=CMD+sh", tar)
        archive, image = attested(daemon.exchange("GET", "/images/get?names=bb:1")[2])
        assert b"Loaded image: att:1" in daemon.exchange("POST", "/images/load", archive)[2]
        check_manifests(daemon, image)
        check_statements(daemon)


def check_manifests(daemon, image):
    status, found = daemon.ask("GET", "/v1.48/images/att:1/json?manifests=1")
    assert status == 200
    first, second = found["Manifests"]
    assert (first["ID"], first["Kind"], first["Available"]) == (image, "image", True)
    assert first["ImageData"]["Platform"] == {"os": "linux", "architecture": "amd64"}
    size, unpacked = first["Size"], first["ImageData"]["Size"]["Unpacked"]
    assert size["Total"] == size["Content"] + unpacked
    assert (second["Kind"], second["AttestationData"]) == ("attestation", {"For": image})
    assert "Manifests" not in daemon.ask("GET", "/v1.47/images/att:1/json?manifests=1")[1]
    (line,) = daemon.ask("GET", "/v1.47/images/json?manifests=1")[1]
    assert sorted(line["RepoTags"]) == ["att:1", "bb:1"]
    assert line["Manifests"]
    status, said = daemon.ask("GET", "/v1.49/images/att:1/json?manifests=1&platform=linux")
    assert (status, "cannot both be set" in said["message"]) == (400, True)


def check_statements(daemon):
    path = "/v1.55/images/att:1/attestations"
    ((one,), (whole,)) = (daemon.ask("GET", path + query)[1] for query in ("", "?statement=1"))
    assert (one["PredicateType"], "Statement" in one) == (PREDICATE, False)
    assert whole == {**one, "Statement": STATEMENT}
    assert daemon.ask("GET", f"{path}?type={PREDICATE}")[1] == [one]
    assert daemon.ask("GET", f"{path}?type=other")[1] == []
    assert daemon.ask("GET", f"{path}?platform=linux/s390x")[0] == 404
    assert daemon.ask("GET", "/v1.55/images/nosuch/attestations")[0] == 404
    assert daemon.ask("GET", "/v1.55/images/bb:1/attestations") == (200, [])
