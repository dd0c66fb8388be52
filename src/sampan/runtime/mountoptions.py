"""The words of a mount's `options`, and what each means to the mount API.

Words are those of mount(8) and of the runtime specification (config.md, "Linux mount options").
What is no known word belongs to the file system and becomes its data.
"""

from __future__ import annotations

import errno
import os

from sampan.kernel import mounts
from sampan.kernel import numbers as n

# word -> (attributes to set, attributes to clear)
ATTRIBUTES = {
    "ro": (n.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, n.MOUNT_ATTR_RDONLY),
    "nosuid": (n.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, n.MOUNT_ATTR_NOSUID),
    "nodev": (n.MOUNT_ATTR_NODEV, 0),
    "dev": (0, n.MOUNT_ATTR_NODEV),
    "noexec": (n.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, n.MOUNT_ATTR_NOEXEC),
    "noatime": (n.MOUNT_ATTR_NOATIME, n.MOUNT_ATTR__ATIME),
    "atime": (n.MOUNT_ATTR_RELATIME, n.MOUNT_ATTR__ATIME),
    "relatime": (n.MOUNT_ATTR_RELATIME, n.MOUNT_ATTR__ATIME),
    "norelatime": (n.MOUNT_ATTR_RELATIME, n.MOUNT_ATTR__ATIME),
    "strictatime": (n.MOUNT_ATTR_STRICTATIME, n.MOUNT_ATTR__ATIME),
    "nostrictatime": (n.MOUNT_ATTR_RELATIME, n.MOUNT_ATTR__ATIME),
    "nodiratime": (n.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, n.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (n.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, n.MOUNT_ATTR_NOSYMFOLLOW),
}

# What a bind mount has only by name: a flag of its source that is not named is cleared, as by runc.
_PLAIN = (
    n.MOUNT_ATTR_RDONLY
    | n.MOUNT_ATTR_NOSUID
    | n.MOUNT_ATTR_NODEV
    | n.MOUNT_ATTR_NOEXEC
    | n.MOUNT_ATTR_NOSYMFOLLOW
)
_LOCKED = n.MOUNT_ATTR_RDONLY | n.MOUNT_ATTR_NOSUID | n.MOUNT_ATTR_NODEV | n.MOUNT_ATTR_NOEXEC
# Words about the times of access. Those that clear one change nothing in a bind mount (mount(8)).
_ATIME = {
    "noatime": "noatime",
    "atime": "noatime",
    "relatime": "relatime",
    "norelatime": "relatime",
    "strictatime": "strictatime",
    "nostrictatime": "strictatime",
    "nodiratime": "nodiratime",
    "diratime": "nodiratime",
}

PROPAGATION = {
    "private": n.MS_PRIVATE,
    "shared": n.MS_SHARED,
    "slave": n.MS_SLAVE,
    "unbindable": n.MS_UNBINDABLE,
}

# Flags of the super block that the mount API takes by name.
_SUPER_FLAGS = frozenset(("sync", "dirsync", "mand", "lazytime"))
# Words that are no option of a mount: they say how it is made (`sources`, `copyup`).
EXTENSIONS = frozenset(("idmap", "ridmap", "tmpcopyup"))
_IGNORED = EXTENSIONS | frozenset(
    "defaults async nomand nolazytime silent loud iversion noiversion acl noacl".split()
)


class MountOptions:
    """Parsed options of one mount.

    `on`/`off` are for the mount itself, `recursive_on`/`recursive_off` for the whole tree below it,
    `atime` the words for times of access that hold. `propagation` is a list of (MS_* value,
    recursive). `bind` is "", "bind" or "rbind". `data` holds (key, value or None).
    """

    __slots__ = (
        "atime",
        "bind",
        "changes_attributes",
        "data",
        "off",
        "on",
        "propagation",
        "recursive_off",
        "recursive_on",
    )

    def __init__(self, words: list[str]) -> None:
        self.on = self.off = self.recursive_on = self.recursive_off = 0
        self.changes_attributes = False
        self.atime: set[str] = set()
        self.propagation: list[tuple[int, bool]] = []
        self.bind = ""
        self.data: list[tuple[str, str | None]] = []
        for word in words:
            self._add(word)

    def _add(self, word: str) -> None:
        if word in ("bind", "rbind"):
            self.bind = word
        elif word in ATTRIBUTES:
            on, off = ATTRIBUTES[word]
            self.on, self.off = self.on & ~off | on, self.off & ~on | off
            self.changes_attributes = True
            if word in _ATIME:
                self._add_atime(word)
        elif word in PROPAGATION:
            self.propagation.append((PROPAGATION[word], False))
        elif word.startswith("r") and word[1:] in PROPAGATION:
            self.propagation.append((PROPAGATION[word[1:]], True))
        elif word.startswith("r") and word[1:] in ATTRIBUTES:
            on, off = ATTRIBUTES[word[1:]]
            self.recursive_on, self.recursive_off = self.recursive_on | on, self.recursive_off | off
        elif word not in _IGNORED:
            self._add_data(word)

    def _add_data(self, word: str) -> None:
        key, equals, value = word.partition("=")
        if key.endswith("context"):
            value = value.strip('"')  # which mount(2) takes off, and the newer calls do not
        if key:
            self.data.append((key, value if equals and word not in _SUPER_FLAGS else None))

    def _add_atime(self, word: str) -> None:
        named = _ATIME[word]
        if word == named:
            self.atime.add(named)
        else:
            self.atime.discard(named)

    def of_bind(self) -> tuple[int, int]:
        """(attributes to set, attributes to clear) of a bind mount, whose source may have any.

        With no word about them it keeps its source's; with one it has what is named and no other,
        but for the times of access, which stay as they are unless one is set.
        """
        if not self.changes_attributes:
            return 0, 0
        on = self.on & _PLAIN
        if not self.atime:
            return on, _PLAIN & ~on
        if "strictatime" in self.atime:
            on |= n.MOUNT_ATTR_STRICTATIME
        elif "noatime" in self.atime:
            on |= n.MOUNT_ATTR_NOATIME
        if "nodiratime" in self.atime:
            on |= n.MOUNT_ATTR_NODIRATIME
        return on, (_PLAIN | n.MOUNT_ATTR_NODIRATIME) & ~on | n.MOUNT_ATTR__ATIME

    def of_locked(self, held: int) -> tuple[int, int]:
        """As `of_bind` in a user namespace, where the flags `held` by the source (ST_* of statvfs)
        may not be taken away: those that are not named stay as well.

        Raises OSError (EPERM) where the options take one away by name.
        """
        on, off = self.of_bind()
        plain = held & _LOCKED  # the same bits as MOUNT_ATTR_*
        wanted = set(self.atime)
        if wanted.isdisjoint(("noatime", "strictatime")):
            wanted.add("relatime")
        changes_atime = bool(self.atime) and wanted != _atime_words(held)
        if not self.changes_attributes or not (plain & ~on or changes_atime):
            return on, off
        if plain & self.off or changes_atime:
            said = "operation not permitted: a flag of its source cannot be cleared or changed"
            raise OSError(errno.EPERM, said + " in a user namespace")
        return on | plain, off & ~plain


def _atime_words(held: int) -> set[str]:
    relative = "relatime" if held & os.ST_RELATIME else "strictatime"
    words = {"noatime" if held & os.ST_NOATIME else relative}
    return words | {"nodiratime"} if held & os.ST_NODIRATIME else words


def shape(mount: int, options: MountOptions, on: int, off: int) -> None:
    """Give a detached bind mount the attributes `on`, and not `off`, and its propagation: private
    unless asked otherwise. What the options say of the whole tree comes last."""
    first, *rest = options.propagation or [(n.MS_PRIVATE, options.bind == "rbind")]
    if first[1] and on | off:
        mounts.set_attributes(mount, on=on, off=off)
        mounts.set_attributes(mount, propagation=first[0], recursive=True)
    else:
        mounts.set_attributes(mount, on=on, off=off, propagation=first[0], recursive=first[1])
    for kind, recursive in rest:
        mounts.set_attributes(mount, propagation=kind, recursive=recursive)
    on, off = options.recursive_on, options.recursive_off
    if on | off:
        mounts.set_attributes(mount, on=on, off=off, recursive=True)
