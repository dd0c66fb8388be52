"""`images`, `rmi`, `tag`, `history`: the images that are here."""

from __future__ import annotations

from sampan.cli.session import Command, Refused, Session
from sampan.cli.tables import TABLE_FORMAT, parse_filters, show
from sampan.cli.units import ago, decimal_size, zoned_time
from sampan.client import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values

_NONE = "<none>"
HEADERS = {
    "Containers": "CONTAINERS",
    "CreatedAt": "CREATED AT",
    "CreatedSince": "CREATED",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "SharedSize": "SHARED SIZE",
    "Size": "SIZE",
    "Tag": "TAG",
    "UniqueSize": "UNIQUE SIZE",
    "VirtualSize": "SIZE",
}
HISTORY_HEADERS = {
    "Comment": "COMMENT",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "CreatedSince": "CREATED",
    "ID": "IMAGE",
    "Size": "SIZE",
}


def _short(digest: str, *, full: bool) -> str:
    return digest if full else digest.removeprefix("sha256:")[:12]


def _names(image: dict[str, Any], *, digests: bool) -> list[tuple[str, str, str]]:
    """(repository, tag, digest) of each row that an image has in the table."""
    by_repository = dict(text.rsplit("@", 1) for text in image.get("RepoDigests") or ())
    rows = []
    for name in image.get("RepoTags") or ():
        repository, _, tag = name.rpartition(":")
        digest = by_repository.get(repository, _NONE) if digests else _NONE
        rows.append((repository, tag, digest))
    named = {repository for repository, _, _ in rows}
    if not rows or digests:
        for repository, digest in by_repository.items():
            if repository not in named:
                rows.append((repository, _NONE, digest if digests else _NONE))
    return rows or [(_NONE, _NONE, _NONE)]


def _rows(image: dict[str, Any], *, digests: bool, full: bool) -> list[dict[str, Any]]:
    size = image["Size"]
    return [
        {
            "Containers": "N/A",
            "CreatedAt": zoned_time(image["Created"]),
            "CreatedSince": ago(image["Created"]) if image["Created"] else "N/A",
            "Digest": digest,
            "ID": _short(image["Id"], full=full),
            "Repository": repository,
            "SharedSize": "N/A",
            "Size": decimal_size(size, 3),
            "Tag": tag,
            "UniqueSize": "N/A",
            "VirtualSize": decimal_size(size),
        }
        for repository, tag, digest in _names(image, digests=digests)
    ]


def images(session: Session, flags: Values, words: list[str]) -> int:
    filters = parse_filters(flags.many("filter"))
    if words:
        filters["reference"] = [words[0]]
    found = session.call(calls.images(everything=flags.on("all"), filters=filters))
    layout, full = flags.text("format"), flags.on("no-trunc")
    digests = flags.on("digests") or ".Digest" in layout
    rows = [row for image in found for row in _rows(image, digests=digests, full=full)]
    if flags.on("quiet") and not layout:
        for row in rows:
            session.out(row["ID"])
        return 0
    digest = " Digest" if flags.on("digests") else ""
    show(session, rows, f"Repository Tag{digest} ID CreatedSince Size", HEADERS, layout)
    return 0


def remove(session: Session, flags: Values, names: list[str]) -> int:
    force, code = flags.on("force"), 0
    for name in names:
        call = calls.image_remove(name, force=force, prune=not flags.on("no-prune"))
        try:
            removed = session.call(call)
        except Refused as error:
            session.error(str(error))
            if not (force and error.status == 404):
                code = 1
            continue
        for item in removed:
            for word in ("Untagged", "Deleted"):
                if item.get(word):
                    session.out(f"{word}: {item[word]}")
    return code


def tag(session: Session, _: Values, names: list[str]) -> int:
    session.call(calls.image_tag(names[0], names[1]))
    return 0


def history(session: Session, flags: Values, names: list[str]) -> int:
    full, human = flags.on("no-trunc"), flags.on("human", default=True)
    rows = []
    for layer in session.call(calls.image_history(names[0])):
        moment = _moment(layer["Created"])
        by = " ".join(layer["CreatedBy"].replace("\t", " ").split(" "))
        rows.append(
            {
                "Comment": layer["Comment"],
                "CreatedAt": moment,
                "CreatedBy": by if full or len(by) <= 45 else by[:44] + "…",
                "CreatedSince": ago(layer["Created"]) if human else moment,
                "ID": _short(layer["Id"], full=full),
                "Size": decimal_size(layer["Size"], 3) if human else str(layer["Size"]),
            }
        )
    layout = flags.text("format")
    if flags.on("quiet") and not layout:
        for row in rows:
            session.out(row["ID"])
        return 0
    show(session, rows, "ID CreatedSince CreatedBy Size Comment", HISTORY_HEADERS, layout)
    return 0


def _moment(seconds: int) -> str:
    import time

    zone = time.strftime("%z", time.localtime(seconds))
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds)) + zone


IMAGES = Command(
    images,
    "[OPTIONS] [REPOSITORY[:TAG]]",
    "List images",
    """\
  -a, --all             Show all images (default hides intermediate images)
      --digests         Show digests
  -f, --filter filter   Filter output based on conditions provided
"""
    + TABLE_FORMAT
    + """\
      --no-trunc        Don't truncate output
  -q, --quiet           Only show image IDs
""",
    most=1,
    names="image ls, image list, images",
)
RMI = Command(
    remove,
    "[OPTIONS] IMAGE [IMAGE...]",
    "Remove one or more images",
    """\
  -f, --force      Force removal of the image
      --no-prune   Do not delete untagged parents
""",
    least=1,
    names="image rm, image remove, rmi",
)
TAG = Command(
    tag,
    "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    least=2,
    most=2,
    names="image tag, tag",
)
HISTORY = Command(
    history,
    "[OPTIONS] IMAGE",
    "Show the history of an image",
    TABLE_FORMAT
    + """\
  -H, --human           Print sizes and dates in human readable format
                        (default true)
      --no-trunc        Don't truncate output
  -q, --quiet           Only show image IDs
""",
    least=1,
    most=1,
    names="image history, history",
)
