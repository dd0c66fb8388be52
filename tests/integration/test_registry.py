"""Push to and pull from a real registry: Debian's docker-registry, with and without a login."""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import subprocess

import pytest

from imagelab import store
from realregistry import PASSWORD, USER, available, real_registry
from registry_fixture import tar
from sampan.errors import ImageNotFound, PermissionDenied, Unauthenticated
from sampan.registry.credentials import Credentials

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked as root"),
    pytest.mark.skipif(not available, reason="docker-registry is not installed"),
]

ALICE = Credentials(USER, PASSWORD)
ROOT = tar({"bin/tool": os.urandom(2_000_000), "etc/hello": b"hello\n"})


async def pieces(content, size=100_000):
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def imported(one, name):
    return await one.service.import_tar(pieces(gzip.compress(ROOT)), name, changes=['CMD ["x"]'])


@pytest.mark.parametrize("login", [False, True])
def test_an_image_goes_to_a_registry_and_comes_back(tmp_path, login):
    auth = ALICE if login else None

    async def work(name):
        reference = f"{name}/tools/one:1"
        async with store(tmp_path / "a") as here, store(tmp_path / "b") as there:
            image = await imported(here, reference)
            digest = await here.service.push(reference, auth=auth)
            found = await there.pull(reference, auth=auth)
            assert found.id == image.id
            assert found.digests == (f"{name}/tools/one@{digest}",)
            assert there.files(found) == here.files(image)
            by_digest = await there.pull(f"{name}/tools/one@{digest}", auth=auth)
            assert by_digest.id == image.id
            assert there.statuses()[-1].startswith("Status: ")
            steps = []
            await here.service.push(reference, auth=auth, progress=steps.append)
            assert "Layer already exists" in [step.status for step in steps]

    directories(tmp_path)
    with real_registry(tmp_path / "r", login=login) as name:
        asyncio.run(work(name))


def test_a_real_registry_refuses_who_may_not(tmp_path):
    async def work(name):
        reference = f"{name}/tools/one:1"
        async with store(tmp_path / "a") as here, store(tmp_path / "b") as there:
            await imported(here, reference)
            for auth in (None, Credentials(USER, "wrong")):
                with pytest.raises((PermissionDenied, Unauthenticated)):
                    await here.service.push(reference, auth=auth)
                with pytest.raises(Unauthenticated):
                    await there.pull(reference, auth=auth)
            assert await there.service.list() == []
            assert there.leftovers() == []

    directories(tmp_path)
    with real_registry(tmp_path / "r", login=True) as name:
        asyncio.run(work(name))


def test_what_a_real_registry_does_not_have_is_not_found(tmp_path):
    async def work(name):
        async with store(tmp_path / "a") as one:
            for reference in (f"{name}/no/such", f"{name}/no/such@sha256:{'0' * 64}"):
                with pytest.raises(ImageNotFound, match="not found"):
                    await one.pull(reference)

    directories(tmp_path)
    with real_registry(tmp_path / "r") as name:
        asyncio.run(work(name))


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_another_client_reads_what_we_push_and_we_read_what_it_pushes(tmp_path, form):
    async def work(name):
        async with store(tmp_path / "a") as here, store(tmp_path / "b") as there:
            image = await imported(here, f"{name}/tools/one:1")
            await here.service.push(f"{name}/tools/one:1")
            await asyncio.to_thread(
                subprocess.run,
                [
                    "skopeo",
                    "copy",
                    "--quiet",
                    f"--format={form}",
                    "--src-tls-verify=false",
                    "--dest-tls-verify=false",
                    f"docker://{name}/tools/one:1",
                    f"docker://{name}/tools/two:{form}",
                ],
                check=True,
                timeout=60,
            )
            found = await there.pull(f"{name}/tools/two:{form}")
            assert found.config.rootfs_diff_ids == image.config.rootfs_diff_ids
            assert there.files(found) == here.files(image)

    directories(tmp_path)
    with real_registry(tmp_path / "r") as name:
        asyncio.run(work(name))


def directories(tmp_path):
    for name in "abr":
        (tmp_path / name).mkdir()
