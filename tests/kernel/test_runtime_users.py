"""User and time namespaces, joined namespaces, and containers of an ordinary user."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from bundles import Bundle

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SOURCE = Path(__file__).parents[2] / "src"
SYSTEM_PYTHON = "/usr/bin/python3"  # one that an ordinary user can reach
USER = 4000
MAPPED = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def own(path: Path, uid: int) -> None:
    for directory, names, files in os.walk(path):
        for name in (".", *names, *files):
            os.lchown(os.path.join(directory, name), uid, uid)


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path)
    yield made
    done = made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone(), done
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def mapped(bundle: Bundle):
    """A bundle with a user namespace."""
    own(bundle.rootfs, 100000)
    linux = bundle.config["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = MAPPED
    return bundle


def test_root_of_a_user_namespace_is_the_mapped_user(mapped: Bundle):
    mapped.config["root"]["readonly"] = False
    result = mapped.run(
        "id -u; cat /proc/self/uid_map; touch /tmp/made; readlink /proc/self/ns/user"
    )
    uid, *ids, space = result.stdout.split()
    assert (uid, ids) == ("0", ["0", "100000", "65536"])
    assert space != os.readlink("/proc/self/ns/user")
    assert os.stat(mapped.rootfs / "tmp/made").st_uid == 100000
    assert mapped.cgroup_is_gone()


def test_every_namespace_belongs_to_the_user_namespace(mapped: Bundle):
    for names in mapped.config["process"]["capabilities"].values():
        names += ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]
    result = mapped.run("hostname other && hostname; ip link set lo down && echo down")
    assert result.stdout.split() == ["other", "down"]


def test_devices_are_the_hosts_where_none_can_be_made(mapped: Bundle):
    mapped.config["linux"]["devices"] = [
        {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o600}
    ]
    script = "for d in null zero full random urandom tty kmsg; do stat -c '%n %t:%T' /dev/$d; done"
    found = dict(line.split() for line in mapped.run(script).stdout.splitlines())
    assert found["/dev/null"] == "1:3"
    assert found["/dev/tty"] == "5:0"
    assert found["/dev/kmsg"] == "1:b"
    assert len(found) == 7
    assert mapped.run("echo x > /dev/null && head -c 2 /dev/zero | wc -c").stdout.strip() == "2"


def test_a_device_that_is_another_one_on_the_host_is_refused(mapped: Bundle):
    mapped.config["linux"]["devices"] = [{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 1}]
    assert "/dev/kmsg of the host is another device" in mapped.run("true").stderr


def test_binds_and_a_terminal_in_a_user_namespace(mapped: Bundle):
    source = mapped.path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    mapped.config["mounts"].append(
        {"destination": "/data", "type": "bind", "source": str(source), "options": ["rbind", "ro"]}
    )
    result = mapped.run("cat /data/file; touch /data/x; touch /data/file")
    assert result.stdout == "content"
    assert result.stderr.count("Read-only file system") == 2
    mapped.config["process"]["terminal"] = True
    assert "/dev/pts/0" in mapped.run("tty").stdout


def test_the_bundle_may_lie_where_the_mapped_root_cannot_go(mapped: Bundle):
    os.chmod(mapped.path, 0o700)
    assert mapped.run("echo in; grep ' / / ' /proc/self/mountinfo | wc -l").stdout[:3] == "in\n"


def test_an_exec_is_in_the_user_namespace_with_the_same_rights(mapped: Bundle):
    mapped.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    probe = "id; cat /proc/self/uid_map; grep -E 'Cap|NoNew|Seccomp:|Groups' /proc/self/status"
    first = mapped.run(f"{probe}; cat /proc/self/cgroup")
    mapped.start()
    again = mapped.oci("exec", mapped.id, "sh", "-c", f"{probe}; cat /proc/self/cgroup")
    assert again.stdout == first.stdout != ""
    spaces = mapped.oci("exec", mapped.id, "sh", "-c", "readlink /proc/self/ns/* /proc/1/ns/*")
    names = spaces.stdout.split()
    assert names[: len(names) // 2] == names[len(names) // 2 :]
    other = mapped.oci("exec", "--user", "33:34", mapped.id, "id", "-u")
    assert other.stdout == "33\n"


def test_clocks_of_a_time_namespace(bundle: Bundle):
    linux = bundle.config["linux"]
    linux["namespaces"].append({"type": "time"})
    linux["timeOffsets"] = {"monotonic": {"secs": 7}, "boottime": {"secs": 5000000, "nanosecs": 9}}
    result = bundle.run("cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets")
    uptime, *offsets = result.stdout.split()
    assert int(uptime) > 5000000
    assert offsets == ["monotonic", "7", "0", "boottime", "5000000", "9"]


def test_a_time_namespace_inside_a_user_namespace(mapped: Bundle):
    linux = mapped.config["linux"]
    linux["namespaces"].append({"type": "time"})
    linux["timeOffsets"] = {"boottime": {"secs": 5000000}}
    assert int(mapped.run("cut -d. -f1 /proc/uptime").stdout) > 5000000


@pytest.mark.parametrize("has_users", [False, True])
def test_a_container_joins_the_namespaces_of_another(tmp_path: Path, *, has_users: bool):
    (tmp_path / "pod").mkdir()
    (tmp_path / "member").mkdir()
    pod, member = Bundle(tmp_path / "pod"), Bundle(tmp_path / "member")
    pod.config["linux"]["namespaces"].append({"type": "time"})
    kinds = ["ipc", "network", "uts", "pid", "time"]
    if has_users:
        kinds.append("user")
        for one in (pod, member):
            own(one.rootfs, 100000)
            one.config["linux"]["uidMappings"] = one.config["linux"]["gidMappings"] = MAPPED
        pod.config["linux"]["namespaces"].append({"type": "user"})
    try:
        pod.start()
        pid = pod.state()["pid"]
        files = {"network": "net"}
        spaces = [{"type": k, "path": f"/proc/{pid}/ns/{files.get(k, k)}"} for k in kinds]
        member.config["linux"]["namespaces"] = [*spaces, {"type": "mount"}, {"type": "cgroup"}]
        del member.config["hostname"]
        result = member.run("cd /proc/self/ns; for k in *; do readlink $k; done; hostname; echo $$")
        *links, name, own_pid = result.stdout.split()
        assert (name, own_pid != "1") == ("sampan", True), result.stderr
        theirs = {os.readlink(f"/proc/{pid}/ns/{files.get(k, k)}") for k in kinds}
        assert theirs <= set(links)
        assert os.readlink(f"/proc/{pid}/ns/mnt") not in links
    finally:
        member.oci("delete", "--force", member.id)
        pod.oci("delete", "--force", pod.id)
    assert pod.cgroup_is_gone()
    assert member.cgroup_is_gone()


def test_a_new_user_namespace_with_a_network_of_the_hosts(mapped: Bundle):
    """Joined before the rights over it are gone."""
    spaces = mapped.config["linux"]["namespaces"]
    spaces[:] = [one for one in spaces if one["type"] != "network"]
    spaces.append({"type": "network", "path": "/proc/self/ns/net"})
    mapped.config["mounts"] = [m for m in mapped.config["mounts"] if m["type"] != "sysfs"]
    mapped.config["mounts"] = [m for m in mapped.config["mounts"] if m["type"] != "cgroup"]
    result = mapped.run("readlink /proc/self/ns/net")
    assert result.stdout.strip() == os.readlink("/proc/self/ns/net"), result.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"uidMappings": []}, "linux.uidMappings: a new user namespace needs mappings"),
        ({"gidMappings": [{"containerID": 0, "hostID": 0, "size": 0}]}, "linux.gidMappings[0]"),
        ({"uidMappings": [{"containerID": -1, "hostID": 0, "size": 1}]}, "linux.uidMappings[0]"),
        ({"uidMappings": [{"hostID": 4294967290, "size": 9}]}, "linux.uidMappings[0]"),
        ({"uidMappings": "x"}, "linux.uidMappings"),
        ({"timeOffsets": {"boottime": {"secs": 1}}}, "linux.timeOffsets: needs a new time"),
        ({"uidMappings": [{**MAPPED[0]}, {**MAPPED[0]}]}, "uid_map: invalid argument"),
    ],
)
def test_wrong_mappings_are_refused_and_leave_nothing(mapped: Bundle, change: dict, said: str):
    mapped.config["linux"].update(change)
    result = mapped.run("true")
    assert said in result.stderr
    assert not mapped.root.exists() or os.listdir(mapped.root) == []
    assert mapped.cgroup_is_gone()


def test_mappings_without_a_user_namespace_are_refused(bundle: Bundle):
    bundle.config["linux"]["uidMappings"] = MAPPED
    assert "no user namespace is configured" in bundle.run("true").stderr


class Rootless:
    """sampan-oci as an ordinary user, on the system's interpreter."""

    def __init__(self, path: Path) -> None:
        for parent in (path, *path.parents[:2]):
            os.chmod(parent, 0o755)
        self.bundle = Bundle(path)
        self.path = path
        own(path, USER)
        start = "from sampan.runtime.__main__ import start; start()"
        code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); {start}"
        runtime = [SYSTEM_PYTHON, "-I", "-S", "-B", "-c", code]
        ids = ["--reuid", str(USER), "--regid", str(USER), "--clear-groups", "--inh-caps=-all"]
        self.words = ["setpriv", *ids, "env", "-i", f"XDG_RUNTIME_DIR={path}", *runtime]

    def __call__(self, *words: str, quiet: bool = False) -> subprocess.CompletedProcess[str]:
        null, pipe = subprocess.DEVNULL, subprocess.PIPE
        return subprocess.run(
            [*self.words, *words],
            check=False,
            cwd=self.path,
            stdin=null,
            stdout=null if quiet else pipe,
            stderr=null if quiet else pipe,
            text=True,
            timeout=60,
        )

    def configure(self, *arguments: str, **more: object) -> None:
        config = json.loads((self.path / "config.json").read_text())
        config["process"] |= {"terminal": False, "args": list(arguments), "env": ["PATH=/bin"]}
        config["linux"].update(more)
        (self.path / "config.json").write_text(json.dumps(config))


@pytest.fixture
def rootless(tmp_path: Path):
    if (
        not os.path.exists(SYSTEM_PYTHON)
        or subprocess.run(
            [SYSTEM_PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], check=False
        ).returncode
    ):
        pytest.skip("no interpreter for everyone")
    made = Rootless(tmp_path)
    assert made("spec", "--rootless").returncode == 0
    yield made
    made("delete", "--force", "r")


def test_an_ordinary_user_runs_a_container(rootless: Rootless):
    rootless.configure("sh", "-c", "id -u; cat /proc/self/uid_map; echo $$; ls /tmp; exit 3")
    result = rootless("run", "r")
    assert result.returncode == 3, result.stderr
    assert result.stdout.split() == ["0", "0", str(USER), "1", "1"]
    assert os.listdir(rootless.path / "sampan-oci") == []


def test_an_ordinary_user_execs_lists_and_kills(rootless: Rootless):
    rootless.configure("sleep", "1000")
    assert rootless("run", "--detach", "r", quiet=True).returncode == 0
    assert rootless("list", "-q").stdout == "r\n"
    spaces = rootless("exec", "r", "sh", "-c", "id -u; readlink /proc/self/ns/* /proc/1/ns/*")
    uid, *names = spaces.stdout.split()
    assert uid == "0", spaces.stderr
    assert names[: len(names) // 2] == names[len(names) // 2 :]
    assert rootless("kill", "r", "KILL").returncode == 0
    assert rootless("delete", "--force", "r").returncode == 0
    assert rootless("list", "-q").stdout == ""


def test_limits_that_cannot_hold_are_refused(rootless: Rootless):
    rootless.configure("true", resources={"pids": {"limit": 9}})
    result = rootless("run", "r")
    assert result.returncode == 1
    assert "linux.resources: pids: the cgroup cannot be made" in result.stderr
    assert os.listdir(rootless.path / "sampan-oci") == []


def test_newuidmap_maps_what_was_delegated(rootless: Rootless, tmp_path: Path):
    """The helper itself is asked: a range that nobody delegated is refused in its words."""
    maps = [{"containerID": 0, "hostID": USER, "size": 1}]
    more = {"containerID": 1, "hostID": 700000, "size": 10}
    rootless.configure("cat", "/proc/self/uid_map", uidMappings=[*maps, more], gidMappings=maps)
    refused = rootless("run", "r")
    assert refused.returncode == 1
    assert "newuidmap" in refused.stderr
    if not os.path.exists("/usr/bin/newuidmap"):
        pytest.skip("no newuidmap")
    files = {"subuid": f"user:{700000}:10\n", "passwd": f"user:x:{USER}:{USER}::/:/bin/sh\n"}
    covered = []
    try:
        for name, content in files.items():
            (tmp_path / name).write_text(content)
            subprocess.run(["mount", "--bind", tmp_path / name, f"/etc/{name}"], check=True)
            covered.append(f"/etc/{name}")
        result = rootless("run", "r")
    finally:
        subprocess.run(["umount", *covered], check=True)
    assert result.stdout.split() == ["0", str(USER), "1", "1", "700000", "10"], result.stderr
