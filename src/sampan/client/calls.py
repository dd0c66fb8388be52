"""Every operation of the daemon that a client uses, described once, as data.

A `Call` says method, target and body; nothing here sends anything. The blocking client, the
asynchronous client and the command line perform the same calls. `ref` is a container's name, id or
prefix of it, `image` a reference, and both are percent-encoded here, so no string given from
outside can become another path.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument
from sampan.jsontext import encode
from sampan.version import DOCKER_API_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

PREFIX = "/v" + DOCKER_API_VERSION
_UNRESERVED = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")


class Call:
    """One request. `subject` is what a 404 is about: container, image, exec or nothing special."""

    __slots__ = ("body", "headers", "method", "subject", "target", "upload")

    def __init__(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: Any = None,
        *,
        subject: str = "",
        upload: Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.method = method
        self.target = PREFIX + path + _query(query)
        self.subject = subject
        self.upload = upload
        self.headers = dict(headers or ())
        self.body: bytes | None = None
        if body is not None:
            self.body = encode(body).encode("utf-8", "replace")
            self.headers["Content-Type"] = "application/json"

    def upgraded(self) -> Call:
        """The same, asking for the raw connection."""
        self.headers["Connection"] = "Upgrade"
        self.headers["Upgrade"] = "tcp"
        return self


def quote(text: str, safe: bytes = b"") -> str:
    """`text` percent-encoded for a path or a query."""
    keep = _UNRESERVED | frozenset(safe)
    raw = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in keep else f"%{byte:02X}" for byte in raw)


def _query(query: dict[str, Any] | None) -> str:
    parts = []
    for name, value in (query or {}).items():
        if value is None or value is False or value == "":
            continue
        text = "1" if value is True else value if isinstance(value, str) else str(value)
        parts.append(f"{name}={quote(text)}")
    return "?" + "&".join(parts) if parts else ""


def _container(ref: str, verb: str = "") -> str:
    if not ref.strip("./") or ref != ref.strip():
        raise InvalidArgument(f"invalid container name or ID: {ref or 'value is empty'}")
    return f"/containers/{quote(ref)}{verb}"


def container_call(
    method: str,
    ref: str,
    verb: str,
    query: dict[str, Any] | None = None,
    *,
    upload: Iterable[bytes] | None = None,
) -> Call:
    """A call about the container `ref`. Raises InvalidArgument for what cannot be one."""
    return Call(method, _container(ref, verb), query, subject="container", upload=upload)


def _image(image: str, verb: str = "") -> str:
    if not image.strip("./") or ".." in image.split("/"):
        raise InvalidArgument(f"invalid reference format: {image!r}")
    return f"/images/{quote(image, b'/:@')}{verb}"


def filters_text(filters: dict[str, list[str]] | None) -> str | None:
    """Filters as the API takes them: {"name": {"value": true}}."""
    if not filters:
        return None
    return encode({name: dict.fromkeys(values, True) for name, values in filters.items()})


def split_tag(image: str) -> tuple[str, str]:
    """An image's name and its tag or digest; `latest` when it has neither."""
    name, at, digest = image.partition("@")
    if at:
        return name, digest
    head, colon, tag = image.rpartition(":")
    if colon and "/" not in tag:
        return head, tag
    return image, "latest"


# The system


def ping() -> Call:
    return Call("GET", "/_ping")


def version() -> Call:
    return Call("GET", "/version")


def info() -> Call:
    return Call("GET", "/info")


def disk_usage() -> Call:
    return Call("GET", "/system/df")


def login(user: str, password: str, server: str) -> Call:
    return Call(
        "POST", "/auth", body={"username": user, "password": password, "serveraddress": server}
    )


def events(
    since: str = "", until: str = "", filters: dict[str, list[str]] | None = None
) -> Call:  # fmt: skip
    """The stream of events; `since` and `until` are seconds with nanoseconds as text."""
    query = {"since": since, "until": until, "filters": filters_text(filters)}
    return Call("GET", "/events", query)


# Containers


def create(body: dict[str, Any], name: str = "", platform: str = "") -> Call:
    query = {"name": name, "platform": platform}
    return Call("POST", "/containers/create", query, body, subject="create")


def start(ref: str, detach_keys: str = "") -> Call:
    return Call(
        "POST", _container(ref, "/start"), {"detachKeys": detach_keys}, subject="start"
    )  # fmt: skip


def wait(ref: str, condition: str = "") -> Call:
    return Call("POST", _container(ref, "/wait"), {"condition": condition}, subject="container")


def attach(
    ref: str,
    *,
    stdin: bool = False,
    stdout: bool = True,
    stderr: bool = True,
    logs: bool = False,
    detach_keys: str = "",
) -> Call:
    query = {
        "detachKeys": detach_keys,
        "logs": logs,
        "stderr": stderr,
        "stdin": stdin,
        "stdout": stdout,
        "stream": True,
    }
    return Call("POST", _container(ref, "/attach"), query, subject="container").upgraded()


def inspect(ref: str, *, size: bool = False) -> Call:
    return Call("GET", _container(ref, "/json"), {"size": size}, subject="container")


def containers(
    *,
    everything: bool = False,
    limit: int | None = None,
    size: bool = False,
    filters: dict[str, list[str]] | None = None,
) -> Call:
    query = {"all": everything, "limit": limit, "size": size, "filters": filters_text(filters)}
    return Call("GET", "/containers/json", query)


def stop(ref: str, timeout: int | None = None, signal: str = "") -> Call:
    query = {"signal": signal, "t": timeout}
    return Call("POST", _container(ref, "/stop"), query, subject="container")


def restart(ref: str, timeout: int | None = None, signal: str = "") -> Call:
    query = {"signal": signal, "t": timeout}
    return Call("POST", _container(ref, "/restart"), query, subject="container")


def kill(ref: str, signal: str = "") -> Call:
    return Call("POST", _container(ref, "/kill"), {"signal": signal}, subject="container")


def pause(ref: str) -> Call:
    return Call("POST", _container(ref, "/pause"), subject="container")


def unpause(ref: str) -> Call:
    return Call("POST", _container(ref, "/unpause"), subject="container")


def rename(ref: str, name: str) -> Call:
    return Call("POST", _container(ref, "/rename"), {"name": name}, subject="container")


def resize(ref: str, height: int, width: int) -> Call:
    return Call("POST", _container(ref, "/resize"), {"h": height, "w": width}, subject="container")


def remove(ref: str, *, force: bool = False, volumes: bool = False) -> Call:
    query = {"force": force, "v": volumes}
    return Call("DELETE", _container(ref), query, subject="container")


def top(ref: str, arguments: str = "") -> Call:
    return Call("GET", _container(ref, "/top"), {"ps_args": arguments}, subject="container")


def stats(ref: str, *, stream: bool = False, one_shot: bool = False) -> Call:
    query = {"stream": "1" if stream else "0", "one-shot": one_shot}
    return Call("GET", _container(ref, "/stats"), query, subject="container")


def logs(
    ref: str,
    *,
    stdout: bool = True,
    stderr: bool = True,
    follow: bool = False,
    since: str = "",
    until: str = "",
    tail: str = "",
    timestamps: bool = False,
    details: bool = False,
) -> Call:
    query = {
        "details": details,
        "follow": follow,
        "since": since,
        "stderr": stderr,
        "stdout": stdout,
        "tail": tail,
        "timestamps": timestamps,
        "until": until,
    }
    return Call("GET", _container(ref, "/logs"), query, subject="container")


def update(ref: str, body: dict[str, Any]) -> Call:
    return Call("POST", _container(ref, "/update"), body=body, subject="container")


def prune_containers(filters: dict[str, list[str]] | None = None) -> Call:
    return Call("POST", "/containers/prune", {"filters": filters_text(filters)})


# Processes in containers


def exec_create(ref: str, body: dict[str, Any]) -> Call:
    return Call("POST", _container(ref, "/exec"), body=body, subject="container")


def exec_start(exec_id: str, *, tty: bool = False, size: list[int] | None = None) -> Call:
    body: dict[str, Any] = {"Detach": False, "Tty": tty}
    if size:
        body["ConsoleSize"] = size
    return Call("POST", f"/exec/{quote(exec_id)}/start", body=body, subject="exec").upgraded()


def exec_start_detached(exec_id: str, *, tty: bool = False) -> Call:
    body = {"Detach": True, "Tty": tty}
    return Call("POST", f"/exec/{quote(exec_id)}/start", body=body, subject="exec")


def exec_inspect(exec_id: str) -> Call:
    return Call("GET", f"/exec/{quote(exec_id)}/json", subject="exec-inspect")


def exec_resize(exec_id: str, height: int, width: int) -> Call:
    query = {"h": height, "w": width}
    return Call("POST", f"/exec/{quote(exec_id)}/resize", query, subject="exec-inspect")


# Volumes


def volume_create(body: dict[str, Any]) -> Call:
    return Call("POST", "/volumes/create", body=body)


def volumes(filters: dict[str, list[str]] | None = None) -> Call:
    return Call("GET", "/volumes", {"filters": filters_text(filters)})


def _volume(name: str) -> str:
    if not name.strip("./"):
        raise InvalidArgument(f"invalid volume name: {name or 'value is empty'}")
    return f"/volumes/{quote(name)}"


def volume_inspect(name: str) -> Call:
    return Call("GET", _volume(name))


def volume_remove(name: str, *, force: bool = False) -> Call:
    return Call("DELETE", _volume(name), {"force": force})


def volume_export(name: str) -> Call:
    """The files of a volume, as a tar."""
    return Call("GET", _volume(name) + "/export")


def volume_import(name: str, pieces: Iterable[bytes]) -> Call:
    """Put the files of a tar into a volume."""
    call = Call("POST", _volume(name) + "/import", upload=pieces)
    call.headers["Content-Type"] = "application/x-tar"
    return call


def prune_volumes(filters: dict[str, list[str]] | None = None) -> Call:
    return Call("POST", "/volumes/prune", {"filters": filters_text(filters)})


# Images


def images(
    *,
    everything: bool = False,
    digests: bool = False,
    filters: dict[str, list[str]] | None = None,
) -> Call:
    query = {"all": everything, "digests": digests, "filters": filters_text(filters)}
    return Call("GET", "/images/json", query)


def pull(
    image: str, platform: str = "", auth: str = "e30=", *, every_platform: bool = False
) -> Call:
    """`auth` is base64url JSON; e30= is the empty object."""
    name, tag = split_tag(image)
    query: dict[str, Any] = {"fromImage": name, "platform": platform, "tag": tag}
    if every_platform:
        query["allPlatforms"] = True
    return Call("POST", "/images/create", query, subject="image", headers={"X-Registry-Auth": auth})


def import_image(
    chunks: Iterable[bytes],
    image: str = "",
    *,
    message: str = "",
    changes: Iterable[str] = (),
    platform: str = "",
) -> Call:
    query = {"fromSrc": "-", "message": message, "platform": platform, "repo": image}
    call = Call("POST", "/images/create", query, subject="image", upload=chunks)
    for change in changes:
        call.target += "&changes=" + quote(change)
    call.headers["Content-Type"] = "text/plain"
    return call


def save(images: Iterable[str], *, platform: str = "", kind: str = "") -> Call:
    call = Call("GET", "/images/get", {"platform": platform, "format": kind}, subject="image")
    for image in images:
        call.target += ("&" if "?" in call.target else "?") + "names=" + quote(image)
    return call


def image_export(image: str, platform: str = "") -> Call:
    """The file system of an image, as a tar."""
    return Call("GET", _image(image, "/export"), {"platform": platform}, subject="image")


def load(chunks: Iterable[bytes], *, quiet: bool = False, platform: str = "") -> Call:
    query = {"quiet": quiet, "platform": platform}
    call = Call("POST", "/images/load", query, upload=chunks)
    call.headers["Content-Type"] = "application/x-tar"
    return call


def push(image: str, auth: str = "e30=", platform: str = "") -> Call:
    name, tag = split_tag(image)
    return Call(
        "POST", _image(name, "/push"), {"tag": tag, "platform": platform}, subject="image",
        headers={"X-Registry-Auth": auth},
    )  # fmt: skip


def check(*, repair: bool = False) -> Call:
    """Look for damage in the store."""
    return Call("POST", "/system/check", {"repair": repair})


def collect(unused_for: str = "", max_size: str = "", min_free: str = "") -> Call:
    """Remove images by a policy, and what nothing needs."""
    query = {"unusedFor": unused_for, "maxSize": max_size, "minFree": min_free}
    return Call("POST", "/system/collect", query)


def remote_manifest(image: str, auth: str = "e30=") -> Call:
    """The manifest or index that a registry has."""
    return _remote(image, "/manifest", {}, auth)


def search(
    term: str,
    limit: int | None = None,
    filters: dict[str, list[str]] | None = None,
    auth: str = "e30=",
) -> Call:
    """What a registry has by a word; the word may begin with the registry's name."""
    query = {"term": term, "limit": limit, "filters": filters_text(filters)}
    return Call("GET", "/images/search", query, headers={"X-Registry-Auth": auth})


def remote_tags(image: str, auth: str = "e30=") -> Call:
    return _remote(image, "/tags", {}, auth)


def remote_referrers(image: str, artifact_type: str = "", auth: str = "e30=") -> Call:
    return _remote(image, "/referrers", {"artifactType": artifact_type}, auth)


def _remote(image: str, verb: str, query: dict[str, Any], auth: str) -> Call:
    target = "/distribution/" + quote(image, b"/:@") + verb
    return Call("GET", target, query, subject="image", headers={"X-Registry-Auth": auth})


def verify(image: str, keys: Iterable[str] = (), platform: str = "", auth: str = "e30=") -> Call:
    """Whether the policy, or one of the keys (PEM), vouches for an image."""
    target = "/distribution/" + quote(image, b"/:@") + "/verify"
    headers = {"X-Registry-Auth": auth}
    query = {"platform": platform}
    return Call("POST", target, query, {"Keys": list(keys)}, subject="image", headers=headers)


def trust() -> Call:
    """The trust policy."""
    return Call("GET", "/system/trust")


def copy(source: str, destination: str, auth: str = "e30=", destination_auth: str = "e30=") -> Call:
    """From one registry to another."""
    headers = {"X-Registry-Auth": auth, "X-Registry-Auth-Destination": destination_auth}
    query = {"from": source, "to": destination}
    return Call("POST", "/distribution/copy", query, subject="image", headers=headers)


def image_inspect(image: str) -> Call:
    return Call("GET", _image(image, "/json"), subject="image")


def image_history(image: str) -> Call:
    return Call("GET", _image(image, "/history"), subject="image")


def image_remove(image: str, *, force: bool = False, prune: bool = True) -> Call:
    query = {"force": force, "noprune": not prune}
    return Call("DELETE", _image(image), query, subject="image")


def image_tag(image: str, target: str) -> Call:
    name, tag = split_tag(target)
    return Call("POST", _image(image, "/tag"), {"repo": name, "tag": tag}, subject="image")


def prune_images(filters: dict[str, list[str]] | None = None) -> Call:
    return Call("POST", "/images/prune", {"filters": filters_text(filters)})
