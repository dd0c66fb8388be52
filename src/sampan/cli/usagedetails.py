"""`system df -v`: each image, container, volume and piece of the build cache with what it takes."""

from __future__ import annotations

from sampan.cli.tables import align
from sampan.cli.units import ago, decimal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.session import Session

_NONE = "<none>"


def show_details(session: Session, usage: dict[str, Any]) -> None:
    """Print the four tables of an answer."""
    cache = usage.get("BuildCache") or []
    total = decimal_size(sum(one.get("Size") or 0 for one in cache if not one.get("Shared")))
    for title, head, rows in (
        (
            "Images space usage:",
            "REPOSITORY TAG IMAGE_ID CREATED SIZE SHARED_SIZE UNIQUE_SIZE CONTAINERS",
            [_image(image) for image in usage.get("Images") or ()],
        ),
        (
            "Containers space usage:",
            "CONTAINER_ID IMAGE COMMAND LOCAL_VOLUMES SIZE CREATED STATUS NAMES",
            [_container(one) for one in usage.get("Containers") or ()],
        ),
        (
            "Local Volumes space usage:",
            "VOLUME_NAME LINKS SIZE",
            [_volume(one) for one in usage.get("Volumes") or ()],
        ),
        (
            f"Build cache usage: {total}",
            "CACHE_ID CACHE_TYPE SIZE CREATED LAST_USED USAGE SHARED",
            [_cache(one) for one in cache],
        ),
    ):
        columns = [word.replace("_", " ") for word in head.split()]
        if not title.startswith("Images"):
            session.out("")
        session.out(f"{title}\n\n" + "\n".join(align([columns, *rows])))


def _image(image: dict[str, Any]) -> list[str]:
    """One row, also of an image with many names: it takes its space once."""
    shared = max(0, image.get("SharedSize") or 0)
    first = (image.get("RepoTags") or [f"{_NONE}:{_NONE}"])[0]
    repository, _, tag = first.rpartition(":")
    return [
        repository,
        tag,
        image["Id"].removeprefix("sha256:")[:12],
        ago(image["Created"]) if image["Created"] else "N/A",
        decimal_size(image["Size"], 3),
        decimal_size(shared, 3),
        decimal_size(image["Size"] - shared),
        str(max(0, image.get("Containers") or 0)),
    ]


def _container(one: dict[str, Any]) -> list[str]:
    command = one.get("Command") or ""
    local = [mount for mount in one.get("Mounts") or () if mount.get("Type") == "volume"]
    return [
        one["Id"][:12],
        one.get("Image") or "",
        f'"{command if len(command) <= 20 else command[:19] + "…"}"',
        str(len(local)),
        decimal_size(one.get("SizeRw") or 0, 3),
        ago(one["Created"]),
        one.get("Status") or "",
        ",".join(name.lstrip("/") for name in one.get("Names") or ()),
    ]


def _volume(one: dict[str, Any]) -> list[str]:
    data = one.get("UsageData") or {}
    size = data.get("Size", -1)
    shown = decimal_size(size) if size >= 0 else "N/A"
    return [one["Name"], str(max(0, data.get("RefCount") or 0)), shown]


def _cache(one: dict[str, Any]) -> list[str]:
    return [
        (one.get("ID") or "")[:12],
        one.get("Type") or "",
        decimal_size(one.get("Size") or 0, 3),
        one.get("CreatedAt") or "",
        one.get("LastUsedAt") or "",
        str(one.get("UsageCount") or 0),
        "true" if one.get("Shared") else "false",
    ]
