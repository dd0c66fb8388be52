"""The trust policy: what vouches for an image, and everything that does not."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from certificates import Authority
from imagelab import store
from registry_fixture import FakeRegistry, tar
from sampan.errors import InvalidArgument, PermissionDenied
from sampan.images.policy import Identity, Match, Policy
from sampan.images.trust import Trust, Untrusted
from sampan.spec.reference import Reference
from signing import Signer, attach, payload_of, sign

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked as root")
ALL = [{"type": "insecureAcceptAnything"}]
NONE = [{"type": "reject"}]


def signed_by(*signers, **more):
    texts = [base64.b64encode(signer.pem).decode() for signer in signers]
    return [{"type": "sigstoreSigned", "keyDatas": texts, **more}]


def run(tmp_path, work, **options):
    """`work(fake, image, pull)`: `pull(requirements)` pulls under a policy for the registry."""

    async def main():
        async with FakeRegistry() as fake:
            image = fake.put_image("team/app", layers=[tar({"a": b"a"})])
            path = tmp_path / "policy.json"
            trust = Trust(str(path), required=True)
            async with store(tmp_path / "s", trust=trust, **options) as one:

                async def pull(requirements, reference=""):
                    scopes = {"docker": {fake.name: requirements}}
                    policy = {"default": NONE, "transports": scopes}
                    path.write_text(json.dumps(policy))
                    return await one.service.pull(reference or image.reference)

                await work(fake, image, pull)
                assert one.leftovers() == []

    asyncio.run(main())


@pytest.mark.parametrize("referrer", [False, True])
@pytest.mark.parametrize("kind", ["ecdsa", "ecdsa-384", "rsa", "ed25519"])
def test_a_signature_of_each_kind(tmp_path, kind, referrer):
    async def work(fake, image, pull):
        signer = Signer(kind)
        sign(fake, "team/app", image.descriptor, signer, referrer=referrer)
        found = await pull(signed_by(signer))
        assert found.id == image.config.digest

    run(tmp_path, work)


def test_without_a_policy_everything_comes_and_with_reject_nothing(tmp_path):
    async def work(fake, image, pull):
        assert (await pull(ALL)).id
        with pytest.raises(Untrusted, match="the policy rejects"):
            await pull(NONE)
        with pytest.raises(PermissionDenied):
            await pull([*ALL, *NONE])

    run(tmp_path, work)
    assert Trust().policy() == Policy()
    assert Trust(str(tmp_path / "none")).policy() == Policy()
    with pytest.raises(InvalidArgument, match="no such file"):
        Trust(str(tmp_path / "none"), required=True).policy()


async def unsigned(fake, image, signer):
    return signed_by(signer)


async def another_key(fake, image, signer):
    sign(fake, "team/app", image.descriptor, Signer())
    return signed_by(signer)


async def another_digest(fake, image, signer):
    other = fake.put_image("team/other", created="2019-01-01T00:00:00Z")
    payload = payload_of(other.descriptor.digest, f"{fake.name}/team/app")
    attach(fake, "team/app", image.descriptor, payload, signer.sign(payload))
    return signed_by(signer)


async def another_name(fake, image, signer):
    sign(fake, "team/app", image.descriptor, signer, name="docker.io/library/busybox")
    return signed_by(signer)


async def another_type(fake, image, signer):
    sign(fake, "team/app", image.descriptor, signer, type="a shopping list")
    return signed_by(signer)


async def altered_payload(fake, image, signer):
    payload = payload_of(image.descriptor.digest, f"{fake.name}/team/app")
    attach(fake, "team/app", image.descriptor, payload + b" ", signer.sign(payload))
    return signed_by(signer)


async def no_payload(fake, image, signer):
    attach(fake, "team/app", image.descriptor, b"[]", signer.sign(b"[]"))
    return signed_by(signer)


async def key_twice(fake, image, signer):
    payload = payload_of(image.descriptor.digest, f"{fake.name}/team/app")
    payload = payload.replace(b'"optional"', b'"critical": {}, "optional"')
    attach(fake, "team/app", image.descriptor, payload, signer.sign(payload))
    return signed_by(signer)


async def expired(fake, image, signer):
    sign(fake, "team/app", image.descriptor, signer)
    past = datetime.now(UTC) - timedelta(days=1)
    return signed_by(signer, notAfter=past.isoformat())


async def one_of_two(fake, image, signer):
    sign(fake, "team/app", image.descriptor, signer)
    return [*signed_by(signer), *signed_by(Signer())]


REFUSED = {
    unsigned: "it is not signed",
    another_key: "it is not of the key",
    another_digest: "it is for the digest",
    another_name: "it is for the name 'docker.io/library/busybox'",
    another_type: "its type is 'a shopping list'",
    altered_payload: "it is not of the key",
    no_payload: "an object is expected",
    key_twice: "twice",
    expired: "has expired",
    one_of_two: "it is not of the key",
}


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.__name__)
def test_what_is_refused_and_why(tmp_path, case):
    async def work(fake, image, pull):
        requirements = await case(fake, image, Signer())
        with pytest.raises(Untrusted, match=REFUSED[case]):
            await pull(requirements)

    run(tmp_path, work)


def test_one_good_signature_among_others_is_enough(tmp_path):
    async def work(fake, image, pull):
        signer = Signer()
        sign(fake, "team/app", image.descriptor, Signer(), referrer=True)
        sign(fake, "team/app", image.descriptor, signer)
        assert (await pull(signed_by(Signer("ed25519"), signer))).id

    run(tmp_path, work)


def test_the_verdict_is_about_what_is_pulled(tmp_path):
    """A registry that shows a signed image first and moves the tag gets the signed one asked."""

    async def work(fake, image, pull):
        signer = Signer()
        sign(fake, "team/app", image.descriptor, signer)
        evil = fake.put_image("team/app", "evil", layers=[tar({"a": b"evil"})])

        async def moves(registry, request):
            fake.manifests["team/app", "latest"] = fake.manifests["team/app", "evil"]

        fake.faults[f"{image.descriptor.digest.replace(':', '-')}.sig"] = moves
        found = await pull(signed_by(signer))
        assert found.id == image.config.digest != evil.config.digest
        with pytest.raises(Untrusted, match="not signed"):
            await pull(signed_by(signer))

    run(tmp_path, work)


def test_an_index_or_the_manifest_in_it_may_be_signed(tmp_path):
    async def work(fake, image, pull):
        signer = Signer()
        platform = {"os": "linux", "architecture": "amd64"}
        index = fake.put_index([(image.descriptor, platform)], "team/multi")
        content = fake.manifests["team/app", str(image.descriptor.digest)]
        fake.manifests["team/multi", str(image.descriptor.digest)] = content
        reference = f"{fake.name}/team/multi"
        with pytest.raises(Untrusted):
            await pull(signed_by(signer), reference)
        sign(fake, "team/multi", image.descriptor, signer)
        assert (await pull(signed_by(signer), reference)).id
        other = Signer()
        sign(fake, "team/multi", index, other)
        assert (await pull(signed_by(other), reference)).id

    run(tmp_path, work)


def test_a_certificate_must_be_valid(tmp_path):
    async def work(fake, image, pull):
        authority = Authority(tmp_path / "ca")
        certificate, key = authority.issue("signer")
        from cryptography.hazmat.primitives import serialization

        signer = Signer()
        signer.key = serialization.load_pem_private_key(key.read_bytes(), None)
        sign(fake, "team/app", image.descriptor, signer)
        assert (await pull([{"type": "sigstoreSigned", "keyPath": str(certificate)}])).id

    run(tmp_path, work)


WRONG = {
    "no default": ({}, "policy.default: a list"),
    "empty": ({"default": []}, "at least one"),
    "unknown type": ({"default": [{"type": "signedBy", "keyPath": "x"}]}, "not supported"),
    "unknown member": ({"default": [{"type": "reject", "keyPath": "x"}]}, "not supported"),
    "unknown top": ({"default": NONE, "transport": {}}, "unknown"),
    "no key": ({"default": [{"type": "sigstoreSigned"}]}, "no key is given"),
    "key data": ({"default": [{"type": "sigstoreSigned", "keyData": "%"}]}, "not base64"),
    "identity": (
        {"default": [{"type": "sigstoreSigned", "keyPath": "x", "signedIdentity": {"type": "x"}}]},
        "unknown type",
    ),
    "fulcio": ({"default": [{"type": "sigstoreSigned", "fulcio": {}}]}, "not supported"),
    "time": ({"default": [{"type": "sigstoreSigned", "keyPath": "x", "notAfter": "soon"}]}, "time"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_policy_that_is_not_understood_lets_nothing_come(tmp_path, case):
    document, match = WRONG[case]
    with pytest.raises(InvalidArgument, match=match):
        Policy.parse(json.dumps(document).encode())

    async def main():
        path = tmp_path / "policy.json"
        path.write_text(json.dumps(document))
        async with FakeRegistry() as fake, store(tmp_path / "s", trust=Trust(str(path))) as one:
            with pytest.raises(InvalidArgument, match="trust policy"):
                await one.service.pull(fake.put_image("a").reference)
            assert await one.service.list() == []

    asyncio.run(main())


def test_keys_that_are_no_good_are_errors(tmp_path):
    async def work(fake, image, pull):
        sign(fake, "team/app", image.descriptor, Signer())
        with pytest.raises(InvalidArgument, match="too short"):
            await pull(signed_by(Signer("rsa-short")))
        with pytest.raises(InvalidArgument, match=r"(?i)no such file"):
            await pull([{"type": "sigstoreSigned", "keyPath": str(tmp_path / "none")}])
        (tmp_path / "bad").write_text("no key")
        with pytest.raises(InvalidArgument, match="not a public key"):
            await pull([{"type": "sigstoreSigned", "keyPath": str(tmp_path / "bad")}])

    run(tmp_path, work)


def test_the_most_specific_scope_counts():
    scopes = {
        "": NONE,
        "docker.io": ALL,
        "docker.io/library/busybox": NONE,
        "docker.io/library/busybox:1": ALL,
        "*.example.com": ALL,
        "r.example.com/team": NONE,
    }
    policy = Policy.parse(json.dumps({"default": NONE, "transports": {"docker": scopes}}).encode())
    found = {
        name: policy.of_image(Reference.parse(name))[0]
        for name in (
            "alpine:3",
            "busybox:2",
            "busybox:1",
            "r.example.com/team/app:1",
            "r.example.com:5000/other",
            "else.where/x",
        )
    }
    assert found == {
        "alpine:3": "docker.io",
        "busybox:2": "docker.io/library/busybox",
        "busybox:1": "docker.io/library/busybox:1",
        "r.example.com/team/app:1": "r.example.com/team",
        "r.example.com:5000/other": "*.example.com",
        "else.where/x": "",
    }


@pytest.mark.parametrize(
    ("identity", "signed", "image", "fits"),
    [
        (Identity(), "r.io/a", "r.io/a:1", True),
        (Identity(), "r.io/a:2", "r.io/a:1", True),
        (Identity(), "r.io/b", "r.io/a:1", False),
        (Identity(), "not a name", "r.io/a:1", False),
        (Identity(Match.EXACT), "r.io/a:1", "r.io/a:1", True),
        (Identity(Match.EXACT), "r.io/a", "r.io/a:1", False),
        (Identity(Match.DIGEST_OR_EXACT), "r.io/a", "r.io/a@sha256:" + "0" * 64, True),
        (Identity(Match.DIGEST_OR_EXACT), "r.io/a:2", "r.io/a:1", False),
        (Identity(Match.THIS, "r.io/a:9"), "r.io/a:9", "r.io/a:1", True),
        (Identity(Match.THIS_REPOSITORY, "r.io/c"), "r.io/c:1", "r.io/a:1", True),
        (
            Identity(Match.REMAP, prefix="m.io/x", signed_prefix="r.io"),
            "r.io/a", "m.io/x/a:1", True,
        ),
        (
            Identity(Match.REMAP, prefix="m.io/x", signed_prefix="r.io"),
            "r.io/a", "m.io/xx/a:1", False,
        ),
    ],
)  # fmt: skip
def test_names_in_signatures(identity, signed, image, fits):
    assert identity.fits(signed, Reference.parse(image)) is fits


def test_archives_follow_the_default(tmp_path):
    async def main():
        path = tmp_path / "policy.json"
        path.write_text(json.dumps({"default": ALL}))
        async with FakeRegistry() as fake, store(tmp_path / "s", trust=Trust(str(path))) as one:
            await one.service.pull(fake.put_image("a").reference)
            pieces = [piece async for piece in await one.service.save([f"{fake.name}/a"])]

            async def source():
                for piece in pieces:
                    yield piece

            path.write_text(json.dumps({"default": NONE}))
            with pytest.raises(Untrusted, match="oci-archive"):
                await one.service.load(source())
            scopes = {"oci-archive": {"": ALL}}
            path.write_text(json.dumps({"default": NONE, "transports": scopes}))
            assert await one.service.load(source())

    asyncio.run(main())


def test_verify_with_keys_needs_no_policy(tmp_path):
    async def main():
        async with FakeRegistry() as fake, store(tmp_path / "s") as one:
            image, signer = fake.put_image("a"), Signer()
            sign(fake, "a", image.descriptor, signer)
            verdict = await one.service.verify(image.reference, keys=[signer.pem])
            assert verdict.digest == image.descriptor.digest
            assert [name for _, name in verdict.signers] == [f"{fake.name}/a"]
            with pytest.raises(Untrusted):
                await one.service.verify(image.reference, keys=[Signer().pem])
            assert (await one.service.verify(image.reference)).signers == ()

    asyncio.run(main())
