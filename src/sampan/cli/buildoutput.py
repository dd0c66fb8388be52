"""`--output`: what becomes of an image besides its being there: an archive, files, a registry.

    type=image[,name=NAME][,push=true]   the image here (the default), perhaps pushed
    type=registry[,name=NAME]            pushed
    type=docker|oci[,dest=FILE]          an archive; oci with tar=false a directory
    type=tar,dest=FILE|-                 the files of the image as a tar
    type=local,dest=DIRECTORY            the files themselves, owned by the caller

Files that the image controls are written below the directory that was named, by descriptors, and
never through one of the image's links to somewhere else; devices are left out.
"""

from __future__ import annotations

import os

from sampan.cli.session import Failed, Session, write
from sampan.client import buildquery, calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_KEYS = {
    "docker": ("dest", "name"),
    "image": ("name", "push"),
    "local": ("dest",),
    "oci": ("dest", "name", "tar"),
    "registry": ("name", "push"),
    "tar": ("dest",),
}
_NAMELESS = ("local", "tar")


class Output:
    """One output. `names` are names that it asks for."""

    def __init__(self, text: str) -> None:
        words = _words(text)
        self.kind = words.pop("type", "local")
        if self.kind not in _KEYS:
            from sampan.builder.language.failure import nearest

            raise Failed(f"invalid output type {self.kind!r}{nearest(self.kind, _KEYS)}")
        if unknown := words.keys() - set(_KEYS[self.kind]):
            raise Failed(f"invalid output {text!r}: {min(unknown)!r} means nothing there")
        self.dest = words.get("dest", "")
        self.names = [name for name in words.get("name", "").split(",") if name]
        self.push = self.kind == "registry" or words.get("push") == "true"
        self.as_directory = words.get("tar") == "false"
        if not self.dest and self.kind in ("local", "oci", "tar"):
            raise Failed(f"dest is required for the output {self.kind}")
        if self.dest == "-" and self.kind == "local":
            raise Failed("an output of files needs a directory: dest=DIRECTORY")
        if self.dest == "-" and os.isatty(1):
            raise Failed("refusing to write an archive to a terminal: redirect, or give dest=FILE")

    def carry_out_each(self, session: Session, images: dict[str, str], names: list[str]) -> None:
        """Do it, for the images of several platforms: files go to a directory for each.

        Raises:
            Failed: the form has no place for more than one.
        """
        if self.kind == "local":
            for platform, image in images.items():
                place = os.path.join(self.dest, platform.replace("/", "_"))
                extract(session.client.open(calls.image_export(image)).pieces(), place)
        elif self.kind in ("docker", "tar"):
            raise Failed(f"an output of the type {self.kind} is for one platform at a time")
        else:
            self.carry_out(session, "", names)

    @property
    def keeps_image(self) -> bool:
        """Whether the image is to stay here under its names."""
        return self.kind not in _NAMELESS

    def carry_out(self, session: Session, image: str, names: list[str]) -> None:
        """Do it, for an image that is there."""
        if self.kind in ("image", "registry"):
            return
        if self.kind in _NAMELESS:
            pieces = session.client.open(calls.image_export(image)).pieces()
            if self.kind == "local":
                extract(pieces, self.dest)
            else:
                _save(pieces, self.dest)
        elif self.dest:
            kind = f"{self.kind}-archive"
            pieces = session.client.open(calls.save(names or [image], kind=kind)).pieces()
            if self.as_directory:
                from sampan.cli.layouts import unpack

                unpack(pieces, self.dest)
            else:
                _save(pieces, self.dest)


def _words(text: str) -> dict[str, str]:
    if "=" not in text:  # a directory, or - for a tar on standard output
        return {"type": "tar" if text == "-" else "local", "dest": text}
    keys = {"type", *(key for keys in _KEYS.values() for key in keys)}
    words = buildquery.fields_of(text, "output", keys)
    if "" in words:
        raise Failed(f"invalid output {text!r}: {words['']!r} has no value")
    return words


def _save(pieces: Iterator[bytes], target: str) -> None:
    if target == "-":
        for piece in pieces:
            write(1, piece)
        return
    from sampan.cli.targets import to_file

    to_file(pieces, target)


def extract(pieces: Iterator[bytes], target: str) -> None:
    """Write the files of a tar below a directory, as the caller's own."""
    import tempfile

    from sampan.builder.files import index, nodes
    from sampan.builder.files.place import Manner, Placer
    from sampan.builder.files.select import Pick
    from sampan.builder.language.ignore import Ignore

    os.makedirs(target, exist_ok=True)
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with tempfile.TemporaryFile(dir=target) as spool:
            for piece in pieces:
                spool.write(piece)
            spool.flush()
            spool.seek(0)
            found = index.read(spool.fileno(), -1, hashed=False)
            devices = (nodes.CHARACTER, nodes.BLOCK)
            kept = {path: node for path, node in found.items() if node.kind not in devices}
            placer = Placer(root, Manner(os.geteuid(), os.getegid()))
            try:
                everything = Pick(b"", nodes.Node(nodes.DIRECTORY), b"")
                source = nodes.Archive(spool.fileno(), kept)
                placer.place(source, everything, b"", Ignore([]), into=True)
            finally:
                placer.close()
    finally:
        os.close(root)
