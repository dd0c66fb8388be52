"""`sampan update`: change limits and restart policies of containers in place."""

from __future__ import annotations

from sampan.cli.container_options import restart_policy
from sampan.cli.session import Command, Refused, Session
from sampan.client import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values

_NUMBERS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "pids-limit": "PidsLimit",
}
_TEXT = {"cpuset-cpus": "CpusetCpus", "cpuset-mems": "CpusetMems"}


def update(session: Session, flags: Values, refs: list[str]) -> int:
    body: dict[str, Any] = {
        field: flags.number(name) for name, field in _NUMBERS.items() if flags.has(name)
    }
    body |= {field: flags.text(name) for name, field in _TEXT.items() if flags.has(name)}
    if flags.has("restart"):
        body["RestartPolicy"] = restart_policy(flags)
    code = 0
    for ref in refs:
        try:
            answer = session.call(calls.update(ref, body))
        except Refused as error:
            session.error(str(error))
            code = 1
            continue
        session.out(ref)
        for warning in answer.get("Warnings") or ():
            session.error(warning)
    return code


UPDATE = Command(
    update,
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Update configuration of one or more containers",
    """\
      --blkio-weight uint16        Block IO (relative weight), between 10 and
                                   1000, or 0 to disable (default 0)
      --cpu-period int             Limit CPU CFS (Completely Fair Scheduler)
                                   period
      --cpu-quota int              Limit CPU CFS (Completely Fair Scheduler)
                                   quota
  -c, --cpu-shares int             CPU shares (relative weight)
      --cpus decimal               Number of CPUs
      --cpuset-cpus string         CPUs in which to allow execution (0-3, 0,1)
      --cpuset-mems string         MEMs in which to allow execution (0-3, 0,1)
  -m, --memory bytes               Memory limit
      --memory-reservation bytes   Memory soft limit
      --memory-swap bytes          Swap limit equal to memory plus swap: -1 to
                                   enable unlimited swap
      --pids-limit int             Tune container pids limit (set -1 for
                                   unlimited)
      --restart string             Restart policy to apply when a container
                                   exits
""",
    least=1,
    names="container update, update",
)
