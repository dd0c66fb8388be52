"""Signatures in cosign's form for tests, into a `FakeRegistry`."""

from __future__ import annotations

import base64
import json

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from registry_fixture import describe
from sampan.spec import mediatypes

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"


class Signer:
    """A key of one kind."""

    def __init__(self, kind: str = "ecdsa") -> None:
        self.key = {
            "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
            "ecdsa-384": lambda: ec.generate_private_key(ec.SECP384R1()),
            "rsa": lambda: rsa.generate_private_key(65537, 2048),
            "rsa-short": lambda: rsa.generate_private_key(65537, 1024),
            "ed25519": ed25519.Ed25519PrivateKey.generate,
        }[kind]()
        self.pem = self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, payload: bytes) -> bytes:
        match self.key:
            case ec.EllipticCurvePrivateKey():
                return self.key.sign(payload, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPrivateKey():
                return self.key.sign(payload, padding.PKCS1v15(), hashes.SHA256())
            case _:
                return self.key.sign(payload)


def payload_of(digest: str, name: str, **changes) -> bytes:
    critical = {
        "identity": {"docker-reference": name},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
        **changes,
    }
    return json.dumps({"critical": critical, "optional": None}).encode()


def attach(fake, repository, target, payload: bytes, signature: bytes, *, referrer=False):
    """Put a signature beside an image: under cosign's tag, or as a referrer."""
    blob = fake.put_blob(payload, PAYLOAD)
    layer = {**describe(blob), "annotations": {ANNOTATION: base64.b64encode(signature).decode()}}
    config = fake.put_blob(b"{}", mediatypes.OCI_CONFIG)
    document = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": describe(config),
        "layers": [layer],
    }
    tag = f"{target.digest.replace(':', '-')}.sig"
    if referrer:
        document["artifactType"] = "application/vnd.dev.cosign.artifact.sig.v1+json"
        document["subject"] = describe(target)
        tag = "a-referrer"
    content = json.dumps(document).encode()
    return fake.put_manifest(repository, tag, content, mediatypes.OCI_MANIFEST)


def sign(fake, repository, target, signer, *, name="", referrer=False, **changes):
    """Sign an image under its repository's name."""
    payload = payload_of(target.digest, name or f"{fake.name}/{repository}", **changes)
    return attach(fake, repository, target, payload, signer.sign(payload), referrer=referrer)
