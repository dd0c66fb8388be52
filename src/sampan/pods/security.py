"""What the interface says about rights, in the engine's words.

None here means what the interface's absence means: a process without a seccomp profile in its
request runs unconfined, and the default profile is asked for by name. What this host cannot do is
refused; it is never taken for less.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sampan.errors import FailedPrecondition, InvalidArgument
from sampan.pods.model import ProfileKind

if TYPE_CHECKING:
    from sampan.pods.model import Security

MAX_PROFILE = 1 << 20
_APPARMOR = "/sys/module/apparmor/parameters/enabled"
_SELINUX = "/sys/fs/selinux/enforce"


def user(security: Security) -> str:
    """The engine's `user[:group]`, "" for the image's own.

    Raises:
        InvalidArgument: a group without a user.
    """
    if security.user is None and not security.username:
        if security.group is not None:
            raise InvalidArgument("run_as_group is set, but neither run_as_user nor a user name")
        return ""
    name = security.username or str(security.user)
    if ":" in name or "\n" in name:
        raise InvalidArgument(f"run_as_username {name!r}: not a name")
    return name if security.group is None else f"{name}:{security.group}"


def options(security: Security) -> tuple[str, ...]:
    """The engine's security options. Reads a local profile.

    Raises:
        InvalidArgument: the profile cannot be read.
        FailedPrecondition: a profile of AppArmor, which this host has not.
    """
    quiet = "true" if security.no_new_privileges else "false"
    said = (f"no-new-privileges={quiet}", f"seccomp={_seccomp(security)}")
    return (*said, *_apparmor(security), *_selinux(security))


def _seccomp(security: Security) -> str:
    profile = security.seccomp
    if security.privileged or profile is None or profile.kind is ProfileKind.UNCONFINED:
        return "unconfined"
    if profile.kind is ProfileKind.DEFAULT:
        return "builtin"
    return _read_profile(profile.reference)


def _read_profile(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidArgument(f"seccomp profile {path!r}: the path must be absolute")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_PROFILE + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"read seccomp profile {path}: {error}") from error
    if len(text) > MAX_PROFILE:
        raise InvalidArgument(f"seccomp profile {path}: larger than {MAX_PROFILE} bytes")
    return text


def _apparmor(security: Security) -> tuple[str, ...]:
    profile = security.apparmor
    if profile is None or profile.kind is not ProfileKind.LOCALHOST or security.privileged:
        return ()
    if not _says(_APPARMOR, "Y"):
        raise FailedPrecondition(f"AppArmor profile {profile.reference}: this host has no AppArmor")
    return (f"apparmor={profile.reference}",)


def _selinux(security: Security) -> tuple[str, ...]:
    """The parts of the label; a host without SELinux ignores them, as kubelets expect."""
    label = security.selinux
    if label is None or security.privileged or not os.path.exists(_SELINUX):
        return ()
    parts = {"user": label.user, "role": label.role, "type": label.type, "level": label.level}
    return tuple(f"label={part}:{value}" for part, value in parts.items() if value)


def _says(path: str, word: str) -> bool:
    try:
        with open(path, encoding="ascii") as file:
            return file.read(16).strip() == word
    except OSError:
        return False
