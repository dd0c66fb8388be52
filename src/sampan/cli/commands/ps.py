"""`ps`: the containers."""

from __future__ import annotations

from sampan.cli.session import Command, Session
from sampan.cli.tables import TABLE_FORMAT, parse_filters, show
from sampan.cli.units import ago, decimal_size, zoned_time
from sampan.client import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values

HEADERS = {
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Labels": "LABELS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Mounts": "MOUNTS",
    "Names": "NAMES",
    "Networks": "NETWORKS",
    "Platform": "PLATFORM",
    "Ports": "PORTS",
    "RunningFor": "CREATED",
    "Size": "SIZE",
    "State": "STATE",
    "Status": "STATUS",
}
_COLUMNS = "ID Image Command RunningFor Status Ports Names"


def _ellipsis(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _ports(ports: list[dict[str, Any]]) -> str:
    texts = []
    for port in sorted(ports, key=lambda port: (port["PrivatePort"], port.get("PublicPort", 0))):
        inner = f"{port['PrivatePort']}/{port['Type']}"
        address = port.get("IP", "")
        address = f"[{address}]" if ":" in address else address
        outer = f"{address}:{port['PublicPort']}->" if port.get("PublicPort") else ""
        texts.append(outer + inner)
    return ", ".join(texts)


def _image(container: dict[str, Any], *, full: bool) -> str:
    name = container.get("Image") or "<no image>"
    if full or name != container.get("ImageID"):
        return str(name)
    return str(name).removeprefix("sha256:")[:12]


def _size(container: dict[str, Any]) -> str:
    written, virtual = container.get("SizeRw") or 0, container.get("SizeRootFs") or 0
    text = decimal_size(written, 3)
    return f"{text} (virtual {decimal_size(virtual, 3)})" if virtual else text


def row(container: dict[str, Any], *, full: bool) -> dict[str, Any]:
    """A container's fields as text; `full` leaves nothing out."""
    command = container.get("Command") or ""
    mounted = container.get("Mounts") or ()
    mounts = [mount.get("Name") or mount.get("Source", "") for mount in mounted]
    labels = container.get("Labels") or {}
    names = [name.lstrip("/") for name in container.get("Names") or ()]
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    return {
        "Command": f'"{command if full else _ellipsis(command, 20)}"',
        "CreatedAt": zoned_time(container["Created"]),
        "ID": container["Id"] if full else container["Id"][:12],
        "Image": _image(container, full=full),
        "Labels": ",".join(f"{name}={labels[name]}" for name in sorted(labels)),
        "LocalVolumes": str(sum(mount.get("Driver") == "local" for mount in mounted)),
        "Mounts": ",".join(mount if full else _ellipsis(mount, 15) for mount in mounts),
        "Names": ",".join(name for name in names if full or "/" not in name),
        "Networks": ",".join(networks),
        "Platform": None,
        "Ports": _ports(container.get("Ports") or []),
        "RunningFor": ago(container["Created"]),
        "Size": _size(container),
        "State": container.get("State") or "",
        "Status": container.get("Status") or "",
    }  # fmt: skip


def ps(session: Session, flags: Values, _: list[str]) -> int:
    layout = flags.text("format")
    size = flags.on("size")
    last = flags.number("last")
    call = calls.containers(
        everything=flags.on("all"),
        limit=1 if flags.on("latest") else last if last and last > 0 else None,
        size=size or (layout == "json" or ".Size" in layout or "json ." in layout),
        filters=parse_filters(flags.many("filter")),
    )
    full = flags.on("no-trunc")
    containers = session.call(call)
    if flags.on("quiet") and not layout:
        for container in containers:
            session.out(container["Id"] if full else container["Id"][:12])
        return 0
    rows = [row(container, full=full) for container in containers]
    show(session, rows, _COLUMNS + (" Size" if size else ""), HEADERS, layout)
    return 0


PS = Command(
    ps,
    "[OPTIONS]",
    "List containers",
    """\
  -a, --all             Show all containers (default shows just running)
  -f, --filter filter   Filter output based on conditions provided
"""
    + TABLE_FORMAT
    + """\
  -n, --last int        Show n last created containers (includes all
                        states) (default -1)
  -l, --latest          Show the latest created container (includes all
                        states)
      --no-trunc        Don't truncate output
  -q, --quiet           Only display container IDs
  -s, --size            Display total file sizes
""",
    most=0,
    names="container ls, container list, container ps, ps",
)
