"""Unpacking for overlayfs, and the workers that do it, on the real kernel."""

from __future__ import annotations

import asyncio
import ctypes
import gzip
import hashlib
import os
import signal
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
import zstandard

from layer_tars import END, directory, file, hard_link, head, pax, symlink
from sampan.errors import Aborted, DataLoss, DigestMismatch, ResourceExhausted, Unavailable
from sampan.layers import apply as apply_module
from sampan.layers import workers as workers_module
from sampan.layers.applied import AppliedLayer
from sampan.layers.apply import LayerError, apply
from sampan.layers.workers import LayerWorkers
from sampan.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacking as root needs root")

OPAQUE = "trusted.overlay.opaque"


def memory(data: bytes) -> int:
    fd = os.memfd_create("layer")
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return fd


def unpack(
    path: Path, data: bytes, *, lowers: list[Path] | None = None, expected: Digest | None = None
) -> AppliedLayer:
    path.mkdir(exist_ok=True)
    fds = [os.open(p, os.O_RDONLY | os.O_DIRECTORY) for p in [path, *(lowers or [])]]
    blob = memory(data + END)
    try:
        return apply(blob, fds[0], lowers=fds[1:], expected=expected)
    finally:
        for fd in [blob, *fds]:
            os.close(fd)


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return OPAQUE in os.listxattr(path) and os.getxattr(path, OPAQUE) == b"y"


def test_result_counts_and_digest(tmp_path: Path) -> None:
    data = directory(b"d") + file(b"d/a", b"12345") + file(b"implied/b", b"123")
    done = unpack(tmp_path / "l", data)
    assert done == AppliedLayer(diff_id=Digest.of(data + END), size=8, entries=4)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_diff_id_is_verified(tmp_path: Path, algorithm: str) -> None:
    data = file(b"a")
    right = Digest.parse(f"{algorithm}:{hashlib.new(algorithm, data + END).hexdigest()}")
    assert unpack(tmp_path / "l", data, expected=right).diff_id == right
    wrong = Digest.parse(f"{algorithm}:{hashlib.new(algorithm, b'').hexdigest()}")
    with pytest.raises(DigestMismatch):
        unpack(tmp_path / "m", data, expected=wrong)


def test_zeros_after_the_end_are_hashed(tmp_path: Path) -> None:
    data = file(b"a") + END + bytes(3 << 20)
    assert unpack(tmp_path / "l", data).diff_id == Digest.of(data + END)


def test_umask_is_left_as_it_was(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        unpack(tmp_path / "l", file(b"a", mode=0o666) + directory(b"d", 0o777))
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "l/a").stat().st_mode) == 0o666
    assert stat.S_IMODE((tmp_path / "l/d").stat().st_mode) == 0o777


def test_metadata(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200200000") + bytes(12)
    data = (
        file(b"suid", mode=0o6755, uid=7, gid=8)
        + pax((b"mtime", b"1500000000.123456789"), (b"atime", b"1400000000.5"))
        + file(b"times")
        + pax((b"SCHILY.xattr.security.capability", capability), (b"SCHILY.xattr.user.x", b"\0y"))
        + file(b"ping", uid=5)
        + pax((b"SCHILY.xattr.user.x", b"d"), (b"SCHILY.xattr.trusted.overlay.opaque", b"y"))
        + directory(b"d", 0o2750, uid=3, gid=4, mtime=1_000)
        + file(b"d/child")
        + directory(b"d/sub")
        + symlink(b"link", b"target", uid=9, gid=10, mtime=2_000)
        + directory(b"./", 0o2711, uid=1, gid=2, mtime=77)
    )
    unpack(tmp_path / "l", data)
    root = tmp_path / "l"
    suid = (root / "suid").stat()
    assert (suid.st_mode, suid.st_uid, suid.st_gid) == (stat.S_IFREG | 0o6755, 7, 8)
    times = (root / "times").stat()
    assert (times.st_mtime_ns, times.st_atime_ns) == (1500000000123456789, 1400000000500000000)
    assert os.getxattr(root / "ping", "security.capability") == capability
    assert os.getxattr(root / "ping", "user.x") == b"\0y"
    folder = (root / "d").stat()
    assert (folder.st_mode, folder.st_uid, folder.st_gid) == (stat.S_IFDIR | 0o2750, 3, 4)
    assert folder.st_mtime_ns == 1_000 * 10**9
    assert os.listxattr(root / "d") == ["user.x"]
    assert (root / "d/child").stat().st_gid == 0
    assert stat.S_IMODE((root / "d/sub").stat().st_mode) == 0o755
    link = (root / "link").lstat()
    assert (link.st_uid, link.st_gid, link.st_mtime_ns) == (9, 10, 2_000 * 10**9)
    top = root.stat()
    assert (stat.S_IMODE(top.st_mode), top.st_uid, top.st_gid) == (0o2711, 1, 2)
    assert top.st_mtime_ns == 77 * 10**9


def test_root_with_group_bit_does_not_colour_files(tmp_path: Path) -> None:
    root = tmp_path / "l"
    root.mkdir()
    os.chown(root, 0, 50)
    root.chmod(0o2755)
    unpack(root, file(b"f") + file(b"d/f"))
    assert [(root / name).stat().st_gid for name in ("f", "d", "d/f")] == [0, 0, 0]
    assert (stat.S_IMODE(root.stat().st_mode), root.stat().st_gid) == (0o2755, 50)


def test_hard_links_share_an_inode(tmp_path: Path) -> None:
    data = (
        file(b"a/one", b"x")
        + symlink(b"way", b"/a")
        + hard_link(b"two", b"way/one")
        + hard_link(b"three", b"/a/one")
    )
    unpack(tmp_path / "l", data)
    inodes = {(tmp_path / "l" / name).stat().st_ino for name in ("a/one", "two", "three")}
    assert len(inodes) == 1


def test_replaced_file_leaves_its_other_names(tmp_path: Path) -> None:
    data = file(b"a", b"old") + hard_link(b"b", b"a") + file(b"a", b"new")
    unpack(tmp_path / "l", data)
    assert (tmp_path / "l/a").read_bytes() == b"new"
    assert (tmp_path / "l/b").read_bytes() == b"old"


def test_whiteouts(tmp_path: Path) -> None:
    data = (
        file(b"d/.wh.gone", b"")
        + file(b"o/.wh..wh..opq", b"")
        + file(b"o/kept")
        + file(b".wh.first", b"")
        + file(b"first/file")
        + file(b"later/file")
        + file(b".wh.later", b"")
        + file(b"stays")
        + file(b".wh.stays", b"")
        + file(b"flip", b"")
        + directory(b"flip")
    )
    unpack(tmp_path / "l", data)
    root = tmp_path / "l"
    assert is_whiteout(root / "d/gone")
    assert not is_opaque(root / "d")
    opaque = [name for name in ("o", "first", "later", "flip") if is_opaque(root / name)]
    assert opaque == ["o", "first", "later", "flip"]
    assert (root / "first/file").exists()
    assert (root / "later/file").exists()
    assert (root / "stays").read_bytes() == b"data\n"


def test_implied_parents_take_after_the_lowers(tmp_path: Path) -> None:
    bottom, middle, top = (tmp_path / name for name in ("bottom", "middle", "top"))
    unpack(
        bottom,
        directory(b"etc", 0o711, uid=3)
        + directory(b"hidden", 0o700)
        + directory(b"gone", 0o700)
        + directory(b"usr/lib", 0o751, gid=9)
        + symlink(b"lib", b"usr/lib"),
    )
    unpack(
        middle,
        file(b".wh.gone", b"")
        + directory(b"hidden/", 0o777)
        + file(b"hidden/.wh..wh..opq", b"")
        + pax((b"SCHILY.xattr.user.a", b"b"))
        + directory(b"var", 0o1777),
    )
    unpack(
        top,
        file(b"etc/a")
        + file(b"gone/a")
        + file(b"hidden/a")
        + file(b"var/a")
        + file(b"lib/a")
        + file(b"new/a"),
        lowers=[middle, bottom],
    )
    got = {
        name: (stat.S_IMODE((top / name).stat().st_mode), (top / name).stat().st_uid)
        for name in ("etc", "gone", "hidden", "var", "usr/lib", "new")
    }
    assert got == {
        "etc": (0o711, 3),
        "gone": (0o755, 0),
        "hidden": (0o777, 0),
        "var": (0o1777, 0),
        "usr/lib": (0o751, 0),
        "new": (0o755, 0),
    }
    assert (top / "usr/lib").stat().st_gid == 9
    assert (top / "usr/lib/a").exists()
    assert not (top / "lib").exists()
    assert os.getxattr(top / "var", "user.a") == b"b"


def test_merged_view(tmp_path: Path) -> None:
    """What overlayfs shows of two layers is what the layers say."""
    lower, upper, merged = (tmp_path / name for name in ("lower", "upper", "merged"))
    unpack(lower, b"".join(file(name) for name in (b"a/1", b"a/2", b"b/1", b"c/1", b"d")))
    unpack(
        upper,
        file(b"a/.wh.1", b"")
        + file(b"b/.wh..wh..opq", b"")
        + file(b"b/2")
        + file(b".wh.c", b"")
        + file(b"d/now-a-directory"),
    )
    merged.mkdir()
    script = 'mount -t overlay overlay -o "lowerdir=$1:$2" "$3" && cd "$3" && find . -type f | sort'
    shown = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh"]
        + [str(p) for p in (upper, lower, merged)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert shown == ["./a/2", "./b/2", "./d/now-a-directory"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 1 MiB, gone afterwards."""
    path = tmp_path / "disk"
    path.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"none", os.fsencode(path), b"tmpfs", 0, b"size=1m") == 0
    yield path
    assert libc.umount2(os.fsencode(path), 2) == 0


def test_full_disk(small_disk: Path) -> None:
    with pytest.raises(ResourceExhausted):
        unpack(small_disk, file(b"big", b"x" * (2 << 20)))


def run_in_workers(
    path: Path, blob: bytes, *, expected: Digest | None = None, limit: int = 1 << 40
) -> AppliedLayer:
    path.mkdir(exist_ok=True)

    async def run() -> AppliedLayer:
        workers = LayerWorkers(1)
        blob_fd, directory_ = memory(blob), os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return await workers.apply(blob_fd, "application/x", directory_, expected, limit=limit)
        finally:
            os.close(blob_fd)
            os.close(directory_)
            await workers.aclose()

    return asyncio.run(run())


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_worker_unpacks(tmp_path: Path, pack: type) -> None:
    data = (
        file(b"a/b", b"x" * 300_000)
        + head(b"null", kind=b"3", major=1, minor=3)
        + file(b".wh..wh..opq", b"")
        + END
    )
    done = run_in_workers(tmp_path / "l", pack(data), expected=Digest.of(data))
    assert done == AppliedLayer(diff_id=Digest.of(data), size=300_000, entries=4)
    assert is_opaque(tmp_path / "l")


def test_worker_errors_keep_their_class(tmp_path: Path, small_disk: Path) -> None:
    with pytest.raises(LayerError, match="bad name"):
        run_in_workers(tmp_path / "a", file(b"../x") + END)
    with pytest.raises(DigestMismatch):
        run_in_workers(tmp_path / "b", file(b"x") + END, expected=Digest.of(b""))
    with pytest.raises(ResourceExhausted):
        run_in_workers(small_disk, file(b"big", b"x" * (2 << 20)) + END)
    with pytest.raises(LayerError, match="larger than"):
        run_in_workers(tmp_path / "c", gzip.compress(bytes(20 << 20)), limit=10 << 20)
    with pytest.raises(LayerError, match="damaged"):
        run_in_workers(tmp_path / "d", gzip.compress(file(b"x") + END)[:-9])


def test_unreadable_blob(tmp_path: Path) -> None:
    async def run() -> None:
        workers = LayerWorkers(1)
        write_only = os.open(tmp_path / "blob", os.O_WRONLY | os.O_CREAT)
        directory_ = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with pytest.raises(DataLoss):
                await workers.apply(write_only, "application/x", directory_, None)
        finally:
            os.close(write_only)
            os.close(directory_)
            await workers.aclose()

    asyncio.run(run())


def read(path: str) -> str:
    with open(path) as content:
        return content.read()


def children(pid: int) -> list[int]:
    return [int(word) for word in read(f"/proc/{pid}/task/{pid}/children").split()]


class SlowLayer:
    """A job that takes long enough to be interrupted: 200 GiB of zeros behind the end marker."""

    def __init__(self, path: Path) -> None:
        self.blob = memory(file(b"a") + END)
        os.ftruncate(self.blob, 200 << 30)
        path.mkdir()
        self.directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def close(self) -> None:
        os.close(self.blob)
        os.close(self.directory)


async def new_child(pid: int, known: set[int]) -> int:
    """The child of `pid` that is not in `known`, once there is one."""
    while not (found := set(children(pid)) - known):  # noqa: ASYNC110 - /proc has no event
        await asyncio.sleep(0.005)
    return found.pop()


@pytest.mark.parametrize("victim", ["child", "worker"])
def test_killed_worker_is_a_clear_error_and_replaced(tmp_path: Path, victim: str) -> None:
    async def run() -> None:
        workers = LayerWorkers(1)
        slow = SlowLayer(tmp_path / "l")
        before = set(children(os.getpid()))
        job = asyncio.create_task(workers.apply(slow.blob, "x", slow.directory, None))
        worker = await new_child(os.getpid(), before)
        child = await new_child(worker, set())
        pidfd = os.pidfd_open(child)
        os.kill(child if victim == "child" else worker, signal.SIGKILL)
        with pytest.raises(Aborted):
            await job
        await ended(pidfd)
        slow.close()
        good, folder = memory(file(b"b") + END), os.open(tmp_path, os.O_RDONLY)
        assert (await workers.apply(good, "x", folder, None)).entries == 1
        os.close(good)
        os.close(folder)
        await workers.aclose()
        assert set(children(os.getpid())) <= before

    asyncio.run(run())


async def ended(pidfd: int) -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(pidfd, event.set)
    await asyncio.wait_for(event.wait(), 20)
    loop.remove_reader(pidfd)
    os.close(pidfd)


def test_cancel_ends_the_child(tmp_path: Path) -> None:
    async def run() -> None:
        workers = LayerWorkers(1)
        slow = SlowLayer(tmp_path / "l")
        before = set(children(os.getpid()))
        job = asyncio.create_task(workers.apply(slow.blob, "x", slow.directory, None))
        worker = await new_child(os.getpid(), before)
        pidfd = os.pidfd_open(await new_child(worker, set()))
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await ended(pidfd)
        slow.close()
        await workers.aclose()
        assert set(children(os.getpid())) <= before
        with pytest.raises(Unavailable):
            await workers.apply(0, "x", 0, None)

    asyncio.run(run())


def test_idle_workers_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "IDLE_SECONDS", 0.01)

    async def run() -> None:
        workers = LayerWorkers(2)
        before = set(children(os.getpid()))
        workers.warm()
        pidfd = os.pidfd_open(await new_child(os.getpid(), before))
        await ended(pidfd)
        await workers.aclose()

    asyncio.run(run())


def test_two_at_a_time(tmp_path: Path) -> None:
    async def run() -> list[AppliedLayer]:
        workers = LayerWorkers(2)
        blobs = [memory(file(b"f%d" % i, b"x" * i) + END) for i in range(6)]
        folders = [os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY) for _ in range(6)]
        before = set(children(os.getpid()))
        jobs = [
            workers.apply(blob, "x", folder, None)
            for blob, folder in zip(blobs, folders, strict=True)
        ]
        done = await asyncio.gather(*jobs)
        assert len(set(children(os.getpid())) - before) == 2
        await workers.aclose()
        for fd in blobs + folders:
            os.close(fd)
        return done

    assert [layer.size for layer in asyncio.run(run())] == list(range(6))


def test_attributes_that_must_wait_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply_module, "MAX_XATTRS_HELD", 1000)
    data = b"".join(
        pax((b"SCHILY.xattr.user.a", b"v" * 100)) + directory(b"d%d" % i) for i in range(12)
    )
    with pytest.raises(LayerError, match="too many extended attributes"):
        unpack(tmp_path / "l", data)


def test_entries_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply_module, "MAX_ENTRIES", 10)
    with pytest.raises(LayerError, match="more than 10 entries"):
        unpack(tmp_path / "l", file(b"a/b/c/d/e/f/g/h/i/j/k"))


def test_child_is_locked_up(tmp_path: Path) -> None:
    """What the child has while it reads hostile bytes, told by the kernel."""

    async def run() -> dict[str, str]:
        workers = LayerWorkers(1)
        slow = SlowLayer(tmp_path / "l")
        before = set(children(os.getpid()))
        job = asyncio.create_task(workers.apply(slow.blob, "x", slow.directory, None))
        child = await new_child(await new_child(os.getpid(), before), set())
        status: dict[str, str] = {}
        while status.get("Seccomp") != "2":
            await asyncio.sleep(0.005)
            lines = read(f"/proc/{child}/status").replace("\t", "").splitlines()
            status = dict(line.split(":", 1) for line in lines)
        status["root"] = ",".join(sorted(os.listdir(f"/proc/{child}/root")))
        status["mounts"] = str(len(read(f"/proc/{child}/mountinfo").splitlines()))
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        slow.close()
        await workers.aclose()
        return status

    status = asyncio.run(run())
    assert status["NoNewPrivs"] == "1"
    assert (
        int(status["CapEff"], 16)
        == int(status["CapPrm"], 16)
        == sum(1 << bit for bit in (0, 1, 3, 4, 21, 27, 31))
    )
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["root"] in ("", "a")
    assert status["mounts"] == "1"
