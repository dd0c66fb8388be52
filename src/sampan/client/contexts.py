"""A directory as the context of a build: a tar in pieces, without what the ignore file keeps out.

The Dockerfile and its ignore file always travel, because the builder reads them; it keeps them out
of COPY when the ignore file says so. A Dockerfile that lies outside of the directory, or is only
text, goes into the archive under a name of its own. Sockets are left out, links are sent as links.
"""

from __future__ import annotations

import os
import stat

from sampan.builder.language.ignore import Ignore, read_patterns
from sampan.errors import Conflict, InvalidArgument
from sampan.layers import header, tarwriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_FLUSH = 512 << 10
_PIECE = 1 << 20
_SECOND = 10**9
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SPECIAL = {
    stat.S_IFIFO: header.FIFO,
    stat.S_IFCHR: header.CHARACTER,
    stat.S_IFBLK: header.BLOCK_DEVICE,
}
DEFAULT = "Dockerfile"
IGNORE = ".dockerignore"


class Directory:
    """A directory to be sent. `dockerfile` is the name that the request has to give.

    `files` counts what was sent, `size` the bytes of the archive, both while it is sent.
    """

    def __init__(self, path: str, dockerfile: str | bytes = "") -> None:
        """`dockerfile` is a path ("": the directory's own), or the text itself.

        Raises:
            InvalidArgument: the directory or the Dockerfile is not there.
        """
        if not os.path.isdir(path):
            raise InvalidArgument(f"unable to prepare context: path {path!r} not found")
        self._path = path
        self._extra: list[tuple[str, bytes]] = []
        self.files = 0
        self.size = 0
        if isinstance(dockerfile, bytes):
            self.dockerfile = _extra_name(dockerfile)
            self._extra.append((self.dockerfile, dockerfile))
            ignore = None
        else:
            self.dockerfile, ignore = self._find(dockerfile or os.path.join(path, DEFAULT))
        if ignore is None:
            ignore = _read(os.path.join(path, IGNORE))
        self._ignore = Ignore(read_patterns(ignore or b""))
        self._kept = {self.dockerfile, IGNORE, self.dockerfile + IGNORE}

    def _find(self, path: str) -> tuple[str, bytes | None]:
        """The name of the Dockerfile in the archive, and its own ignore file."""
        content = _read(path)
        if content is None:
            raise InvalidArgument(
                f"unable to prepare context: failed to read dockerfile: open {path}: "
                "no such file or directory"
            )
        ignore = _read(path + IGNORE)
        inside = os.path.relpath(os.path.realpath(path), os.path.realpath(self._path))
        if not inside.startswith("..") and not os.path.islink(path):
            return inside, ignore
        name = _extra_name(content)
        self._extra.append((name, content))
        if ignore is not None:
            self._extra.append((name + IGNORE, ignore))
        return name, ignore

    def pieces(self) -> Iterator[bytes]:
        """The archive.

        Raises:
            Conflict: a file became shorter while it was read.
        """
        waiting: list[bytes] = []
        size = 0
        for piece in self._blocks():
            waiting.append(piece)
            size += len(piece)
            if size >= _FLUSH:
                self.size += size
                yield b"".join(waiting)
                waiting, size = [], 0
        waiting.append(tarwriter.END)
        self.size += size + len(tarwriter.END)
        yield b"".join(waiting)

    def _blocks(self) -> Iterator[bytes]:
        for name, content in self._extra:
            yield tarwriter.header(name.encode(), header.REGULAR, mode=0o644, size=len(content))
            yield content + tarwriter.padding(len(content))
        stack = [("", self._path)]
        while stack:
            name, path = stack.pop()
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            inner: list[tuple[str, str]] = []
            for entry in entries:
                below = f"{name}/{entry.name}" if name else entry.name
                is_directory = entry.is_dir(follow_symlinks=False)
                if self._is_left_out(below):
                    if is_directory and self._ignore.has_exceptions:
                        inner.append((below, entry.path))
                    continue
                yield from self._entry(below, entry)
                if is_directory:
                    inner.append((below, entry.path))
            stack += reversed(inner)

    def _is_left_out(self, name: str) -> bool:
        if not self._ignore or name in self._kept:
            return False
        if not self._ignore.excludes(name):
            return False
        return not any(kept.startswith(name + "/") for kept in self._kept)

    def _entry(self, name: str, entry: os.DirEntry[str]) -> Iterator[bytes]:
        status = entry.stat(follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        raw = os.fsencode(name)
        mode, seconds = stat.S_IMODE(status.st_mode), status.st_mtime_ns // _SECOND
        self.files += 1
        if kind == stat.S_IFREG:
            yield from _file(entry.path, raw, status)
            return
        link, device, form = b"", (0, 0), _SPECIAL.get(kind, 0)
        if kind == stat.S_IFDIR:
            raw, form = raw + b"/", header.DIRECTORY
        elif kind == stat.S_IFLNK:
            link, mode, form = os.fsencode(os.readlink(entry.path)), 0o777, header.SYMLINK
        elif form:
            device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        else:
            return  # a socket
        yield tarwriter.header(
            raw,
            form,
            mode=mode,
            uid=status.st_uid,
            gid=status.st_gid,
            mtime=seconds,
            link=link,
            device=device,
        )


def _file(path: str, name: bytes, status: os.stat_result) -> Iterator[bytes]:
    fd = os.open(path, _OPEN)
    try:
        left = status.st_size
        yield tarwriter.header(
            name,
            header.REGULAR,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime=status.st_mtime_ns // _SECOND,
            size=left,
        )
        while left:
            piece = os.read(fd, min(left, _PIECE))
            if not piece:
                raise Conflict(f"send context: {path} became shorter while it was read")
            left -= len(piece)
            yield piece
    finally:
        os.close(fd)
    if status.st_size % header.BLOCK:
        yield tarwriter.padding(status.st_size)


def is_archive(head: bytes) -> bool:
    """Whether what begins so is an archive, and not the text of a Dockerfile."""
    if head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head[:6] == b"\xfd7zXZ\0":
        return True
    if head[:4] == b"\x28\xb5\x2f\xfd":
        return True
    return len(head) >= header.BLOCK and header.checksum_holds(head[: header.BLOCK])


def only(dockerfile: bytes) -> bytes:
    """The archive of a context that has nothing but a Dockerfile."""
    head = tarwriter.header(DEFAULT.encode(), header.REGULAR, mode=0o644, size=len(dockerfile))
    return head + dockerfile + tarwriter.padding(len(dockerfile)) + tarwriter.END


def _extra_name(content: bytes) -> str:
    """A name that no file of a directory has by accident; the same for the same text."""
    import hashlib

    return f".dockerfile.{hashlib.sha256(content).hexdigest()[:20]}"


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
