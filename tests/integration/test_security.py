"""What a container sees and may do by default, and what a hostile one tries, from the inside.

What is tested elsewhere is not repeated: copies (test_archive.py), filters (test_seccomp.py of the
kernel's), users (test_users.py of the runtime's), hostile trees (test_runtime_escapes.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enginelab import Lab, eventually, with_engine
from sampan import errors
from sampan.engine import profiles, specgen
from sampan.engine.engine import Engine
from sampan.engine.model import (
    Container,
    ContainerConfig,
    ExecConfig,
    HostConfig,
    LogConfig,
    WaitCondition,
)

PROBE = (
    "grep -E 'Cap|Groups|Uid|Gid|NoNewPrivs|Seccomp:|Sig(Blk|Ign)' /proc/self/status; "
    "cat /proc/self/oom_score_adj /proc/self/cgroup /proc/self/limits /proc/self/uid_map; "
    "ls -l /proc/self/fd | grep -c pipe; "
    "for n in cgroup ipc mnt net pid user uts; do ls -l /proc/self/ns/$n; done"
)


async def inside(lab: Lab, engine: Engine, script: str, **host: Any) -> str:
    _, output = await lab.run(engine, "sh", "-c", script, host=HostConfig(**host))
    return output


@pytest.mark.parametrize(
    ("user", "host"),
    [
        ("", {}),
        ("bob", {}),
        ("bob:1003", {"group_add": ("77",)}),
        ("", {"cap_add": ("SYS_ADMIN",), "cap_drop": ("CHOWN",)}),
        ("", {"privileged": True}),
        ("", {"security_opt": ("no-new-privileges=false", "seccomp=unconfined")}),
        ("", {"oom_score_adj": 77, "memory": 64 << 20}),
        ("", {"userns_mode": "auto"}),
    ],
)
def test_an_exec_is_confined_as_the_first_process_is(tmp_path: Path, user: str, host: Any) -> None:
    @with_engine
    async def test(lab: Lab, engine: Engine) -> None:
        (lab.path / "rootfs/tmp").mkdir()
        (lab.path / "rootfs/tmp").chmod(0o1777)
        probe = f"({PROBE}) > /tmp/$NAME 2>&1"
        script = f"NAME=first; {probe}; echo done; sleep 1000"
        made = await engine.create(lab.config_of("sh", "-c", script, user=user), HostConfig(**host))
        await engine.start(made.id)
        upper = engine.services.snapshots.mounts(made.id)["source"]
        first, second = Path(upper) / "tmp/first", Path(upper) / "tmp/exec"
        exec_id = await engine.exec_create(
            made.id, ExecConfig(command=("sh", "-c", f"NAME=exec; {probe}"))
        )
        while "done" not in await lab.output(engine, made.id):
            pass
        await engine.exec_start(exec_id)
        assert await engine.exec_wait(exec_id) == 0
        assert len(first.read_text()) > 1000
        assert second.read_text() == first.read_text()

    test(tmp_path)


def reachable(directory: str) -> list[str]:
    """What the user nobody can list or read below a directory, as a process of his."""
    script = (
        "import os, sys\n"
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "for folder, folders, files in os.walk(sys.argv[1]):\n"
        "    for name in folders + files:\n"
        "        path = os.path.join(folder, name)\n"
        "        if os.access(path, os.R_OK): print(path)\n"
    )
    words = [sys.executable, "-I", "-c", script, directory]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


def open_the_way(path: Path) -> None:
    """pytest's directories are for their owner alone, so nobody would come near."""
    for folder in (path, *path.parents):
        if len(folder.parts) > 2:
            folder.chmod(folder.stat().st_mode | 0o055)


def text_of(path: str) -> str:
    return Path(path).read_text()


@with_engine
async def test_nobody_reaches_what_the_engine_keeps(lab: Lab, engine: Engine) -> None:
    open_the_way(lab.path)
    host = HostConfig(binds=("vol:/data",))
    made = await engine.create(lab.config_of("sh", "-c", "echo x; sleep 1000"), host)
    await engine.start(made.id)
    while "x" not in await lab.output(engine, made.id):
        pass
    assert reachable(str(lab.path / "rootfs"))  # the look is a real one
    assert reachable(lab.config.root) == []
    assert reachable(lab.config.state) == []
    names = [line.split()[-1] for line in text_of("/proc/net/unix").splitlines()]
    assert "shim.sock" in names
    assert not [name for name in names if name.startswith("@") and "s" in name]


@with_engine
async def test_cgroups_cannot_be_left_or_widened(lab: Lab, engine: Engine) -> None:
    tries = {
        "release_agent": "/bin/sh",
        "notify_on_release": "1",
        "cgroup.procs": "1",
        "tasks": "1",
        "devices.allow": "a",
        "memory.limit_in_bytes": "-1",
        "memory.max": "max",
        "pids.max": "max",
    }
    script = "".join(
        f"for f in /sys/fs/cgroup/{name} /sys/fs/cgroup/*/{name}; do "
        f"if [ -e $f ]; then echo tried; echo '{value}' > $f && echo WROTE $f; fi; done; "
        for name, value in tries.items()
    )
    script += "mkdir /sys/fs/cgroup/*/x /sys/fs/cgroup/x && echo MADE; cat /proc/self/cgroup"
    output = await inside(lab, engine, script, memory=64 << 20, pids_limit=50)
    assert output.count("tried") > 3
    assert "WROTE" not in output
    assert "MADE" not in output
    assert "Read-only file system" in output
    paths = {line.split(":", 2)[2] for line in output.splitlines() if line.count(":") == 2}
    assert lab.parent not in "".join(paths)  # its own cgroup is its root
    forks = "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done; echo all"
    assert "all\n" not in await inside(lab, engine, forks, pids_limit=20)


HOSTILE_SETTINGS = [
    ("kernel.core_pattern", "|/x"),
    ("kernel/core_pattern", "|/x"),
    ("kernel.shmmax+kernel.core_pattern", "1"),
    ("net.ipv4.ip_forward/../../kernel/core_pattern", "x"),
    ("net/../kernel/core_pattern", "x"),
    ("net.ipv4.ip_forward\n", "1"),
    ("net.", "1"),
    (".net.ipv4.ip_forward", "1"),
    ("net.ipv4.ip_forward", "1\n"),
    ("net.ipv4.ip_forward", "1\0"),
    ("net.ipv4.nosuch", "1"),
    ("kernel.hostname", "x"),
    ("kernel.modprobe", "/x"),
    ("kernel.sysrq", "1"),
    ("kernel.panic", "1"),
    ("kernel.randomize_va_space", "0"),
    ("kernel.yama.ptrace_scope", "0"),
    ("kernel.unprivileged_bpf_disabled", "0"),
    ("kernel.ns_last_pid", "1"),
    ("kernel.pid_max", "100"),
    ("kernel.threads-max", "9"),
    ("kernel.msgmax.x", "1"),
    ("fs.file-max", "1"),
    ("fs.suid_dumpable", "1"),
    ("fs.protected_symlinks", "0"),
    ("fs.binfmt_misc.register", "x"),
    ("fs.mqueue", "1"),
    ("vm.swappiness", "1"),
    ("vm.drop_caches", "3"),
    ("vm.overcommit_memory", "1"),
    ("user.max_user_namespaces", "1"),
    ("abi.vsyscall32", "1"),
    ("debug.exception-trace", "1"),
    ("dev.cdrom.autoeject", "1"),
    ("../../etc/passwd", "x"),
    ("/proc/sys/kernel/core_pattern", "x"),
    ("kernel..core_pattern", "x"),
    ("KERNEL.CORE_PATTERN", "x"),
    ("", "x"),
    ("=", "x"),
]


@with_engine
async def test_settings_of_the_host_stay(lab: Lab, engine: Engine) -> None:
    read = [f"/proc/sys/kernel/{name}" for name in ("core_pattern", "panic", "pid_max")]
    before = [text_of(path) for path in read]

    async def run(host: HostConfig) -> None:
        made = await engine.create(lab.config_of("true"), host)
        await engine.start(made.id)

    for name, value in HOSTILE_SETTINGS:
        with pytest.raises((errors.StartFailed, errors.InvalidArgument)):
            await run(HostConfig(sysctls={name: value}))
        for container in engine.list(all=True):
            await engine.remove(container.id)
    assert [text_of(path) for path in read] == before


def masked() -> list[str]:
    """The masked paths that this host has."""
    return [path for path in profiles.MASKED_PATHS if os.path.exists(path)]


@with_engine
async def test_what_tells_of_the_host_is_masked(lab: Lab, engine: Engine) -> None:
    shown = masked()
    assert len(shown) > 3
    script = "".join(
        f"if [ -d {path} ]; then ls -A {path}; touch {path}/x && echo MADE; "
        f"else cat {path}; fi; umount {path} && echo GONE; "
        for path in shown
    )
    output = await inside(lab, engine, f"({script}) 2>/dev/null; echo; cat /proc/self/mounts")
    said, mounts = output.split("\n", 1)
    assert said == ""
    places = [line.split()[1] for line in mounts.splitlines()]
    for path in shown:
        assert places.count(path) == 1, path
    sources = {line.split()[0] for line in mounts.splitlines() if line.split()[1] in shown}
    assert len(sources) <= 3  # one empty directory and one /dev/null are shared


def test_metadata_of_an_image_configures_nothing() -> None:
    """Whatever an image calls itself: the configuration is that of a clean one."""
    keys = (
        "io.podman.annotations.privileged io.podman.annotations.checkpoint.runtime.name "
        "io.podman.annotations.seccomp io.podman.annotations.cid-file run.oci.handler "
        "run.oci.keep_original_groups org.systemd.property.Delegate io.kubernetes.cri.sandbox-id "
        "io.kubernetes.cri-o.Devices io.kubernetes.cri-o.userns-mode containerd.io/restart.status "
        "containerd.io/restart.loguri cdi.k8s.io/x io.containerd.cri.runtime-handler "
        "com.docker.compose.project sampan.owner sampan.notes io.sampan.privileged devices "
        "org.criu.config module.wasm.image/variant io.balena.features.kernel-modules maintainer"
    ).split()
    clean = Container(
        id="a" * 64, name="x", created_at=1, config=ContainerConfig(image="x"), host=HostConfig(),
        path="true",
    )  # fmt: skip
    facts = specgen.Facts(cgroups_path="/x")
    hostile = replace(clean, image_labels=dict.fromkeys(keys, "1"))
    users = replace(hostile, config=replace(clean.config, labels=dict.fromkeys(keys, "true")))
    wanted = json.dumps(specgen.generate(clean, facts))
    assert json.dumps(specgen.generate(hostile, facts)) == wanted
    assert json.dumps(specgen.generate(users, facts)) == wanted
    named = replace(clean, host=replace(clean.host, annotations=dict.fromkeys(keys, "1")))
    spec = specgen.generate(named, facts)
    assert spec.pop("annotations") == dict.fromkeys(keys, "1")  # kept as text, and nothing more
    assert json.dumps(spec) == wanted


@with_engine
async def test_execs_that_leave_something_behind_cost_nothing(lab: Lab, engine: Engine) -> None:
    made = await engine.create(lab.config_of("sleep", "1000"))
    await engine.start(made.id)

    async def one() -> None:
        exec_id = await engine.exec_create(
            made.id, ExecConfig(command=("sh", "-c", "sleep 1000 & yes"), attach_stdout=True)
        )
        ours, theirs = os.pipe()
        os.close(ours)
        os.close(theirs)
        await engine.exec_start(exec_id)
        await engine.exec_kill(exec_id)
        await engine.exec_wait(exec_id)

    await one()
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        await one()
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1
    # What they left was killed with them, and is gone when it has been reaped.
    await eventually(lambda: len(lab.pids(engine.get(made.id))) == 1)


@with_engine
async def test_a_line_without_end_is_many_records(lab: Lab, engine: Engine) -> None:
    """`SAMPAN_LINE` is its length in MiB: the default is for the suite, 1024 for an evening."""
    size = int(os.environ.get("SAMPAN_LINE", "64")) << 20
    host = HostConfig(log=LogConfig(max_size=1 << 20, max_file=2))
    forged = '{"log":"forged\\\\n","stream":"stdout","time":"2020-01-01T00:00:00Z"}'
    script = f"head -c {size} /dev/zero; printf '\\r\\033]0;x\\007'; printf '%s' '{forged}'"
    made = await engine.create(lab.config_of("sh", "-c", script), host)
    ended = engine.arm_wait(made.id, WaitCondition.NEXT_EXIT)
    await engine.start(made.id)
    assert (await ended).exit_code == 0
    path = engine.get(made.id).log_path
    lines = (text_of(f"{path}.1") + text_of(path)).splitlines()
    records = [json.loads(line) for line in lines]
    assert all(len(record["log"]) <= 16 << 10 for record in records)
    assert records[-1]["log"].endswith("\r\x1b]0;x\x07" + forged)
    assert [record for record in records if record["log"] == "forged\n"] == []
    assert len(text_of(path)) < 2 << 20


@with_engine
async def test_layers_are_read_only_to_everyone(lab: Lab, engine: Engine) -> None:
    def digest() -> str:
        whole = hashlib.sha256()
        for path in sorted(Path(lab.rootfs).rglob("*")):
            status = path.lstat()
            whole.update(f"{path} {status.st_mode} {status.st_uid} {status.st_mtime_ns}".encode())
            if path.is_file():
                whole.update(path.read_bytes())
        return whole.hexdigest()

    before = digest()
    script = (
        "for f in /etc/* /bin/*; do echo hostile >> $f; chmod 7777 $f; chown 5 $f; done; "
        "rm -rf /etc /bin/cat; mkdir /etc; echo own > /etc/passwd; cat /etc/passwd"
    )
    output = await inside(lab, engine, script, privileged=True)
    assert digest() == before
    assert "root:x:0:0" in await inside(lab, engine, "cat /etc/passwd"), output
