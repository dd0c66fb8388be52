"""A directory as the context of a build: a tar in pieces, without what the ignore file keeps out.

The Dockerfile and its ignore file always travel, because the builder reads them; it keeps them out
of COPY when the ignore file says so. A Dockerfile that lies outside of the directory, or is only
text, goes into the archive under a name of its own. Sockets are left out, links are sent as links.
"""

from __future__ import annotations

import os
import stat
import time

from sampan.builder.language.ignore import Ignore, read_patterns
from sampan.errors import Conflict, InvalidArgument
from sampan.layers import header, tarwriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    _Entry = tuple[str, str, os.stat_result]

_FLUSH = 512 << 10
_PIECE = 1 << 20
_SECOND = 10**9
_TICK = _SECOND // 10
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

    `files` counts what there is, `size` the bytes of the archive while it is sent.
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
        self._found: list[_Entry] | None = None
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

    @property
    def key(self) -> str:
        """A name for this directory on this machine, for the daemon to know it again."""
        import hashlib

        status = os.stat(self._path)
        text = f"{os.path.realpath(self._path)} {status.st_dev} {status.st_ino}"
        return hashlib.sha256(os.fsencode(text)).hexdigest()

    def manifest(self) -> bytes:
        """What there is, without its bytes; see `builder.files.sync`."""
        now = time.time_ns()
        parts: list[bytes] = []
        for name, content in self._extra:
            facts = f"{stat.S_IFREG | 0o644} 0 0 {len(content)} 0 0 {_digest(content)}"
            parts += (os.fsencode(name), facts.encode(), b"")
        for name, path, status in self._entries():
            link = os.fsencode(os.readlink(path)) if stat.S_ISLNK(status.st_mode) else b""
            parts += (os.fsencode(name), _facts(status, now), link)
        return b"\0".join((*parts, b""))

    def pieces(self, wanted: Collection[int] | None = None) -> Iterator[bytes]:
        """The archive; of `wanted`, only the files of these numbers in the manifest.

        Raises:
            Conflict: a file became shorter while it was read.
        """
        waiting: list[bytes] = []
        size = 0
        for piece in self._blocks(wanted):
            waiting.append(piece)
            size += len(piece)
            if size >= _FLUSH:
                self.size += size
                yield b"".join(waiting)
                waiting, size = [], 0
        waiting.append(tarwriter.END)
        self.size += size + len(tarwriter.END)
        yield b"".join(waiting)

    def _blocks(self, wanted: Collection[int] | None) -> Iterator[bytes]:
        number = 0
        for name, content in self._extra:
            if wanted is None or number in wanted:
                yield tarwriter.header(name.encode(), header.REGULAR, mode=0o644, size=len(content))
                yield content + tarwriter.padding(len(content))
            number += 1
        for name, path, status in self._entries():
            if wanted is None or number in wanted:
                yield from _entry(name, path, status)
            number += 1

    def _entries(self) -> Iterator[_Entry]:
        """Everything that is sent; looked for once, so that numbers keep their meaning."""
        if self._found is None:
            self._found = list(self._walk())
            self.files = len(self._found)
        return iter(self._found)

    def _walk(self) -> Iterator[_Entry]:
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
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISSOCK(status.st_mode):
                    yield below, entry.path, status
                if is_directory:
                    inner.append((below, entry.path))
            stack += reversed(inner)

    def _is_left_out(self, name: str) -> bool:
        if not self._ignore or name in self._kept:
            return False
        if not self._ignore.excludes(name):
            return False
        return not any(kept.startswith(name + "/") for kept in self._kept)


def _facts(status: os.stat_result, now: int) -> bytes:
    """What must be the same for a file to be the same. A file that changed just now may change
    again within the clock's tick, and so is never taken for the same."""
    identity: object = f"{status.st_ctime_ns}.{status.st_ino}.{status.st_dev}"
    if stat.S_ISREG(status.st_mode) and now - status.st_ctime_ns < _TICK:
        identity = f"{identity}.{now}"
    return (
        f"{status.st_mode} {status.st_uid} {status.st_gid} {status.st_size} "
        f"{status.st_mtime_ns // _SECOND * _SECOND} {status.st_rdev} {identity}"
    ).encode()


def _entry(name: str, path: str, status: os.stat_result) -> Iterator[bytes]:
    kind, raw = stat.S_IFMT(status.st_mode), os.fsencode(name)
    if kind == stat.S_IFREG:
        yield from _file(path, raw, status)
        return
    mode, link, device = stat.S_IMODE(status.st_mode), b"", (0, 0)
    form = _SPECIAL.get(kind, 0)
    if kind == stat.S_IFDIR:
        raw, form = raw + b"/", header.DIRECTORY
    elif kind == stat.S_IFLNK:
        link, mode, form = os.fsencode(os.readlink(path)), 0o777, header.SYMLINK
    else:
        device = (os.major(status.st_rdev), os.minor(status.st_rdev))
    yield tarwriter.header(
        raw,
        form,
        mode=mode,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=status.st_mtime_ns // _SECOND,
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
    return f".dockerfile.{_digest(content)[:20]}"


def _digest(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
