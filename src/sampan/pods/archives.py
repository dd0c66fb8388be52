"""Archives of checkpoints, read: what a container is made of once more.

An archive may come from another node. A locked-up worker takes it apart into numbered files, and of
those only the ones with known names are used: nothing of it chooses a path, and no link is made.
The changed files become a layer above the image, with the care of every layer.

CRIU, which gets the images, does what they say with the rights of the daemon. So an archive must
belong to the user of the daemon, and nobody else may be able to write it.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from sampan.errors import InvalidArgument, NotFound, NotImplementedHere, PermissionDenied
from sampan.images.failures import finish
from sampan.layers.limits import LIST
from sampan.tasks import recovery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sampan.engine.engine import Engine
    from sampan.images.model import Image

CHECKPOINT: Final = "archive"
"""What the engine calls the checkpoint of such a container."""

MAX_DOCUMENT: Final = 4 << 20
_DIFFERENCE: Final = "rootfs-diff.tar"
_DUMPED: Final = re.compile(r"checkpoint/([a-zA-Z0-9][a-zA-Z0-9_.-]{0,250})", re.ASCII)
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_Document = TypeVar("_Document")


class _Config(msgspec.Struct, rename="camel"):
    rootfs_image_ref: str = ""
    rootfs_image_name: str = ""


class _User(msgspec.Struct):
    uid: int = 0


class Process(msgspec.Struct, frozen=True):
    """The first process, as its configuration said."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    terminal: bool = False
    user: _User = msgspec.field(default_factory=_User)


class _Mount(msgspec.Struct):
    destination: str
    type: str = ""
    options: tuple[str, ...] = ()


class _Spec(msgspec.Struct):
    process: Process
    mounts: tuple[_Mount, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What an archive has, as long as it is open. `images` is the directory for CRIU, `difference`
    the file of the layer, "" without one; `bound` are the targets of volumes and the pod's files.
    """

    images: str
    difference: str
    image_names: tuple[str, ...]
    process: Process
    bound: frozenset[str]

    async def image(self, engine: Engine) -> Image:
        """The image that the container was made of. Raises NotFound when it is not here."""
        for name in self.image_names:
            try:
                return await engine.images.get(name)
            except (NotFound, InvalidArgument):
                continue
        raise NotFound(
            f"restore from an archive: its image {self.image_names[-1]!r} is not here; pull it"
        )

    async def install(self, engine: Engine, container_id: str) -> None:
        """Give a container that was never started the files, and what it begins from.

        Raises:
            LayerError: the files are no sound layer. NotImplementedHere: there is no overlayfs.
        """
        if self.difference:
            mount = engine.services.snapshots.mounts(container_id)
            if mount["type"] != "overlay":
                raise NotImplementedHere("restore from an archive: its files need overlayfs")
            file = os.open(self.difference, os.O_RDONLY | os.O_CLOEXEC)
            try:
                await engine.images.apply_file(file, mount["upper"], mount["lowers"])
            finally:
                os.close(file)
        place = f"{engine.services.layout.container(container_id)}/checkpoints"
        os.makedirs(place, 0o700, exist_ok=True)
        os.rename(self.images, f"{place}/{CHECKPOINT}")


@asynccontextmanager
async def opened(engine: Engine, path: str) -> AsyncIterator[Saved]:
    """Take the archive at `path` apart; what is left of it is removed at the end.

    Raises:
        NotFound: nothing is there. PermissionDenied: others may have written it.
        InvalidArgument: it is no archive of a checkpoint.
    """
    fd = open_own(path)
    try:
        work = tempfile.mkdtemp(prefix="checkpoint-", dir=engine.services.layout.trash)
        try:
            parts = f"{work}/parts"
            os.mkdir(parts, 0o700)
            try:
                await engine.images.take_apart(fd, parts)
                saved = await asyncio.to_thread(_read, work, parts)
            except InvalidArgument as error:
                raise InvalidArgument(f"read checkpoint {path}: {error}") from error
            yield saved
        finally:
            await finish(asyncio.to_thread(recovery.clear, work))
    finally:
        os.close(fd)


def open_own(path: str) -> int:
    """A descriptor of a regular file that nobody but our user can have written.

    Raises:
        NotFound: nothing is there. InvalidArgument: it is no file. PermissionDenied: others can.
    """
    try:
        fd = os.open(path, _OPEN)
    except FileNotFoundError:
        raise NotFound(f"read checkpoint {path}: nothing is there") from None
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"read checkpoint {path!r}: {error}") from error
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022:
        return fd
    os.close(fd)
    if not stat.S_ISREG(found.st_mode):
        raise InvalidArgument(f"read checkpoint {path}: it is no regular file")
    raise PermissionDenied(
        f"read checkpoint {path}: what is restored has the daemon's rights, so the file must "
        "belong to its user and be writable by nobody else"
    )


def parse(content: bytes, kind: type[_Document], name: str) -> _Document:
    """A document of a checkpoint. Raises InvalidArgument."""
    if len(content) > MAX_DOCUMENT:
        raise InvalidArgument(f"{name} is larger than {MAX_DOCUMENT} bytes")
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"{name}: {error}") from error


def _read(work: str, parts: str) -> Saved:
    """Blocking. Raises InvalidArgument."""
    files = _files(parts)
    config = parse(_content(files, "config.dump"), _Config, "config.dump")
    spec = parse(_content(files, "spec.dump"), _Spec, "spec.dump")
    names = tuple(filter(None, (config.rootfs_image_ref, config.rootfs_image_name)))
    if not names:
        raise InvalidArgument("config.dump names no image")
    if spec.process.terminal or not spec.process.args:
        raise InvalidArgument("spec.dump: a process with a terminal, or none at all")
    images = f"{work}/images"
    os.mkdir(images, 0o700)
    for name, path in files.items():
        if match := _DUMPED.fullmatch(name):
            os.rename(path, f"{images}/{match[1]}")
    if not os.path.exists(f"{images}/inventory.img"):
        raise InvalidArgument("checkpoint/inventory.img is missing")
    return Saved(
        images=images,
        difference=files.get(_DIFFERENCE, ""),
        image_names=names,
        process=spec.process,
        bound=frozenset(
            os.path.normpath(mount.destination)
            for mount in spec.mounts
            if mount.type == "bind" or {"bind", "rbind"} & set(mount.options)
        ),
    )


def _files(parts: str) -> dict[str, str]:
    """The name in the archive to the path of the numbered file; links lead nowhere."""
    found = {}
    with open(f"{parts}/{LIST}", encoding="utf-8") as lines:
        for line in lines:
            name, number, *size = msgspec.json.decode(line)
            if size:
                found[name] = f"{parts}/{number}"
    return found


def _content(files: dict[str, str], name: str) -> bytes:
    try:
        with open(files[name], "rb") as file:
            return file.read(MAX_DOCUMENT + 1)
    except KeyError:
        raise InvalidArgument(f"{name} is missing") from None
