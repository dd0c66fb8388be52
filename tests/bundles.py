"""Bundles for tests of the runtime: a busybox root file system and a configuration to vary."""

from __future__ import annotations

import copy
import json
import os
import select
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from sampan.kernel import cgroups
from sampan.runtime.specification import example

BUSYBOX = "/bin/busybox"
OCI = str(Path(sys.executable).parent / "sampan-oci")

# What a container looks like from inside, line by line.
PROBE = """
cat /proc/self/mountinfo | cut -d' ' -f4- | sed 's/ - / /;s/lowerdir=.*//;s/[0-9]*:[0-9]*//' | sort
grep -E 'Cap|Uid|Gid|Groups|NoNew|Seccomp|Sig[BI]|Umask' /proc/self/status
hostname; pwd; env | sort; ulimit -a; ls -l /proc/self/fd | wc -l
find /dev | sort | xargs ls -ld | sed 's/  *[A-Z][a-z][a-z]  *[0-9]* .*:[0-9]* / /'
ls -R /sys/fs/cgroup | head -5; cat /proc/self/cgroup; cat /proc/self/oom_score_adj
cat /proc/kcore /proc/keys | wc -c; ls /proc/acpi /sys/firmware; echo x > /proc/sysrq-trigger
ip addr show lo 2>&1 | sed 's/valid.*//'; cat /bound/f; touch /bound/new; stat -c %U /proc/1
ls -ld /run/sub; cat /proc/sys/net/ipv4/ip_unprivileged_port_start
"""


def make_rootfs(path: Path) -> Path:
    """A root file system of busybox alone, with its applets linked."""
    (path / "bin").mkdir(parents=True)
    for name in ("dev", "etc", "proc", "sys", "tmp", "root", "var"):
        (path / name).mkdir()
    shutil.copy(BUSYBOX, path / "bin/busybox")
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True)
    for name in applets.stdout.split():
        if name != "busybox":
            os.symlink("busybox", path / "bin" / name)
    (path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var:/bin/sh\n")
    (path / "etc/group").write_text("root:x:0:\nwheel:x:10:root,web\nweb:x:34:\n")
    return path


class Bundle:
    """A bundle directory, its configuration, and the runtime with a root of its own."""

    def __init__(self, path: Path, runtime: str = OCI) -> None:
        self.path = path
        self.root = path / "state"
        self.id = "t" + uuid.uuid4().hex[:12]
        self.runtime = runtime
        self.rootfs = make_rootfs(path / "rootfs")
        self.config = copy.deepcopy(example())
        self.config["process"]["terminal"] = False
        self.config["process"]["env"] = ["PATH=/bin"]
        self.config["linux"]["cgroupsPath"] = f"/sampan-test/{self.id}"

    def command(self, *words: str) -> None:
        """What the container's first process is."""
        self.config["process"]["args"] = list(words)

    def shell(self, script: str) -> None:
        """A shell script as the first process."""
        self.command("/bin/sh", "-c", script)

    def save(self) -> None:
        """Write config.json."""
        (self.path / "config.json").write_text(json.dumps(self.config))

    def oci(
        self, *words: str, check: bool = False, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Call the runtime with its root."""
        return subprocess.run(
            [self.runtime, "--root", str(self.root), *words],
            check=check,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            cwd=self.path,
            **options,
        )

    def run(self, script: str = "") -> subprocess.CompletedProcess[str]:
        """Save and run in the foreground."""
        if script:
            self.shell(script)
        self.save()
        return self.oci("run", self.id, stdin=subprocess.DEVNULL)

    def start(self, script: str = "sleep 1000") -> None:
        """Create and start, detached; the output goes nowhere."""
        self.shell(script)
        self.save()
        words = [self.runtime, "--root", str(self.root), "run", "--detach", self.id]
        null = subprocess.DEVNULL
        subprocess.run(words, check=True, cwd=self.path, stdin=null, stdout=null, timeout=60)

    def state(self) -> dict[str, object]:
        """What `state` answers."""
        found: dict[str, object] = json.loads(self.oci("state", self.id, check=True).stdout)
        return found

    def ended(self, seconds: float = 20) -> bool:
        """Whether the first process ends in time; waits for its pidfd."""
        try:
            recorded = json.loads((self.root / self.id / "state.json").read_text())
            pidfd = os.pidfd_open(recorded["pid"])
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([pidfd], [], [], seconds)[0])
        finally:
            os.close(pidfd)

    def group(self) -> cgroups.Cgroup:
        """The container's cgroup."""
        return cgroups.manager(self.config["linux"]["cgroupsPath"])

    def cgroup_is_gone(self) -> bool:
        """Whether no hierarchy has the container's cgroup any more."""
        hierarchies = Path("/sys/fs/cgroup").iterdir()
        return not any((one / "sampan-test" / self.id).exists() for one in hierarchies)
