"""Trees that a tenant made: removed whole, measured like du, never left by a link."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from sampan.store import trees
from sampan.store.trash import Trash

DEEP = 1100  # deeper than the recursion limit, and with these names longer than PATH_MAX
NAME = "directory"


@pytest.fixture
def top(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def make_deep(path, depth):
    os.mkdir(path)
    fd = os.open(path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(NAME, dir_fd=fd)
        below = os.open(NAME, os.O_RDONLY, dir_fd=fd)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        os.close(fd)
        fd = below
    os.close(fd)


def make_mixed(path):
    path.mkdir()
    (path / "file").write_text("x" * 10_000)
    (path / "empty").mkdir()
    os.mkfifo(path / "fifo")
    os.symlink("nowhere", path / "dangling")
    os.symlink("/etc/passwd", path / "absolute")
    os.symlink("..", path / "up")
    os.symlink(".", path / "loop")
    os.link(path / "file", path / "hard link")
    (path / "new\nline").mkdir()
    (path / "new\nline" / "-rf").write_text("")
    (path / os.fsdecode(b"not utf-8 \xff")).write_text("")
    for mode in (0o000, 0o111, 0o222, 0o444):
        below = path / f"mode {mode:o}"
        below.mkdir()
        (below / "file").write_text("")
        below.chmod(mode)


def test_every_kind_of_entry_goes(tmp_path, top):
    make_mixed(tmp_path / "tree")
    trees.remove(top, "tree")
    assert os.listdir(tmp_path) == []


def test_links_are_removed_and_not_followed(tmp_path, top):
    outside = tmp_path / "outside"
    make_mixed(outside)
    before = sorted(os.listdir(outside))
    tree = tmp_path / "tree"
    tree.mkdir()
    os.symlink(outside, tree / "link")
    os.symlink("../outside", tree / "relative")
    os.link(outside / "file", tree / "file")
    trees.remove(top, "tree")
    assert sorted(os.listdir(outside)) == before
    os.symlink(outside, tmp_path / "itself")
    trees.remove(top, "itself")
    assert sorted(os.listdir(outside)) == before
    shutil.rmtree(outside)


def test_file_and_nothing_are_removed_too(tmp_path, top):
    (tmp_path / "file").write_text("")
    trees.remove(top, "file")
    trees.remove(top, "file")
    assert os.listdir(tmp_path) == []


def test_deep_trees_go_with_few_descriptors(tmp_path, top):
    make_deep(tmp_path / "deep", DEEP)
    before = len(os.listdir("/proc/self/fd"))
    size, inodes = trees.measure(top, "deep")
    assert inodes == 1 + 2 * DEEP
    assert size == DEEP * os.stat(tmp_path / "deep" / NAME).st_blocks * 512 + (
        os.stat(tmp_path / "deep").st_blocks * 512
    )
    trees.remove(top, "deep")
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_wide_trees_go(tmp_path, top, monkeypatch):
    monkeypatch.setattr(trees, "_BATCH", 7)
    for n in range(30):
        (tmp_path / "wide" / str(n)).mkdir(parents=True)
        for m in range(20):
            (tmp_path / "wide" / str(n) / str(m)).write_text("")
    assert trees.measure(top, "wide")[1] == 1 + 30 + 600
    trees.remove(top, "wide")
    assert os.listdir(tmp_path) == []


def test_measure_agrees_with_du(tmp_path, top):
    tree = tmp_path / "tree"
    make_mixed(tree)
    with open(tree / "sparse", "wb") as file:
        file.truncate(1 << 30)
        file.write(b"x" * 5000)
    run = ["du", "-s", "--block-size=1", "tree"]
    size = subprocess.run(run, cwd=tmp_path, capture_output=True, check=True).stdout.split()[0]
    run = ["du", "-s", "--inodes", "tree"]
    inodes = subprocess.run(run, cwd=tmp_path, capture_output=True, check=True).stdout.split()[0]
    assert trees.measure(top, "tree") == (int(size), int(inodes))


def test_directory_moved_during_the_walk_ends_it(tmp_path, top, monkeypatch):
    """The way up leads where somebody moved the directory to: it is not followed."""
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "b").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "b" / "file").write_text("")
    real = trees._clear

    def move_then_clear(fd):
        moving = tmp_path / "tree" / "a" / "b"
        if moving.exists() and os.stat(moving).st_ino == os.fstat(fd).st_ino:
            os.rename(moving, outside / "b")
        return real(fd)

    monkeypatch.setattr(trees, "_clear", move_then_clear)
    with pytest.raises(OSError, match="moved during the walk"):
        trees.remove(top, "tree")
    assert (outside / "kept").is_dir()


def test_discard_is_out_of_sight_at_once_and_gone_after(layout):
    make_deep(layout.snapshot(1), 10)
    with ThreadPoolExecutor(1) as pool:
        trash = Trash(layout, pool)
        assert trash.discard(layout.snapshot(1))
        assert os.listdir(layout.snapshots) == []
        assert not trash.discard(layout.snapshot(1))
    assert os.listdir(layout.trash) == []


@pytest.mark.parametrize("left", ["", "work/file", "work/work/file"])
def test_what_should_be_hollow_and_is_not_goes_all_the_same(layout, left):
    os.makedirs(os.path.join(layout.snapshot(1), "work/work"))
    if left:
        open(os.path.join(layout.snapshot(1), left), "w").close()
    with ThreadPoolExecutor(1) as pool:
        assert Trash(layout, pool).discard(layout.snapshot(1), hollow=("work/work", "work"))
    assert os.listdir(layout.trash) == []


def test_what_else_is_to_be_done_is_done_with_the_deletions(layout):
    done = []
    with ThreadPoolExecutor(1) as pool:
        trash = Trash(layout, pool)
        trash.later(lambda: done.append("first"))
        trash.close()
        trash.later(lambda: done.append("after the end"))
    assert done == ["first"]


def test_trash_of_an_earlier_process_is_emptied(layout):
    make_deep(os.path.join(layout.trash, "left"), 10)
    with ThreadPoolExecutor(1) as pool:
        Trash(layout, pool).empty()
    assert os.listdir(layout.trash) == []


def test_what_cannot_be_deleted_stays_and_is_said(layout, monkeypatch, caplog):
    def refuse(_fd, name):
        raise PermissionError(1, "Operation not permitted", name)

    make_deep(layout.snapshot(1), 1)
    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(trees, "remove", refuse)
        Trash(layout, pool).discard(layout.snapshot(1))
    assert "Operation not permitted" in caplog.text
    assert len(os.listdir(layout.trash)) == 1


def test_discard_after_the_pool_is_shut_is_left_to_the_next_start(layout):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    make_deep(layout.snapshot(1), 1)
    assert Trash(layout, pool).discard(layout.snapshot(1))
    assert len(os.listdir(layout.trash)) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up root to see what root never meets")
def test_directories_that_forbid_it_go_without_privileges_too(tmp_path):
    make_mixed(tmp_path / "tree")
    script = (
        "import os, sys; from sampan.kernel import libc; from sampan.store import trees\n"
        "libc.load()\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "assert not os.access('tree/mode 0/file', os.F_OK)\n"
        "trees.remove(fd, 'tree'); assert os.listdir(fd) == []\n"
    )
    for directory, names, files in os.walk(tmp_path):
        for path in (directory, *(os.path.join(directory, name) for name in (*names, *files))):
            os.chown(path, 65534, 65534, follow_symlinks=False)
    command = [sys.executable, "-c", script, str(tmp_path)]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert result.returncode == 0, result.stderr
