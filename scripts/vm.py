"""The kernel tests inside of a virtual machine: a host with cgroup v2 alone, and with systemd.

    scripts/vm.py [PYTEST ARGUMENTS]

The machine is QEMU with the kernel of Debian's cloud images and a root file system made of Debian
packages by mmdebstrap, kept in `.vm/` and made anew when the list of packages changes. It is
emulated, so that it runs anywhere; QEMU_ACCEL=kvm lets the processor help. The project's files
come as a tar on a second disk, output goes to the serial line, and the last line of it is the exit
status.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
PLACE = HOME / ".vm"
PACKAGES = (
    "linux-image-cloud-amd64 initramfs-tools systemd-sysv dbus dbus-user-session libpam-systemd "
    "python3 python3-venv "
    "python3-pytest python3-pytest-timeout busybox-static criu iptables uidmap iproute2 procps "
    "libseccomp2 strace runc kmod util-linux xfsprogs e2fsprogs apparmor secilc"
).split()
TESTS = (
    "tests/vm tests/kernel/test_cgroups.py tests/kernel/test_checkpoint.py "
    "tests/kernel/test_cold_start.py tests/kernel/test_machine.py"
).split()
OTHERS = ("tests/vm/test_selinux.py", "tests/vm/test_systemd_v1.py")
"""One kernel has one of AppArmor and SELinux, and systemd one version of cgroups: these tests have
a boot of their own, with the second of both."""
OTHER_BOOT = "security=selinux selinux=1 enforcing=0 systemd.unified_cgroup_hierarchy=0"

ENGINE = (
    "aiohappyeyeballs aiohttp aiosignal attr attrs cffi cryptography frozenlist idna isal msgspec "
    "multidict propcache pycparser typing_extensions yaml yarl zstandard"
).split()
"""What the engine imports of others, taken along from here: built for this version of Python."""

LIMIT = 900  # seconds, for all boots together
MARK = "sampan-vm: exit status "
UNIT = """[Unit]
Description=Tests of Sampan
Conflicts=serial-getty@ttyS0.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'exec >/dev/ttyS0 2>&1; mkdir /sampan; tar -xf /dev/vdb -C /sampan; \
. /sampan/start'
ExecStopPost=/bin/systemctl --no-block --force poweroff
Delegate=yes
TimeoutStartSec=infinity
[Install]
WantedBy=multi-user.target
"""
START = """set -u
cd /sampan
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin SAMPAN_VM=1
modprobe -a overlay dummy veth br_netfilter loop xfs quota_v2 2>/dev/null
python3 -m venv --without-pip --system-site-packages .venv
printf '/sampan/src\\n/sampan/packages\\n' > .venv/lib/python3.11/site-packages/sampan.pth
cp bin/sampan bin/sampan-oci .venv/bin/
.venv/bin/python3 -m sampan.runtime.packing
.venv/bin/python3 -m pytest -v --color=no --tb=short \\
  -p no:cacheprovider --basetemp=/tmp/t --timeout 120 {arguments}
echo "{mark}$?"
"""


def main(arguments: list[str]) -> int:
    """Make what is missing, run the tests; their exit status."""
    PLACE.mkdir(exist_ok=True)
    _make_root()
    wanted = [word for word in arguments if not word.startswith(OTHERS)]
    others = [word for word in arguments if word.startswith(OTHERS)]
    status, ends = 0, time.monotonic() + LIMIT
    if wanted or not arguments:
        _pack(wanted or TESTS)
        status = _run("", ends)
    if others or not arguments:
        _pack(others or [*OTHERS])
        status = _run(OTHER_BOOT, ends) or status
    return status


def _make_root() -> None:
    """The root file system as an ext4 image, with kernel and initial ramdisk beside it."""
    recipe = hashlib.sha256(" ".join([*PACKAGES, UNIT]).encode()).hexdigest()
    stamp = PLACE / "recipe"
    if stamp.exists() and stamp.read_text() == recipe:
        return
    print("vm: making the root file system of Debian packages", flush=True)
    tree = PLACE / "root"
    shutil.rmtree(tree, ignore_errors=True)
    words = ["mmdebstrap", "--mode=root", "--variant=apt", "--quiet"]
    shared = ("doc", "man", "locale")
    words += [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in shared]
    words += [f"--include={','.join(PACKAGES)}", "bookworm", str(tree)]
    subprocess.run(["unshare", "--mount", "--propagation", "private", *words], check=True)
    unit = tree / "etc/systemd/system/sampan.service"
    unit.write_text(UNIT)
    wants = tree / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "sampan.service").symlink_to("../sampan.service")
    (tree / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 0\n")
    for name, pattern in (("kernel", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        (found,) = (tree / "boot").glob(pattern)
        shutil.copy(found, PLACE / name)
    image = PLACE / "root.img"
    image.unlink(missing_ok=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, image, "1500M"], check=True)
    shutil.rmtree(tree)
    stamp.write_text(recipe)


def _pack(arguments: list[str]) -> None:
    """The tar of the second disk."""
    start = PLACE / "start"
    words = " ".join(f"'{word}'" for word in arguments)
    start.write_text(START.format(arguments=words, mark=MARK))
    with tarfile.open(PLACE / "tree.tar", "w") as tar:
        for name in ("src", "tests", "bin", "pyproject.toml", "scripts"):
            tar.add(HOME / name, name, filter=_wanted)
        tar.add(start, "start")
        for path in _packages():
            tar.add(path.resolve(), f"packages/{path.name}", filter=_wanted)


def _packages() -> list[Path]:
    """The engine's dependencies, and the libraries that came with them."""
    (site,) = (HOME / ".venv/lib").glob("python3*/site-packages")
    names = [path for path in site.iterdir() if path.name.partition(".")[0] in ENGINE]
    return [*names, *site.glob("_cffi_backend*"), *site.glob("*.libs")]


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in entry.name else entry


def _run(module: str, ends: float) -> int:
    """Boot with words for the kernel, and repeat what the serial line says; the exit status in its
    last line."""
    words = ["qemu-system-x86_64", "-machine", "q35", "-cpu", "max", "-smp", "2", "-m", "2048"]
    words += ["-accel", "kvm"] if _has_kvm() else ["-accel", "tcg,thread=multi"]
    words += ["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"]
    words += ["-kernel", f"{PLACE}/kernel", "-initrd", f"{PLACE}/initrd"]
    line = f"root=/dev/vda rw console=ttyS0 quiet systemd.unified_cgroup_hierarchy=1 {module}"
    words += ["-append", f"{line} systemd.show_status=0 systemd.journald.forward_to_console=0"]
    words += ["-drive", f"file={PLACE}/root.img,format=raw,if=virtio,snapshot=on"]
    words += ["-drive", f"file={PLACE}/tree.tar,format=raw,if=virtio,readonly=on"]
    status = 1
    argv = ["timeout", str(max(1, int(ends - time.monotonic()))), "nice", "-n", "5", *words]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        assert machine.stdout is not None
        for raw in machine.stdout:
            text = raw.decode("utf-8", "replace").rstrip("\r\n")
            print(text, flush=True)
            if text.startswith(MARK):
                status = int(text.removeprefix(MARK))
    return status


def _has_kvm() -> bool:
    """Whether the processor may help. A /dev/kvm inside of a machine often only looks like one."""
    return os.environ.get("QEMU_ACCEL") == "kvm"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
