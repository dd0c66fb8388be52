"""Manifests and blobs from registries that behave well, badly, and hostile."""

from __future__ import annotations

import asyncio
import os

import pytest

from registry_fixture import FakeRegistry, faults
from sampan.errors import (
    DigestMismatch,
    FailedPrecondition,
    ImageNotFound,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from sampan.registry.client import Registry
from sampan.registry.retry import Retry
from sampan.spec import mediatypes
from sampan.spec.digest import Digest
from sampan.spec.image import MAX_MANIFEST, Descriptor
from sampan.spec.reference import Reference

FAST = Retry(attempts=3, blob_attempts=3, first=0.001, longest=0.01)
BLOB = os.urandom(300_000)


class MemoryWriter:
    """Takes a blob in memory."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)

    @property
    def offset(self) -> int:
        return len(self.content)

    async def write(self, data: bytes) -> None:
        self.content += data


def with_registry(work, **options):
    """Run `work(fake registry, repository)`."""

    async def run():
        async with FakeRegistry(**options) as fake:
            registry = Registry(retry=FAST)
            try:
                reference = Reference.parse(f"{fake.name}/test/image:latest")
                return await work(fake, registry.repository(reference))
            finally:
                await registry.aclose()

    return asyncio.run(run())


def fetch(fault=None, writer=None, size=None, urls=()):
    """Fetch BLOB from a registry with this fault; the writer, the requests and the progress."""
    writer = writer or MemoryWriter()
    seen = []

    async def work(fake, repository):
        descriptor = fake.put_blob(BLOB)
        if fault is not None:
            fake.faults[descriptor.digest] = fault
        descriptor = Descriptor(
            descriptor.media_type, descriptor.digest, len(BLOB) if size is None else size
        )
        await repository.blob(descriptor, writer, seen.append)
        return [r.headers.get("Range") for r in fake.requests]

    return with_registry(work), bytes(writer.content), seen


def test_a_blob_arrives_whole_and_tells_its_progress():
    ranges, content, seen = fetch()
    assert content == BLOB
    assert ranges == [None]
    assert seen == sorted(seen)
    assert seen[-1] == len(BLOB)


def test_a_registry_that_dies_half_way_is_asked_for_the_rest():
    ranges, content, _ = fetch(faults.once(faults.cut()))
    assert content == BLOB
    assert ranges == [None, f"bytes={len(BLOB) // 2}-"]


def test_a_writer_that_has_a_part_gets_only_the_rest():
    ranges, content, _ = fetch(writer=MemoryWriter(BLOB[:1000]))
    assert content == BLOB
    assert ranges == ["bytes=1000-"]


def test_nothing_is_asked_for_when_everything_is_there():
    ranges, content, _ = fetch(writer=MemoryWriter(BLOB))
    assert content == BLOB
    assert ranges == []


def test_a_server_without_ranges_starts_anew_and_the_known_part_is_skipped():
    ranges, content, _ = fetch(faults.without_ranges())
    assert content == BLOB
    assert len(ranges) == 2


@pytest.mark.parametrize(
    "span", ["bytes 0-{last}/{size}", "bytes 1-2/3", "nonsense", "bytes 150000-999999999/{size}"]
)
def test_another_range_than_asked_for_is_never_written(span):
    writer = MemoryWriter()
    with pytest.raises(Unavailable, match="asked for the bytes from 150000"):
        fetch(faults.wrong_range(span), writer)
    assert bytes(writer.content) == BLOB[:150_000]


def test_a_blob_that_always_breaks_off_ends_with_an_error_and_keeps_what_came():
    writer = MemoryWriter()
    with pytest.raises(Unavailable, match="ended the answer early"):
        fetch(faults.cut(0.1), writer)
    assert BLOB.startswith(bytes(writer.content))
    assert len(writer.content) >= len(BLOB) // 10


@pytest.mark.parametrize("fault", [faults.endless(), faults.replaced(BLOB + b"x")])
def test_more_bytes_than_announced_are_refused_at_the_first(fault):
    writer = MemoryWriter()
    with pytest.raises(FailedPrecondition, match="its descriptor says"):
        fetch(fault, writer)
    assert len(writer.content) <= len(BLOB)


def test_a_shorter_blob_is_refused_before_anything_is_written():
    writer = MemoryWriter()
    with pytest.raises(FailedPrecondition, match="the server has 10 bytes"):
        fetch(faults.replaced(b"0123456789"), writer)
    assert not writer.content


def test_an_overloaded_registry_is_asked_again():
    ranges, content, _ = fetch(faults.once(faults.status(503, {"Retry-After": "0"})))
    assert content == BLOB
    assert len(ranges) == 2


def test_a_missing_blob_is_not_found_at_once():
    async def work(fake, repository):
        missing = Descriptor(mediatypes.OCI_LAYER, Digest.of(b"other"), 5)
        with pytest.raises(NotFound, match="blob unknown"):
            await repository.blob(missing, MemoryWriter(), lambda _: None)
        assert len(fake.requests) == 1

    with_registry(work)


def test_a_registry_that_is_not_there_is_unavailable_and_says_where():
    async def run():
        registry = Registry(retry=FAST)
        try:
            with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1: connection refused"):
                await registry.repository(Reference.parse("127.0.0.1:1/x:y")).resolve()
        finally:
            await registry.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("with_head", [True, False])
@pytest.mark.parametrize("docker", [True, False])
def test_a_tag_is_resolved_and_its_manifest_read(with_head, docker):
    async def work(fake, repository):
        fake.with_head = with_head
        image = fake.put_image(docker=docker)
        resolved = await repository.resolve()
        assert resolved.descriptor == image.descriptor
        assert (
            await repository.manifest(resolved.descriptor)
            == fake.manifests["test/image", "latest"][1]
        )

    with_registry(work)


def test_an_unknown_tag_is_told_in_dockerds_words():
    async def work(fake, repository):
        with pytest.raises(ImageNotFound) as caught:
            await repository.resolve()
        assert str(caught.value) == (
            f"manifest for {fake.name}/test/image:latest not found: "
            "manifest unknown: manifest unknown"
        )

    with_registry(work)


def test_a_repository_that_is_not_shown_is_told_in_dockerds_words():
    async def work(fake, repository):
        body = b'{"errors":[{"code":"DENIED","message":"requested access is denied"}]}'
        fake.faults["latest"] = faults.status(403, body=body)
        with pytest.raises(ImageNotFound, match=r"pull access denied for .*'docker login': denied"):
            await repository.resolve()

    with_registry(work)


def test_a_manifest_that_is_not_what_its_digest_says_is_refused():
    async def work(fake, repository):
        image = fake.put_image()
        changed = fake.manifests["test/image", "latest"][1].replace(b"layers", b"LAYERS")
        fake.faults[image.descriptor.digest] = faults.replaced(changed)
        with pytest.raises(DigestMismatch):
            await repository.manifest(image.descriptor)

    with_registry(work)


def test_a_manifest_under_another_type_than_announced_is_refused():
    async def work(fake, repository):
        image = fake.put_image()
        _, content = fake.manifests["test/image", "latest"]
        fake.put_manifest("test/image", "latest", content, mediatypes.DOCKER_MANIFEST)
        with pytest.raises(InvalidArgument, match="announced as"):
            await repository.manifest(image.descriptor)

    with_registry(work)


def test_a_huge_manifest_is_refused_before_it_is_read():
    async def work(fake, repository):
        huge = Descriptor(mediatypes.OCI_MANIFEST, Digest.of(b""), MAX_MANIFEST + 1)
        with pytest.raises(InvalidArgument, match="more than the limit"):
            await repository.manifest(huge)
        assert fake.requests == []

    with_registry(work)


def test_an_endless_manifest_is_read_up_to_the_limit():
    async def work(fake, repository):
        fake.with_head = False
        fake.faults["latest"] = faults.endless()
        with pytest.raises(FailedPrecondition, match="more than the limit"):
            await repository.resolve()

    with_registry(work)


@pytest.mark.parametrize(
    "named",
    ["../../../etc/passwd", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "md5:" + "a" * 32],
)
def test_a_digest_in_a_header_that_is_none_is_refused(named):
    async def work(fake, repository):
        headers = {
            "Docker-Content-Digest": named,
            "Content-Type": mediatypes.OCI_MANIFEST,
            "Content-Length": "5",
        }
        fake.faults["latest"] = faults.status(200, headers, b"12345")
        with pytest.raises(InvalidArgument, match="invalid digest"):
            await repository.resolve()

    with_registry(work)


def test_a_reference_with_a_digest_never_resolves_to_another():
    async def run(with_head):
        async with FakeRegistry() as fake:
            image = fake.put_image()
            fake.with_head = with_head
            wanted = Digest.of(b"what the user wants")
            fake.manifests["test/image", wanted] = fake.manifests[
                "test/image", image.descriptor.digest
            ]
            registry = Registry(retry=FAST)
            try:
                reference = Reference.parse(f"{fake.name}/test/image@{wanted}")
                with pytest.raises(DigestMismatch):
                    await registry.repository(reference).resolve()
            finally:
                await registry.aclose()

    asyncio.run(run(True))
    asyncio.run(run(False))
