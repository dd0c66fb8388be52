"""Bundles whose cgroups are made by systemd, for tests in the virtual machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bundles import OCI, Bundle

MIB = 1 << 20
TREE = Path("/sys/fs/cgroup")


def unit(name: str, *properties: str) -> dict[str, str]:
    """What systemd says of a unit."""
    words = ["systemctl", "show", name, *(f"--property={one}" for one in properties)]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


class Scoped(Bundle):
    """A bundle whose cgroup is made by systemd."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.config["linux"]["cgroupsPath"] = f"sampan-test.slice:box:{self.id}"
        self.unit = f"box-{self.id}.scope"
        self.group_path = TREE / f"sampan.slice/sampan-test.slice/{self.unit}"

    def oci(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        return super().oci("--systemd-cgroup", *words, **options)

    def begin(self, script: str = "sleep 1000") -> None:
        self.shell(script)
        self.save()
        self.beside("run", "--detach", self.id)

    def beside(self, *words: str) -> None:
        """A call whose process goes on, and would keep pipes open."""
        words = (OCI, "--root", str(self.root), "--systemd-cgroup", *words)
        null = subprocess.DEVNULL
        subprocess.run(words, check=True, cwd=self.path, stdin=null, stdout=null, timeout=60)

    def look(self, file: str) -> str:
        return (self.group_path / file).read_text().strip()

    def is_gone(self) -> bool:
        state = unit(self.unit, "LoadState")["LoadState"]
        return state == "not-found" and not self.group_path.exists()
