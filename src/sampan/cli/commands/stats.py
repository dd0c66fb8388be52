"""`stats`: what containers use of the machine."""

from __future__ import annotations

from sampan.cli.session import Command, Failed, Refused, Session, write
from sampan.cli.tables import TABLE_FORMAT, align, render
from sampan.cli.units import binary_size, decimal_size
from sampan.client import calls
from sampan.client.figures import blocks, cpu_percent, memory_used

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values

HEADERS = {
    "BlockIO": "BLOCK I/O",
    "CPUPerc": "CPU %",
    "Container": "CONTAINER",
    "ID": "CONTAINER ID",
    "MemPerc": "MEM %",
    "MemUsage": "MEM USAGE / LIMIT",
    "Name": "NAME",
    "NetIO": "NET I/O",
    "PIDs": "PIDS",
}
_COLUMNS = "ID Name CPUPerc MemUsage MemPerc NetIO BlockIO PIDs".split()


def row(ref: str, stats: dict[str, Any], *, full: bool) -> dict[str, Any]:
    """An answer's figures as text."""
    memory = stats.get("memory_stats") or {}
    used, limit = memory_used(memory), memory.get("limit") or 0
    networks = (stats.get("networks") or {}).values()
    received = sum(network["rx_bytes"] for network in networks)
    sent = sum(network["tx_bytes"] for network in networks)
    identity = stats.get("id") or ""
    return {
        "BlockIO": f"{decimal_size(blocks(stats, 'read'), 3)} / "
        f"{decimal_size(blocks(stats, 'write'), 3)}",
        "CPUPerc": f"{cpu_percent(stats):.2f}%",
        "Container": ref,
        "ID": identity if full else identity[:12],
        "MemPerc": f"{used / limit * 100 if limit else 0:.2f}%",
        "MemUsage": f"{binary_size(used)} / {binary_size(limit)}",
        "Name": (stats.get("name") or "").lstrip("/"),
        "NetIO": f"{decimal_size(received, 3)} / {decimal_size(sent, 3)}",
        "PIDs": str((stats.get("pids_stats") or {}).get("current", 0)),
    }


def stats(session: Session, flags: Values, refs: list[str]) -> int:
    layout, full = flags.text("format"), flags.on("no-trunc")
    once = flags.on("no-stream")
    while True:
        names = refs or _running(session, everything=flags.on("all"))
        rows = []
        for ref in names:
            try:
                rows.append(row(ref, session.call(calls.stats(ref)), full=full))
            except Refused as error:
                if refs:
                    raise Failed(str(error)) from None
        _print(session, rows, layout, again=not once)
        if once:
            return 0


def _running(session: Session, *, everything: bool) -> list[str]:
    return [found["Id"][:12] for found in session.call(calls.containers(everything=everything))]


def _print(session: Session, rows: list[dict[str, Any]], layout: str, *, again: bool) -> None:
    if again:
        write(1, b"\x1b[H\x1b[J")
    if layout and layout != "table":
        text = "".join(render(rows, HEADERS, layout))
        if text:
            session.out(text.removesuffix("\n"))
        return
    table = [[HEADERS[name] for name in _COLUMNS]]
    table += [[row[name] for name in _COLUMNS] for row in rows]
    session.out("\n".join(align(table)))


STATS = Command(
    stats,
    "[OPTIONS] [CONTAINER...]",
    "Display a live stream of container(s) resource usage statistics",
    """\
  -a, --all             Show all containers (default shows just running)
"""
    + TABLE_FORMAT
    + """\
      --no-stream       Disable streaming stats and only pull the first result
      --no-trunc        Do not truncate output
""",
    names="container stats, stats",
)
