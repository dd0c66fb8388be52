"""`save` and `load`: images as files."""

from __future__ import annotations

import os

from sampan.cli.progress import show
from sampan.cli.session import Command, Failed, Session, write
from sampan.cli.targets import to_file
from sampan.client import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.cli.flags import Values

_PIECE = 1 << 20
_FORMATS = ("docker-archive", "oci-archive", "oci-dir")


def save(session: Session, flags: Values, images: list[str]) -> int:
    target, kind = flags.text("output"), flags.text("format") or "docker-archive"
    if kind not in _FORMATS:
        raise Failed(f"unknown format {kind!r}: use {', '.join(_FORMATS)}")
    if not target:
        if os.isatty(1):
            raise Failed("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        if kind == "oci-dir":
            raise Failed("--format oci-dir needs a directory: use the -o flag")
    wire_kind = "oci-archive" if kind == "oci-dir" else kind
    call = calls.save(images, platform=flags.text("platform"), kind=wire_kind)
    pieces = session.client.open(call).pieces()
    if kind == "oci-dir":
        from sampan.cli.layouts import unpack

        unpack(pieces, target)
    elif target:
        to_file(pieces, target)
    else:
        for piece in pieces:
            write(1, piece)
    return 0


def export(session: Session, flags: Values, images: list[str]) -> int:
    target = flags.text("output")
    if not target and os.isatty(1):
        raise Failed("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    call = calls.image_export(images[0], flags.text("platform"))
    pieces = session.client.open(call).pieces()
    if target:
        to_file(pieces, target)
        return 0
    for piece in pieces:
        write(1, piece)
    return 0


def load(session: Session, flags: Values, _: list[str]) -> int:
    path, quiet = flags.text("input"), flags.on("quiet")
    if not path and os.isatty(0):
        raise Failed("requested load from stdin, but stdin is empty")
    if path and not os.path.exists(path):
        raise Failed(f"open {path}: no such file or directory")
    if os.path.isdir(path):
        from sampan.cli.layouts import pack

        pieces = pack(path)
    else:
        pieces = _pieces(path)
    call = calls.load(pieces, quiet=quiet or not os.isatty(1), platform=flags.text("platform"))
    show(session.client.open(call).lines(), 1)
    return 0


def _pieces(path: str) -> Iterator[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path else 0
    try:
        while data := os.read(fd, _PIECE):
            yield data
    finally:
        if path:
            os.close(fd)


SAVE = Command(
    save,
    "[OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    """\
      --format string     docker-archive, oci-archive, or oci-dir with -o
                          (default "docker-archive")
  -o, --output string     Write to a file, instead of STDOUT
      --platform string   Save only the given platform
""",
    least=1,
    names="image save, save",
)
LOAD = Command(
    load,
    "[OPTIONS]",
    "Load an image from a tar archive or STDIN",
    """\
  -i, --input string      Read from tar archive file or OCI layout
                          directory, instead of STDIN
      --platform string   Load only the given platform
  -q, --quiet             Suppress the load output
""",
    most=0,
    names="image load, load",
)
EXPORT = Command(
    export,
    "[OPTIONS] IMAGE",
    "Write the whole file system of an image as a tar archive",
    """\
  -o, --output string     Write to a file, instead of STDOUT
      --platform string   The platform to write
""",
    least=1,
    most=1,
)
