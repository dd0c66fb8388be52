from __future__ import annotations

import json
from dataclasses import replace

from sampan.engine import binds, mounts, specgen
from sampan.engine.model import Container, ContainerConfig, ExecConfig, HostConfig, Ulimit
from sampan.runtime import validate

FACTS = specgen.Facts(cgroups_path="/sampan/x", hosts="/c/hosts", hostname_file="/c/hostname")


def container(config: dict | None = None, **host) -> Container:
    return Container(
        id="a" * 64,
        name="one",
        created_at=1,
        config=ContainerConfig(rootfs="/r", hostname="h", **(config or {})),
        host=HostConfig(**host),
        path="/bin/sh",
        args=("-c", "true"),
    )


def spec(config: dict | None = None, **host) -> dict:
    made = specgen.generate(container(config, **host), FACTS)
    validate.check(json.loads(json.dumps(made)))
    return made


def mount(made: dict, destination: str) -> dict | None:
    return next((m for m in made["mounts"] if m["destination"] == destination), None)


def test_the_default_is_locked_down():
    made = spec()
    assert made["process"]["args"] == ["/bin/sh", "-c", "true"]
    assert made["process"]["noNewPrivileges"] is True
    assert {"ambient", "inheritable"}.isdisjoint(made["process"]["capabilities"])
    assert "CAP_SYS_ADMIN" not in made["process"]["capabilities"]["bounding"]
    kinds = {n["type"] for n in made["linux"]["namespaces"]}
    assert kinds == {"mount", "network", "pid", "ipc", "uts", "cgroup"}
    assert "ro" in mount(made, "/sys")["options"]
    assert "ro" in mount(made, "/sys/fs/cgroup")["options"]
    assert made["linux"]["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert set(made["linux"]["resources"]) == {"devices"}
    assert made["linux"]["maskedPaths"]
    assert mount(made, "/etc/resolv.conf") is None
    assert mount(made, "/etc/hosts")["source"] == "/c/hosts"


def test_privileged_and_host_namespaces():
    made = spec(privileged=True, network_mode="host", pid_mode="host", uts_mode="host")
    assert made["linux"]["maskedPaths"] == made["linux"]["readonlyPaths"] == []
    assert made["process"]["noNewPrivileges"] is False
    assert "CAP_SYS_ADMIN" in made["process"]["capabilities"]["effective"]
    kinds = {n["type"] for n in made["linux"]["namespaces"]}
    assert kinds == {"mount", "ipc", "cgroup"}
    assert "hostname" not in made
    assert "rw" in mount(made, "/sys")["options"]


def test_without_shared_memory():
    made = spec(ipc_mode="none")
    assert {"type": "ipc"} in made["linux"]["namespaces"]
    assert "/dev/shm" not in {mount["destination"] for mount in made["mounts"]}


def test_limits():
    made = spec(
        memory=1 << 20,
        memory_swap=2 << 20,
        nano_cpus=1_500_000_000,
        cpu_shares=512,
        cpuset_cpus="0",
        pids_limit=10,
        blkio_weight=100,
        ulimits=(Ulimit(name="nofile", soft=1, hard=-1),),
    )
    resources = made["linux"]["resources"]
    assert resources["memory"] == {"limit": 1 << 20, "swap": 2 << 20}
    assert resources["cpu"] == {"shares": 512, "period": 100000, "quota": 150000, "cpus": "0"}
    assert resources["pids"] == {"limit": 10}
    assert resources["blockIO"] == {"weight": 100}
    assert made["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2**64 - 1}]


def test_environment():
    made = spec({"env": ("PATH=/own", "B=1", "HOSTNAME"), "tty": True})
    assert made["process"]["env"] == ["PATH=/own", "TERM=xterm", "B=1"]


def test_mounts_of_the_user_replace_and_are_sorted():
    own = tuple(mounts.words(binds.parse(text)) for text in ("/a:/etc/hosts:ro", "/b:/x/y"))
    one = container({}, tmpfs={"/x": "exec,size=1k"})
    made = specgen.generate(one, replace(FACTS, mounts=own))
    destinations = [m["destination"] for m in made["mounts"]]
    assert destinations.count("/etc/hosts") == 1
    assert mount(made, "/etc/hosts")["options"] == ["rbind", "rprivate", "rro"]
    assert destinations.index("/x") < destinations.index("/x/y")
    assert mount(made, "/x")["options"] == ["nosuid", "nodev", "exec", "size=1k"]


def test_names_of_users_are_left_to_the_runtime():
    made = spec({"user": "bob:staff"}, group_add=("audio", "12"))
    user = made["process"]["user"]
    assert (user["username"], user["groups"]) == ("bob:staff", ["audio", "12"])


def test_exec_has_the_containers_sandbox_and_never_more():
    one = container({"user": "7", "env": ("A=1",), "cwd": "/w"}, cap_drop=("ALL",))
    first = specgen.generate(one, FACTS)["process"]
    process = specgen.exec_process(one, ExecConfig(command=("id",), env=("A=2",)), FACTS)
    for field in ("capabilities", "rlimits", "noNewPrivileges", "oomScoreAdj", "user", "cwd"):
        assert process[field] == first[field]
    assert "A=2" in process["env"]
    assert process["args"] == ["id"]
    privileged = specgen.exec_process(one, ExecConfig(command=("id",), privileged=True), FACTS)
    assert "CAP_SYS_ADMIN" in privileged["capabilities"]["bounding"]
