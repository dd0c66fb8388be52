"""What a container from a checkpoint is asked to be, beside what the checkpoint says it is.

The processes, their memory and the files are the checkpoint's. Of the configuration come names,
limits, the log, and the sources of mounts; CRIU can neither add a mount nor leave one out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sampan.errors import InvalidArgument, NotImplementedHere

if TYPE_CHECKING:
    from sampan.engine.model import Container
    from sampan.pods.archives import Saved
    from sampan.pods.handlers import Handler
    from sampan.pods.model import Request

_OURS: Final = frozenset(("/dev/shm", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/sys"))
"""What every container of a pod has bound; not asked for by anybody."""


def check(request: Request, handler: Handler) -> None:
    """Refuse what is never restored. Raises InvalidArgument, NotImplementedHere."""
    if handler.is_machine:
        raise NotImplementedHere("restore a container: a pod with a kernel of its own cannot")
    if request.tty:
        raise InvalidArgument("restore a container: it cannot have a terminal")


def completed(request: Request, saved: Saved) -> Request:
    """`request` with the archive's image, and with its process where nothing else is asked for."""
    process = saved.process
    own = bool(request.command or request.args)
    env = {entry.partition("=")[0]: entry for entry in (*process.env, *request.env)}
    image = replace(request.image, image=saved.image_names[-1])
    return replace(
        request,
        image=image,
        command=request.command if own else process.args,
        env=tuple(env.values()),
        cwd=request.cwd or process.cwd,
    )


def check_mounts(request: Request, saved: Saved) -> None:
    """Raises InvalidArgument when the volumes are not those of the checkpoint."""
    asked = {mount.target for mount in request.mounts if mount.image is None}
    for target in sorted(saved.bound - asked - _OURS):
        raise InvalidArgument(
            f"restore a container: it had a mount on {target}, and no source is given for it"
        )
    for target in sorted(asked - saved.bound):
        raise InvalidArgument(f"restore a container: it had no mount on {target}")


def check_process(made: Container, request: Request, saved: Saved) -> None:
    """Raises InvalidArgument when another process than the checkpoint's is described."""
    process = saved.process
    wrong = []
    if (made.path, *made.args) != process.args:
        wrong.append(f"the command {[made.path, *made.args]}, not {list(process.args)}")
    wrong += [f"the variable {entry!r}" for entry in request.env if entry not in process.env]
    if request.cwd and request.cwd != process.cwd:
        wrong.append(f"the directory {request.cwd}, not {process.cwd}")
    user = request.security.user
    if user is not None and user != process.user.uid:
        wrong.append(f"the user {user}, not {process.user.uid}")
    if wrong:
        raise InvalidArgument(f"restore container {request.name}: it is to have {wrong[0]}")
