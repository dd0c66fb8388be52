"""The bodies: what dockerd sends decodes and comes back unchanged; what is wrong is refused."""

from __future__ import annotations

import json

import msgspec
import pytest

from sampan.wire import containers, docker, events, execs, hostconfig, images, stats, system

# Answers as a dockerd 28.2 gave them, with long values shortened.
ENDPOINT = (
    '{"IPAMConfig":null,"Links":null,"Aliases":null,"MacAddress":"","DriverOpts":null,'
    '"GwPriority":0,"NetworkID":"87","EndpointID":"a2","Gateway":"172.17.0.1",'
    '"IPAddress":"172.17.0.6","IPPrefixLen":16,"IPv6Gateway":"","GlobalIPv6Address":"",'
    '"GlobalIPv6PrefixLen":0,"DNSNames":null}'
)
SUMMARY = (
    '{"Id":"9f","Names":["/c-PP"],"Image":"alpine:3.10","ImageID":"sha256:64","Command":"sleep 1",'
    '"Created":1795404803,"Ports":[{"IP":"0.0.0.0","PrivatePort":99,"PublicPort":32768,'
    '"Type":"tcp"}],"Labels":{},"State":"running","Status":"Up 15 seconds",'
    '"HostConfig":{"NetworkMode":"bridge"},"NetworkSettings":{"Networks":{"bridge":'
    + ENDPOINT
    + '}},"Mounts":[]}'
)
HOST_CONFIG = (
    '{"Binds":null,"ContainerIDFile":"","LogConfig":{"Type":"json-file","Config":{}},'
    '"NetworkMode":"bridge","PortBindings":{},"RestartPolicy":{"Name":"always",'
    '"MaximumRetryCount":0},"AutoRemove":false,"VolumeDriver":"","VolumesFrom":null,'
    '"ConsoleSize":[0,0],"CapAdd":null,"CapDrop":null,"CgroupnsMode":"host","Dns":[],'
    '"DnsOptions":[],"DnsSearch":[],"ExtraHosts":null,"GroupAdd":null,"IpcMode":"private",'
    '"Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"","Privileged":false,'
    '"PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"",'
    '"UsernsMode":"","ShmSize":67108864,"Runtime":"runc","Isolation":"","CpuShares":0,'
    '"Memory":104857600,"NanoCpus":1000000000,"CgroupParent":"","BlkioWeight":0,'
    '"BlkioWeightDevice":[],"BlkioDeviceReadBps":[],"BlkioDeviceWriteBps":[],'
    '"BlkioDeviceReadIOps":[],"BlkioDeviceWriteIOps":[],"CpuPeriod":0,"CpuQuota":0,'
    '"CpuRealtimePeriod":0,"CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[],'
    '"DeviceCgroupRules":null,"DeviceRequests":null,"MemoryReservation":0,'
    '"MemorySwap":209715200,"MemorySwappiness":null,"OomKillDisable":false,"PidsLimit":100,'
    '"Ulimits":[],"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,'
    '"MaskedPaths":["/proc/asound"],"ReadonlyPaths":["/proc/bus"]}'
)
STATE = (
    '{"Status":"running","Running":true,"Paused":false,"Restarting":false,"OOMKilled":false,'
    '"Dead":false,"Pid":27867,"ExitCode":0,"Error":"","StartedAt":"2026-11-23T03:33:35.15Z",'
    '"FinishedAt":"2026-11-23T03:33:34.75Z"}'
)
CONFIG = (
    '{"Hostname":"h1","Domainname":"","User":"0:0","AttachStdin":false,"AttachStdout":false,'
    '"AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":["A=b"],'
    '"Cmd":["sh"],"Image":"alpine:3.10","Volumes":null,"WorkingDir":"/tmp","Entrypoint":null,'
    '"OnBuild":null,"Labels":{"k":"v"}}'
)
NETWORKS = (
    '{"Bridge":"","SandboxID":"6c","SandboxKey":"/k","Ports":{"80/tcp":null},"HairpinMode":false,'
    '"LinkLocalIPv6Address":"","LinkLocalIPv6PrefixLen":0,"SecondaryIPAddresses":null,'
    '"SecondaryIPv6Addresses":null,"EndpointID":"63","Gateway":"172.17.0.1",'
    '"GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"IPAddress":"172.17.0.2","IPPrefixLen":16,'
    '"IPv6Gateway":"","MacAddress":"62:61","Networks":{"bridge":' + ENDPOINT + "}}"
)
INSPECT = (
    '{"Id":"a0","Created":"2026-11-23T03:33:22.515408573Z","Path":"sh","Args":["-c","x"],"State":'
    + STATE
    + ',"Image":"sha256:64","ResolvConfPath":"/r","HostnamePath":"/h","HostsPath":"/o",'
    '"LogPath":"/l","Name":"/c1","RestartCount":0,"Driver":"overlay2","Platform":"linux",'
    '"MountLabel":"","ProcessLabel":"","AppArmorProfile":"","ExecIDs":null,"HostConfig":'
    + HOST_CONFIG
    + ',"GraphDriver":{"Data":{"ID":"a0"},"Name":"overlay2"},"Mounts":[],"Config":'
    + CONFIG
    + ',"NetworkSettings":'
    + NETWORKS
    + "}"
)
EXEC = (
    '{"ID":"73","Running":false,"ExitCode":0,"ProcessConfig":{"tty":false,"entrypoint":"echo",'
    '"arguments":["hi"],"privileged":false,"user":"0:0"},"OpenStdin":false,"OpenStderr":true,'
    '"OpenStdout":true,"CanRemove":false,"ContainerID":"a0","DetachKeys":"","Pid":13598}'
)
EVENT = (
    '{"status":"start","id":"db","from":"alpine:3.10","Type":"container","Action":"start",'
    '"Actor":{"ID":"db","Attributes":{"image":"alpine:3.10"}},"scope":"local","time":1795404885,'
    '"timeNano":1795404885747547589}'
)
IMAGE = (
    '{"Id":"sha256:64","RepoTags":["alpine:3.10"],"RepoDigests":["alpine@sha256:e3"],"Parent":"",'
    '"Comment":"Imported from -","Created":"2026-11-23T03:23:15.253333142Z","DockerVersion":"20",'
    '"Author":"","Config":{"Env":["PATH=/bin"],"Cmd":["/bin/sh"]},"Architecture":"amd64",'
    '"Os":"linux","Size":1984482,"GraphDriver":{"Data":{"UpperDir":"/u"},"Name":"overlay2"},'
    '"RootFS":{"Type":"layers","Layers":["sha256:5d"]},'
    '"Metadata":{"LastTagTime":"0001-01-01T00:00:00Z"}}'
)
IMAGE_SUMMARY = (
    '{"Containers":-1,"Created":1795404195,"Id":"sha256:64","Labels":null,"ParentId":"",'
    '"RepoDigests":["alpine@sha256:e3"],"RepoTags":["alpine:3.10"],"SharedSize":-1,"Size":1984482}'
)
STATS = (
    '{"name":"/c1","id":"a0","read":"2026-11-23T03:34:50Z","preread":"2026-11-23T03:34:49Z",'
    '"pids_stats":{"current":2,"limit":100},"blkio_stats":{"io_service_bytes_recursive":[],'
    '"io_serviced_recursive":[],"io_queue_recursive":[],"io_service_time_recursive":[],'
    '"io_wait_time_recursive":[],"io_merged_recursive":[],"io_time_recursive":[],'
    '"sectors_recursive":[]},"num_procs":0,"storage_stats":{},"cpu_stats":{"cpu_usage":'
    '{"total_usage":2,"percpu_usage":[1,1],"usage_in_kernelmode":1,"usage_in_usermode":1},'
    '"system_cpu_usage":9,"online_cpus":2,"throttling_data":{"periods":1,"throttled_periods":0,'
    '"throttled_time":0}},"precpu_stats":{"cpu_usage":{"total_usage":1,"percpu_usage":[1,0],'
    '"usage_in_kernelmode":0,"usage_in_usermode":1},"system_cpu_usage":8,"online_cpus":2,'
    '"throttling_data":{"periods":1,"throttled_periods":0,"throttled_time":0}},"memory_stats":'
    '{"usage":811008,"max_usage":4083712,"stats":{"rss":110592},"limit":104857600},'
    '"networks":{"eth0":{"rx_bytes":964,"rx_packets":14,"rx_errors":0,"rx_dropped":0,'
    '"tx_bytes":126,"tx_packets":3,"tx_errors":0,"tx_dropped":0}}}'
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (SUMMARY, containers.ContainerSummary),
        (INSPECT, containers.ContainerInspect),
        (EXEC, execs.ExecInspect),
        (EVENT, events.Event),
        (IMAGE, images.ImageInspect),
        (IMAGE_SUMMARY, images.ImageSummary),
        (STATS, stats.Stats),
        ('{"StatusCode":7}', containers.WaitResult),
        ('{"Error":{"Message":"x"},"StatusCode":-1}', containers.WaitResult),
        ('{"Id":"a0","Warnings":[]}', containers.Created),
        ('{"ContainersDeleted":null,"SpaceReclaimed":0}', containers.ContainersPruned),
        ('{"Untagged":"a:x"}', images.ImageDeleted),
        ('{"IdentityToken":"","Status":"Login Succeeded"}', system.AuthResult),
        ('{"Processes":[["root"]],"Titles":["UID"]}', containers.Top),
    ],
)
def test_dockerds_answers_come_back_byte_for_byte(text, kind):
    assert msgspec.json.encode(msgspec.json.decode(text, type=kind)).decode() == text


def test_null_is_accepted_wherever_go_does():
    members = dict.fromkeys(
        (f.encode_name for f in msgspec.structs.fields(containers.ContainerCreate)), None
    )
    members["HostConfig"] = dict.fromkeys(
        (f.encode_name for f in msgspec.structs.fields(hostconfig.HostConfig)), None
    )
    assert msgspec.json.decode(json.dumps(members), type=containers.ContainerCreate).image is None


@pytest.mark.parametrize(
    "text",
    [
        '{"Tty":"yes"}',
        '{"Env":"A=b"}',
        '{"Env":[1]}',
        '{"Labels":{"a":1}}',
        '{"StopTimeout":"1"}',
        '{"HostConfig":{"Memory":1.5}}',
        '{"HostConfig":{"ConsoleSize":[1]}}',
        '{"HostConfig":{"Ulimits":[{"Soft":1}]}}',
    ],
)
def test_wrong_types_are_refused(text):
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=containers.ContainerCreate)


def test_credentials_have_lower_case_names():
    text = '{"username":"u","password":"p","serveraddress":"127.0.0.1:5000"}'
    found = msgspec.json.decode(text, type=docker.Credentials)
    assert (found.user_name, found.password, found.server_address) == ("u", "p", "127.0.0.1:5000")
