"""Who a process runs as: Docker's `user[:group]` resolved in the container's own files.

/etc/passwd and /etc/group are read below the root descriptor, as regular files of a bounded size,
and parsed here: neither the C library's name services nor anything else of the container takes
part. A string of ASCII digits is always a number, never a name.
"""

from __future__ import annotations

from sampan.kernel.paths import Root
from sampan.runtime.credentials import find_home
from sampan.runtime.failure import InvalidConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_FILE = 10 << 20  # bytes of /etc/passwd or /etc/group
MAX_ID = 2**31 - 1
_DIGITS = frozenset("0123456789")


class Identity:
    """uid, gid, supplementary groups and home directory."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid, self.gid, self.groups, self.home = uid, gid, groups, home


def resolve(root: Root, user: str, extra_groups: list[str], policy: str = "") -> Identity:
    """The identity that `user` (`name`, `uid`, `name:group` ...) and `extra_groups` mean in `root`.

    Without a group, a user of /etc/passwd gets its own gid and the groups that list it. With the
    policy "merge" the latter count with a group, too, and with "strict" they never do.

    Raises:
        InvalidConfig: a name is unknown, or a number is out of range.
    """
    name, _, group = user.partition(":")
    entry = _passwd_entry(root, name or "0")
    if entry:
        login, uid, gid, home = entry
    elif _is_number((name or "0").removeprefix("-")):
        login, uid, gid, home = "", _number(name or "0"), 0, "/"
    else:
        raise InvalidConfig(f"unable to find user {name}: no matching entries in passwd file")
    groups: list[int] = []
    rows = _rows(root, "/etc/group") if group or extra_groups or login else []
    if group:
        gid = _group_id(rows, group)
    if login and policy != "strict" and (policy == "merge" or not group):
        groups = [int(row[2]) for row in rows if _is_member(row, login)]
    groups += [_group_id(rows, extra) for extra in extra_groups]
    return Identity(uid, gid, list(dict.fromkeys(groups)), home)


def _rows(root: Root, path: str) -> list[list[str]]:
    """Lines of a colon-separated file that is a regular file; none when it is missing."""
    try:
        content = root.read_file(path, MAX_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return []
    text = content.decode("utf-8", "surrogateescape")
    return [line.split(":") for line in text.split("\n") if line and not line.startswith("#")]


def _passwd_entry(root: Root, user: str) -> tuple[str, int, int, str] | None:
    column = 2 if _is_number(user) else 0
    for row in _rows(root, "/etc/passwd"):
        if len(row) >= 6 and row[column] == user and _is_number(row[2]) and _is_number(row[3]):
            return row[0], _number(row[2]), _number(row[3]), row[5] or "/"
    return None


def _group_id(rows: list[list[str]], group: str) -> int:
    if _is_number(group):
        return _number(group)
    for row in rows:
        if len(row) >= 3 and row[0] == group and _is_number(row[2]):
            return _number(row[2])
    raise InvalidConfig(f"unable to find group {group}: no matching entries in group file")


def _is_member(row: list[str], login: str) -> bool:
    return len(row) >= 4 and _is_number(row[2]) and login in row[3].split(",")


def _is_number(text: str) -> bool:
    return bool(text) and _DIGITS.issuperset(text)


def _number(text: str) -> int:
    if text.startswith("-") or len(text) > 10 or int(text) > MAX_ID:
        raise InvalidConfig(f"uids and gids must be in range 0-{MAX_ID}: {text[:32]}")
    return int(text)


def resolve_user(root: Root, process_spec: dict[str, Any]) -> None:
    """Replace `user.username` by the numbers it means in `root`; find HOME where it is not given.

    `username` is Docker's `user[:group]` and `groups` its additional groups; both are the engine's
    way of leaving the look-up to the side that holds the root. Raises InvalidConfig for unknown
    names.
    """
    user = process_spec.setdefault("user", {})
    named = user.pop("username", None)
    extra, policy = user.pop("groups", []), user.pop("policy", "")
    if named is None:
        find_home(root.fd, process_spec)
        return
    identity = resolve(root, named, extra, policy)
    user["uid"], user["gid"] = identity.uid, identity.gid
    # The first group as well, as dockerd has it: a program may leave its first group (setgid), and
    # would so pass permissions that are denied to that group.
    more = user.get("additionalGids") or []
    user["additionalGids"] = list(dict.fromkeys([identity.gid, *identity.groups, *more]))
    user["home"] = identity.home
