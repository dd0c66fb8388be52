"""Docker's bodies to the model and back, by tables."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest

from sampan.api.docker import convert, pictures, requests
from sampan.engine import binds, model
from sampan.errors import InvalidArgument
from sampan.images.model import Image
from sampan.spec.digest import Digest
from sampan.spec.image import Descriptor, History, ImageConfig, RunConfig
from sampan.wire import containers as wire
from sampan.wire import execs, hostconfig

# What `docker run -d --name c1 --hostname h1 -e A=b -l k=v -w /tmp -u 0:0` sends, shortened by
# members that only repeat a default.
CLI = """{"Hostname":"h1","Domainname":"","User":"0:0","AttachStdin":false,"Tty":false,
"OpenStdin":false,"StdinOnce":false,"Env":["A=b"],"Cmd":["sh","-c","x"],"Image":"alpine:3.10",
"Volumes":{},"WorkingDir":"/tmp","Entrypoint":null,"OnBuild":null,"Labels":{"k":"v"},
"HostConfig":{"Binds":null,"ContainerIDFile":"","LogConfig":{"Type":"","Config":{}},
"NetworkMode":"default","PortBindings":{},"RestartPolicy":{"Name":"no","MaximumRetryCount":0},
"AutoRemove":false,"VolumesFrom":null,"ConsoleSize":[0,0],"CapAdd":null,"CgroupnsMode":"",
"Dns":[],"DnsOptions":[],"Links":null,"ShmSize":0,"Memory":0,"MemorySwappiness":-1,
"OomKillDisable":false,"PidsLimit":0,"Ulimits":[],"MaskedPaths":null},
"NetworkingConfig":{"EndpointsConfig":{"default":{"IPAMConfig":null,"GwPriority":0}}}}"""


def create(**members):
    return msgspec.json.decode(json.dumps(members), type=wire.ContainerCreate)


def mount(**members):
    return model.Mount(**{**members, "type": model.MountType(members["type"])})


def host(**members):
    return requests.host_config(
        msgspec.json.decode(json.dumps(members), type=hostconfig.HostConfig)
    )


def test_a_body_of_the_cli_is_all_defaults():
    body = msgspec.json.decode(CLI, type=wire.ContainerCreate)
    assert requests.container_config(body) == model.ContainerConfig(
        image="alpine:3.10",
        command=("sh", "-c", "x"),
        env=("A=b",),
        cwd="/tmp",
        user="0:0",
        labels={"k": "v"},
        hostname="h1",
    )
    host = requests.host_config(body.host_config)
    assert host == model.HostConfig(network_mode="default", dns=(), dns_options=())
    assert convert.host_answer(host, "a").dns == []
    assert convert.host_answer(model.HostConfig(), "a").dns is None


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"Cmd": "echo hi"}, {"command": ("echo hi",)}),
        ({"Entrypoint": []}, {"entrypoint": ()}),
        ({"Entrypoint": ["a"], "Cmd": None}, {"entrypoint": ("a",), "command": None}),
        ({"Rootfs": "/srv/x:O"}, {"rootfs": "/srv/x:O", "image": None}),
        ({"ExposedPorts": {"80/tcp": {}}}, {"exposed_ports": ("80/tcp",)}),
        ({"Tty": True, "OpenStdin": True, "StdinOnce": True}, {"tty": True, "stdin_once": True}),
        (
            {"StopSignal": "SIGUSR1", "StopTimeout": 3},
            {"stop_signal": "SIGUSR1", "stop_timeout": 3},
        ),
        ({"Labels": None, "Env": None, "User": None}, {"labels": {}, "env": (), "user": ""}),
        ({"NoSuchMember": 1}, {"image": None}),
    ],
)
def test_container_configs(members, expected):
    made = requests.container_config(create(**members))
    assert {name: getattr(made, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"Memory": 1 << 30, "MemorySwap": -1}, {"memory": 1 << 30, "memory_swap": -1}),
        ({"NanoCpus": 10**9, "CpusetCpus": "0-1"}, {"nano_cpus": 10**9, "cpuset_cpus": "0-1"}),
        ({"PidsLimit": 0}, {"pids_limit": None}),
        ({"PidsLimit": -1}, {"pids_limit": -1}),
        ({"NetworkMode": "host"}, {"network_mode": "host"}),
        ({"NetworkMode": "default"}, {"network_mode": "default"}),
        ({"NetworkMode": None}, {"network_mode": "default"}),
        (
            {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}},
            {"restart": model.RestartPolicy(name=model.RestartName.ON_FAILURE, max_retries=3)},
        ),
        (
            {"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}]},
            {"ulimits": (model.Ulimit(name="nofile", soft=1, hard=2),)},
        ),
        (
            {
                "Devices": [
                    {"PathOnHost": "/dev/fuse", "PathInContainer": "", "CgroupPermissions": ""}
                ]
            },
            {"devices": (model.Device(host_path="/dev/fuse", container_path="/dev/fuse"),)},
        ),
        (
            {"LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}},
            {
                "log": model.LogConfig(
                    max_size=10 << 20, max_file=3, options={"max-size": "10m", "max-file": "3"}
                )
            },
        ),
        ({"LogConfig": {"Type": "none"}}, {"log": model.LogConfig(driver=model.LogDriver.NONE)}),
        (
            {
                "Binds": ["/a:/b"],
                "Mounts": [
                    {"Type": "bind", "Source": "/h", "Target": "/t", "ReadOnly": True},
                    {
                        "Type": "bind",
                        "Source": "/s",
                        "Target": "/u",
                        "BindOptions": {"Propagation": "rslave"},
                    },
                    {
                        "Type": "tmpfs",
                        "Target": "/tt",
                        "TmpfsOptions": {"SizeBytes": 1000, "Mode": 0o700},
                    },
                ],
            },
            {
                "binds": ("/a:/b",),
                "mounts": (
                    mount(type="bind", source="/h", target="/t", read_only=True),
                    mount(type="bind", source="/s", target="/u", propagation="rslave"),
                    mount(type="tmpfs", target="/tt", size=1000, mode=0o700),
                ),
            },
        ),
        ({"Tmpfs": {"/t": "size=1m"}, "Init": True}, {"tmpfs": {"/t": "size=1m"}, "init": True}),
        ({"MaskedPaths": []}, {"masked_paths": ()}),
        ({"ReadonlyRootfs": True, "Privileged": True}, {"read_only": True, "privileged": True}),
    ],
)
def test_host_configs(members, expected):
    made = host(**members)
    assert {name: getattr(made, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("members", "error", "sentence"),
    [
        ({"RestartPolicy": {"Name": "sometimes"}}, InvalidArgument, "unknown policy 'sometimes'"),
        (
            {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 2}},
            InvalidArgument,
            "only be used with 'on-failure'",
        ),
        ({"LogConfig": {"Type": "syslog"}}, InvalidArgument, "no log driver named 'syslog'"),
        ({"LogConfig": {"Config": {"gelf": "x"}}}, InvalidArgument, "unknown log opt 'gelf'"),
        ({"LogConfig": {"Config": {"max-size": "ten"}}}, InvalidArgument, "max-size='ten'"),
        ({"PortBindings": {"80/x": [{"HostPort": "1"}]}}, InvalidArgument, "invalid protocol"),
        ({"PortBindings": {"80": [{"HostPort": "9-1"}]}}, InvalidArgument, "invalid port range"),
        ({"PortBindings": {"80": [{"HostIp": "x"}]}}, InvalidArgument, "invalid IP address: x"),
        ({"DeviceRequests": [{"Driver": "x"}]}, InvalidArgument, "could not select device"),
        ({"DeviceRequests": [{"Capabilities": [["npu"]]}]}, InvalidArgument, "could not select"),
        ({"Mounts": [{"Type": "npipe", "Target": "/v"}]}, InvalidArgument, "mount type unknown"),
        (
            {"Mounts": [{"Type": "bind", "Target": "/v", "VolumeOptions": {"NoCopy": True}}]},
            InvalidArgument,
            "field VolumeOptions must not be specified",
        ),
    ],
)
def test_what_cannot_be_done_is_not_ignored(members, error, sentence):
    with pytest.raises(error, match=sentence):
        host(**members)


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        ({"Driver": "cdi", "DeviceIDs": ["a.b/c=d"]}, ["a.b/c=d"]),
        ({"Count": -1, "Capabilities": [["gpu"]]}, ["nvidia.com/gpu=all"]),
        ({"Count": 2, "Capabilities": [["gpu"]]}, ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]),
        ({"DeviceIDs": ["U-1"], "Capabilities": [["gpu", "x"]]}, ["nvidia.com/gpu=U-1"]),
    ],
)
def test_requests_of_devices_are_names_of_vendors(request_, names):
    assert host(DeviceRequests=[request_]).cdi_devices == tuple(names)


def test_a_disabled_network_is_none():
    body = hostconfig.HostConfig(network_mode="host")
    assert requests.host_config(body, network_disabled=True).network_mode == "none"


def test_health_checks():
    body = {"Test": ["CMD", "true"], "Interval": 5, "Retries": 2}
    made = requests.container_config(create(Healthcheck=body)).healthcheck
    assert made == model.HealthCheck(test=("CMD", "true"), interval=5, retries=2)
    assert requests.container_config(create()).healthcheck is None
    assert requests.container_config(create(Healthcheck={})).healthcheck == model.HealthCheck()
    with pytest.raises(InvalidArgument, match="OnUnhealthy 'weep'"):
        host(OnUnhealthy="weep")


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", None),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a,ctrl-@", b"a\0"),
        ("ctrl-_", b"\x1f"),
        ("ctrl-\\", b"\x1c"),
    ],
)
def test_detach_keys(text, keys):
    assert requests.detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-A", "ctrl-1", "ab", "a,", "é", "ctrl-é"])
def test_wrong_detach_keys(text):
    with pytest.raises(InvalidArgument, match="Invalid detach keys"):
        requests.detach_keys(text)


def test_inspect_has_dockers_members(make_container):
    found = make_container(
        host=model.HostConfig(
            network_mode="host",
            memory=104857600,
            pids_limit=100,
            binds=("/src:/dst:ro,rslave", "/a:/b"),
            restart=model.RestartPolicy(name=model.RestartName.ALWAYS),
        ),
        mounts=(binds.parse("/src:/dst:ro,rslave"), binds.parse("/a:/b")),
        image_labels={"k": "image", "i": "1"},
        log_path="/var/lib/sampan/containers/x/container.log",
    )
    answer = json.loads(msgspec.json.encode(convert.inspect(found)))
    assert answer["Created"] == "2026-11-23T03:33:22.515408573Z"
    assert answer["Name"] == "/c1"
    assert answer["State"] == {
        "Status": "running",
        "Running": True,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": 42,
        "ExitCode": 0,
        "Error": "",
        "StartedAt": "2026-11-23T03:33:22.515408573Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    }
    assert answer["Config"]["Labels"] == {"k": "v", "i": "1"}
    assert answer["Config"]["Image"] == "alpine:3.10"
    assert answer["HostConfig"]["Memory"] == 104857600
    assert answer["HostConfig"]["RestartPolicy"] == {"Name": "always", "MaximumRetryCount": 0}
    assert answer["HostConfig"]["Binds"] == ["/src:/dst:ro,rslave", "/a:/b"]
    assert answer["Mounts"] == [
        {
            "Type": "bind",
            "Source": "/src",
            "Destination": "/dst",
            "Mode": "ro,rslave",
            "RW": False,
            "Propagation": "rslave",
        },
        {
            "Type": "bind",
            "Source": "/a",
            "Destination": "/b",
            "Mode": "",
            "RW": True,
            "Propagation": "rprivate",
        },
    ]
    assert list(answer["NetworkSettings"]["Networks"]) == ["host"]
    assert answer["ExecIDs"] is None


def test_host_configs_come_back_as_they_went_in():
    config = model.HostConfig(
        memory=1,
        memory_swap=2,
        nano_cpus=3,
        cpu_shares=4,
        cpuset_cpus="0",
        pids_limit=5,
        blkio_weight=10,
        network_mode="host",
        binds=("/a:/b",),
        tmpfs={"/t": ""},
        read_only=True,
        cap_add=("NET_ADMIN",),
        cap_drop=("ALL",),
        privileged=True,
        security_opt=("seccomp=x",),
        devices=(model.Device(host_path="/dev/a", container_path="/dev/b"),),
        sysctls={"net.x": "1"},
        ulimits=(model.Ulimit(name="core", soft=0, hard=0),),
        shm_size=9,
        init=True,
        extra_hosts=("a:1",),
        group_add=("5",),
        masked_paths=(),
        oom_score_adj=-1,
        restart=model.RestartPolicy(name=model.RestartName.UNLESS_STOPPED),
        auto_remove=False,
        log=model.LogConfig(max_size=10, max_file=2, options={"max-size": "10", "max-file": "2"}),
        ipc_mode="host",
        cgroupns_mode="host",
        pid_mode="host",
        uts_mode="host",
    )
    encoded = msgspec.json.encode(convert.host_answer(config, "x"))
    body = msgspec.json.decode(encoded, type=hostconfig.HostConfig)
    assert requests.host_config(body) == config


def test_a_restarting_container_counts_as_running():
    state = convert.state(model.State(status=model.Status.RESTARTING, exit_code=1))
    assert (state.running, state.restarting, state.status) == (True, True, "restarting")


def test_a_line_of_ps(make_container):
    line = convert.summary(make_container(), 1_795_404_814_515_408_573)
    assert line.command == "sh -c 'true && sleep 1'"
    assert (line.status, line.state, line.names) == ("Up 12 seconds", "running", ["/c1"])
    assert line.created == 1795404802


def test_exec_sessions():
    config = requests.exec_config(
        execs.ExecCreate(cmd=["echo", "hi"], console_size=(0, 0), detach_keys="ctrl-x")
    )
    session = model.Exec(id="e", container_id="c", config=config, exit_code=0, pid=7)
    answer = json.loads(msgspec.json.encode(convert.exec_answer(session, "0:0")))
    assert config.console_size is None
    assert config.detach_keys == b"\x18"
    assert answer["ProcessConfig"] == {
        "tty": False,
        "entrypoint": "echo",
        "arguments": ["hi"],
        "privileged": False,
        "user": "0:0",
    }
    assert (answer["ID"], answer["ContainerID"], answer["ExitCode"]) == ("e", "c", 0)
    running = convert.exec_answer(replace(session, exit_code=None, running=True), "")
    assert running.exit_code is None


def test_an_exec_needs_a_command():
    with pytest.raises(InvalidArgument, match="No exec command"):
        requests.exec_config(execs.ExecCreate(cmd=[]))


def test_limits_of_update():
    body = hostconfig.HostConfig(memory=5, cpuset_cpus="0", nano_cpus=0)
    assert requests.limits(msgspec.structs.asdict(body)) == {"memory": 5, "cpuset_cpus": "0"}


# --- images -----------------------------------------------------------------------------------


def image(number=1, **changes):
    digest = Digest("sha256:" + f"{number}" * 64)
    made = Image(
        id=digest,
        names=(f"app{number}:latest",),
        digests=(f"app{number}@{digest}",),
        config=ImageConfig(
            architecture="amd64",
            os="linux",
            created="2026-11-23T03:23:15.253333142Z",
            config=RunConfig(cmd=("/bin/sh",), labels={"k": "v"}),
            rootfs_diff_ids=(digest,),
            history=(History(comment="Imported from -"),),
        ),
        created=f"2026-11-23T03:23:1{number}.253333142Z",
        size=10,
        chain_id="x",
        layers=(),
        target=Descriptor("t", digest, 1),
    )
    return replace(made, **changes)


def test_image_inspect_leaves_out_what_is_not_said():
    answer = json.loads(msgspec.json.encode(pictures.inspect(image())))
    assert answer["Config"] == {"Cmd": ["/bin/sh"], "Labels": {"k": "v"}}
    assert answer["RootFS"] == {"Type": "layers", "Layers": ["sha256:" + "1" * 64]}
    assert answer["Comment"] == "Imported from -"
    assert answer["Created"] == "2026-11-23T03:23:11.253333142Z"
    assert pictures.summary(image()).created == 1795404191
