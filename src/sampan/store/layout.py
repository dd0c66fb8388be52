"""Every path that Sampan writes to, in one place.

Two trees: the *root* (`/var/lib/sampan`) holds what must survive a reboot, the *state*
(`/run/sampan`) what need not. Nobody else joins path strings of ours, so this page is where a
tenant's string could become a path, and where it is stopped: ids and digests pass their grammar
first, snapshots are numbers.

    root   lock  metadata.db  reserve  blobs/<alg>/<hex>  ingest/<hash>  snapshots/<n>/{fs,work}
           containers/<id>/container.log  pods/<id>/  volumes/  spare/  trash/  init
    state  docker.sock  cri.sock  containerd.sock  sampan.pid  daemon.log
           shims/<id>/{shim.sock,state.json,exit.json}  pods/<id>/{net,ipc,uts,shm}

Directories are 0700 whatever the umask is; only the state directory itself is 0711, so that members
of the socket's group reach the socket without being able to list what lies beside it.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct

from sampan.errors import FailedPrecondition, Internal, InvalidArgument
from sampan.ids import check_container_id, check_name
from sampan.spec.digest import Digest

# overlayfs separates lower directories with a colon and old mount(2) options with a comma.
_UNFIT = frozenset(":,\\\n\0")
_HEX = frozenset("0123456789abcdef")
# FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_TOPDIR_FL of linux/fs.h.
_GET_FLAGS = 0x80086601
_SET_FLAGS = 0x40086602
_TOP_DIRECTORY = 0x00020000
_FLAGS = struct.Struct("=Q")


class Layout:
    """The paths below one root and one state directory. Creates nothing until `create()`."""

    __slots__ = ("root", "state")

    def __init__(self, root: str, state: str) -> None:
        """Raises InvalidArgument when a directory's name cannot be used in mount options."""
        self.root = _checked("root", root)
        self.state = _checked("state", state)

    def create(self) -> None:
        """Make the directories that are missing.

        Raises:
            FailedPrecondition: root or state exist and others may write there, or own it.
        """
        _own_directory(self.root, 0o700)
        for name in (
            "blobs",
            "ingest",
            "snapshots",
            "containers",
            "pods",
            "volumes",
            "spare",
            "trash",
        ):
            make_directory(os.path.join(self.root, name))
        _spread(self.snapshots)
        _spread(self.trash)  # where spare directories of snapshots are born
        _own_directory(self.state, 0o711)
        make_directory(os.path.join(self.state, "shims"))
        make_directory(os.path.join(self.state, "pods"))

    # root

    @property
    def lock(self) -> str:
        """The file whose flock makes one engine the only writer."""
        return os.path.join(self.root, "lock")

    @property
    def database(self) -> str:
        """The SQLite file; SQLite keeps `-wal` and `-shm` beside it."""
        return os.path.join(self.root, "metadata.db")

    @property
    def reserve(self) -> str:
        """The file that keeps a little of the disk free."""
        return os.path.join(self.root, "reserve")

    @property
    def init_program(self) -> str:
        """The small init of containers, where the host has none."""
        return os.path.join(self.root, "init")

    @property
    def blobs(self) -> str:
        """The directory of all verified content."""
        return os.path.join(self.root, "blobs")

    def blob(self, digest: str) -> str:
        """The file of one blob. Raises InvalidArgument when `digest` is not one."""
        parsed = Digest.parse(digest)
        return os.path.join(self.root, "blobs", parsed.algorithm, parsed.hex)

    @property
    def ingests(self) -> str:
        """The directory of content that is still arriving."""
        return os.path.join(self.root, "ingest")

    def ingest(self, name: str) -> str:
        """The file of one ingest; `name` is a hash that the content store made."""
        if not name or not _HEX.issuperset(name):
            raise Internal(f"ingest name {name!r} is not hexadecimal")
        return os.path.join(self.root, "ingest", name)

    @property
    def snapshots(self) -> str:
        """The directory of all file system states."""
        return os.path.join(self.root, "snapshots")

    @property
    def snapshotter(self) -> str:
        """The file that says what made the snapshots."""
        return os.path.join(self.root, "snapshotter")

    def snapshot(self, number: int) -> str:
        """The directory of snapshot `number`, which holds `fs` and `work`."""
        return os.path.join(self.root, "snapshots", str(int(number)))

    @property
    def spares(self) -> str:
        """Snapshot directories made ahead of time."""
        return os.path.join(self.root, "spare")

    @property
    def containers(self) -> str:
        """The directory of what containers keep besides their rows."""
        return os.path.join(self.root, "containers")

    def container(self, container_id: str) -> str:
        """The directory of one container."""
        return os.path.join(self.root, "containers", check_container_id(container_id))

    def log(self, container_id: str) -> str:
        """The file of what a container printed."""
        return os.path.join(self.container(container_id), "container.log")

    @property
    def pods(self) -> str:
        """The directory of files that the containers of a pod share."""
        return os.path.join(self.root, "pods")

    def pod(self, sandbox_id: str) -> str:
        """The files of one sandbox."""
        return os.path.join(self.root, "pods", check_container_id(sandbox_id))

    @property
    def sandboxes(self) -> str:
        """The directory of pinned namespaces and mounts of sandboxes."""
        return os.path.join(self.state, "pods")

    def sandbox(self, sandbox_id: str) -> str:
        """What is pinned and mounted for one sandbox."""
        return os.path.join(self.state, "pods", check_container_id(sandbox_id))

    @property
    def volumes(self) -> str:
        """The directory of named volumes."""
        return os.path.join(self.root, "volumes")

    def volume(self, name: str) -> str:
        """The directory of one named volume."""
        return os.path.join(self.root, "volumes", check_name(name))

    @property
    def trash(self) -> str:
        """Where trees wait for their deletion; a rename away from everything else in root."""
        return os.path.join(self.root, "trash")

    # state

    @property
    def docker_socket(self) -> str:
        """The socket of the Docker Engine API."""
        return os.path.join(self.state, "docker.sock")

    @property
    def cri_socket(self) -> str:
        """The socket of the Kubernetes runtime interface."""
        return os.path.join(self.state, "cri.sock")

    @property
    def containerd_socket(self) -> str:
        """The socket of the containerd API."""
        return os.path.join(self.state, "containerd.sock")

    @property
    def pid_file(self) -> str:
        """The file with the daemon's process id."""
        return os.path.join(self.state, "sampan.pid")

    @property
    def daemon_log(self) -> str:
        """Where a daemon that was started on demand writes."""
        return os.path.join(self.state, "daemon.log")

    @property
    def cni(self) -> str:
        """What CNI plugins answered for networks of the engine; as theirs, it outlives a boot."""
        return os.path.join(self.root, "cni-networks")

    @property
    def cni_of_pods(self) -> str:
        """The same for pods."""
        return os.path.join(self.root, "cni")

    @property
    def forwarding(self) -> str:
        """What the names of files begin with that are there when the host forwards packets only
        because we need it."""
        return os.path.join(self.state, "forwarding")

    @property
    def shims(self) -> str:
        """The directory of all shims' records."""
        return os.path.join(self.state, "shims")

    def shim(self, container_id: str) -> str:
        """The directory of one container's shim."""
        return os.path.join(self.state, "shims", check_container_id(container_id))

    def shim_socket(self, container_id: str) -> str:
        """The socket on which a shim accepts an engine that was restarted."""
        return os.path.join(self.shim(container_id), "shim.sock")

    def shim_state(self, container_id: str) -> str:
        """The record of who runs: pids, start times, cgroup."""
        return os.path.join(self.shim(container_id), "state.json")

    def exit_record(self, container_id: str) -> str:
        """The record of how the container ended."""
        return os.path.join(self.shim(container_id), "exit.json")


def make_directory(path: str, mode: int = 0o700) -> bool:
    """Make one directory with exactly `mode`; whether it was missing. Parents must exist."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return False
    os.chmod(path, mode)  # mkdir subtracts the umask
    return True


def _spread(path: str) -> None:
    """Tell the file system that the directories in `path` have little to do with each other.

    ext4 then gives each a block group of its own, and a layer of many files is written in one
    stretch: a pull takes three quarters of the time (`chattr +T`). Others have no such hint.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        flags = bytearray(8)
        fcntl.ioctl(fd, _GET_FLAGS, flags)
        (before,) = _FLAGS.unpack_from(flags)
        if not before & _TOP_DIRECTORY:
            fcntl.ioctl(fd, _SET_FLAGS, _FLAGS.pack(before | _TOP_DIRECTORY))
    except OSError:
        pass  # a file system without the hint
    finally:
        os.close(fd)


def _checked(what: str, path: str) -> str:
    if not path or not _UNFIT.isdisjoint(path):
        raise InvalidArgument(
            f"invalid {what} directory {path!r}: it must not be empty nor contain : , \\ or newline"
        )
    return os.path.abspath(path)


def _own_directory(path: str, mode: int) -> None:
    """Make `path` and its parents, or check that the one there is ours alone to write.

    A directory that was there keeps its mode: it may be `/tmp` by mistake, and everything of ours
    below it is closed anyway.
    """
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    if make_directory(path, mode):
        return
    status = os.stat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise FailedPrecondition(f"use {path}: not a directory")
    if status.st_uid != os.geteuid():
        raise FailedPrecondition(f"use {path}: it belongs to uid {status.st_uid}")
    if status.st_mode & 0o022:
        raise FailedPrecondition(f"use {path}: others may write to it")
