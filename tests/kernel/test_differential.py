"""The same configuration under runc, crun and sampan-oci: what a probe sees inside must be equal.

Each variant changes one configuration; the probe prints sections, which are compared one by one.
What is meant to differ has its reason in `EXPLAINED`, and a reason that is no longer needed fails.
The others' runtimes run in the private namespaces of the test run, with roots of their own.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bundles import OCI, make_rootfs
from sampan.kernel import cgroups
from sampan.kernel.capabilities import NAMES
from sampan.kernel.process import reset_signals
from sampan.runtime.specification import example

RUNC, CRUN = shutil.which("runc"), shutil.which("crun")
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not RUNC or not CRUN, reason="needs root, runc and crun"
)

PROBE = r"""
section() { echo "== $1"; }
section mounts; cat /proc/self/mountinfo
section ids; grep -E '^(Uid|Gid|Groups|Umask)' /proc/self/status; cat /proc/self/uid_map
section capabilities; grep -E '^Cap' /proc/self/status
section seccomp; grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; mkdir /tmp/d$$ 2>&1
chroot / true 2>&1
section signals; grep -E '^Sig[BIC]' /proc/self/status
section limits; cat /proc/self/limits
section namespaces; for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done
section cgroup; cat /proc/self/cgroup
cd /sys/fs/cgroup 2>/dev/null && for f in */memory.limit_in_bytes */memory.soft_limit_in_bytes \
  */memory.memsw.limit_in_bytes */memory.swappiness */cpu.shares */cpu.cfs_quota_us \
  */cpu.cfs_period_us */cpuset.cpus */cpuset.mems */pids.max */devices.list */blkio.bfq.weight
  do echo "$f $(cat $f 2>&1 | sort)"; done
section devices; for f in $(find /dev | sort); do stat -c '%n %F %a %u %g %t:%T' $f; done
section links; for f in $(find /dev -type l | sort); do echo "$f $(readlink $f)"; done
section settings; for f in kernel/hostname kernel/domainname kernel/shmmax kernel/msgmax \
  net/ipv4/ip_forward net/ipv4/ip_unprivileged_port_start fs/mqueue/msg_max
  do echo "$f $(cat /proc/sys/$f 2>&1)"; done
section environment; env | sort
section place; readlink /proc/self/cwd; cat /proc/self/oom_score_adj /proc/self/personality
section descriptors; ls /proc/1/fd 2>&1
section paths; ls -d /proc/acpi/* /sys/firmware/* 2>&1 | sort | head; cat /proc/kcore 2>&1 | wc -c
(echo 1 > /proc/sys/kernel/shmmax) 2>&1; (echo h > /proc/sysrq-trigger) 2>&1; touch /new 2>&1
section files; ls -lnR /data /bound 2>&1 | sed 's/ *[A-Z][a-z][a-z]  *[0-9]*  *[0-9:]* / /'
stat -c '%n %a %u:%g %F' /data /bound /etc/hosts 2>&1
section interfaces; cut -d: -f1 /proc/net/dev | tr -d ' ' | sort
"""

SIMPLE = {"type": "bind", "source": "SOURCE", "destination": "/bound"}


def process(**changes):
    return lambda c: c["process"].update(changes)


def linux(**changes):
    return lambda c: c["linux"].update(changes)


def resources(**changes):
    return lambda c: c["linux"]["resources"].update(changes)


def user(**changes):
    return process(user={"uid": 0, "gid": 0, **changes})


def bind(*options, **changes):
    return lambda c: c["mounts"].append({**SIMPLE, "options": list(options), **changes})


def mount(kind, destination, *options):
    entry = {"type": kind, "source": kind, "destination": destination, "options": list(options)}
    return lambda c: c["mounts"].append(entry)


def options_of(destination, *options):
    def change(c):
        for one in c["mounts"]:
            if one["destination"] == destination:
                one["options"] = list(options)

    return change


def without_mount(destination):
    return lambda c: c.update(
        mounts=[one for one in c["mounts"] if one["destination"] != destination]
    )


def without_namespace(*kinds):
    def change(c):
        spaces = c["linux"]["namespaces"]
        c["linux"]["namespaces"] = [one for one in spaces if one["type"] not in kinds]

    return change


def joined(kind, name):
    def change(c):
        for one in c["linux"]["namespaces"]:
            if one["type"] == kind:
                one["path"] = f"/proc/{os.getpid()}/ns/{name}"

    return change


def capabilities(**sets):
    return process(capabilities=sets)


def seccomp(action, names, default="SCMP_ACT_ALLOW", **more):
    rule = {"names": names, "action": action, **more}
    profile = {"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule]}
    return linux(seccomp=profile)


def user_namespace(c):
    c["linux"]["namespaces"].append({"type": "user"})
    maps = [{"containerID": 0, "hostID": 0, "size": 65536}]
    c["linux"].update(uidMappings=maps, gidMappings=maps)


def both(*changes):
    def change(c):
        for one in changes:
            one(c)

    return change


MASKED = frozenset([*example()["linux"]["maskedPaths"], "/etc/group"])
ALL = list(NAMES[:41])
SOME = ["CAP_KILL", "CAP_NET_BIND_SERVICE"]
FUSE = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}
ARGUMENT = {"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}

VARIANTS = {
    "plain": lambda c: None,
    "read-only root": lambda c: c["root"].update(readonly=True),
    # who it is
    "user": user(uid=33, gid=34),
    "groups": user(uid=33, gid=34, additionalGids=[5, 6]),
    "root with groups": user(additionalGids=[10]),
    "umask": user(umask=0o027),
    "unknown user": user(uid=4711, gid=4711),
    "environment": process(env=["PATH=/bin", "A=1", "A=2", "EMPTY=", "HOME=/here"]),
    "environment without HOME of a user": both(user(uid=33), process(env=["PATH=/bin"])),
    "working directory": process(cwd="/var"),
    "new working directory": process(cwd="/made/here"),
    "oom score": process(oomScoreAdj=321),
    "no new privileges": process(noNewPrivileges=True),
    "new privileges": process(noNewPrivileges=False),
    # what it may
    "no capabilities": capabilities(),
    "all capabilities": capabilities(bounding=ALL, effective=ALL, permitted=ALL),
    "bounding only": capabilities(bounding=SOME),
    "permitted and not effective": capabilities(bounding=SOME, permitted=SOME),
    "inheritable": capabilities(bounding=SOME, effective=SOME, permitted=SOME, inheritable=SOME),
    "ambient": both(
        user(uid=33, gid=33),
        capabilities(bounding=SOME, permitted=SOME, inheritable=SOME, ambient=SOME),
    ),
    "capabilities of a user": both(
        user(uid=33, gid=33), capabilities(bounding=SOME, effective=SOME, permitted=SOME)
    ),
    "open files": process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}]),
    "no core": process(rlimits=[{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]),
    "many limits": process(
        rlimits=[
            {"type": f"RLIMIT_{name}", "soft": 1000, "hard": 2000}
            for name in ("MEMLOCK", "SIGPENDING", "MSGQUEUE", "CPU", "RSS", "NPROC")
        ]
    ),
    # filters
    "errno": seccomp("SCMP_ACT_ERRNO", ["mkdir"]),
    "errno of its own": seccomp("SCMP_ACT_ERRNO", ["mkdir"], errnoRet=28),
    "argument": seccomp("SCMP_ACT_ERRNO", ["personality"], args=[ARGUMENT]),
    "filter with no new privileges": both(
        seccomp("SCMP_ACT_ERRNO", ["chroot"]), process(noNewPrivileges=True)
    ),
    "log": seccomp("SCMP_ACT_LOG", ["mkdir"]),
    # namespaces
    "network of the host": without_namespace("network"),
    "ipc of the host": without_namespace("ipc"),
    "names of the host": without_namespace("uts"),
    "cgroup namespace of the host": without_namespace("cgroup"),
    "network that is joined": joined("network", "net"),
    "ipc that is joined": joined("ipc", "ipc"),
    "user namespace": user_namespace,
    "hostname": lambda c: c.update(hostname="some-host"),
    # settings
    "forwarding": linux(sysctl={"net.ipv4.ip_forward": "1"}),
    "port": linux(sysctl={"net/ipv4/ip_unprivileged_port_start": "0"}),
    "shared memory": linux(sysctl={"kernel.shmmax": "1048576", "kernel.msgmax": "4096"}),
    # mounts
    "bind": bind("bind"),
    "bind without options": bind(),
    "read-only bind": bind("bind", "ro"),
    "recursive bind": bind("rbind", "ro", "nosuid", "nodev", "noexec"),
    "bind of a file": bind("bind", source="SOURCE/file", destination="/etc/hosts"),
    "bind on what is missing": bind("bind", destination="/deep/down/there"),
    "slave": bind("rbind", "rslave"),
    "shared": bind("bind", "shared"),
    "unbindable": bind("bind", "unbindable"),
    "no times": bind("bind", "noatime", "nodiratime"),
    "strict times": bind("bind", "strictatime"),
    "bind in a bind": both(
        bind("bind"), bind("bind", "ro", source="SOURCE/sub", destination="/bound/sub")
    ),
    "tmpfs": mount("tmpfs", "/data", "nosuid", "size=65536"),
    "tmpfs with mode": mount("tmpfs", "/data", "mode=0711", "uid=33"),
    "new tmpfs": mount("tmpfs", "/data/new", "nodev"),
    "read-only tmpfs": mount("tmpfs", "/data", "ro"),
    "copied tmpfs": mount("tmpfs", "/data", "tmpcopyup"),
    "writable sysfs": options_of("/sys", "nosuid", "noexec", "nodev"),
    "hardened proc": options_of("/proc", "nosuid", "noexec", "nodev"),
    "no message queues": without_mount("/dev/mqueue"),
    "no shared memory": without_mount("/dev/shm"),
    "no cgroups": without_mount("/sys/fs/cgroup"),
    "writable cgroups": options_of("/sys/fs/cgroup", "nosuid", "noexec", "nodev", "rw"),
    "private root": linux(rootfsPropagation="private"),
    "slave root": linux(rootfsPropagation="rslave"),
    "unbindable root": linux(rootfsPropagation="unbindable"),
    "nothing masked": linux(maskedPaths=[], readonlyPaths=[]),
    "masked": linux(maskedPaths=["/proc/acpi", "/proc/kcore", "/nosuch", "/etc/group"]),
    "read-only paths": linux(readonlyPaths=["/proc/sys", "/etc", "/nosuch"]),
    # devices
    "device": linux(devices=[FUSE]),
    "device with owner": linux(devices=[{**FUSE, "fileMode": 0o640, "uid": 33, "gid": 34}]),
    "block device": linux(
        devices=[{"path": "/dev/blk", "type": "b", "major": 7, "minor": 9, "fileMode": 0o600}]
    ),
    "pipe": linux(devices=[{"path": "/dev/pipe", "type": "p", "fileMode": 0o622}]),
    "device in a directory": linux(devices=[{**FUSE, "path": "/dev/sub/fuse"}]),
    # limits
    "no limits": lambda c: c["linux"].update(resources={}),
    "memory": resources(memory={"limit": 64 << 20, "reservation": 32 << 20}),
    "memory and swap": resources(memory={"limit": 64 << 20, "swap": 128 << 20, "swappiness": 7}),
    "shares": resources(cpu={"shares": 512}),
    "quota": resources(cpu={"quota": 20000, "period": 50000}),
    "one cpu": resources(cpu={"cpus": "0", "mems": "0"}),
    "processes": resources(pids={"limit": 55}),
    "every device": resources(devices=[{"allow": True, "access": "rwm"}]),
    "no device": resources(devices=[{"allow": False, "access": "rwm"}]),
    "some devices": resources(
        devices=[
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
            {"allow": True, "type": "b", "major": 7, "access": "r"},
        ]
    ),
    # what fails
    "missing program": process(args=["nosuch"]),
    "directory as program": process(args=["/bin"]),
    "missing source": bind("bind", source="SOURCE/nosuch"),
    "foreign setting": linux(sysctl={"vm.swappiness": "1"}),
}

# crun refuses hosts that have both versions of cgroups; one without the second it takes.
LEAVE = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
BEFORE = {"crun": ["unshare", "--mount", "--propagation", "private", "sh", "-c", LEAVE, "sh"]}

EXPLAINED = {
    ("unknown user", "crun", "environment"): "crun leaves HOME out where /etc/passwd has no user",
    ("cgroup namespace of the host", "crun", "cgroup"): "crun is not shown version 2, see above",
    ("bind without options", "runc", "*"): "fails: it wants the word bind beside the type",
    ("bind without options", "crun", "*"): "fails: it wants the word bind beside the type",
    ("shared", "crun", "mounts"): "crun 1.8 makes it private again with the root",
    ("unbindable", "crun", "mounts"): "crun 1.8 makes it private again with the root",
    ("tmpfs", "crun", "files"): "crun has 1777, runc and we the mode of what is covered",
    ("read-only tmpfs", "crun", "files"): "crun has 1777, runc and we the mode of what is covered",
    ("copied tmpfs", "crun", "files"): "crun has 1777, runc and we the mode of what is covered",
    ("tmpfs with mode", "runc", "files"): "runc 1.1.5 prefers the mode of what is covered",
    ("hardened proc", "crun", "mounts"): "crun drops flags from what it binds within /proc",
    ("unbindable root", "runc", "*"): "runc 1.1.5 cannot put anything on such a root",
    ("no limits", "crun", "cgroup"): "crun denies devices only where the resources name some",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A root file system and something to bind, for all runs."""
    path = tmp_path_factory.mktemp("differential")
    root = make_rootfs(path / "rootfs")
    (root / "data/sub").mkdir(parents=True)
    (root / "data").chmod(0o2755)
    (root / "data/sub/file").write_text("data")
    for name in ("bound", "run"):
        (root / name).mkdir()
    (path / "source/sub").mkdir(parents=True)
    (path / "source/file").write_text("bound")
    (path / "kept").mkdir()
    yield path
    assert str(path) not in Path("/proc/self/mountinfo").read_text()


def configuration(name: str, path: Path) -> dict:
    config = copy.deepcopy(example())
    config["process"].update(terminal=False, args=["/bin/sh", "-c", PROBE])
    config["process"]["env"] = ["PATH=/bin", "TERM=xterm"]
    config["ociVersion"] = "1.0.2"  # of what the others know
    config["root"].update(readonly=False, path=str(path / "rootfs"))
    config["linux"]["cgroupsPath"] = f"/sampan-test/{path.name}"
    VARIANTS[name](config)
    return json.loads(json.dumps(config).replace("SOURCE", str(path / "source")))


def observe(runtime: str, config: dict, path: Path) -> dict[str, list[str]]:
    """The sections that the probe prints under `runtime`, free of numbers that are chance."""
    (path / "config.json").write_text(json.dumps(config))
    root = path / f"state-{Path(runtime).name}"
    words = [*BEFORE.get(runtime, []), runtime, "--root", str(root), "run", "differential"]
    null = subprocess.DEVNULL
    result = subprocess.run(
        words,
        cwd=path,
        stdin=null,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=reset_signals,  # make(1) leaves signal 32 ignored, and runc passes that on
    )
    if result.returncode and (root / "differential").exists():
        words = [runtime, "--root", str(root), "delete", "--force", "differential"]
        subprocess.run(words, stdin=null, stdout=null, stderr=null, check=False)
    for made in ("made", "deep", "new", "data/new"):
        shutil.rmtree(path / "rootfs" / made, ignore_errors=True)
    (path / "rootfs/new").unlink(missing_ok=True)
    for made in (path / "rootfs/tmp").iterdir():
        made.rmdir()
    cgroups.manager(config["linux"]["cgroupsPath"]).remove()
    sections: dict[str, list[str]] = {"status": ["0" if result.returncode == 0 else "failed"]}
    for line in result.stdout.splitlines():
        if line.startswith("== "):
            sections[line[3:]] = []
        else:
            sections[list(sections)[-1]].append(line)
    return {key: tidy(key, lines) for key, lines in sections.items()}


def tidy(section: str, lines: list[str]) -> list[str]:
    if section == "mounts":
        return sorted(mounted(line) for line in lines)
    if section in ("devices", "links"):
        return [device(line) for line in lines if not line.startswith("/dev/core ")]
    if section == "cgroup":  # crun allows the console, runc and we the tunnel device
        return [line for line in lines if line not in ("c 5:1 rwm", "c 10:200 rwm")]
    if section == "interfaces":
        return [line for line in lines if "|" not in line]
    if section == "namespaces":
        own = {os.readlink(f"/proc/self/ns/{one}") for one in os.listdir("/proc/self/ns")}
        return [line.split(":")[0] + (" of the host" if line in own else " new") for line in lines]
    return [re.sub(r"/tmp/d\d+", "/tmp/d", line) for line in lines]


def device(line: str) -> str:
    """A line of a device; crun gives /dev/null to the user of the process."""
    return "/dev/null" if line.startswith("/dev/null ") else line


def mounted(line: str) -> str:
    """A line of mountinfo without ids: place, flags, propagation, type, source, options.

    How a path is masked is each runtime's own affair; that it is, is not. Runc 1.1.5 and crun leave
    the directory of cgroups writable, against the options; crun makes sysfs without `ro` of its
    own; both let devices of a user namespace be programs.
    """
    before, _, after = line.partition(" - ")
    _, _, _, root, point, flags, *tags = before.split()
    if point in MASKED:
        return f"{point} masked"
    kinds = " ".join(sorted(tag.split(":")[0] for tag in tags))
    kind, source, options = after.split(" ", 2)
    if point == "/sys/fs/cgroup" or (kind == "devtmpfs" and point.startswith("/dev/")):
        return f"{point} {kind}"
    if kind in ("cgroup", "sysfs"):
        source, options = kind, ""
    words = ",".join(sorted(word for word in set(options.split(",")) if word[:5] != "mode="))
    root = re.sub(r"^/tmp/.*/(?=(rootfs|source))", "/", root)
    return f"{point} {root} {','.join(sorted(flags.split(',')))} [{kinds}] {kind} {source} {words}"


def differences(name: str, path: Path) -> dict[tuple[str, str], list[str]]:
    """(runtime, section) to what is different under it and under ours."""
    config = configuration(name, path)
    ours = observe(OCI, config, path)
    found = {}
    for runtime in ("runc", "crun"):
        theirs = observe(runtime, config, path)
        for section in sorted({*ours, *theirs}):
            here, there = ours.get(section, []), theirs.get(section, [])
            if here != there:
                lines = [f"ours:   {line}" for line in here if line not in there]
                lines += [f"theirs: {line}" for line in there if line not in here]
                found[runtime, section] = lines
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_a_container_is_the_same_under_each_runtime(place: Path, name: str):
    found = differences(name, place)
    reasons = {key[1:] for key in EXPLAINED if key[0] == name}
    unexplained = {
        key: lines
        for key, lines in found.items()
        if key not in reasons and (key[0], "*") not in reasons
    }
    assert not unexplained
    runtimes_and_sections = {*found, *((runtime, "*") for runtime, _ in found)}
    assert reasons <= runtimes_and_sections, "a reason is no longer needed"
