"""Hostile configurations and containers, against the runtime (SECURITY classes C4 and C11 to C17).

`test_runtime_escapes.py` has the hostile root file systems (C1, C2, C3, C5).
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from bundles import Bundle

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
KINDS = ("bounding", "effective", "permitted", "inheritable", "ambient")


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path)
    yield made
    done = made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone(), done


def grant(bundle: Bundle, *names: str, kinds: tuple[str, ...] = KINDS[:3]) -> None:
    for kind in kinds:
        bundle.config["process"]["capabilities"].setdefault(kind, []).extend(names)


# C4: what the runtime writes to /proc cannot be led elsewhere.


def test_a_container_that_covers_its_proc_diverts_no_write(bundle: Bundle):
    grant(bundle, "CAP_SYS_ADMIN")
    fakes = "/fake/self/attr /fake/sys/kernel /fake/1"
    files = "/fake/self/oom_score_adj /fake/self/attr/exec /fake/sysrq-trigger /fake/1/cgroup"
    bundle.config["mounts"].append({"destination": "/fake", "type": "tmpfs", "source": "t"})
    bundle.start(
        f"mkdir -p {fakes}; touch {files}; mount -t tmpfs t /proc/sys; "
        "mount -o bind /fake /proc; touch /fake/ready; sleep 1000"
    )
    inside = Path(f"/proc/{bundle.state()['pid']}/root/fake")
    while not (inside / "ready").exists():
        assert bundle.state()["status"] == "running"
    process = {**bundle.config["process"], "oomScoreAdj": 321, "args": ["sleep", "1000"]}
    (bundle.path / "process.json").write_text(json.dumps(process))
    null = subprocess.DEVNULL
    words = ["exec", "--detach", "--process", "process.json", "--pid-file", "pid", bundle.id]
    whole = [bundle.runtime, "--root", str(bundle.root), *words]
    subprocess.run(
        whole, check=True, cwd=bundle.path, stdin=null, stdout=null, stderr=null, timeout=60
    )
    pid = int((bundle.path / "pid").read_text())
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "321\n"
    assert [path.read_text() for path in sorted(inside.rglob("*")) if path.is_file()] == [""] * 5


# C11: who a process is, and what it may do.


def test_a_process_of_exec_stands_where_the_first_one_stands(bundle: Bundle):
    probe = (
        "grep -E 'Cap|Uid|Gid|Groups|NoNew|Seccomp:|Umask|Sig[BI]' /proc/self/status; "
        "cat /proc/self/limits /proc/self/oom_score_adj /proc/self/cgroup; env | sort; pwd; "
        "ls -l /proc/self/ns | sed 's/.*-> //' | sort"
    )
    process = bundle.config["process"]
    process["user"] = {"uid": 33, "gid": 34, "umask": 0o37, "additionalGids": [5, 6]}
    process["capabilities"] = {kind: ["CAP_KILL", "CAP_CHOWN"] for kind in KINDS}
    process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 70, "hard": 80}]
    process["oomScoreAdj"] = 77
    process["cwd"] = "/tmp"
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}],
    }
    bundle.config["root"]["readonly"] = False
    (bundle.rootfs / "tmp").chmod(0o777)
    bundle.start(f"({probe}) > /tmp/first.part 2>&1; mv /tmp/first.part /tmp/first; sleep 1000")
    first = bundle.rootfs / "tmp/first"
    while not first.exists():
        assert bundle.state()["status"] == "running"
    said = bundle.oci("exec", bundle.id, "sh", "-c", probe, check=True)
    assert said.stdout == first.read_text()
    assert "CapAmb:\t0000000000000021" in said.stdout
    assert "Groups:\t5 6 \n" in said.stdout


@pytest.mark.parametrize(
    "user",
    [
        *("1_0", "\uff11", " 1", "+1", "-1", "4294967295", "4294967296", "99999999999999", "0x0"),
        *("web", "root\n", "0\n", "", "1:-1", "1:1:1", "1:4294967295", "1:", "\u00b2"),
    ],
)
def test_what_is_no_number_is_nobody(bundle: Bundle, user: str):
    """Neither root by an overflow nor a name of the image's passwd."""
    (bundle.rootfs / "etc/passwd").write_text("1_0:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\n")
    bundle.start()
    said = bundle.oci("exec", "--user", user, bundle.id, "id", "-u")
    if user == "":  # the flag is empty: the container's own user
        assert said.stdout == "0\n"
    else:
        assert (said.returncode, said.stdout) == (255, "")


def test_a_number_is_a_number_also_where_it_is_a_name(bundle: Bundle):
    (bundle.rootfs / "etc/passwd").write_text("1000:x:0:0::/:/bin/sh\n01:x:0:0::/:/bin/sh\n")
    bundle.start()
    for user, uid in (("1000", "1000"), ("01", "1")):
        assert bundle.oci("exec", "--user", user, bundle.id, "id", "-u").stdout == f"{uid}\n"


def test_nothing_is_ambient_or_inheritable_by_itself(bundle: Bundle):
    bundle.config["process"]["user"]["uid"] = 33
    said = bundle.run("grep Cap /proc/self/status").stdout.split()
    found = dict(zip(said[::2], said[1::2], strict=True))
    none = "0" * 16
    assert [found[f"Cap{kind}:"] for kind in ("Inh", "Prm", "Eff", "Amb")] == [none] * 4
    assert found["CapBnd:"] != none


# C12: what others on the host can see of it.


def test_the_state_is_for_its_owner_alone(bundle: Bundle):
    before = Path("/proc/net/unix").read_text().count("@")
    bundle.shell("sleep 1000")
    bundle.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    bundle.save()
    null = subprocess.DEVNULL
    words = [bundle.runtime, "--root", str(bundle.root), "create", bundle.id]
    subprocess.run(words, check=True, cwd=bundle.path, stdin=null, stdout=null, timeout=60)
    assert Path("/proc/net/unix").read_text().count("@") == before
    own = [bundle.root, *bundle.root.rglob("*")]
    assert len(own) > 4
    for path in own:
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, path
        assert path.lstat().st_uid == 0


# C13: cgroups.


@pytest.mark.parametrize("path", ["..", "/", "/..", "a/../../b", "/sampan-test/../x", "x" * 5000])
def test_a_cgroup_path_that_leaves_is_refused(bundle: Bundle, path: str):
    bundle.config["linux"]["cgroupsPath"] = path
    said = bundle.run("true")
    assert said.returncode == 1
    assert "cgroup path" in said.stderr
    assert not bundle.root.exists() or not list(bundle.root.iterdir())


@pytest.mark.parametrize("path", ["..", "../..", "/..", "a/../../b", "cpu:../x", "cpu,memory:.."])
def test_a_cgroup_of_exec_that_leaves_is_refused(bundle: Bundle, path: str):
    bundle.start()
    said = bundle.oci("exec", "--cgroup", path, bundle.id, "true")
    assert said.returncode == 255
    assert "cgroup" in said.stderr


def test_a_process_is_in_every_cgroup_of_its_container(bundle: Bundle):
    bundle.start()
    lines = Path(f"/proc/{bundle.state()['pid']}/cgroup").read_text().splitlines()
    wanted = bundle.config["linux"]["cgroupsPath"]
    found = {line.split(":")[1]: line.split(":")[2] for line in lines}
    for controller in bundle.group().names():
        key = next(key for key in found if controller in key.split(","))
        assert found[key] == wanted


def test_a_list_of_denials_allows_nothing(bundle: Bundle):
    """GHSA-g54h-m393-cpwq: devices that no rule allows stay closed."""
    grant(bundle, "CAP_MKNOD")
    bundle.config["linux"]["resources"]["devices"] = [
        {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"}
    ]
    said = bundle.run("mknod /dev/kmsg0 c 1 11; head -c 1 /dev/kmsg0")
    assert said.returncode != 0
    assert "Operation not permitted" in said.stderr


# C15: what a container learns of its host.


def test_what_is_masked_is_empty_and_stays_so(bundle: Bundle):
    masked = bundle.config["linux"]["maskedPaths"]
    masked += masked[:]  # named twice, covered once
    probe = "for p in $MASKED; do [ ! -e $p ] || cat $p 2>/dev/null; ls -A $p/ 2>/dev/null; done; "
    tries = "for p in $MASKED; do umount $p 2>&1; done | grep -c 'not permitted'; "
    there = "for p in $MASKED; do [ ! -e $p ] || echo; done | wc -l; "
    bundle.config["process"]["env"].append("MASKED=" + " ".join(dict.fromkeys(masked)))
    said = bundle.run(probe + tries + there + "cut -d' ' -f5 /proc/self/mountinfo | sort | uniq -d")
    refused, count, *twice = said.stdout.split()
    assert int(refused) == int(count) > 2
    assert twice == []


# C16: what confines must be understood.


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("linux", "seccomp"), {"defaultAction": "SCMP_ACT_UNKNOWN"}),
        (("linux", "seccomp"), {"defaultAction": ""}),
        (("linux", "seccomp"), {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["NO_SUCH_FLAG"]}),
        (("linux", "seccomp"), {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["VAX"]}),
        (("linux", "seccomp"), {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"]}]}),
        (("linux", "seccomp"), "unconfined"),
    ],
)
def test_a_filter_that_is_not_understood_is_refused(bundle: Bundle, place, value):
    bundle.config[place[0]][place[1]] = value
    said = bundle.run("echo ran")
    assert said.returncode == 1
    assert said.stdout == ""
    assert "seccomp" in said.stderr
    assert not bundle.root.exists() or not list(bundle.root.iterdir())


# C17: metadata is no configuration.


def test_annotations_change_nothing(bundle: Bundle):
    bundle.shell("true")
    bundle.save()
    clean = bundle.oci("plan", check=True).stdout
    bundle.config["annotations"] = {
        "io.podman.annotations.checkpoint.runtime.name": "runc",
        "io.podman.annotations.privileged": "TRUE",
        "org.criu.config": "/etc/shadow",
        "org.systemd.property.SuccessAction": "'poweroff-force'",
        "run.oci.keep_original_groups": "1",
        "run.oci.hooks.stderr": "/tmp/canary-of-annotations",
        "run.oci.seccomp.receiver": "/run/agent",
        "run.oci.systemd.subgroup": "../x",
        "io.kubernetes.cri-o.UnifiedCgroup": "memory.max=1",
        "bundle": "/",
    }
    bundle.save()
    assert bundle.oci("plan", check=True).stdout == clean
    assert bundle.run("true").returncode == 0
    assert not Path("/tmp/canary-of-annotations").exists()
