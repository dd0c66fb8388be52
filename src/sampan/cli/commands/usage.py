"""`system df` and the prunes: what takes space, and what of it can go."""

from __future__ import annotations

import os

from sampan.cli.session import Command, Session, write
from sampan.cli.tables import TABLE_FORMAT, parse_filters, show
from sampan.cli.units import decimal_size
from sampan.client import buildquery, calls, network_calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values

HEADERS = {
    "Active": "ACTIVE",
    "Reclaimable": "RECLAIMABLE",
    "Size": "SIZE",
    "TotalCount": "TOTAL",
    "Type": "TYPE",
}


def _row(kind: str, total: int, active: int, size: int, free: int) -> dict[str, Any]:
    share = f" ({free * 100 // size}%)" if size else ""
    return {
        "Active": str(active),
        "Reclaimable": decimal_size(free) + share,
        "Size": decimal_size(size),
        "TotalCount": str(total),
        "Type": kind,
    }


def _volumes_row(volumes: list[dict[str, Any]]) -> dict[str, Any]:
    figures = [volume.get("UsageData") or {} for volume in volumes]
    sizes = [max(0, one.get("Size") or 0) for one in figures]
    users = [max(0, one.get("RefCount") or 0) for one in figures]
    free = sum(size for size, count in zip(sizes, users, strict=True) if not count)
    return _row("Local Volumes", len(volumes), sum(map(bool, users)), sum(sizes), free)


def _cache_row(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What an image has too counts there, and not here."""
    own = [record.get("Size") or 0 for record in records if not record.get("Shared")]
    busy = sum(bool(record.get("InUse")) for record in records)
    return _row("Build Cache", len(records), busy, sum(own), sum(own))


def rows(usage: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of an answer, a row for each kind of thing."""
    images, containers = usage.get("Images") or [], usage.get("Containers") or []
    layers = usage.get("LayersSize") or 0
    used = sum(
        image["Size"] - image["SharedSize"]
        for image in images
        if image.get("Containers", 0) > 0 and image.get("SharedSize", -1) >= 0
    )
    active = [one for one in containers if one["State"] in ("running", "paused", "restarting")]
    written = sum(one.get("SizeRw") or 0 for one in containers)
    busy = sum(one.get("SizeRw") or 0 for one in active)
    in_use = sum(image.get("Containers", 0) > 0 for image in images)
    return [
        _row("Images", len(images), in_use, layers, max(0, layers - used)),
        _row("Containers", len(containers), len(active), written, written - busy),
        _volumes_row(usage.get("Volumes") or []),
        _cache_row(usage.get("BuildCache") or []),
    ]


def df(session: Session, flags: Values, _: list[str]) -> int:
    if flags.on("verbose"):
        from sampan.cli.usagedetails import show_details

        show_details(session, session.call(calls.disk_usage()))
        return 0
    columns = "Type TotalCount Active Size Reclaimable"
    show(session, rows(session.call(calls.disk_usage())), columns, HEADERS, flags.text("format"))
    return 0


def confirmed(flags: Values, warning: str) -> bool:
    """Whether the user, or --force, says yes to what is about to be removed."""
    if flags.on("force"):
        return True
    write(1, f"{warning}\nAre you sure you want to continue? [y/N] ".encode())
    return os.read(0, 1024).strip().lower() in (b"y", b"yes")


def print_deleted(session: Session, title: str, lines: list[str]) -> None:
    """Print what a prune removed, if anything."""
    if lines:
        session.out(f"{title}:\n" + "\n".join(lines) + "\n")


def _image_lines(answer: dict[str, Any]) -> list[str]:
    return [
        f"{word.lower()}: {item[word]}"
        for item in answer.get("ImagesDeleted") or ()
        for word in ("Untagged", "Deleted")
        if item.get(word)
    ]


def _dangling(flags: Values) -> dict[str, list[str]]:
    return {
        "dangling": ["false" if flags.on("all") else "true"],
        **parse_filters(flags.many("filter")),
    }


def prune_containers(session: Session, flags: Values, _: list[str]) -> int:
    if not confirmed(flags, "WARNING! This will remove all stopped containers."):
        return 0
    answer = session.call(calls.prune_containers(parse_filters(flags.many("filter"))))
    print_deleted(session, "Deleted Containers", answer.get("ContainersDeleted") or [])
    session.out(f"Total reclaimed space: {decimal_size(answer.get('SpaceReclaimed') or 0)}")
    return 0


def prune_images(session: Session, flags: Values, _: list[str]) -> int:
    what = (
        "all images without at least one container associated to them"
        if flags.on("all")
        else "all dangling images"
    )
    if not confirmed(flags, f"WARNING! This will remove {what}."):
        return 0
    answer = session.call(calls.prune_images(_dangling(flags)))
    print_deleted(session, "Deleted Images", _image_lines(answer))
    session.out(f"Total reclaimed space: {decimal_size(answer.get('SpaceReclaimed') or 0)}")
    return 0


def prune_system(session: Session, flags: Values, _: list[str]) -> int:
    if not confirmed(flags, _prune_warning(flags)):
        return 0
    filters = parse_filters(flags.many("filter"))
    everything = flags.on("all")
    containers = session.call(calls.prune_containers(filters))
    volumes = session.call(calls.prune_volumes(filters)) if flags.on("volumes") else {}
    networks = session.call(network_calls.prune(filters))
    images = session.call(calls.prune_images(_dangling(flags)))
    until = {"until": filters["until"]} if "until" in filters else None
    cache = session.call(buildquery.prune(calls.filters_text(until), everything=everything))
    print_deleted(session, "Deleted Containers", containers.get("ContainersDeleted") or [])
    print_deleted(session, "Deleted Volumes", volumes.get("VolumesDeleted") or [])
    print_deleted(session, "Deleted Networks", networks.get("NetworksDeleted") or [])
    print_deleted(session, "Deleted Images", _image_lines(images))
    print_deleted(session, "Deleted build cache objects", cache.get("CachesDeleted") or [])
    answers = (containers, volumes, images, cache)
    total = sum(one.get("SpaceReclaimed") or 0 for one in answers)
    session.out(f"Total reclaimed space: {decimal_size(total)}")
    return 0


def _prune_warning(flags: Values) -> str:
    images = "images without at least one container associated to them"
    parts = ["all stopped containers", "all networks not used by at least one container"]
    if flags.on("volumes"):
        parts.append("all anonymous volumes not used by at least one container")
    parts.append(f"all {images}" if flags.on("all") else "all dangling images")
    parts.append("all build cache" if flags.on("all") else "unused build cache")
    return "WARNING! This will remove:\n" + "".join(f"  - {part}\n" for part in parts)


_FILTER = """\
      --filter filter   Provide filter values (e.g. "until=<timestamp>")
  -f, --force           Do not prompt for confirmation
"""

DF = Command(
    df,
    "[OPTIONS]",
    "Show disk usage",
    TABLE_FORMAT
    + """\
  -v, --verbose         Show detailed information on space usage
""",
    most=0,
)
PRUNE_CONTAINERS = Command(
    prune_containers, "[OPTIONS]", "Remove all stopped containers", _FILTER, most=0
)
PRUNE_IMAGES = Command(
    prune_images,
    "[OPTIONS]",
    "Remove unused images",
    "  -a, --all             Remove all unused images, not just dangling ones\n" + _FILTER,
    most=0,
)
PRUNE_SYSTEM = Command(
    prune_system,
    "[OPTIONS]",
    "Remove unused data",
    "  -a, --all             Remove all unused images not just dangling ones\n"
    + _FILTER
    + "      --volumes         Prune anonymous volumes\n",
    most=0,
)
