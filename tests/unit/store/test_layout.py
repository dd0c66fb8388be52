"""Every path is made here, and nothing from outside can leave the two trees."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from sampan.errors import FailedPrecondition, Internal, InvalidArgument
from sampan.store.layout import Layout, make_directory

ID = "a1" * 32
HOSTILE = ["", ".", "..", "../x", "a/b", "/etc", "a\0b", "a\nb", "ä", "a" * 1025, "~", " "]


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o777])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_paths_are_where_the_documents_say(layout):
    root, state = layout.root, layout.state
    assert layout.lock == f"{root}/lock"
    assert layout.database == f"{root}/metadata.db"
    assert layout.blob("sha256:" + "0" * 64) == f"{root}/blobs/sha256/{'0' * 64}"
    assert layout.snapshot(12) == f"{root}/snapshots/12"
    assert layout.log(ID) == f"{root}/containers/{ID}/container.log"
    assert layout.volume("data") == f"{root}/volumes/data"
    assert layout.docker_socket == f"{state}/docker.sock"
    assert layout.shim_socket(ID) == f"{state}/shims/{ID}/shim.sock"
    assert layout.exit_record(ID) == f"{state}/shims/{ID}/exit.json"


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "method", ["container", "log", "shim", "shim_socket", "shim_state", "exit_record", "volume"]
)
def test_hostile_ids_never_become_paths(layout, method, text):
    with pytest.raises(InvalidArgument):
        getattr(layout, method)(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:../../../etc/passwd",
        "sha256:" + "0" * 63,
        "sha256:" + "A" * 64,
        "md5:" + "0" * 32,
        "../sha256:" + "0" * 64,
        "sha256:" + "0" * 64 + "\n",
    ],
)
def test_hostile_digests_never_become_paths(layout, text):
    with pytest.raises(InvalidArgument):
        layout.blob(text)


def test_ingest_and_snapshot_names_are_ours(layout):
    with pytest.raises(Internal):
        layout.ingest("../x")
    with pytest.raises(ValueError, match="invalid literal"):
        layout.snapshot("../x")


def test_directories_are_closed_whatever_the_umask(tmp_path, umask):
    layout = Layout(str(tmp_path / "root"), str(tmp_path / "state"))
    layout.create()
    assert mode(layout.root) == 0o700
    assert mode(layout.state) == 0o711
    names = [layout.blobs, layout.ingests, layout.snapshots, layout.containers, layout.volumes]
    for path in [*names, layout.trash, layout.shims]:
        assert mode(path) == 0o700, path


def test_create_again_changes_nothing(layout):
    kept = Path(layout.ingest("ab"))
    kept.write_text("kept")
    layout.create()
    assert kept.read_text() == "kept"


def test_root_that_others_may_write_is_refused(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(FailedPrecondition, match="others may write"):
        Layout(str(root), str(tmp_path / "state")).create()
    assert mode(str(root)) == 0o777  # it may be /tmp: not ours to change


def test_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "root").write_text("")
    with pytest.raises(FailedPrecondition, match="not a directory"):
        Layout(str(tmp_path / "root"), str(tmp_path / "state")).create()


@pytest.mark.parametrize("path", ["", "/a:b", "/a,b", "/a\\b", "/a\nb", "/a\0b"])
def test_roots_that_mount_options_cannot_carry_are_refused(tmp_path, path):
    with pytest.raises(InvalidArgument):
        Layout(path, str(tmp_path))
    with pytest.raises(InvalidArgument):
        Layout(str(tmp_path), path)


def test_make_directory_says_whether_it_was_missing(tmp_path):
    assert make_directory(str(tmp_path / "x"))
    assert not make_directory(str(tmp_path / "x"))


def test_layers_are_spread_where_the_file_system_can(tmp_path):
    layout = Layout(str(tmp_path / "root"), str(tmp_path / "state"))
    layout.create()
    layout.create()
    done = subprocess.run(
        ["lsattr", "-d", layout.snapshots], check=False, capture_output=True, text=True
    )
    if done.returncode != 0 or not is_ext4(tmp_path):
        pytest.skip("the hint is ext4's")
    assert "T" in done.stdout.split()[0]


def is_ext4(path):
    kind = ["stat", "-f", "-c", "%T", path]
    return "ext" in subprocess.run(kind, capture_output=True, text=True, check=True).stdout
