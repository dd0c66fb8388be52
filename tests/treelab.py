"""Directory trees for tests of layers: a rich one made, and any one described for comparison."""

from __future__ import annotations

import os
import socket
import stat

CAPABILITY = bytes.fromhex("0100000200200000") + bytes(12)


def make_rich(root) -> None:
    """Every kind of file that a layer can have, in `root`."""
    root.mkdir(exist_ok=True)
    (root / "etc").mkdir(mode=0o750)
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (root / "bin").mkdir()
    (root / "bin/tool").write_bytes(b"\x7fELF" + bytes(5000))
    os.chmod(root / "bin/tool", 0o4755)
    os.setxattr(root / "bin/tool", "user.note", b"\0odd\n")
    (root / "bin/ping").write_bytes(b"ping")
    os.setxattr(root / "bin/ping", "security.capability", CAPABILITY)
    os.link(root / "bin/tool", root / "bin/again")
    os.symlink("../etc/passwd", root / "bin/link")
    os.symlink("x" * 150, root / "bin/far")
    os.chown(root / "bin/link", 1000, 1001, follow_symlinks=False)
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 1))
    deep = root / ("d" * 90) / ("e" * 90) / ("f" * 90)
    deep.mkdir(parents=True)
    (deep / ("g" * 200)).write_text("long\n")
    with open(os.fsencode(root) + b"/\xff\xfe", "wb") as file:
        file.write(b"not UTF-8")
    (root / "owned").write_text("")
    os.chown(root / "owned", 3_000_000, 4_000_000)
    with open(root / "sparse", "wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"middle")
    os.chmod(root / "etc", 0o2750)
    sock = socket.socket(socket.AF_UNIX)
    here = os.open(root, os.O_PATH)
    sock.bind(f"/proc/self/fd/{here}/socket")
    os.close(here)
    sock.close()
    for path, times in (("etc/passwd", (5, 1_500_000_000)), ("owned", (5, -7)), ("null", (1, 2))):
        os.utime(root / path, times)
    os.utime(root / "bin", (1, 1_400_000_000))


def describe(root, *, times: bool = True) -> dict[bytes, tuple[object, ...]]:
    """Path -> type, mode, owner, mtime in seconds, content or target, attributes, link group."""
    found: dict[bytes, tuple[object, ...]] = {}
    groups: dict[tuple[int, int], bytes] = {}
    top = os.fsencode(root)
    for directory, folders, files in os.walk(top):
        for name in [*folders, *files]:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            relative = os.path.relpath(path, top)
            if stat.S_ISSOCK(status.st_mode):
                continue
            group = relative
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                group = min(_links(top, status))
                groups[status.st_dev, status.st_ino] = group
            found[relative] = (
                stat.filemode(status.st_mode),
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns // 10**9 if times else 0,
                status.st_rdev,
                _content(path, status),
                _attributes(path),
                group,
            )
    return found


def _links(top: bytes, status: os.stat_result) -> list[bytes]:
    same = []
    for directory, folders, files in os.walk(top):
        for name in [*folders, *files]:  # a link to a directory is among the folders
            path = os.path.join(directory, name)
            other = os.lstat(path)
            if (other.st_dev, other.st_ino) == (status.st_dev, status.st_ino):
                same.append(os.path.relpath(path, top))
    return same


def _content(path: bytes, status: os.stat_result) -> object:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            return file.read()
    return None


def _attributes(path: bytes) -> tuple[tuple[str, bytes], ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple(
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in names
        if not name.startswith("security.selinux")
    )
