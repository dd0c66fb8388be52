"""The process that reads or writes a container's files for one request, and can harm nobody.

`engine.archive` starts it as `python -I -S -B` with one SEQPACKET socket. It takes one job, enters
the container's tree, gives up what it does not need (`layers.sandbox`), works, answers and ends.
A tree that runs is entered through the mount namespace of its first process; one that does not is
mounted here, in a namespace that goes with this process. From then on the tree's root is the root,
and every path is resolved inside of it, by descriptors: what the container changes meanwhile can
spoil the archive, and lead nowhere.

    job      {"do": "stat" | "read" | "write" | "export", "path": ..., "mount": Mount or null,
              "binds": bind mounts in the OCI's words, "directories": paths that are made
              where they are missing, "read_only": bool,
              "keep_kinds": bool, "owner": text, "users": bool}
             fds: a pidfd when mount is null, then the pipe or file of the tar
    answers  {"stat": {...}} for stat and read, then {"done": true}; or {"error": text, "kind": ...}
"""

from __future__ import annotations

import _socket
import errno
import json
import os
import stat
import sys
from typing import Any, Final

from sampan.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    SampanError,
)
from sampan.kernel import fds as descriptors
from sampan.kernel import mounts, namespaces, process
from sampan.kernel import numbers as n
from sampan.kernel.paths import Root
from sampan.layers import sandbox
from sampan.layers.compression import Compression
from sampan.layers.inflate import open_stream
from sampan.layers.placing import place
from sampan.layers.treetar import TreeTar
from sampan.runtime import mappings, rootfs, sources, users
from sampan.runtime.failure import InvalidConfig

MAX_MESSAGE: Final = 1 << 18
_MAX_ERROR: Final = 2000
_PATH: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS: Final[dict[int, type[SampanError]]] = {
    errno.ENOENT: NotFound,
    errno.ENOTDIR: NotFound,
    errno.ELOOP: NotFound,
    errno.ENAMETOOLONG: NotFound,
    errno.EACCES: PermissionDenied,
    errno.EROFS: PermissionDenied,
    errno.ENOSPC: ResourceExhausted,
}


class Place:
    """A path of the tree, looked up: what it names, by descriptors.

    As docker has it, the path is first cleaned as text, and a link at its end is followed only when
    the path ends with `/` or `/.`.
    """

    def __init__(self, root: Root, path: str) -> None:
        self.is_directory_wanted = path.endswith(("/", "/.")) or path in ("", ".")
        self.path = _clean(path)
        head, _, name = self.path.rpartition("/")
        self.parent = root.open(head or "/", os.O_PATH | os.O_DIRECTORY)
        self.name = os.fsencode(name or ".")
        self.target = ""
        self.fd = os.open(self.name, _PATH, dir_fd=self.parent)
        self.status = os.fstat(self.fd)
        if not stat.S_ISLNK(self.status.st_mode):
            if self.is_directory_wanted and not stat.S_ISDIR(self.status.st_mode):
                raise InvalidArgument(f"{path}: not a directory")
            return
        if self.is_directory_wanted:
            self._follow(root)
        else:
            target = os.readlink(self.name, dir_fd=self.parent)
            self.target = _clean(os.path.join(head or "/", os.fsdecode(target)))

    def _follow(self, root: Root) -> None:
        self.fd = root.open(self.path, os.O_PATH | os.O_DIRECTORY)
        self.status = os.fstat(self.fd)
        self.parent, self.name = self.fd, b"."


def main(fd: int) -> None:
    """Take one job from the socket `fd`, do it, answer."""
    sock = _socket.socket(fileno=fd)
    sock.setblocking(True)
    parent = os.getppid()
    process.set_name("sampan-archive")
    _warm()
    message, fds = descriptors.receive(sock, MAX_MESSAGE)
    if message:
        answer = _guarded(sock, json.loads(message), fds, parent)
        try:
            os.write(sock.fileno(), answer)
        except BrokenPipeError:
            pass  # the client went before the end, and nobody waits for the answer
    os._exit(0)


def _warm() -> None:
    """Use once what loads something when it is used first, while the host's files are there."""
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    for kind in Compression:
        open_stream(null, kind)
    os.close(null)
    os.strerror(errno.ENOENT)
    json.dumps({"warm": True}).encode("utf-8", "replace")


def _guarded(sock: _socket.socket, job: dict[str, Any], fds: list[int], parent: int) -> bytes:
    path = job["path"]
    try:
        sandbox.depend_on(parent)
        root = _enter(job, fds)
        sandbox.lock_up(read_only=job["do"] != "write")
        _work(sock, job, fds, Root(root))
    except SampanError as error:
        return _failure(type(error).__name__, str(error).removeprefix("apply layer: "))
    except InvalidConfig as error:
        return _failure(InvalidArgument.__name__, str(error))
    except OSError as error:
        kind = _KINDS.get(error.errno or 0, Conflict)
        return _failure(kind.__name__, f"{path}: {(error.strerror or str(error)).lower()}")
    except BaseException as error:  # a defect: reported, since a traceback would read from the root
        return _failure("Internal", f"archive {path}: {type(error).__name__}: {error}")
    return b'{"done":true}'


def _enter(job: dict[str, Any], fds: list[int]) -> int:
    """Make the container's tree our root; its descriptor."""
    if job["mount"] is not None:
        mount = rootfs.mount(job["mount"])
        sources = [_source(bind) for bind in job["binds"]]  # while the host's paths are there
        root = sandbox.become_root(mount)
        for bind, source in zip(job["binds"], sources, strict=True):
            _bind(Root(root), bind, source)
        if "upper" in job["mount"]:  # else it is somebody's directory
            _promise(Root(root), job["directories"])
        if job["read_only"]:
            mounts.set_attributes(root, on=n.MOUNT_ATTR_RDONLY)
        return root
    pidfd = fds.pop(0)
    if job["users"]:  # its files have its own ids for those who are in it
        namespaces.setns(pidfd, n.CLONE_NEWUSER | n.CLONE_NEWNS)
        mappings.become_root()
    else:
        namespaces.setns(pidfd, n.CLONE_NEWNS)  # the root and working directory follow
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if job["do"] == "export":  # the image's tree alone, without what is mounted in it
        return sandbox.become_root(mounts.clone_tree(root, recursive=False))
    return os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _source(bind: dict[str, Any]) -> int:
    """A volume or a directory of the host as a detached mount."""
    clone = sources.clone(bind, {})
    if not {"ro", "rro"}.isdisjoint(bind["options"]):
        mounts.set_attributes(clone, on=n.MOUNT_ATTR_RDONLY, recursive=True)
    return clone


def _bind(root: Root, bind: dict[str, Any], source: int) -> None:
    """Attach it where the container will have it; where nothing can be attached, it is not seen."""
    try:
        target = root.open_path(bind["destination"])
    except OSError:
        if not stat.S_ISDIR(os.fstat(source).st_mode):
            return
        try:
            target = root.make_directories(bind["destination"])
        except OSError:
            return
    mounts.move_mount(source, target)
    os.close(target)


def _promise(root: Root, paths: list[str]) -> None:
    """Make directories; what is in the way stays, and is the start's error."""
    os.umask(0)
    for path in paths:
        try:
            os.close(root.make_directories(path))
        except OSError:
            continue


def _work(sock: _socket.socket, job: dict[str, Any], fds: list[int], root: Root) -> None:
    if job["do"] == "export":
        tar = TreeTar(fds[0])
        tar.add_inside(root.fd)
        tar.finish()
        return
    place_of = Place(root, job["path"])
    if job["do"] == "write":
        _write(job, fds[0], root, place_of)
        return
    os.write(sock.fileno(), json.dumps({"stat": _facts(place_of, job["path"])}).encode())
    if job["do"] == "read":
        tar = TreeTar(fds[0])
        tar.add(place_of.parent, place_of.name, os.fsencode(_base(job["path"])))
        tar.finish()


def _write(job: dict[str, Any], archive: int, root: Root, place_of: Place) -> None:
    if stat.S_ISLNK(place_of.status.st_mode):
        place_of = Place(root, job["path"] + "/")
    if not stat.S_ISDIR(place_of.status.st_mode):
        raise InvalidArgument("extraction point is not a directory")
    if os.fstatvfs(place_of.fd).f_flag & os.ST_RDONLY:
        is_mounted = place_of.status.st_dev != os.fstat(root.fd).st_dev
        what = "mounted volume" if is_mounted else "container rootfs"
        raise PermissionDenied(f"{what} is marked read-only")
    owner = None
    if job["owner"]:
        identity = users.resolve(root, job["owner"], [])
        owner = (identity.uid, identity.gid)
    below = os.fsencode(place_of.path.strip("/"))
    place(archive, root.fd, below, keep_kinds=job["keep_kinds"], owner=owner)


def _facts(found: Place, path: str) -> dict[str, Any]:
    status = found.status
    return {
        "name": _base(path),
        "size": status.st_size,
        "mode": status.st_mode,
        "mtime_ns": status.st_mtime_ns,
        "target": found.target,
    }


def _base(path: str) -> str:
    """The last element, as Go's filepath.Base has it of the path as it was given."""
    if path.endswith("/.") or path == ".":
        return "."
    return path.rstrip("/").rpartition("/")[2] or "/"


def _clean(path: str) -> str:
    return os.path.normpath("/" + path.lstrip("/"))


def _failure(kind: str, text: str) -> bytes:
    return json.dumps({"error": text[:_MAX_ERROR], "kind": kind}).encode()


if __name__ == "__main__":
    main(int(sys.argv[1]))
