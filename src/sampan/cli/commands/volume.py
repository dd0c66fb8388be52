"""`sampan volume`: create, export, import, inspect, ls, prune, rm."""

from __future__ import annotations

import os

from sampan.cli.commands.inspect import FORMAT, print_documents
from sampan.cli.commands.usage import confirmed, print_deleted
from sampan.cli.session import Command, Failed, Refused, Session
from sampan.cli.tables import TABLE_FORMAT, parse_filters, show
from sampan.cli.units import decimal_size
from sampan.client import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values

HEADERS = {
    "Availability": "AVAILABILITY",
    "Driver": "DRIVER",
    "Group": "GROUP",
    "Labels": "LABELS",
    "Links": "LINKS",
    "Mountpoint": "MOUNTPOINT",
    "Name": "VOLUME NAME",
    "Scope": "SCOPE",
    "Size": "SIZE",
    "Status": "STATUS",
}
_WARNING = "WARNING! This will remove {} local volumes not used by at least one container."


def _pairs(texts: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def create(session: Session, flags: Values, words: list[str]) -> int:
    name = flags.text("name")
    if words and name:
        raise Failed("conflicting options: cannot specify a volume-name through both --name and as "
                     "a positional arg")  # fmt: skip
    body: dict[str, Any] = {"Driver": flags.text("driver", "local")}
    if words or name:
        body["Name"] = words[0] if words else name
    if flags.many("label"):
        body["Labels"] = _pairs(flags.many("label"))
    if flags.many("opt"):
        body["DriverOpts"] = _pairs(flags.many("opt"))
    session.out(session.call(calls.volume_create(body))["Name"])
    return 0


def inspect(session: Session, flags: Values, names: list[str]) -> int:
    documents, errors = [], []
    for name in names:
        try:
            documents.append(session.call(calls.volume_inspect(name)))
        except Refused as error:
            errors.append(str(error))
    print_documents(session, documents, flags.text("format"))
    for text in errors:
        session.error(text)
    return 1 if errors else 0


def row(volume: dict[str, Any]) -> dict[str, Any]:
    """A volume's fields as text."""
    labels = volume.get("Labels") or {}
    return {
        "Availability": "N/A",
        "Driver": volume["Driver"],
        "Group": "N/A",
        "Labels": ",".join(f"{name}={labels[name]}" for name in sorted(labels)),
        "Links": "N/A",
        "Mountpoint": volume["Mountpoint"],
        "Name": volume["Name"],
        "Scope": volume["Scope"],
        "Size": "N/A",
        "Status": "N/A",
    }


def listing(session: Session, flags: Values, _: list[str]) -> int:
    found = session.call(calls.volumes(parse_filters(flags.many("filter"))))["Volumes"] or []
    layout = flags.text("format")
    if flags.on("quiet") and not layout:
        for volume in found:
            session.out(volume["Name"])
        return 0
    show(session, [row(volume) for volume in found], "Driver Name", HEADERS, layout)
    return 0


def export(session: Session, flags: Values, names: list[str]) -> int:
    from sampan.cli.output import refuse_terminal, to_file

    target = flags.text("output")
    refuse_terminal(target)
    to_file(session.client.open(calls.volume_export(names[0])).pieces(), target)
    return 0


def bring(session: Session, _: Values, words: list[str]) -> int:
    from sampan.cli.output import pieces_of

    name, path = words
    if path != "-" and not os.path.isfile(path):
        raise Failed(f"open {path}: no such file")
    session.call(calls.volume_import(name, pieces_of("" if path == "-" else path)))
    return 0


def remove(session: Session, flags: Values, names: list[str]) -> int:
    force = flags.on("force")
    return session.each(names, lambda name: session.call(calls.volume_remove(name, force=force)))


def prune(session: Session, flags: Values, _: list[str]) -> int:
    everything = flags.on("all")
    which = "all" if everything else "anonymous"
    if not confirmed(flags, _WARNING.format(which)):
        return 0
    filters = parse_filters(flags.many("filter"))
    if everything:
        filters["all"] = ["true"]
    answer = session.call(calls.prune_volumes(filters))
    print_deleted(session, "Deleted Volumes", answer.get("VolumesDeleted") or [])
    session.out("Total reclaimed space: " + decimal_size(answer.get("SpaceReclaimed") or 0))
    return 0


CREATE = Command(
    create,
    "[OPTIONS] [VOLUME]",
    "Create a volume",
    """\
  -d, --driver string   Specify volume driver name (default "local")
      --label list      Set metadata for a volume
      --name string     Specify volume name
  -o, --opt map         Set driver specific options: type, device and o, the
                        words of mount
""",
    most=1,
)
INSPECT = Command(
    inspect,
    "[OPTIONS] VOLUME [VOLUME...]",
    "Display detailed information on one or more volumes",
    FORMAT,
    least=1,
)
LS = Command(
    listing,
    "[OPTIONS]",
    "List volumes",
    """\
  -f, --filter filter   Provide filter values (e.g. "dangling=true")
"""
    + TABLE_FORMAT
    + """\
  -q, --quiet           Only display volume names
""",
    most=0,
    names="volume ls, volume list",
)
RM = Command(
    remove,
    "[OPTIONS] VOLUME [VOLUME...]",
    "Remove one or more volumes",
    "  -f, --force   Force the removal of one or more volumes\n",
    least=1,
    names="volume rm, volume remove",
)
EXPORT = Command(
    export,
    "[OPTIONS] VOLUME",
    "Export a volume's files as a tar archive",
    "  -o, --output string   Write to a file, instead of STDOUT\n",
    least=1,
    most=1,
)
IMPORT = Command(
    bring,
    "VOLUME FILE|-",
    "Put the files of a tar archive into a volume",
    "",
    least=2,
    most=2,
)
PRUNE = Command(
    prune,
    "[OPTIONS]",
    "Remove unused local volumes",
    """\
  -a, --all             Remove all unused volumes, not just anonymous ones
      --filter filter   Provide filter values (e.g. "label=<label>")
  -f, --force           Do not prompt for confirmation
""",
    most=0,
)
