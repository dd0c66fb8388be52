"""A registry in this process, on loopback, that behaves as a test wants: well, or hostile.

`FakeRegistry` serves blobs and manifests from memory, takes pushes, asks for a login when told to,
and records every request with its headers. A *fault* is a handler that answers in place of the real
one for one digest or tag; the makers of faults are in `faults`. It runs on the test's event loop.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
from dataclasses import dataclass, field
from typing import Self

from aiohttp import web

from sampan.spec import mediatypes
from sampan.spec.digest import Digest
from sampan.spec.image import Descriptor

USER, PASSWORD, TOKEN = "alice", "open sesame", "token-of-alice"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass
class Request:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Pushed:
    """An image in the registry."""

    reference: str
    descriptor: Descriptor
    config: Descriptor
    layers: list[Descriptor] = field(default_factory=list)


class FakeRegistry:
    """`async with FakeRegistry() as registry:`; `registry.name` is its host and port."""

    def __init__(self, *, auth: str = "", host: str = "127.0.0.1", realm: str = "") -> None:
        self.auth = auth  # "", "basic" or "bearer"
        self.realm = realm
        self.host = host
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.requests: list[Request] = []
        self.faults: dict[str, object] = {}
        self.token_requests: list[Request] = []
        self.with_head = True
        self.with_mounts = False
        self.with_referrers = True
        self.uploads: dict[str, bytes] = {}

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/token", self._token)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_) -> None:
        await self._runner.cleanup()

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.name}"

    # content

    def put_blob(self, content: bytes, media_type: str = mediatypes.OCI_LAYER_GZIP) -> Descriptor:
        digest = Digest.of(content)
        self.blobs[digest] = content
        return Descriptor(media_type, digest, len(content))

    def put_manifest(
        self, repository: str, tag: str, content: bytes, media_type: str
    ) -> Descriptor:
        digest = Digest.of(content)
        for target in (tag, digest):
            self.manifests[repository, target] = media_type, content
        return Descriptor(media_type, digest, len(content))

    def put_image(
        self,
        repository: str = "test/image",
        tag: str = "latest",
        *,
        layers: list[bytes] | None = None,
        docker: bool = False,
        diff_ids: list[str] | None = None,
        platform: tuple[str, str] = ("linux", "amd64"),
        created: str = "2024-01-01T00:00:00Z",
    ) -> Pushed:
        """Store an image of uncompressed tars; they are sent as gzip."""
        tars = [tar({"etc/hello": b"hello\n"})] if layers is None else layers
        kind = mediatypes.DOCKER_LAYER_GZIP if docker else mediatypes.OCI_LAYER_GZIP
        pushed = [self.put_blob(gzip.compress(layer, mtime=0), kind) for layer in tars]
        config = self.put_blob(
            json.dumps(
                {
                    "os": platform[0],
                    "architecture": platform[1],
                    "created": created,
                    "config": {"Cmd": ["sh"], "Env": ["A=b"], "Labels": {"kind": "test"}},
                    "rootfs": {
                        "type": "layers",
                        "diff_ids": diff_ids or [Digest.of(layer) for layer in tars],
                    },
                    "history": [{"created_by": f"layer {n}"} for n in range(len(tars))]
                    + [{"created_by": "CMD sh", "empty_layer": True}],
                }
            ).encode(),
            mediatypes.DOCKER_CONFIG if docker else mediatypes.OCI_CONFIG,
        )
        media_type = mediatypes.DOCKER_MANIFEST if docker else mediatypes.OCI_MANIFEST
        content = manifest(media_type, config, pushed)
        target = self.put_manifest(repository, tag, content, media_type)
        return Pushed(f"{self.name}/{repository}:{tag}", target, config, pushed)

    def put_index(
        self,
        entries: list[tuple[Descriptor, dict[str, str] | None]],
        repository: str = "test/image",
        tag: str = "latest",
        *,
        docker: bool = False,
    ) -> Descriptor:
        media_type = mediatypes.DOCKER_INDEX if docker else mediatypes.OCI_INDEX
        return self.put_manifest(repository, tag, index(media_type, entries), media_type)

    def authorizations(self) -> list[str]:
        """Every Authorization header that arrived here."""
        return [r.headers["Authorization"] for r in self.requests if "Authorization" in r.headers]

    def paths(self, method: str = "GET") -> list[str]:
        return [r.path for r in self.requests if r.method == method]

    # serving

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(Request(request.method, request.path, dict(request.headers)))
        if (refusal := self._login(request)) is not None:
            return refusal
        parts = request.path.strip("/").split("/")
        if parts[-1] in ("search", "_catalog") and parts[-1] in self.faults:
            return await self.faults[parts[-1]](self, request)
        if parts[0] != "v2" or len(parts) < 4:
            return web.Response(status=404)
        if "uploads" in parts:
            return await self._upload(request)
        fault = self.faults.get(parts[-1])
        if fault is not None:
            answer = await fault(self, request)
            if answer is not None:
                return answer
        if parts[-2:] == ["tags", "list"]:
            return self._tags(request, "/".join(parts[1:-2]))
        if parts[-2] == "referrers":
            return self._referrers("/".join(parts[1:-2]), parts[-1])
        if parts[-2] == "manifests":
            return await self._manifest(request, "/".join(parts[1:-2]), parts[-1])
        return self._blob(request, parts[-1])

    def _login(self, request: web.Request) -> web.Response | None:
        sent = request.headers.get("Authorization")
        if self.auth == "basic" and sent != BASIC:
            challenge = 'Basic realm="the registry"'
        elif self.auth == "bearer" and sent != f"Bearer {TOKEN}":
            realm = self.realm or f"{self.url}/token"
            challenge = f'Bearer realm="{realm}",service="fake, the registry",scope="x"'
        else:
            return None
        return error(401, "UNAUTHORIZED", headers={"WWW-Authenticate": challenge})

    async def _token(self, request: web.Request) -> web.Response:
        seen = Request(request.method, str(request.rel_url), dict(request.headers))
        self.requests.append(seen)
        self.token_requests.append(seen)
        if "token" in self.faults:
            return await self.faults["token"](self, request)
        if self.auth == "bearer" and request.headers.get("Authorization") != BASIC:
            return error(401, "UNAUTHORIZED")
        return web.json_response({"token": TOKEN, "expires_in": 300})

    async def _manifest(self, request: web.Request, repository: str, target: str) -> web.Response:
        if request.method == "PUT":
            content = await request.read()
            digest = self.put_manifest(repository, target, content, request.content_type).digest
            return web.Response(status=201, headers={"Docker-Content-Digest": digest})
        if request.method == "HEAD" and not self.with_head:
            return web.Response(status=405)
        if (repository, target) not in self.manifests:
            return error(404, "MANIFEST_UNKNOWN")
        media_type, content = self.manifests[repository, target]
        headers = {"Docker-Content-Digest": Digest.of(content), "Content-Type": media_type}
        return web.Response(body=content, headers=headers)

    def _tags(self, request: web.Request, repository: str) -> web.Response:
        """Two to a page."""
        every = [tag for name, tag in self.manifests if name == repository and ":" not in tag]
        last = request.query.get("last", "")
        page = sorted(tag for tag in every if tag > last)[:2]
        headers = {}
        if page and page[-1] != max(every):
            headers["Link"] = f'<{request.path}?last={page[-1]}&n=2>; rel="next"'
        return web.json_response({"name": repository, "tags": page}, headers=headers)

    def _referrers(self, repository: str, subject: str) -> web.Response:
        if not self.with_referrers:
            return error(404, "NOT_FOUND")
        found = []
        for (name, digest), (media_type, content) in self.manifests.items():
            document = json.loads(content)
            if (
                name == repository
                and ":" in digest
                and subject == document.get("subject", {}).get("digest")
            ):
                kind = document.get("artifactType") or document["config"]["mediaType"]
                entry = Descriptor(media_type, Digest(digest), len(content))
                found.append({**describe(entry), "artifactType": kind})
        document = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": found}
        return web.json_response(document, content_type=mediatypes.OCI_INDEX)

    def _blob(self, request: web.Request, digest: str) -> web.Response:
        if digest not in self.blobs:
            return error(404, "BLOB_UNKNOWN")
        content, wanted = self.blobs[digest], request.headers.get("Range", "")
        if not wanted:
            return web.Response(body=content, content_type="application/octet-stream")
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return web.Response(status=206, body=content[start:], headers={"Content-Range": span})

    async def _upload(self, request: web.Request) -> web.Response:
        """What came of an upload is in `uploads`, by the last part of its path."""
        place = request.path.rpartition("/")[2]
        if request.method == "POST":
            mounted = request.query.get("mount")
            if mounted and "mount" in self.faults:
                return await self.faults["mount"](self, request)
            if self.with_mounts and mounted in self.blobs:
                return web.Response(status=201)
            place = str(len(self.uploads) + 1)
            self.uploads[place] = b""
            location = f"{request.path.rstrip('/')}/{place}?state=a%2Fb"
            location = self.faults.get("place", location)
            return web.Response(status=202, headers={"Location": location})
        headers = {"Location": f"{request.path}?state=a%2Fb"}
        if request.method == "GET":
            last = max(0, len(self.uploads[place]) - 1)
            return web.Response(status=204, headers={**headers, "Range": f"0-{last}"})
        if (fault := self.faults.get("upload")) is not None:
            answer = await fault(self, request)
            if answer is not None:
                return answer
        self.uploads[place] = self.uploads.get(place, b"") + await request.read()
        if request.method == "PATCH":
            return web.Response(status=202, headers=headers)
        content, digest = self.uploads[place], request.query["digest"]
        if Digest.of(content) != digest or request.query["state"] != "a/b":
            return error(400, "DIGEST_INVALID")
        self.blobs[digest] = content
        return web.Response(status=201)


def error(status: int, code: str, headers: dict[str, str] | None = None) -> web.Response:
    words = code.replace("_", " ").lower()
    return web.json_response(
        {"errors": [{"code": code, "message": words}]}, status=status, headers=headers
    )


def tar(files: dict[str, bytes]) -> bytes:
    """A tar of regular files, and of the directories that they are in."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        made = set()
        for name, content in files.items():
            for end in [i for i, char in enumerate(name) if char == "/"]:
                if name[:end] not in made:
                    made.add(name[:end])
                    directory = tarfile.TarInfo(name[:end])
                    directory.type, directory.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(directory)
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def describe(descriptor: Descriptor) -> dict[str, object]:
    return {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }


def manifest(media_type: str, config: Descriptor, layers: list[Descriptor], **more) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": describe(config),
            "layers": [describe(layer) for layer in layers],
            **more,
        }
    ).encode()


def index(media_type: str, entries: list[tuple[Descriptor, dict[str, str] | None]]) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "manifests": [
                {**describe(descriptor), **({} if platform is None else {"platform": platform})}
                for descriptor, platform in entries
            ],
        }
    ).encode()
