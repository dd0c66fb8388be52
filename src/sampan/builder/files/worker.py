"""The process that reads contexts and copies files, each job in a child that has locked itself up.

`layers.worker` is the machinery; these are the jobs. All of them work on descriptors that came with
the request, and an empty directory (the last descriptor) becomes the child's root: a path string
means nothing there.

    index   fds: archive, plain, index, texts, empty
            {"read": [names]} -> {"entries", "newest", "texts": [bytes or null]}
    key     fds: index, empty       {"wish": ..., "hidden": ...} -> {"key": what would be copied}
    compare fds: manifest, stored, missing, empty   {"inode": of the data} -> {"missing", "here"}
    merge   fds: manifest, stored, data, index, texts, kept, empty
            {"base": where the archive begins, -1 for none, "inode", "read"} -> as index, "identity"
    tree-key fds: tree, empty       {"wish": ...} -> as key, with owners and attributes
    texts   fds: tree, out, empty   {"names", "directories"} -> {"names", "sizes"}
    difference  fds: out, tree, perhaps the tree below, empty   {"newest"} -> as layers.worker
    copy    fds: request, root, scratch, scratch, sources..., empty    -> {"entries", "size"}
"""

from __future__ import annotations

import json
import os
from typing import Any, Final

from sampan.builder.files import copying, index, nodes, sync
from sampan.builder.files.nodes import Archive, Directory, Source, resolve
from sampan.builder.files.select import Wish, fingerprint, ignore_of, select
from sampan.errors import InvalidArgument
from sampan.layers import sandbox, worker
from sampan.layers.compression import Compression
from sampan.layers.diff import write_layer
from sampan.layers.pack import Packer

MAX_TEXT: Final = 4 << 20
MAX_REQUEST: Final = 64 << 20
MAX_DATABASE: Final = 64 << 20
MAX_NAMES: Final = 1000  # of a directory whose files are read; an answer is one message


def main(fd: int) -> None:
    """Serve jobs from the socket `fd` until it closes."""
    worker.main(fd, _JOBS)


def _index(job: dict[str, Any], fds: list[int], parent: int) -> dict[str, Any]:
    archive, plain, target, texts, empty = fds
    sandbox.enter(empty, parent)
    found = index.read(archive, plain)
    index.store(found, target)
    source = Archive(plain if index.is_compressed(archive) else archive, found)
    return {**_described(found, job["read"]), "texts": _texts(source, job, texts)}


def _described(found: dict[bytes, nodes.Node], read: list[str]) -> dict[str, Any]:
    """How much there is, and the newest time of what may be copied."""
    skipped = frozenset(name.encode() for name in read)
    times = [node.mtime for path, node in found.items() if path and path not in skipped]
    return {"entries": len(found) - 1, "newest": max(times, default=0) // 10**9}


def _texts(source: Archive, job: dict[str, Any], texts: int) -> list[int | None]:
    return [_text(source, name, texts) for name in job["read"]]


def _text(source: Source, name: str, texts: int, most: int = MAX_TEXT) -> int | None:
    """Write a small file of a context to `texts`; its size, None when it is not there."""
    path, node = resolve(source, name.encode("utf-8", "surrogateescape"))
    if node is None:
        return None
    if node.kind != nodes.FILE:
        raise InvalidArgument(f"read {name}: it is not a regular file")
    if node.size > most:
        raise InvalidArgument(f"read {name}: it is larger than {most} bytes")
    source.data(path, node, texts)
    return node.size


def _key(job: dict[str, Any], fds: list[int], parent: int) -> dict[str, Any]:
    target, empty = fds
    sandbox.enter(empty, parent)
    source = Archive(-1, _visible(target, job["hidden"]))
    wish = Wish(**job["wish"])
    return {"key": fingerprint(source, select(source, wish), ignore_of(wish))}


def _tree_key(job: dict[str, Any], fds: list[int], parent: int) -> dict[str, Any]:
    tree, empty = fds
    sandbox.enter(empty, parent)
    source = Directory(tree)
    wish = Wish(**job["wish"])
    try:
        return {"key": fingerprint(source, select(source, wish), ignore_of(wish))}
    finally:
        source.close()


def _visible(fd: int, hidden: list[str]) -> dict[bytes, nodes.Node]:
    """An index without the files that an ignore file keeps out."""
    found = index.load(fd)
    for name in hidden:
        found.pop(name.encode("utf-8", "surrogateescape"), None)
    return found


def _copy(job: dict[str, Any], fds: list[int], parent: int) -> dict[str, Any]:
    request_fd, root, first, second, *rest, empty = fds
    sandbox.enter(empty, parent)
    os.umask(0)
    request = json.loads(os.pread(request_fd, MAX_REQUEST, 0))
    sources: list[Source] = []
    for kind in job["trees"]:
        if kind == "tree":
            sources.append(Directory(rest.pop(0)))
        else:
            found = _visible(rest.pop(0), job["hidden"])
            sources.append(Archive(rest.pop(0), found))
    done = copying.run(request, root, sources, [first, second])
    return {"entries": done.entries, "size": done.size}


def _compare(job: dict[str, Any], fds: list[int], parent: int) -> dict[str, Any]:
    manifest, stored, target, empty = fds
    sandbox.enter(empty, parent)
    wanted, here = sync.missing(manifest, sync.load(stored, job["inode"]))
    nodes.write_all(target, b"".join(number.to_bytes(4, "little") for number in wanted))
    return {"missing": len(wanted), "here": here}


def _merge(job: dict[str, Any], fds: list[int], parent: int) -> dict[str, Any]:
    manifest, stored, data, target, texts, kept, empty = fds
    sandbox.enter(empty, parent)
    incoming: dict[bytes, nodes.Node] = {}
    if job["base"] >= 0:
        incoming = index.read(data, -1, start=job["base"])
    found, keeping = sync.merge(manifest, sync.load(stored, job["inode"]), incoming)
    sync.store(job["inode"], keeping, kept)
    identity = index.store(found, target)
    source = Archive(data, found)
    return {
        **_described(found, job["read"]),
        "texts": _texts(source, job, texts),
        "identity": identity,
    }


def _texts_of(job: dict[str, Any], fds: list[int], parent: int) -> dict[str, Any]:
    tree, out, empty = fds
    sandbox.enter(empty, parent)
    source = Directory(tree)
    names = list(job["names"])
    for directory in job["directories"]:
        path, node = resolve(source, directory.encode())
        if node is not None and node.kind == nodes.DIRECTORY:
            inside = [name.decode("utf-8", "replace") for name in source.names(path)]
            names += [f"{directory}/{name}" for name in inside[:MAX_NAMES]]
    sizes = [_text(source, name, out, MAX_DATABASE) for name in names]
    source.close()
    return {"names": names, "sizes": sizes}


def _difference(job: dict[str, Any], fds: list[int], parent: int) -> dict[str, Any]:
    out, tree, *rest, empty = fds
    sandbox.enter(empty, parent)
    packer = Packer(out, Compression.GZIP)
    lower = rest[0] if rest else -1
    status = os.fstat(lower) if rest else None
    root = None if status is None else (status.st_mode, status.st_uid, status.st_gid)
    done = write_layer(tree, packer, lower=lower, overlay=False, newest=job["newest"], root=root)
    return {"diff_id": f"sha256:{packer.finish()}", "size": done.size, "entries": done.entries}


_JOBS: Final[dict[str, worker.Job]] = {
    "compare": _compare,
    "copy": _copy,
    "difference": _difference,
    "index": _index,
    "key": _key,
    "merge": _merge,
    "texts": _texts_of,
    "tree-key": _tree_key,
}
