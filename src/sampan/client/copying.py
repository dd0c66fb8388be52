"""Files between this host and a container: what `cp` does on this side.

The rules for names are docker's: a directory that is there is copied into, what is not there gets
the last element of its path as its name, `DIR/.` means the content. An archive that comes from a
container is hostile: it is unpacked by the layers' creator, below one directory that stays, after
it has been read once to its end, so what is damaged or climbs out changes nothing.

Blocking, also the asynchronous library's (in a thread).
"""

from __future__ import annotations

import _thread
import os
import stat
import tempfile
from base64 import b64decode

from sampan.client.container_calls import archive, archive_stat, put_archive
from sampan.errors import InvalidArgument, NotFound, SampanError
from sampan.jsontext import decode
from sampan.kernel import namespaces
from sampan.kernel import numbers as n
from sampan.layers.header import HARD_LINK
from sampan.layers.placing import Placer, unpack
from sampan.layers.tree import split
from sampan.layers.treetar import TreeTar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from sampan.client.sync import Answer, Client
    from sampan.layers.header import Entry
    from sampan.layers.tarstream import TarStream

_PIECE = 1 << 20
# Go's os.FileMode
_DIRECTORY, _LINK, _IRREGULAR = 1 << 31, 1 << 27, 1 << 26 | 1 << 25 | 1 << 24


class Place:
    """What a path of a container is: its path with a link resolved, and whether anything is there;
    a directory, or no file at all but a device or its like."""

    __slots__ = ("is_directory", "is_special", "is_there", "path", "shown_as")

    def __init__(self, path: str) -> None:
        self.path = path
        self.shown_as = _base(path)
        self.is_there = self.is_directory = self.is_special = False

    def learn(self, answer: Answer) -> dict[str, Any]:
        """Take in what the header of an answer says."""
        header = answer.headers.get("x-docker-container-path-stat", "")
        said: dict[str, Any] = decode(b64decode(header))
        self.is_there = True
        self.is_directory = bool(said["mode"] & _DIRECTORY)
        self.is_special = bool(said["mode"] & _IRREGULAR)
        return said


def _look(client: Client, ref: str, path: str) -> Place:
    """What `path` is, a link followed once. What is missing may be made, and whatever is wrong is
    told by the next call, for the answer to HEAD has no words."""
    place = Place(path)
    try:
        said = _head(client, ref, place)
        if said["mode"] & _LINK:
            here = os.path.dirname(path.rstrip("/"))
            place.path = os.path.join(here, said["linkTarget"])
            place.is_there = False
            _head(client, ref, place)
    except Exception as error:
        if not _is_missing(error):
            raise
    return place


def _head(client: Client, ref: str, place: Place) -> dict[str, Any]:
    answer = client.open(archive_stat(ref, place.path))
    said = place.learn(answer)
    for _ in answer.pieces():
        continue
    return said


def _is_missing(error: Exception) -> bool:
    """A library's error, or the command line's with a status."""
    return isinstance(error, NotFound) or getattr(error, "status", 0) == 404


def _base(path: str) -> str:
    """The last element; "." for what means a directory's content."""
    if path.endswith("/.") or path in (".", ""):
        return "."
    return path.rstrip("/").rpartition("/")[2] or "/"


# From a container


def read_out(
    client: Client, ref: str, path: str, write: Callable[[bytes], object], *, follow: bool = False
) -> int:
    """Hand the tar of `path` to `write`; its size in bytes."""
    source = _look(client, ref, path) if follow else Place(path)
    size = 0
    for piece in client.open(archive(ref, source.path)).pieces():
        size += len(piece)
        write(piece)
    return size


def copy_out(
    client: Client,
    ref: str,
    path: str,
    target: str,
    *,
    follow: bool = False,
    keep_owner: bool = False,
) -> int:
    """Copy `path` of a container to `target` here; the size of the archive in bytes.

    Args:
        client: of the daemon.
        ref: the container.
        path: in the container.
        target: a directory that is there, or the new name.
        follow: copy what a link at `path` points at.
        keep_owner: with users and groups, else everything is the caller's.

    Raises:
        NotFound: nothing is at `path`, or `target` has no directory to be in.
        InvalidArgument: a directory cannot become a file.
    """
    source = _look(client, ref, path) if follow else Place(path)
    answer = client.open(archive(ref, source.path))
    try:
        source.learn(answer)
        directory, name = _local_target(source, target)
    except BaseException:
        answer.close()
        raise
    owner = None if keep_owner else (os.getuid(), os.getgid())
    with tempfile.TemporaryFile(buffering=0) as file:
        size = 0
        for piece in answer.pieces():
            size += len(piece)
            _write_all(file.fileno(), piece)
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _apart(lambda: unpack(file.fileno(), _Arriving(root, _base(source.path), name, owner)))
        finally:
            os.close(root)
    return size


def _local_target(source: Place, target: str) -> tuple[str, str]:
    """The directory to unpack in, and the name that the source gets there; "" for its own."""
    target = target or "."
    if os.path.isdir(target):
        return target, "" if source.shown_as in (".", "/") else source.shown_as
    directory, name = os.path.split(os.path.abspath(target))
    if not os.path.isdir(directory):
        raise NotFound(f'invalid output path: directory "{directory}" does not exist')
    if source.is_directory and os.path.lexists(target):
        raise InvalidArgument("cannot copy directory")
    if not source.is_directory and target.endswith("/"):
        raise NotFound("no such directory")
    return directory, name


class _Arriving(Placer):
    """Creates an archive's entries, the first element of their names replaced."""

    def __init__(self, root: int, base: str, name: str, owner: tuple[int, int] | None) -> None:
        super().__init__(root, b"", keep_kinds=True, owner=owner)
        self._drop = 0 if base in (".", "/") else 1
        self._name = [os.fsencode(name)] if name else []

    def create(self, stream: TarStream, entry: Entry) -> None:
        """Create one entry under its new name."""
        entry.name = self._renamed(entry.name)
        if entry.link and entry.kind == HARD_LINK:
            entry.link = self._renamed(entry.link)
        super().create(stream, entry)

    def _renamed(self, name: bytes) -> bytes:
        return b"/".join([*self._name, *split(name)[self._drop :]])


# To a container


def copy_in(
    client: Client,
    ref: str,
    source: str,
    path: str,
    *,
    follow: bool = False,
    keep_owner: bool = False,
) -> int:
    """Copy `source` of this host to `path` in a container; the size of the archive in bytes.

    Args:
        client: of the daemon.
        ref: the container.
        source: a file or directory; `DIR/.` is its content.
        path: a directory that is there, or the new name.
        follow: copy what a link at `source` points at.
        keep_owner: everything belongs to the container's user, as docker has `--archive` here.

    Raises:
        NotFound: nothing is at `source`, or `path` has no directory to be in.
        InvalidArgument: a directory cannot become a file.
    """
    parent, name, shown, is_directory = _local_source(source, follow=follow)
    try:
        place = _look(client, ref, path)
        if place.is_special:
            raise InvalidArgument(
                f'destination "{ref}:{path}" must be a directory or a regular file'
            )
        directory, shown = _remote_target(place, shown, is_directory=is_directory)
        counter = _Counter()
        pieces = counter.count(_packed(parent, name, shown))
        client.call(put_archive(ref, directory, pieces, as_user=keep_owner))
    finally:
        os.close(parent)
    return counter.size


def write_in(
    client: Client, ref: str, pieces: Iterable[bytes], path: str, *, keep_owner: bool = False
) -> int:
    """Unpack a tar into the directory `path` of a container; the size in bytes."""
    place = _look(client, ref, path)
    if place.is_there and not place.is_directory:
        raise InvalidArgument(f'destination "{ref}:{path}" must be a directory')
    counter = _Counter()
    client.call(put_archive(ref, place.path, counter.count(pieces), as_user=keep_owner))
    return counter.size


def _local_source(source: str, *, follow: bool) -> tuple[int, str, str, bool]:
    """A descriptor of the directory that it is in, its name there, the name it has in the archive,
    and whether it is a directory."""
    shown = _base(os.path.abspath(source) if source in (".", "..", "") else source)
    if source == "." or source.endswith("/."):
        shown = "."
    real = os.path.realpath(source) if follow or source.endswith(("/", "/.", ".")) else source
    real = os.path.join(os.path.realpath(os.path.dirname(real) or "."), os.path.basename(real))
    try:
        status = os.lstat(real)
        directory, name = os.path.split(real)
        parent = os.open(directory or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFound(f"lstat {source}: {(error.strerror or '').lower()}") from error
    return parent, name or ".", shown, stat.S_ISDIR(status.st_mode)


def _remote_target(place: Place, shown: str, *, is_directory: bool) -> tuple[str, str]:
    """The directory of the container to unpack in, and the source's name in the archive."""
    if place.is_directory:
        return place.path, shown
    if place.is_there and is_directory:
        raise InvalidArgument("cannot copy directory")
    if not is_directory and place.path.endswith("/"):
        raise NotFound("no such directory")
    directory, name = os.path.split(place.path.rstrip("/"))
    return directory or "/", name


def _apart(action: Callable[[], None]) -> None:
    """Do `action` in a thread with a umask of its own, for the creator clears it."""
    problems: list[BaseException] = []
    done = _thread.allocate_lock()
    done.acquire()

    def work() -> None:
        try:
            namespaces.unshare(n.CLONE_FS)
            action()
        except BaseException as error:
            problems.append(error)
        finally:
            done.release()

    _thread.start_new_thread(work, ())
    done.acquire()
    if problems:
        raise problems[0]


class _Counter:
    """Counts what passes."""

    def __init__(self) -> None:
        self.size = 0

    def count(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.size += len(piece)
            yield piece


def _packed(parent: int, name: str, shown: str) -> Iterator[bytes]:
    """The tar of `name`, written by a thread while it is sent."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    problems: list[OSError | SampanError] = []
    own = os.dup(parent)

    def pack() -> None:
        try:
            tar = TreeTar(writer)
            tar.add(own, os.fsencode(name), os.fsencode(shown))
            tar.finish()
        except (OSError, SampanError) as error:
            problems.append(error)
        finally:
            os.close(own)
            os.close(writer)

    _thread.start_new_thread(pack, ())
    try:
        while data := os.read(reader, _PIECE):
            yield data
    finally:
        os.close(reader)
    if problems:
        raise problems[0]


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
