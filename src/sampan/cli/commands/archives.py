"""`save` and `load`: images as files."""

from __future__ import annotations

import os

from sampan.cli.output import pieces_of, refuse_terminal, to_file
from sampan.cli.progress import show
from sampan.cli.session import Command, Failed, Session
from sampan.client import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.flags import Values

_FORMATS = ("docker-archive", "oci-archive", "oci-dir")


def save(session: Session, flags: Values, images: list[str]) -> int:
    target, kind = flags.text("output"), flags.text("format") or "docker-archive"
    if kind not in _FORMATS:
        raise Failed(f"unknown format {kind!r}: use {', '.join(_FORMATS)}")
    if kind == "oci-dir" and not target:
        raise Failed("--format oci-dir needs a directory: use the -o flag")
    refuse_terminal(target)
    wire_kind = "oci-archive" if kind == "oci-dir" else kind
    call = calls.save(images, platform=flags.text("platform"), kind=wire_kind)
    pieces = session.client.open(call).pieces()
    if kind == "oci-dir":
        from sampan.cli.layouts import unpack

        unpack(pieces, target)
    else:
        to_file(pieces, target)
    return 0


def export(session: Session, flags: Values, images: list[str]) -> int:
    target = flags.text("output")
    refuse_terminal(target)
    call = calls.image_export(images[0], flags.text("platform"))
    to_file(session.client.open(call).pieces(), target)
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
        pieces = pieces_of(path)
    call = calls.load(pieces, quiet=quiet or not os.isatty(1), platform=flags.text("platform"))
    show(session.client.open(call).lines(), 1)
    return 0


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
