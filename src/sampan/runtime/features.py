"""`sampan-oci features`: what this runtime can do, as the features document of the specification.

Only what works is named here; a caller that asks for anything else gets an error that names the
field.
"""

from __future__ import annotations

import os

from sampan.kernel import capabilities, cgroups, scheduling, seccomp
from sampan.kernel.cgroups import scope
from sampan.runtime import hooks
from sampan.runtime.mountoptions import ATTRIBUTES, EXTENSIONS, PROPAGATION
from sampan.version import OCI_RUNTIME_SPEC_VERSION, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def document() -> dict[str, Any]:
    """The features document (features.md of the runtime specification)."""
    words = ["bind", "rbind", *ATTRIBUTES, *("r" + word for word in ATTRIBUTES)]
    words += [*EXTENSIONS, *PROPAGATION, *("r" + word for word in PROPAGATION)]
    unified = cgroups.mode() == "unified"
    scoped = os.path.isdir(scope.BOOTED)
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_RUNTIME_SPEC_VERSION,
        "hooks": list(hooks.KINDS),
        "mountOptions": sorted(words),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": list(capabilities.NAMES),
            "cgroup": {
                "v1": not unified,
                "v2": unified,
                "systemd": scoped,
                "systemdUser": scoped and unified,
            },
            "seccomp": {
                "enabled": True,
                "actions": sorted(seccomp.ACTIONS),
                "operators": sorted(seccomp.OPERATORS),
                "archs": sorted(seccomp.ARCHITECTURES),
                "knownFlags": sorted(seccomp.FLAGS),
                "supportedFlags": sorted(seccomp.FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "memoryPolicy": {
                "modes": sorted(scheduling.MEMORY_MODES),
                "flags": sorted(scheduling.MEMORY_FLAGS),
            },
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {"org.sampan.version": VERSION},
        "potentiallyUnsafeConfigAnnotations": ["org.systemd.property.", "org.criu.config"],
    }
