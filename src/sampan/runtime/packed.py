"""The finder of the pack: modules of `sampan-oci` out of one file. (`packing` writes that.)

Executed by the launcher out of the pack itself, which goes on behind this code: looking
for sixty modules on the disk, each in its own file, costs more than most commands do. What a verb
always imports is one *image*, executed module by module without asking the import system; all else
is found by name. A module whose source was changed since is not found here, and imported as
always, and neither is an image that has one.

No import of `__future__` here: it would be the first one that costs.
"""

import _frozen_importlib
import _frozen_importlib_external
import _imp
import gc
import marshal
import posix
import sys
from posix import _exit as end

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any, BinaryIO

    Entry = tuple[str, bool, int, int, int, int]
    Image = list[tuple[str, str, bool, int, int, "CodeType | None"]]

Module = type(sys)
_AFTER_FROZEN = 2  # what is part of the interpreter is asked for first


class Finder:
    """A meta path finder and loader over the index of the pack."""

    # name: (source, whether it is a package, its mtime in ns, its size, offset of the code, length)
    index: "dict[str, Entry] | None" = None
    extensions: "dict[str, str]"  # modules of the C language: where the interpreter found them
    places: "dict[str, tuple[int, int]]"
    base: int
    path: str
    missed = False

    @classmethod
    def read(cls, place: "tuple[int, int]") -> bytes:
        """A part of the pack."""
        fd = posix.open(cls.path, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            return posix.pread(fd, place[1], cls.base + place[0])
        finally:
            posix.close(fd)

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> "Any":
        """The spec of a module that is packed as its source is now."""
        if cls.index is None:
            cls.index, cls.extensions = marshal.loads(cls.read(cls.places[""]))  # noqa: S302
        entry = cls.index.get(name)
        if entry is None and name in cls.extensions:
            return cls._extension(name, cls.extensions[name])
        if entry is None:
            cls.missed = cls.missed or name.startswith("sampan.")
            return None
        source, is_package, mtime, size, _, _ = entry
        if not is_current(source, mtime, size):
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
        assert cls.index is not None
        source, _, _, _, offset, length = cls.index[module.__name__]
        module.__file__ = source
        exec(marshal.loads(cls.read((offset, length))), module.__dict__)  # noqa: S102, S302  as any import


def is_current(source: str, mtime: int, size: int) -> bool:
    """Whether a file is as it was packed; mtime in ns."""
    try:
        status = posix.stat(source)
    except OSError:
        return False
    return status.st_mtime_ns == mtime and status.st_size == size


def execute(image: "Image") -> None:
    """Import all of an image; nothing of it where a part is old."""
    for _, source, _, mtime, size, _ in image:
        if not is_current(source, mtime, size):
            Finder.missed = True
            return
    made = {name: _begin(name, source) for name, source, is_package, *_ in image if is_package}
    for name, source, _, _, _, code in image:
        if code is None:
            _load(name, source)
        elif name in made or name not in sys.modules:
            module = made.get(name) or _begin(name, source)
            exec(code, module.__dict__)  # noqa: S102  as any import


def _begin(name: str, source: str) -> "ModuleType":
    """A module that is known, and not executed yet. Packages come first: a module that its own
    package imports is executed before that."""
    module = sys.modules[name] = Module(name)
    module.__file__ = source
    directory, _, file = source.rpartition("/")
    if file == "__init__.py":
        module.__path__ = [directory]
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    return module


def _load(name: str, origin: str) -> None:
    """A module of the C language."""
    if name not in sys.modules:
        loader: Any = None
        spec = _frozen_importlib.ModuleSpec(name, loader, origin=origin)
        sys.modules[name] = module = _imp.create_dynamic(spec)
        _imp.exec_dynamic(module)


def stand_in() -> None:
    """In place of `os` what it has of `posix`, and a little more: that is what the commands want
    of it, and the whole costs as much as twenty modules. Asked for more, it becomes the whole.
    """
    if "os" in sys.modules or not _imp.is_frozen("os"):
        return
    part = sys.modules["os"] = Module("os")
    names = part.__dict__
    encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

    def fsencode(name: "str | bytes") -> bytes:
        return name.encode(encoding, errors) if isinstance(name, str) else name

    def fsdecode(name: "str | bytes") -> str:
        return name.decode(encoding, errors) if isinstance(name, bytes) else name

    def complete(name: str) -> object:
        del names["__getattr__"]
        exec(_imp.get_frozen_object("os"), names)  # noqa: S102
        return getattr(part, name)

    names.update(entry for entry in posix.__dict__.items() if not entry[0].startswith("_"))
    del names["environ"]  # which is another there
    names.update(_exit=end, fsencode=fsencode, fsdecode=fsdecode, __getattr__=complete)
    import posixpath

    names["path"] = sys.modules["os.path"] = posixpath


def install(pack: "BinaryIO") -> None:
    """Find modules in the pack that is open behind this code; import what the verb needs."""
    gc.disable()  # it would run a hundred times over what is imported
    Finder.places = marshal.load(pack)  # noqa: S302  our own file, as a .pyc
    Finder.base = pack.tell()
    Finder.path = pack.name
    sys.meta_path.insert(_AFTER_FROZEN, Finder)
    for word in sys.argv[1:]:
        if word in Finder.places:
            stand_in()
            execute(marshal.loads(Finder.read(Finder.places[word])))  # noqa: S302
            break
