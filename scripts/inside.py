"""The first process of the test namespaces: sets loopback up, runs a command, reaps.

Everything that the command leaves running dies with the pid namespace. Exits with the command's
status.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from sampan.kernel import cgroups, loopback

TEST_CGROUP = "/sampan-test"


def main(command: list[str]) -> int:
    """Run `command`; its exit status."""
    loopback.bring_up()
    # A host with nothing but loopback addresses resolves no names (AI_ADDRCONFIG, getaddrinfo(3)).
    subprocess.run(["ip", "address", "add", "192.0.2.1/32", "dev", "lo"], check=True)
    child = os.spawnv(os.P_NOWAIT, command[0], command)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: os.kill(child, received))
    status = 1
    while True:
        pid, ended = os.wait()
        if pid == child:
            status = os.waitstatus_to_exitcode(ended)
            break
    cgroups.manager(TEST_CGROUP).remove_empty()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
