"""What is different when the caller has no rights over the machine.

An ordinary user, or the root of a user namespace, may have no cgroup that it can write to. Its
containers then have none, unless they ask for limits. Imported only when something was refused.
"""

from __future__ import annotations

import errno

from sampan.kernel.identity import is_unprivileged
from sampan.runtime.failure import RuntimeFailure, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
# Rules for devices need no cgroup there: what could be denied cannot be made or opened anyway.
_HARMLESS = ("devices",)


def check_may_go_without(error: OSError, linux: dict[str, Any]) -> None:
    """Raises `error`, which is why there is no cgroup, unless the container does without one."""
    if error.errno not in _REFUSED or not is_unprivileged():
        raise error
    resources = linux.get("resources") or {}
    asked = sorted(key for key, value in resources.items() if value and key not in _HARMLESS)
    if asked:
        said = f"the cgroup cannot be made ({reason(error)}), so these limits cannot hold"
        where = "linux.resources: " + ", ".join(asked)
        raise RuntimeFailure(error.errno or 0, said, where) from error
