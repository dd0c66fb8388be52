"""`verify`, `trust show`, `image copy` and what `login` keeps, from outside, at a real registry."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import urllib.request

import pytest

import dockerlab
import sampan as library
from dockerlab import PATIENCE, SOURCES, Result
from realregistry import PASSWORD, USER, available, real_registry
from sampan.spec import mediatypes
from signing import ANNOTATION, PAYLOAD, Signer, payload_of

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
    pytest.mark.skipif(not available, reason="docker-registry is not installed"),
]
ENVIRON = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCES}


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with real_registry(tmp_path_factory.mktemp("r")) as name:
        yield name


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    policy = tmp_path_factory.mktemp("policy") / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    with dockerlab.daemon(trust_policy=str(policy)) as made:
        made.policy = policy
        data = dockerlab.tar_of(f"{made.base}/rootfs")
        assert call(made, "import", "-", "bb:1", stdin=data).code == 0
        yield made


def call(daemon, *words, stdin=b""):
    done = subprocess.run(
        [sys.executable, "-m", "sampan.cli", "-H", daemon.host, *words],
        env={**ENVIRON, "HOME": daemon.base},
        input=stdin,
        check=False,
        capture_output=True,
        timeout=PATIENCE,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def put(url, data, kind="application/octet-stream", method="PUT"):
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.headers


def put_blob(registry, repository, data):
    location = put(f"http://{registry}/v2/{repository}/blobs/uploads/", b"", method="POST")
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    joint = "&" if "?" in location["Location"] else "?"
    put(f"{location['Location']}{joint}digest={digest}", data)
    return {"digest": digest, "size": len(data)}


def sign(registry, repository, digest, signer):
    """What `cosign sign --key` leaves at a registry."""
    payload = payload_of(digest, f"{registry}/{repository}")
    config = put_blob(registry, repository, b"{}")
    layer = put_blob(registry, repository, payload)
    signature = base64.b64encode(signer.sign(payload)).decode()
    document = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": {"mediaType": mediatypes.OCI_CONFIG, **config},
        "layers": [{"mediaType": PAYLOAD, **layer, "annotations": {ANNOTATION: signature}}],
    }
    tag = digest.replace(":", "-") + ".sig"
    put(
        f"http://{registry}/v2/{repository}/manifests/{tag}",
        json.dumps(document).encode(),
        mediatypes.OCI_MANIFEST,
    )


def test_verify_and_a_policy(daemon, registry, tmp_path):
    image, signer = f"{registry}/team/app:1", Signer()
    (tmp_path / "key.pem").write_bytes(signer.pem)
    (tmp_path / "other.pem").write_bytes(Signer().pem)
    call(daemon, "tag", "bb:1", image)
    assert call(daemon, "push", "-q", image).code == 0
    inspected = json.loads(call(daemon, "image", "inspect", image).out)[0]
    digest = next(one for one in inspected["RepoDigests"] if registry in one).split("@")[1]
    key = ("--key", str(tmp_path / "key.pem"))
    refused = call(daemon, "verify", *key, image)
    assert (refused.code, "it is not signed" in refused.err) == (1, True)
    sign(registry, "team/app", digest, signer)
    done = call(daemon, "verify", *key, image)
    assert done.code == 0, done.err
    assert done.lines[0] == f"{image}: {digest}"
    assert f"for {registry}/team/app" in done.lines[1]
    assert call(daemon, "verify", "-q", *key, image).out.strip() == digest
    refused = call(daemon, "verify", "--key", str(tmp_path / "other.pem"), image)
    assert (refused.code, "it is not of the key" in refused.err) == (1, True)

    rules = [{"type": "sigstoreSigned", "keyPath": str(tmp_path / "key.pem")}]
    policy = {
        "default": [{"type": "insecureAcceptAnything"}],
        "transports": {"docker": {registry: rules}},
    }
    daemon.policy.write_text(json.dumps(policy))
    shown = call(daemon, "trust", "show")
    assert (shown.code, "sigstoreSigned" in shown.out, registry in shown.out) == (0, True, True)
    assert call(daemon, "pull", "-q", image).code == 0
    call(daemon, "tag", "bb:1", f"{registry}/team/unsigned:1")
    call(daemon, "push", "-q", f"{registry}/team/unsigned:1")
    refused = call(daemon, "pull", f"{registry}/team/unsigned:1")
    assert (refused.code, "it is not signed" in refused.err) == (1, True)
    with library.Engine.open(host=daemon.host) as engine:
        assert engine.verify(image).digest == digest
        with pytest.raises(library.errors.PermissionDenied):
            engine.verify(f"{registry}/team/unsigned:1")


def test_looking_and_copying(daemon, registry):
    call(daemon, "tag", "bb:1", f"{registry}/look:1")
    assert call(daemon, "push", "-q", f"{registry}/look:1").code == 0
    done = call(daemon, "image", "copy", "-q", f"{registry}/look:1", f"{registry}/look:2")
    assert (done.code, done.out) == (0, ""), done.err
    assert call(daemon, "image", "tags", f"{registry}/look").lines == ["1", "2"]
    raw = call(daemon, "manifest", "inspect", "--raw", f"{registry}/look:2").out
    assert json.loads(raw)["config"]["digest"].startswith("sha256:")
    assert json.loads(call(daemon, "manifest", "inspect", f"{registry}/look:1").out)
    assert call(daemon, "image", "referrers", f"{registry}/look:1").lines == [
        "DIGEST    TYPE      SIZE"
    ]
    missing = call(daemon, "image", "tags", f"{registry}/nothing")
    assert (missing.code, "Traceback" in missing.err) == (1, False)
    with library.Engine.open(host=daemon.host) as engine:
        engine.copy_image(f"{registry}/look:1", f"{registry}/look:3")
        assert engine.tags(f"{registry}/look") == ["1", "2", "3"]
        assert engine.manifest(f"{registry}/look:3") == json.loads(raw)
        engine.push(f"{registry}/look:1")
        assert engine.referrers(f"{registry}/look:1") == []


def test_login_is_checked(daemon, tmp_path):
    (tmp_path / "r").mkdir()
    with real_registry(tmp_path / "r", login=True) as name:
        words = ("login", "-u", USER, "--password-stdin", name)
        refused = call(daemon, *words, stdin=b"wrong\n")
        assert (refused.code, "refused the user" in refused.err) == (1, True)
        assert not os.path.exists(f"{daemon.base}/.docker/config.json")
        done = call(daemon, *words, stdin=PASSWORD.encode() + b"\n")
        assert (done.code, done.out) == (0, "Login Succeeded\n")
        call(daemon, "tag", "bb:1", f"{name}/a:1")
        assert call(daemon, "push", "-q", f"{name}/a:1").code == 0
        assert call(daemon, "logout", name).out == f"Removing login credentials for {name}\n"
        assert call(daemon, "push", "-q", f"{name}/a:1").code == 1
        with library.Engine.open(host=daemon.host) as engine:
            engine.login(name, USER, PASSWORD)
            with pytest.raises(library.errors.Unauthenticated):
                engine.login(name, USER, "wrong")
            assert engine.pull(f"{name}/a:1", auth=(USER, PASSWORD)).id
