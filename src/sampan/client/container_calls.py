"""The daemon's calls about a container's files and what it changed; see `client.calls`."""

from __future__ import annotations

from sampan.client.calls import Call, container_call, quote, split_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def archive(ref: str, path: str) -> Call:
    """The file or directory `path`, as a tar."""
    return container_call("GET", ref, "/archive", {"path": path})


def archive_stat(ref: str, path: str) -> Call:
    """What `path` is: in a header of the answer."""
    return container_call("HEAD", ref, "/archive", {"path": path})


def put_archive(ref: str, path: str, pieces: Iterable[bytes], *, as_user: bool = False) -> Call:
    """Unpack a tar in the directory `path`; everything is the container's user's if `as_user`."""
    query = {"path": path, "noOverwriteDirNonDir": True, "copyUIDGID": as_user}
    call = container_call("PUT", ref, "/archive", query, upload=pieces)
    call.headers["Content-Type"] = "application/x-tar"
    return call


def export(ref: str) -> Call:
    """The container's own file system, as a tar."""
    return container_call("GET", ref, "/export")


def changes(ref: str) -> Call:
    """What the container changed in its file system."""
    return container_call("GET", ref, "/changes")


def commit(
    ref: str,
    image: str = "",
    *,
    author: str = "",
    message: str = "",
    changes: Iterable[str] = (),
    pause: bool = True,
) -> Call:
    """Make an image of the container, with a name or without."""
    name, tag = split_tag(image) if image else ("", "")
    query = {
        "author": author,
        "comment": message,
        "container": ref,
        "pause": "1" if pause else "0",
        "repo": name,
        "tag": tag,
    }
    call = Call("POST", "/commit", query, subject="container")
    for change in changes:
        call.target += "&changes=" + quote(change)
    return call
