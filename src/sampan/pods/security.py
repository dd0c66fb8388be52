"""What the interface says about rights, in the engine's words.

None here means what the interface's absence means: a process without a seccomp profile in its
request runs unconfined, and the default profile is asked for by name. What this host cannot do is
refused; it is never taken for less.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sampan.errors import FailedPrecondition, InvalidArgument, NotImplementedHere
from sampan.pods.model import ProfileKind

if TYPE_CHECKING:
    from sampan.pods.model import Profile, Security

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
        NotImplementedHere: a label or profile of a security module that we do not set.
    """
    _check_apparmor(security.apparmor)
    _check_selinux(security)
    quiet = "true" if security.no_new_privileges else "false"
    return (f"no-new-privileges={quiet}", f"seccomp={_seccomp(security)}")


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


def _check_apparmor(profile: Profile | None) -> None:
    if profile is None or profile.kind is not ProfileKind.LOCALHOST:
        return
    if not _says(_APPARMOR, "Y"):
        raise FailedPrecondition(f"AppArmor profile {profile.reference}: this host has no AppArmor")
    raise NotImplementedHere(f"AppArmor profile {profile.reference}: not supported yet")


def _check_selinux(security: Security) -> None:
    label = security.selinux
    if label is not None and (label.type or label.level) and os.path.exists(_SELINUX):
        raise NotImplementedHere("SELinux labels are not supported yet")


def _says(path: str, word: str) -> bool:
    try:
        with open(path, encoding="ascii") as file:
            return file.read(16).strip() == word
    except OSError:
        return False
