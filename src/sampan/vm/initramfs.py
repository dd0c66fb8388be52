"""The first root file system of a machine: this interpreter, our agent and runtime, a few modules.

Which files of the interpreter are needed is asked of itself: a child imports what the agent and the
runtime import, and tells what it has loaded. The result is an uncompressed cpio archive, kept under
a name that says what went into it.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import stat
import struct
import sys
from json import dumps, loads

import sampan

MODULES = ("virtio_pci", "virtio_console", "virtio_net", "9pnet_virtio", "9p", "overlay")
HOME = "/lib/sampan"
INTERPRETER = "/bin/python3"
_TELL = """
import sys; sys.path.insert(0, sys.argv[1])
import ast, os, json, importlib, encodings.ascii, encodings.latin_1
import sampan.vm.agent
for room in ("kernel", "kernel/cgroups", "runtime"):
    for name in sorted(os.listdir(f"{sys.argv[1]}/sampan/{room}")):
        if not name.endswith(".py"):
            continue
        if name != "__init__.py":
            importlib.import_module(f"sampan.{room.replace('/', '.')}.{name[:-3]}")
        for node in ast.walk(ast.parse(open(f"{sys.argv[1]}/sampan/{room}/{name}").read())):
            found = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            found += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for one in found:
                if one.split(".")[0] not in ("typing", "collections"):
                    importlib.import_module(one)
files = set()
for module in list(sys.modules.values()):
    for place in (getattr(module, "__file__", None), getattr(module, "__cached__", None)):
        if place and os.path.isfile(place):
            files.add(place)
for line in open("/proc/self/maps"):
    path = line.rstrip("\\n").partition("/")[2]
    if ".so" in path and os.path.isfile("/" + path):
        files.add("/" + path)
print(json.dumps(sorted(files)))
"""
_INIT = f"""#!{INTERPRETER} -ISB
import sys
sys.path.insert(0, "{HOME}")
from sampan.vm.agent import main
main()
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def build(cache: str, modules: str) -> str:
    """The archive's path, made unless it is there. Blocks for a second when it is made.

    Raises:
        OSError: a module of the kernel is missing, or the directory cannot be written.
    """
    recipe = hashlib.sha256(dumps([_facts(path) for path in _sources(modules)]).encode())
    path = f"{cache}/initramfs-{recipe.hexdigest()[:16]}"
    if os.path.exists(path):
        return path
    files = interpreter_files()
    loaded = needed_modules(modules)
    os.makedirs(cache, mode=0o700, exist_ok=True)
    fresh = f"{path}.{os.getpid()}"
    try:
        with open(fresh, "wb") as file:
            _Archive(file.write).all(files, loaded)
        os.rename(fresh, path)
    except BaseException:
        if os.path.exists(fresh):
            os.unlink(fresh)
        raise
    return path


def _sources(modules: str) -> list[str]:
    """What the archive is made of, as far as it changes: the interpreter, our rooms, the kernel."""
    home = os.path.dirname(os.path.abspath(sampan.__file__))
    found = [os.path.realpath(sys.executable), os.__file__, f"{modules}/modules.builtin"]
    for room in ("kernel", "kernel/cgroups", "runtime", "shim", "vm"):
        place = f"{home}/{room}"
        found += [f"{place}/{name}" for name in os.listdir(place) if name.endswith(".py")]
    return sorted(found)


def interpreter_files() -> list[str]:
    """What this interpreter reads to run agent and runtime, and all of our own modules."""
    source = os.path.dirname(os.path.dirname(os.path.abspath(sampan.__file__)))
    ours, theirs = os.pipe()
    argv = [sys.executable, "-I", "-S", "-c", _TELL, source]
    actions = [(os.POSIX_SPAWN_DUP2, theirs, 1)]
    pid = os.posix_spawn(sys.executable, argv, dict(os.environ), file_actions=actions)
    os.close(theirs)
    with open(ours, "rb") as file:
        said = file.read()
    if os.waitpid(pid, 0)[1]:
        raise OSError(5, f"{sys.executable}: could not tell what it needs")
    found: list[str] = loads(said)
    return found


def needed_modules(directory: str) -> list[str]:
    """Paths of MODULES and what they depend on, in the order of loading.

    Raises FileNotFoundError.
    """
    by_name = {}
    for place, _, names in os.walk(directory):
        for name in names:
            bare, dot, _ = name.partition(".ko")
            if dot:
                by_name[bare.replace("-", "_")] = f"{place}/{name}"
    found: list[str] = []

    def add(name: str) -> None:
        path = by_name.get(name.replace("-", "_"))
        if path is None:
            if name in MODULES and not _is_built_in(directory, name):
                raise FileNotFoundError(2, f"no kernel module {name} in {directory}")
            return
        if path not in found:
            for other in _depends(read_module(path)):
                add(other)
            found.append(path)

    for name in MODULES:
        add(name)
    return found


def read_module(path: str) -> bytes:
    """A module's content, unpacked."""
    with open(path, "rb") as file:
        data = file.read()
    return lzma.decompress(data) if path.endswith(".xz") else data


def _depends(data: bytes) -> list[str]:
    start = data.find(b"\0depends=")
    if start < 0:
        return []
    words = data[start + 9 : data.index(b"\0", start + 9)].decode()
    return [word for word in words.split(",") if word]


def _is_built_in(directory: str, name: str) -> bool:
    with open(f"{directory}/modules.builtin", encoding="ascii") as file:
        return any(line.strip().endswith(f"/{name}.ko") for line in file)


def _names_of(path: str) -> list[str]:
    """The links beside a library that lead to it: it is looked for by one of them."""
    place, name = os.path.split(path)
    found = []
    for other in os.listdir(place):
        whole = f"{place}/{other}"
        if os.path.islink(whole) and os.path.realpath(whole) == os.path.realpath(path):
            found.append(other)
    return [other for other in found if other != name]


def _loader(program: str) -> str:
    """The path of what loads a program's libraries (PT_INTERP)."""
    with open(program, "rb") as file:
        data = file.read(4096)
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for place in range(start, start + size * count, size):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", data, place)
        if kind == 3:
            return data[offset : offset + length].rstrip(b"\0").decode()
    raise OSError(8, f"{program}: it needs no loader, or its header is not understood")


def _facts(path: str) -> tuple[str, int, int]:
    found = os.stat(path)
    return path, found.st_mtime_ns, found.st_size


class _Archive:
    """Writes a cpio archive in the format that the kernel unpacks ("newc")."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._made: set[str] = set()
        self._number = 0

    def all(self, files: Iterable[str], modules: Iterable[str]) -> None:
        """Everything."""
        for name in ("dev", "proc", "sys", "run", "tmp", "etc", "modules"):
            self.directory(name)
        self.entry("dev/console", stat.S_IFCHR | 0o600, b"", device=(5, 1))
        real = os.path.realpath(sys.executable)
        self.file(real, real, 0o755)
        self.link(INTERPRETER, real)
        loader = _loader(real)
        self.link(loader, os.path.realpath(loader))
        home = os.path.dirname(os.path.dirname(os.path.abspath(sampan.__file__)))
        for path in files:
            name = path
            if path.startswith(f"{home}/"):
                name = HOME + path[len(home) :]
            self.file(name, path, 0o755 if ".so" in path else 0o644)
            for other in _names_of(path) if ".so" in path else ():
                self.link(f"{os.path.dirname(path)}/{other}", os.path.basename(path))
        self.directory(f"{os.path.dirname(os.__file__)}/lib-dynload".lstrip("/"))
        for place, path in enumerate(modules):
            self.entry(f"modules/{place:02}", stat.S_IFREG | 0o644, read_module(path))
        self.entry("init", stat.S_IFREG | 0o755, _INIT.encode())
        self.entry("TRAILER!!!", 0, b"")

    def directory(self, name: str) -> None:
        """A directory and what it lies in."""
        above = os.path.dirname(name)
        if above and above not in self._made:
            self.directory(above)
        if name not in self._made:
            self._made.add(name)
            self.entry(name, stat.S_IFDIR | 0o755, b"")

    def link(self, name: str, target: str) -> None:
        """A symbolic link."""
        self.directory(os.path.dirname(name.lstrip("/")))
        self.entry(name.lstrip("/"), stat.S_IFLNK | 0o777, target.encode())

    def file(self, name: str, path: str, mode: int) -> None:
        """A file of the node; with its time, for caches of modules are good by it."""
        self.directory(os.path.dirname(name.lstrip("/")))
        with open(path, "rb") as file:
            data = file.read()
        self.entry(name.lstrip("/"), stat.S_IFREG | mode, data, time=int(os.stat(path).st_mtime))

    def entry(
        self, name: str, mode: int, data: bytes, *, device: tuple[int, int] = (0, 0), time: int = 0
    ) -> None:
        """One entry."""
        self._number += 1
        encoded = os.fsencode(name) + b"\0"
        numbers = (self._number, mode, 0, 0, 1, time, len(data), 0, 0, *device, len(encoded), 0)
        head = b"070701" + b"".join(b"%08X" % number for number in numbers) + encoded
        self._write(head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4))
