"""Session keyrings (keyrings(7)): keys of the caller must not go along into a container."""

from __future__ import annotations

import errno

from sampan.kernel import numbers as n
from sampan.kernel.libc import buffer, c_char_p, c_int, c_ulong, c_void_p, check, syscall

_JOIN_SESSION = 1
_SET_PERMISSIONS = 5
_DESCRIBE = 6
_USER_SEARCH = 0x00080000

_join = syscall(n.SYS_keyctl, c_int, c_char_p)
_number = syscall(n.SYS_keyctl, c_int, c_int, c_ulong)
_text = syscall(n.SYS_keyctl, c_int, c_int, c_void_p, c_ulong)


def join_session(name: str) -> None:
    """Leave the session keyring for the one called `name`, which is made if there is none.

    The user may search it, so that a later process of the container finds it by its name. A kernel
    without keyrings has nothing to leave.
    """
    try:
        serial = check(_join(_JOIN_SESSION, name.encode()), "keyctl join", name)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return
        raise
    described = buffer(bytes(256))
    length = check(_text(_DESCRIBE, serial, described, 256), "keyctl describe")
    # keyring;UID;GID;PERMISSIONS;NAME
    permissions = int(described.raw[: length - 1].split(b";")[3], 16)
    check(_number(_SET_PERMISSIONS, serial, permissions | _USER_SEARCH), "keyctl setperm")
