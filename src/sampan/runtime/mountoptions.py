"""The words of a mount's `options`, and what each means to the mount API.

Words are those of mount(8) and of the runtime specification (config.md, "Linux mount options").
What is no known word belongs to the file system and becomes its data.
"""

from __future__ import annotations

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

    `on`/`off` are for the mount itself, `recursive_on`/`recursive_off` for the whole tree below it.
    `propagation` is a list of (MS_* value, recursive). `bind` is "", "bind" or "rbind". `data`
    holds (key, value or None).
    """

    __slots__ = ("bind", "data", "off", "on", "propagation", "recursive_off", "recursive_on")

    def __init__(self, words: list[str]) -> None:
        self.on = self.off = self.recursive_on = self.recursive_off = 0
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
        if key:
            self.data.append((key, value if equals and word not in _SUPER_FLAGS else None))

    @property
    def changes_attributes(self) -> bool:
        """Whether any attribute was named."""
        return bool(self.on | self.off | self.recursive_on | self.recursive_off)
