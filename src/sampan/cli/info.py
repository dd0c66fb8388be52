"""The long text of `info`."""

from __future__ import annotations

from sampan.cli.units import binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LINES = (
    ("Server Version", "ServerVersion"),
    ("Storage Driver", "Driver"),
    ("Logging Driver", "LoggingDriver"),
    ("Cgroup Driver", "CgroupDriver"),
    ("Cgroup Version", "CgroupVersion"),
)
_MACHINE = (
    ("Kernel Version", "KernelVersion"),
    ("Operating System", "OperatingSystem"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
)


def text_of(client: dict[str, Any], info: dict[str, Any]) -> str:
    """What `info` prints for an answer of the daemon."""
    lines = ["Client:", f" Version:    {client['Version']}", " Context:    default", "", "Server:"]
    lines.append(f" Containers: {info.get('Containers', 0)}")
    lines += [
        f"  {state}: {info.get('Containers' + state, 0)}"
        for state in ("Running", "Paused", "Stopped")
    ]
    lines.append(f" Images: {info.get('Images', 0)}")
    for label, name in _LINES:
        if info.get(name):
            lines.append(f" {label}: {info[name]}")
        if name == "Driver":
            lines += [f"  {key}: {value}" for key, value in info.get("DriverStatus") or ()]
    lines += _plugins(info)
    lines += [f" {label}: {info[name]}" for label, name in _MACHINE if info.get(name)]
    lines.append(f" Total Memory: {binary_size(info.get('MemTotal') or 0)}")
    for label, name in (("Name", "Name"), ("ID", "ID"), ("Root Dir", "DockerRootDir")):
        lines.append(f" {label}: {info.get(name, '')}")
    return "\n".join(lines + _registries(info))


def _plugins(info: dict[str, Any]) -> list[str]:
    lines = [" Plugins:"]
    for kind, names in (info.get("Plugins") or {}).items():
        if names:
            lines.append(f"  {kind}: {' '.join(names)}")
    runtimes = info.get("Runtimes") or {}
    if runtimes:
        lines.append(f" Runtimes: {' '.join(sorted(runtimes))}")
        lines.append(f" Default Runtime: {info.get('DefaultRuntime', '')}")
    options = info.get("SecurityOptions") or ()
    if options:
        lines.append(" Security Options:")
    for option in options:
        first, *rest = [pair.partition("=")[::2] for pair in option.split(",")]
        lines.append(f"  {first[1]}")
        lines += [f"   {key.capitalize()}: {value}" for key, value in rest]
    return lines


def _registries(info: dict[str, Any]) -> list[str]:
    config = info.get("RegistryConfig") or {}
    lines = []
    insecure = list(config.get("InsecureRegistryCIDRs") or ())
    if insecure:
        lines += [" Insecure Registries:", *(f"  {network}" for network in insecure)]
    if config.get("Mirrors"):
        lines += [" Registry Mirrors:", *(f"  {mirror}" for mirror in config["Mirrors"])]
    return lines
