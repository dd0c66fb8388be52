"""The finder of the pack: modules of `sampan-oci` out of one file. (`packing` writes that.)

Executed by the launcher out of the pack itself, which goes on behind this code: looking
for forty modules on the disk, each in its own file, costs more than most commands do. A module
whose source was changed since is not found here, and imported as always.

No import of `__future__` here: it would be the first one that costs.
"""

import _frozen_importlib
import _frozen_importlib_external
import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, BinaryIO

    Entry = tuple[str, bool, int, int, int, int]


class Finder:
    """A meta path finder and loader over the index of the pack."""

    # name: (source, whether it is a package, its mtime in ns, its size, offset of the code, length)
    index: "dict[str, Entry]"
    extensions: "dict[str, str]"  # modules of the C language: where the interpreter found them
    base: int
    path: str
    missed = False

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> "Any":
        """The spec of a module that is packed as its source is now."""
        entry = cls.index.get(name)
        if entry is None and name in cls.extensions:
            return cls._extension(name, cls.extensions[name])
        if entry is None:
            cls.missed = cls.missed or name.startswith("sampan.")
            return None
        source, is_package, mtime, size, _, _ = entry
        try:
            status = posix.stat(source)
        except OSError:
            return None
        if status.st_mtime_ns != mtime or status.st_size != size:
            cls.missed = True
            return None
        loader: Any = cls
        spec = _frozen_importlib.ModuleSpec(name, loader, origin=source, is_package=is_package)
        if is_package:
            spec.submodule_search_locations = [source.rpartition("/")[0]]
        return spec

    @staticmethod
    def _extension(name: str, origin: str) -> "Any":
        try:
            posix.stat(origin)
        except OSError:
            return None
        loader: Any = _frozen_importlib_external.ExtensionFileLoader(name, origin)
        return _frozen_importlib.ModuleSpec(name, loader, origin=origin)

    @staticmethod
    def create_module(spec: object) -> None:
        """The usual kind."""

    @classmethod
    def exec_module(cls, module: "ModuleType") -> None:
        """Execute the code of the pack in `module`."""
        entry = cls.index[module.__name__]
        module.__file__ = entry[0]
        fd = posix.open(cls.path, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            code = posix.pread(fd, entry[5], cls.base + entry[4])
        finally:
            posix.close(fd)
        exec(marshal.loads(code), module.__dict__)  # noqa: S102, S302  as any import


def install(pack: "BinaryIO") -> None:
    """Find modules in the pack that is open behind this code."""
    Finder.index = marshal.load(pack)  # noqa: S302  our own file, as a .pyc
    Finder.extensions = marshal.load(pack)  # noqa: S302
    Finder.base = pack.tell()
    Finder.path = pack.name
    sys.meta_path.insert(0, Finder)
