"""The process that unpacks and makes layers, one at a time, each in a child that can harm nobody.

`layers.workers` starts it as `python -I -S -B` with an explicit sys.path and one SEQPACKET socket.
A job is a JSON message with descriptors: the blob, the destination, and the lower layers if known.
Everything is imported by then; for each job the worker forks, the child locks itself up
(`layers.sandbox`), unpacks, sends one answer and exits. A chroot cannot be undone, so a child
serves one job only. When the socket closes, the worker kills its child and ends.

    apply    {"expected": digest or null, "limit": bytes}        fds: blob, destination, lowers...
    diff     {"compression": ..., "newest": ..., "limit": ...}   fds: pipe, tree[, lower tree]
    changes  {"lowers": directories, top first}                  fds: pipe, tree
    export   {"lowers": directories, top first, "limit": bytes}  fds: pipe
    split    {"limit": bytes}                                    fds: pipe, directory
    answer   {"diff_id": ..., "size": ..., "entries": ...}  or  {"error": text, "kind": class name}

Every request has `"do"`, the word before it here, and `"overlay"` where trees are read.
"""

from __future__ import annotations

import _socket
import errno
import gc
import hashlib
import json
import os
import select
import sys
from collections.abc import Callable
from typing import Any, Final

from sampan.errors import DataLoss, ResourceExhausted, SampanError
from sampan.kernel import fds as descriptors
from sampan.kernel import mounts, overlaymarks, process
from sampan.kernel import numbers as n
from sampan.layers import sandbox
from sampan.layers.apply import apply
from sampan.layers.compression import Compression
from sampan.layers.diff import list_changes, write_layer
from sampan.layers.inflate import open_stream
from sampan.layers.pack import Packer
from sampan.layers.split import split
from sampan.runtime import rootfs
from sampan.spec.digest import Digest

Job = Callable[[dict[str, Any], list[int], int], dict[str, Any]]
"""What does a job: it gets the request, its descriptors and the process to die with."""

MAX_MESSAGE: Final = 1 << 16
_MAX_ERROR: Final = 2000
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_WORDS: Final = {
    "apply": "unpack layer",
    "split": "unpack archive",
    "copy": "copy files",
    "index": "read context",
    "key": "read context",
}
_ALGORITHMS: Final = ("sha256", "sha384", "sha512")


def main(fd: int, jobs: dict[str, Job] | None = None) -> None:
    """Serve jobs from the socket `fd` until it closes: those of this module, or others."""
    known = _JOBS if jobs is None else jobs
    sock = _socket.socket(fileno=fd)
    sock.setblocking(True)
    process.set_name("sampan-layers")
    _warm()
    while True:
        try:
            message, fds = descriptors.receive(sock, MAX_MESSAGE)
        except OSError:
            return
        if not message:
            return
        try:
            answer = _serve(sock, json.loads(message), fds, known)
        finally:
            descriptors.close_all(fds)
        if answer is None:
            return
        try:
            descriptors.send(sock, answer)
        except OSError:  # who asked was killed in that moment
            return


def _warm() -> None:
    """Use once what loads something when it is used first, while the host's files are there."""
    for name in _ALGORITHMS:
        hashlib.new(name, b"x" * 4096).hexdigest()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for kind in Compression:
        open_stream(null, kind)
    os.close(null)
    overlaymarks.opaque_attribute()
    json.dumps({"warm": True}).encode("utf-8", "replace")
    gc.collect()
    gc.freeze()


def _serve(
    sock: _socket.socket, job: dict[str, Any], fds: list[int], jobs: dict[str, Job]
) -> bytes | None:
    """Run one job in a child: its answer, or None when whoever asked has gone."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    worker = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            sock.detach()
            _child(jobs, job, fds, writer, worker)
        finally:
            os._exit(1)
    os.close(writer)
    try:
        answer = _wait(sock, reader)
    finally:
        os.close(reader)
    if answer is None:
        os.kill(pid, 9)
    _, status = os.waitpid(pid, 0)
    if answer == b"":
        return _failure("Aborted", f"{_doing(job)}: worker {_ending(status)}")
    return answer


def _doing(job: dict[str, Any]) -> str:
    return _WORDS.get(job["do"], "read layer")


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by signal {-code}" if code < 0 else f"exited with {code}"


def _wait(sock: _socket.socket, reader: int) -> bytes | None:
    """The child's answer, b"" when it ended without one, None when the socket was closed."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(sock.fileno(), select.POLLRDHUP | select.POLLHUP)
    answer = b""
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if reader not in ready:
            return None
        part = os.read(reader, MAX_MESSAGE)
        if not part:
            return answer
        answer += part


def _child(
    jobs: dict[str, Job], job: dict[str, Any], fds: list[int], writer: int, parent: int
) -> None:
    """Do the job, answer, and never return into the worker's loop."""
    try:
        os.write(writer, json.dumps(jobs[job["do"]](job, fds, parent)).encode())
    except SampanError as error:
        os.write(writer, _failure(type(error).__name__, str(error)))
    except OSError as error:
        kind = ResourceExhausted if error.errno in _FULL else DataLoss
        os.write(writer, _failure(kind.__name__, f"{_doing(job)}: {error}"))
    except BaseException as error:  # a defect: reported, since a traceback would read from the root
        os.write(writer, _failure("Internal", f"{_doing(job)}: {type(error).__name__}: {error}"))
    os._exit(0)


def _apply(job: dict[str, Any], fds: list[int], parent: int) -> dict[str, Any]:
    blob, destination, *lowers = fds
    destination = sandbox.enter(destination, parent)
    expected = Digest.parse(job["expected"]) if job["expected"] else None
    done = apply(blob, destination, expected=expected, lowers=lowers, limit=job["limit"])
    return {"diff_id": done.diff_id, "size": done.size, "entries": done.entries}


def _diff(job: dict[str, Any], fds: list[int], parent: int) -> dict[str, Any]:
    out, tree, lower = fds if len(fds) > 2 else (*fds, -1)
    tree = sandbox.enter(tree, parent, read_only=True)
    packer = Packer(out, Compression(job["compression"]))
    done = write_layer(
        tree,
        packer,
        lower=lower,
        overlay=job["overlay"],
        newest=job["newest"],
        root=tuple(job["root"]) if job["root"] else None,
        without=frozenset(os.fsencode(path) for path in job["without"]),
        limit=job["limit"],
    )
    return {"diff_id": f"sha256:{packer.finish()}", "size": done.size, "entries": done.entries}


def _export(job: dict[str, Any], fds: list[int], parent: int) -> dict[str, Any]:
    """The files of several layers, as one tree without anything below it."""
    lowers = job["lowers"]
    word = _stacked(lowers) if len(lowers) > 1 else {"type": "bind", "source": lowers[0]}
    mount = rootfs.mount(word)
    mounts.set_attributes(mount, on=n.MOUNT_ATTR_RDONLY)
    sandbox.depend_on(parent)
    tree = sandbox.become_root(mount)
    sandbox.lock_up(read_only=True)
    packer = Packer(fds[0], Compression.NONE)
    done = write_layer(tree, packer, overlay=False, limit=job["limit"])
    return {"diff_id": f"sha256:{packer.finish()}", "size": done.size, "entries": done.entries}


def _changes(job: dict[str, Any], fds: list[int], parent: int) -> dict[str, Any]:
    out, tree = fds
    lower = _open_tree(job["lowers"])
    tree = sandbox.enter(tree, parent, read_only=True)
    packer = Packer(out, Compression.NONE)
    entries = 0
    for change in list_changes(tree, lower=lower, overlay=job["overlay"]):
        packer.write(change + b"\0")
        entries += 1
    return {"diff_id": f"sha256:{packer.finish()}", "size": 0, "entries": entries}


def _open_tree(lowers: list[str]) -> int:
    """The directories `lowers`, topmost first, as one tree: its root, -1 when there are none."""
    if not lowers:
        return -1
    if len(lowers) == 1:
        return os.open(lowers[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    mount = rootfs.mount(_stacked(lowers))
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    finally:
        os.close(mount)


def _stacked(lowers: list[str]) -> dict[str, Any]:
    user_marks = overlaymarks.opaque_attribute() == overlaymarks.USER_OPAQUE
    return {"type": "overlay", "lowers": lowers, "userxattr": user_marks}


def _split(job: dict[str, Any], fds: list[int], parent: int) -> dict[str, Any]:
    source, destination = fds
    destination = sandbox.enter(destination, parent)
    entries, size = split(source, destination, limit=job["limit"])
    return {"diff_id": "", "size": size, "entries": entries}


_JOBS: Final[dict[str, Job]] = {
    "apply": _apply,
    "changes": _changes,
    "diff": _diff,
    "export": _export,
    "split": _split,
}


def _failure(kind: str, text: str) -> bytes:
    return json.dumps({"error": text[:_MAX_ERROR], "kind": kind}).encode()


if __name__ == "__main__":
    main(int(sys.argv[1]))
