"""The flags that describe a container, and the create body that they make.

`OPTIONS` is the table of `run` and `create`. The body has only the fields that were asked for: the
daemon has the defaults. Sentences and codes are docker's. What Sampan does not have
is an unknown flag, not a flag without effect.
"""

from __future__ import annotations

import os

from sampan.cli import networking
from sampan.cli.flags import FlagError
from sampan.cli.session import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values

OPTIONS = """\
      --annotation map              Add an annotation to the container
                                    (passed through to the OCI runtime)
      --add-host list               Add a custom host-to-IP mapping (host:ip)
  -a, --attach list                 Attach to STDIN, STDOUT or STDERR
      --blkio-weight uint16         Block IO (relative weight), between 10
                                    and 1000, or 0 to disable (default 0)
      --blkio-weight-device list    Block IO weight (relative device weight)
      --cap-add list                Add Linux capabilities
      --cap-drop list               Drop Linux capabilities
      --cgroupns string             Cgroup namespace to use (host|private)
      --cgroup-parent string        Optional parent cgroup for the container
      --cidfile string              Write the container ID to the file
      --cpu-period int              Limit CPU CFS (Completely Fair
                                    Scheduler) period
      --cpu-quota int               Limit CPU CFS (Completely Fair
                                    Scheduler) quota
  -c, --cpu-shares int              CPU shares (relative weight)
      --cpu-rt-period int           Limit CPU real-time period in
                                    microseconds
      --cpu-rt-runtime int          Limit CPU real-time runtime in
                                    microseconds
      --cpus decimal                Number of CPUs
      --cpuset-cpus string          CPUs in which to allow execution (0-3, 0,1)
      --cpuset-mems string          MEMs in which to allow execution (0-3, 0,1)
      --device list                 Add a host device to the container
      --device-cgroup-rule list     Add a rule to the cgroup allowed devices
                                    list
      --device-read-bps list        Limit read rate (bytes per second) from a
                                    device
      --device-read-iops list       Limit read rate (IO per second) from a
                                    device
      --device-write-bps list       Limit write rate (bytes per second) to a
                                    device
      --device-write-iops list      Limit write rate (IO per second) to a
                                    device
      --depends-on list             Start behind these containers
                                    (NAME[:started|healthy|completed])
{detach}      --dns list                    Set custom DNS servers
      --dns-option list             Set DNS options
      --dns-search list             Set custom DNS search domains
      --domainname string           Container NIS domain name
      --egress list                 What the container may reach: all, none, or
                                    names and networks (default all)
      --entrypoint string           Overwrite the default ENTRYPOINT of the
                                    image
  -e, --env list                    Set environment variables
      --env-file list               Read in a file of environment variables
      --expose list                 Expose a port or a range of ports
      --gpus gpu-request            GPU devices to add to the container ('all'
                                    to pass all GPUs)
      --group-add list              Add additional groups to join
      --health-cmd string           Command to run to check health
      --health-interval duration    Time between running the check
                                    (ms|s|m|h) (default 0s)
      --health-retries int          Consecutive failures needed to report
                                    unhealthy
      --health-start-interval duration
                                    Time between running the check during
                                    the start period (ms|s|m|h) (default 0s)
      --health-start-period duration
                                    Start period for the container to
                                    initialize before starting
                                    health-retries countdown (ms|s|m|h)
                                    (default 0s)
      --health-timeout duration     Maximum time to allow one check to run
                                    (ms|s|m|h) (default 0s)
      --help                        Print usage
  -h, --hostname string             Container host name
      --init                        Run an init inside the container that
                                    forwards signals and reaps processes
  -i, --interactive                 Keep STDIN open even if not attached
      --ip string                   IPv4 address (e.g., 172.30.100.104)
      --ip6 string                  IPv6 address (e.g., 2001:db8::33)
      --ipc string                  IPC mode to use
      --isolation string            Container isolation technology
      --kernel-memory bytes         Kernel memory limit (no kernel of today
                                    has one)
  -l, --label list                  Set meta data on a container
      --label-file list             Read in a line delimited file of labels
      --link list                   Add link to another container
      --link-local-ip list          Container IPv4/IPv6 link-local addresses
      --log-driver string           Logging driver for the container
      --log-opt list                Log driver options
      --mac-address string          Container MAC address (e.g.,
                                    92:d0:c6:0a:29:33)
  -m, --memory bytes                Memory limit
      --memory-reservation bytes    Memory soft limit
      --memory-swap bytes           Swap limit equal to memory plus swap: '-1'
                                    to enable unlimited swap
      --memory-swappiness int       Tune container memory swappiness (0 to
                                    100) (default -1)
      --mount mount                 Attach a filesystem mount to the container
      --name string                 Assign a name to the container
      --network list                Connect a container to a network (NAME, or
                                    name=NAME,alias=A,ip=IP,...)
      --network-alias list          Add network-scoped alias for the container
      --no-healthcheck              Disable any container-specified
                                    HEALTHCHECK
      --on-unhealthy string         What an unhealthy container gets ("none",
                                    "restart", "stop", "kill") (default "none")
      --oom-kill-disable            Disable OOM Killer
      --oom-score-adj int           Tune host's OOM preferences (-1000 to
                                    1000)
      --pid string                  PID namespace to use
      --pids-limit int              Tune container pids limit (set -1 for
                                    unlimited)
      --platform string             Set platform if server is multi-platform
                                    capable
      --privileged                  Give extended privileges to this container
  -p, --publish list                Publish a container's port(s) to the host
  -P, --publish-all                 Publish all exposed ports to random ports
      --pull string                 Pull image before {verb} ("always",
                                    "missing", "never") (default "missing")
  -q, --quiet                       Suppress the pull output
      --read-only                   Mount the container's root filesystem as
                                    read only
      --restart string              Restart policy to apply when a container
                                    exits (default "no")
      --rm                          Automatically remove the container and its
                                    associated anonymous volumes when it exits
      --rootfs string               Run a directory instead of an image
                                    (DIR, or DIR:O for an overlay above it)
      --runtime string              Runtime to use for this container
      --security-opt list           Security Options
      --shm-size bytes              Size of /dev/shm
{proxy}      --stop-signal string          Signal to stop the container
      --stop-timeout int            Timeout (in seconds) to stop a container
      --storage-opt list            Storage driver options for the container
                                    (size=N of the writable layer)
      --sysctl map                  Sysctl options
      --tmpfs list                  Mount a tmpfs directory
  -t, --tty                         Allocate a pseudo-TTY
      --ulimit ulimit               Ulimit options
      --userns string               User namespace to use ("host", "auto",
                                    "auto:size=N")
      --uts string                  UTS namespace to use
  -u, --user string                 Username or UID (format:
                                    <name|uid>[:<group|gid>])
  -v, --volume list                 Bind mount a volume
      --volume-driver string        Optional volume driver for the container
      --volumes-from list           Mount volumes from the specified
                                    container(s)
  -w, --workdir string              Working directory inside the container
"""

# flag -> field of HostConfig, where the value is passed on as it was parsed
_HOST_TEXT = {
    "cgroup-parent": "CgroupParent",
    "cpuset-cpus": "CpusetCpus",
    "cgroupns": "CgroupnsMode",
    "cpuset-mems": "CpusetMems",
    "ipc": "IpcMode",
    "isolation": "Isolation",
    "runtime": "Runtime",
    "pid": "PidMode",
    "userns": "UsernsMode",
    "uts": "UTSMode",
    "on-unhealthy": "OnUnhealthy",
}
_HOST_NUMBERS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "kernel-memory": "KernelMemory",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "memory-swappiness": "MemorySwappiness",
    "oom-score-adj": "OomScoreAdj",
    "pids-limit": "PidsLimit",
    "shm-size": "ShmSize",
}
_HEALTH = {
    "health-interval": "Interval",
    "health-retries": "Retries",
    "health-start-interval": "StartInterval",
    "health-start-period": "StartPeriod",
    "health-timeout": "Timeout",
}
_BLOCK = {
    "blkio-weight-device": ("BlkioWeightDevice", "Weight"),
    "device-read-bps": ("BlkioDeviceReadBps", "Rate"),
    "device-read-iops": ("BlkioDeviceReadIOps", "Rate"),
    "device-write-bps": ("BlkioDeviceWriteBps", "Rate"),
    "device-write-iops": ("BlkioDeviceWriteIOps", "Rate"),
}
_HOST_SWITCHES = {
    "init": "Init",
    "oom-kill-disable": "OomKillDisable",
    "privileged": "Privileged",
    "read-only": "ReadonlyRootfs",
    "rm": "AutoRemove",
}
_HOST_PAIRS = {"annotation": "Annotations", "storage-opt": "StorageOpt", "sysctl": "Sysctls"}
_HOST_LISTS = {
    "cap-add": "CapAdd",
    "cap-drop": "CapDrop",
    "depends-on": "DependsOn",
    "device-cgroup-rule": "DeviceCgroupRules",
    "group-add": "GroupAdd",
}
_TEXT = {
    "domainname": "Domainname",
    "hostname": "Hostname",
    "stop-signal": "StopSignal",
    "user": "User",
    "workdir": "WorkingDir",
}


def split_rootfs(flags: Values, words: list[str]) -> tuple[str, list[str]]:
    """The image of a command line and the words after it; no image when a directory is run."""
    if flags.has("rootfs"):
        return "", words
    return words[0], words[1:]


def create_body(flags: Values, image: str, command: list[str]) -> dict[str, Any]:
    """The body of POST /containers/create.

    Raises:
        Failed: a file cannot be read, or flags contradict each other.
        FlagError: a value is not what its flag takes.
    """
    body: dict[str, Any] = {"Image": image} if image else {"Rootfs": _rootfs(flags.text("rootfs"))}
    if command:
        body["Cmd"] = command
    body |= {field: flags.text(name) for name, field in _TEXT.items() if flags.text(name)}
    if flags.has("entrypoint"):
        body["Entrypoint"] = [flags.text("entrypoint")] if flags.text("entrypoint") else [""]
    environment = environment_of(flags)
    if environment:
        body["Env"] = environment
    labels = _labels(flags)
    if labels:
        body["Labels"] = labels
    if flags.on("tty"):
        body["Tty"] = True
    if flags.has("stop-timeout"):
        body["StopTimeout"] = flags.number("stop-timeout")
    if check := _health_check(flags):
        body["Healthcheck"] = check
    unnamed = [volume for volume in flags.many("volume") if ":" not in volume]
    if unnamed:
        body["Volumes"] = {path: {} for path in unnamed}
    body["HostConfig"] = host_config(flags)
    networking.apply(flags, body)
    return body


def _health_check(flags: Values) -> dict[str, Any]:
    check = {field: flags.number(name) for name, field in _HEALTH.items() if flags.has(name)}
    command = flags.text("health-cmd")
    if flags.on("no-healthcheck"):
        if check or command:
            raise Failed("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    return {"Test": ["CMD-SHELL", command], **check} if command else dict(check)


def host_config(flags: Values) -> dict[str, Any]:
    """The part of the body that is about the host: limits, mounts, privileges."""
    host: dict[str, Any] = {}
    for name, field in _HOST_TEXT.items():
        if flags.text(name):
            host[field] = flags.text(name)
    for name, field in _HOST_NUMBERS.items():
        if flags.has(name):
            host[field] = flags.number(name)
    for name, field in _HOST_SWITCHES.items():
        if flags.has(name):
            host[field] = flags.on(name)
    for name, field in _HOST_LISTS.items():
        if flags.many(name):
            host[field] = flags.many(name)
    if flags.has("restart"):
        host["RestartPolicy"] = restart_policy(flags)
    _mounts(flags, host)
    _rest(flags, host)
    return host


def _mounts(flags: Values, host: dict[str, Any]) -> None:
    binds = [_bind(volume) for volume in flags.many("volume") if ":" in volume]
    if binds:
        host["Binds"] = binds
    if flags.many("volumes-from"):
        host["VolumesFrom"] = flags.many("volumes-from")
    if flags.text("volume-driver"):
        host["VolumeDriver"] = flags.text("volume-driver")
    if flags.many("mount"):
        from sampan.cli.mounts import parse_mount

        host["Mounts"] = [parse_mount(text) for text in flags.many("mount")]
    if flags.many("tmpfs"):
        pairs = (text.partition(":") for text in flags.many("tmpfs"))
        host["Tmpfs"] = {path: options for path, _, options in pairs}


def _rest(flags: Values, host: dict[str, Any]) -> None:
    if flags.many("ulimit"):
        from sampan.cli.mounts import parse_ulimit

        host["Ulimits"] = [parse_ulimit(text) for text in flags.many("ulimit")]
    if any(flags.has(name) for name in ("device", "gpus", *_BLOCK)):
        _devices(flags, host)
    if flags.many("security-opt"):
        host["SecurityOpt"] = [_security(text) for text in flags.many("security-opt")]
    if flags.has("log-driver") or flags.many("log-opt"):
        options = _pairs(flags.many("log-opt"))
        host["LogConfig"] = {"Type": flags.text("log-driver"), "Config": options}
    for name, field in _HOST_PAIRS.items():
        if flags.many(name):
            host[field] = _pairs(flags.many(name))


def _devices(flags: Values, host: dict[str, Any]) -> None:
    from sampan.cli import devices

    given = flags.many("device")
    if given:
        host["Devices"] = [devices.parse_device(text) for text in given if "=" not in text]
    if named := [text for text in given if "=" in text]:
        host["DeviceRequests"] = [{"Driver": "cdi", "DeviceIDs": named}]
    if flags.has("gpus"):
        host.setdefault("DeviceRequests", []).append(devices.parse_gpus(flags.text("gpus")))
    for name, (field, key) in _BLOCK.items():
        if flags.many(name):
            host[field] = [devices.parse_rate(name, key, text) for text in flags.many(name)]


def _pairs(texts: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def _rootfs(text: str) -> str:
    path, overlay = (text[:-2], ":O") if text.endswith(":O") else (text, "")
    return os.path.abspath(path) + overlay


def _bind(volume: str) -> str:
    source, colon, rest = volume.partition(":")
    if source in (".", "..") or source.startswith(("./", "../", "~/")):
        source = os.path.abspath(os.path.expanduser(source))
    return source + colon + rest


def restart_policy(flags: Values) -> dict[str, Any]:
    """`on-failure:3` as the API has it."""
    text = flags.text("restart")
    name, colon, count = text.partition(":")
    if flags.on("rm") and name not in ("", "no"):
        raise Failed("conflicting options: cannot specify both --restart and --rm")
    if colon and not (count.isascii() and count.isdigit()):
        raise Failed("invalid restart policy format: maximum retry count must be an integer")
    if colon and not name:
        raise Failed("invalid restart policy format: no policy provided before colon")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def _security(option: str) -> str:
    """A profile is a file of the client's: its text is sent."""
    name, _, path = option.partition("=")
    if name != "seccomp" or path in ("unconfined", "builtin", ""):
        return option
    try:
        with open(path, encoding="utf-8") as file:
            return "seccomp=" + file.read()
    except OSError as error:
        reason = _reason(error)
        raise Failed(f"opening seccomp profile ({path}) failed: open {path}: {reason}") from error


def environment_of(flags: Values) -> list[str]:
    """Files first, then flags; a name without a value takes it from our own environment."""
    words = [word for path in flags.many("env-file") for word in _read_pairs(path)]
    for word in flags.many("env"):
        if word.startswith("=") or not word:
            raise FlagError(f'invalid argument "{word}" for "-e, --env" flag: '
                            f"invalid environment variable: {word}")  # fmt: skip
        words.append(word)
    known = ((word, os.environ.get(word)) for word in words)
    return [
        word if "=" in word else f"{word}={value}"
        for word, value in known
        if "=" in word or value is not None
    ]


def _labels(flags: Values) -> dict[str, str]:
    words = [word for path in flags.many("label-file") for word in _read_pairs(path)]
    return _pairs(words + flags.many("label"))


def _read_pairs(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().split("\n")
    except OSError as error:
        raise Failed(f"open {path}: {_reason(error)}") from error
    lines = [line.lstrip().rstrip("\r") for line in lines]
    lines = [line for line in lines if line and not line.startswith("#")]
    for line in lines:
        name = line.partition("=")[0]
        if not name:
            raise Failed(f"invalid env file ({path}): no variable name on line '{line}'")
        if name.strip() != name or " " in name or "\t" in name:
            raise Failed(
                f"invalid env file ({path}): variable '{name}' contains whitespaces"
            )  # fmt: skip
    return lines


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
