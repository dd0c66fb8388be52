"""Unpack one layer into a directory: the tar in, files out, whiteouts in overlayfs's form.

`apply` reads a blob, inflates, hashes and parses it, and creates what it describes below a
directory descriptor. The layer is hostile until proven otherwise: names cannot leave the directory,
links are never followed to change something, an entry replaces what it names instead of writing
through it, and every bound of `limits` holds. Failure leaves a half-filled directory, which the
caller throws away; success says which diff id the bytes had.

The modes, times and attributes of directories are set at the end, deepest first: until then
no set-group-id bit or default ACL of theirs can colour the files inside, and their times stay.

`apply` clears the umask of its process while it runs, and belongs into a process of its own
(`layers.worker`) when the layer comes from outside.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from sampan.errors import DigestMismatch, ResourceExhausted
from sampan.kernel import overlaymarks
from sampan.layers import header, tree, whiteouts
from sampan.layers.applied import AppliedLayer
from sampan.layers.feed import Feed
from sampan.layers.inflate import open_stream
from sampan.layers.limits import (
    MAX_COMPONENT,
    MAX_DEPTH,
    MAX_ENTRIES,
    MAX_LAYER_SIZE,
    MAX_LINK,
    MAX_XATTRS_HELD,
    LayerError,
    show,
)
from sampan.layers.tarstream import TarStream
from sampan.spec.digest import Digest
from sampan.store.room import room

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sampan.layers.header import Entry

__all__ = ["AppliedLayer", "LayerError", "apply"]

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))
_NO_ATTRIBUTES: Final = frozenset((errno.ENOTSUP, errno.ENODATA))
_LOOK_EVERY: Final = 4  # chunks, of which several workers have some under way
_ACLS: Final = (b"system.posix_acl_access", b"system.posix_acl_default")

# mode, uid, gid, atime, mtime (nanoseconds, or -1 for as it is), attributes
_Metadata = tuple[int, int, int, int, int, dict[bytes, bytes] | None]


class Extractor:
    """Creates entries below one directory; `layers.placing` narrows what an entry may do."""

    def __init__(self, root: int, lowers: Sequence[int], *, keep_root: bool = False) -> None:
        """`keep_root`: the directory is in use, and its own bits are nobody's to change."""
        self.size = 0
        self.entries = 0
        self._held = 0
        self._root = root
        self._in_use = keep_root
        self._tree = tree.Tree(root, lowers, self._implied)
        self._pending: dict[bytes, _Metadata] = {}
        self._ours = (os.geteuid(), os.getegid())
        if not keep_root:
            self._make_plain()

    def run(self, stream: TarStream) -> None:
        """Create every entry, then finish the directories."""
        try:
            while (entry := stream.next()) is not None:
                self._count()
                self.create(stream, entry)
            self._finish()
        finally:
            self._tree.close()

    def _make_plain(self) -> None:
        """Keep the root directory's own bits from colouring the files made in it."""
        status = os.fstat(self._root)
        if status.st_mode & stat.S_ISGID:
            mode = stat.S_IMODE(status.st_mode)
            os.fchmod(self._root, mode & ~stat.S_ISGID)
            self._pending[b""] = (mode, status.st_uid, status.st_gid, -1, -1, None)
        try:
            os.removexattr(self._root, _ACLS[1])
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTES:
                raise

    def _count(self) -> None:
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise LayerError(f"apply layer: more than {MAX_ENTRIES} entries")

    def create(self, stream: TarStream, entry: Entry) -> None:
        """Create what one entry describes. Raises LayerError, ResourceExhausted."""
        directory, _, name = entry.name.rstrip(b"/").rpartition(b"/")
        if name in (b"", b".", b"..") or len(name) > MAX_COMPONENT or b"\0" in name:
            parts = tree.split(entry.name)
            if not parts:
                self._root_entry(entry)
                return
            directory, name = b"/".join(parts[:-1]), parts[-1]
        if b".wh." in entry.name and self._is_marker(entry, directory, name):
            return
        self.place(stream, entry, directory, name)

    def place(self, stream: TarStream, entry: Entry, directory: bytes, name: bytes) -> None:
        """Make `name` in `directory`, in the place of what is there. Raises as `create`."""
        try:
            parent, canonical = self._tree.parent(directory)
            if entry.kind == header.REGULAR:
                self._file(stream, entry, parent, canonical, name)
            elif entry.kind == header.DIRECTORY:
                self._directory(entry, parent, tree.join(canonical, name), name)
            elif entry.kind == header.HARD_LINK:
                self._hard_link(entry, parent, name)
            else:
                self._special(entry, parent, name)
        except OSError as error:
            raise _refused(entry, error) from error

    # Whiteouts

    def _is_marker(self, entry: Entry, directory: bytes, name: bytes) -> bool:
        """Act on a whiteout or one of AUFS's own files; False for an ordinary entry."""
        for part in tree.split(directory):
            if part.startswith(whiteouts.META_PREFIX):
                return True
            if part.startswith(whiteouts.PREFIX):
                raise LayerError(f"apply layer: entry below a whiteout: {show(entry.name)}")
        if not name.startswith(whiteouts.PREFIX):
            return False
        meaning = whiteouts.classify(name)
        if meaning is whiteouts.Whiteout.IGNORED:
            return True
        if entry.kind not in (header.REGULAR, header.HARD_LINK):  # AUFS linked its whiteouts
            raise LayerError(f"apply layer: whiteout {show(entry.name)} is not a file")
        try:
            parent, canonical = self._tree.parent(directory)
            if meaning is whiteouts.Whiteout.OPAQUE:
                self._tree.hide_lowers(canonical, parent)
            else:
                self._white_out(parent, canonical, name.removeprefix(whiteouts.PREFIX))
        except OSError as error:
            raise _refused(entry, error) from error
        return True

    def _white_out(self, parent: int, canonical: bytes, name: bytes) -> None:
        """Hide the lower `name`. What this layer itself has there stays, by the specification."""
        try:
            overlaymarks.make(parent, name)
        except FileExistsError:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                path = tree.join(canonical, name)
                self._tree.hide_lowers(path, self._tree.descriptor(path))

    # Entries

    def _clear(self, parent: int, name: bytes) -> os.stat_result:
        """Remove what has the name of a new entry; its status."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        kept = os.dup(parent)
        try:
            if stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode):
                self._tree.forget()
            tree.remove(kept, name, status)
        finally:
            os.close(kept)
        return status

    def _file(
        self, stream: TarStream, entry: Entry, parent: int, canonical: bytes, name: bytes
    ) -> None:
        mode = entry.mode
        try:
            fd = os.open(name, _CREATE, mode & 0o777, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, name)
            parent = self._tree.descriptor(canonical)
            fd = os.open(name, _CREATE, mode & 0o777, dir_fd=parent)
        try:
            if entry.extents is not None:
                _write_sparse(stream, entry, fd)
            elif entry.size:
                stream.write_to(fd, entry.size)
            if (entry.uid, entry.gid) != self._ours:
                os.fchown(fd, entry.uid, entry.gid)
            if mode & 0o7000:  # after the owner, whose change clears them
                os.fchmod(fd, mode)
            if entry.xattrs is not None:
                _set_attributes(fd, entry.xattrs)
            os.utime(fd, ns=(entry.atime, entry.mtime))
        finally:
            os.close(fd)
        self.size += entry.stored

    def _directory(self, entry: Entry, parent: int, path: bytes, name: bytes) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                self._clear(parent, name)
                directory = path.rpartition(b"/")[0]
                os.mkdir(name, 0o755, dir_fd=self._tree.descriptor(directory))
                if not self._in_use:  # an overlay that is mounted does it by itself
                    # What the lower layers have here was hidden by what is replaced now.
                    self._tree.hide_lowers(path, self._tree.descriptor(path))
        if path.count(b"/") >= MAX_DEPTH:
            raise LayerError(f"apply layer: more than {MAX_DEPTH} directories deep")
        self._hold(path, entry)

    def _hold(self, path: bytes, entry: Entry) -> None:
        """Keep a directory's metadata for the end."""
        if entry.xattrs:
            self._held += sum(len(name) + len(value) for name, value in entry.xattrs.items())
            if self._held > MAX_XATTRS_HELD:
                raise LayerError("apply layer: too many extended attributes of directories")
        metadata = (entry.mode, entry.uid, entry.gid, entry.atime, entry.mtime, entry.xattrs)
        self._pending[path] = metadata

    def _root_entry(self, entry: Entry) -> None:
        """The entry of the root itself: its metadata, and never anything but a directory."""
        if entry.kind != header.DIRECTORY:
            raise LayerError(f"apply layer: {show(entry.name)} would replace the root")
        self._hold(b"", entry)

    def _implied(self, path: bytes, made: int, below: int) -> None:
        """A parent that no entry names: root's and 0755, or as the layers below have it."""
        self._count()
        self._pending.pop(path, None)
        del made
        if below >= 0:
            status = os.fstat(below)
            mode = stat.S_IMODE(status.st_mode)
            attributes = _get_attributes(below)
            self._pending[path] = (mode, status.st_uid, status.st_gid, -1, -1, attributes)

    def _hard_link(self, entry: Entry, parent: int, name: bytes) -> None:
        """A second name for a file of this layer. A link that is linked to is not followed."""
        parts = tree.split(entry.link)
        if not parts:
            raise LayerError(f"apply layer: {show(entry.name)} links to the root")
        kept = os.dup(parent)  # finding the other parent may close ours
        try:
            source, _ = self._tree.parent(b"/".join(parts[:-1]))
            status = os.stat(parts[-1], dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                raise LayerError(f"apply layer: {show(entry.name)} links to a directory")
            try:
                self._link(source, parts[-1], kept, name)
            except FileExistsError:
                there = os.stat(name, dir_fd=kept, follow_symlinks=False)
                if (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino):
                    return  # linked already, maybe to itself
                self._clear(kept, name)
                source, _ = self._tree.parent(b"/".join(parts[:-1]))
                self._link(source, parts[-1], kept, name)
        finally:
            os.close(kept)

    @staticmethod
    def _link(source: int, old: bytes, parent: int, new: bytes) -> None:
        os.link(old, new, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _special(self, entry: Entry, parent: int, name: bytes) -> None:
        """A symbolic link, a FIFO or a device: made, owned and dated by name, never opened."""
        kept = os.dup(parent)
        try:
            try:
                _make_special(entry, kept, name)
            except FileExistsError:
                self._clear(kept, name)
                _make_special(entry, kept, name)
            if (entry.uid, entry.gid) != self._ours:
                os.chown(name, entry.uid, entry.gid, dir_fd=kept, follow_symlinks=False)
            times = (entry.atime, entry.mtime)
            os.utime(name, ns=times, dir_fd=kept, follow_symlinks=False)
        finally:
            os.close(kept)

    # The end

    def _finish(self) -> None:
        """Give the directories their metadata, deepest first."""
        for path in sorted(self._pending, reverse=True):
            parent, _, name = path.rpartition(b"/")
            try:
                above = self._tree.descriptor(parent)
                fd = os.open(name or b".", _READ, dir_fd=above)
            except (FileNotFoundError, NotADirectoryError):
                continue  # a later entry took its place
            try:
                _dress(fd, self._pending[path])
            except OSError as error:
                raise LayerError(
                    f"apply layer: directory {show(path)}: {error.strerror}"
                ) from error
            finally:
                os.close(fd)


def _dress(fd: int, metadata: _Metadata) -> None:
    """Owner, mode, attributes and times of the directory `fd`."""
    mode, uid, gid, atime, mtime, attributes = metadata
    status = os.fstat(fd)
    if (status.st_uid, status.st_gid) != (uid, gid):
        os.fchown(fd, uid, gid)
    if stat.S_IMODE(status.st_mode) != mode:
        os.fchmod(fd, mode)
    if attributes:
        _set_attributes(fd, attributes)
    if mtime != -1:
        os.utime(fd, ns=(atime, mtime))


def _make_special(entry: Entry, parent: int, name: bytes) -> None:
    if entry.kind == header.SYMLINK:
        if not entry.link or len(entry.link) > MAX_LINK or b"\0" in entry.link:
            raise LayerError(f"apply layer: bad target of the link {show(entry.name)}")
        os.symlink(entry.link, name, dir_fd=parent)
    elif entry.kind == header.FIFO:
        os.mkfifo(name, entry.mode, dir_fd=parent)
    else:
        kind = stat.S_IFCHR if entry.kind == header.CHARACTER else stat.S_IFBLK
        device = os.makedev(entry.major, entry.minor)
        os.mknod(name, kind | entry.mode, device, dir_fd=parent)


def _write_sparse(stream: TarStream, entry: Entry, fd: int) -> None:
    for offset, length in entry.extents or ():
        os.lseek(fd, offset, os.SEEK_SET)
        stream.write_to(fd, length)
    os.ftruncate(fd, entry.size)


def _set_attributes(fd: int, attributes: dict[bytes, bytes]) -> None:
    """Set those that a layer may have: capabilities, ACLs and the user's. The rest is left out.

    `trusted.*` would let a layer speak to overlayfs (redirect, metacopy); labels of an LSM are the
    host's to give. Docker and containerd try all and ignore failures.
    """
    for name, value in attributes.items():
        if not is_allowed_attribute(name):
            continue
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTES:
                raise


def is_allowed_attribute(name: bytes) -> bool:
    """Whether a layer may set the extended attribute `name`."""
    if name.startswith(b"user."):
        return not name.startswith(b"user.overlay.")
    return name == b"security.capability" or name in _ACLS


def _get_attributes(below: int) -> dict[bytes, bytes] | None:
    """The attributes of a lower directory that an implied one takes over."""
    try:
        fd = os.open(b".", _READ, dir_fd=below)
    except OSError:
        return None
    try:
        names = (os.fsencode(name) for name in os.listxattr(fd))
        return {name: os.getxattr(fd, name) for name in names if is_allowed_attribute(name)} or None
    except OSError:
        return None
    finally:
        os.close(fd)


def _refused(entry: Entry, error: OSError) -> LayerError | ResourceExhausted:
    """What a failed system call means: no space left, or an entry that cannot be."""
    link = f" to {show(entry.link)}" if entry.kind in (header.HARD_LINK, header.SYMLINK) else ""
    text = f"apply layer: {show(entry.name)}{link}: {(error.strerror or 'failed').lower()}"
    return ResourceExhausted(text) if error.errno in _FULL else LayerError(text)


def _while_there_is_room(feed: Feed, destination: int) -> Callable[[], memoryview]:
    """The chunks of `feed`, until the disk has room for no more of them."""
    chunks = 0

    def next_chunk() -> memoryview:
        nonlocal chunks
        chunk = feed.next_chunk()
        if chunks % _LOOK_EVERY == 0 and chunk and room(destination) < len(chunk):
            raise ResourceExhausted("apply layer: the disk has no room for the rest of it")
        chunks += 1
        return chunk

    return next_chunk


def apply(
    blob: int,
    destination: int,
    *,
    expected: Digest | None = None,
    lowers: Sequence[int] = (),
    limit: int = MAX_LAYER_SIZE,
) -> AppliedLayer:
    """Unpack the layer in the regular file `blob` into the empty directory `destination`.

    Args:
        blob: a descriptor, read by position from the start.
        destination: a readable directory descriptor.
        expected: the diff id that the image's configuration promises.
        lowers: directories of the layers below, top first; implied parents take after them.
        limit: bytes of the tar stream, at most.

    Raises:
        LayerError: the layer is malformed, hostile, or beyond a bound.
        DigestMismatch: the tar stream is not the one expected.
        ResourceExhausted: the file system is full.
        DataLoss: the blob could not be read.
    """
    algorithm = expected.algorithm if expected is not None else "sha256"
    feed = Feed(open_stream(blob, limit=limit), algorithm)
    umask = os.umask(0)
    try:
        extractor = Extractor(destination, lowers)
        stream = TarStream(_while_there_is_room(feed, destination))
        extractor.run(stream)
        if expected is None and not stream.closed:
            raise LayerError("apply layer: ends without an end marker")  # and no digest to check
        found = Digest.parse(f"{algorithm}:{feed.hexdigest()}")
    except MemoryError:
        raise LayerError("apply layer: needs more memory than it may have") from None
    finally:
        os.umask(umask)
        feed.close()
    if expected is not None and found != expected:
        raise DigestMismatch(f"apply layer: diff id is {found}, expected {expected}")
    return AppliedLayer(diff_id=found, size=extractor.size, entries=extractor.entries)
