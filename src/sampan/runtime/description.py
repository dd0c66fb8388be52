"""What `state` and `list` tell of containers."""

from __future__ import annotations

import errno
import posix
import time

from sampan.jsontext import encode
from sampan.runtime.failure import RuntimeFailure
from sampan.runtime.state import NoSuchContainer, StateDirectory, all_ids, status_of
from sampan.version import OCI_RUNTIME_SPEC_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def describe(root: str, container_id: str) -> dict[str, Any]:
    """The OCI state of a container (runtime.md, "State"), with runc's extra keys."""
    directory = StateDirectory(root, container_id)
    state = directory.load()
    return describe_as(directory, state, status_of(directory, state))


def describe_as(directory: StateDirectory, state: dict[str, Any], status: str) -> dict[str, Any]:
    """The same for a status that is known."""
    config = state.get("config") or {}
    owner = posix.stat(directory.path).st_uid
    return {
        "ociVersion": config.get("ociVersion", OCI_RUNTIME_SPEC_VERSION),
        "id": directory.container_id,
        "pid": 0 if status == "stopped" else state["pid"],
        "status": status,
        "bundle": state["bundle"],
        "rootfs": state.get("rootfs", ""),
        "created": timestamp(state.get("created", 0)),
        "annotations": config.get("annotations") or {},
        "owner": _owner_name(owner),
    }


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC with nanoseconds, trailing zeros cut, as Go prints it."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def _owner_name(uid: int) -> str:
    if uid == 0:  # which needs no look at what the C library knows of users
        return "root"
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def listing(root: str, form: str, *, quiet: bool) -> str:
    """The text of `list`: a table, `json`, or ids alone."""
    found = []
    for container_id in all_ids(root):
        try:
            found.append(describe(root, container_id))
        except (NoSuchContainer, FileNotFoundError):
            continue  # deleted while we looked
    if quiet:
        return "".join(f"{entry['id']}\n" for entry in found)
    if form == "json":
        return encode(found or None) + "\n"
    if form not in ("", "table"):
        raise RuntimeFailure(errno.EINVAL, "invalid format option")
    rows = [["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]]
    rows += [
        [str(entry[key]) for key in ("id", "pid", "status", "bundle", "created", "owner")]
        for entry in found
    ]
    return _table(rows)


def _table(rows: list[list[str]]) -> str:
    """Columns at least 12 wide, one space between: what Go's tabwriter prints for runc."""
    widths = [max(12, *(len(row[i]) + 1 for row in rows)) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("".join([*cells[:-1], row[-1]]) + "\n")
    return "".join(lines)
