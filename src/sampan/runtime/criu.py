"""A conversation with CRIU: one request, its notices, its answer.

CRIU is another program, called as `criu swrk FD` from PATH; its protocol and not its command line,
because only by that is the other end of a terminal handed over. It opens directories by their
numbers in our table of descriptors, and has our standard streams.
"""

from __future__ import annotations

import _socket
import os
import stat

from sampan.kernel import fds
from sampan.kernel import numbers as n
from sampan.runtime import criu_words
from sampan.runtime.arguments import Parsed, UsageError
from sampan.runtime.calling import tell
from sampan.runtime.failure import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.runtime.criu_words import Value

    Notified = Callable[[str, int, list[int]], None]

_LARGEST = 40960  # bytes of a message of CRIU's
_TOLD = 8  # lines of CRIU's log in an error
_SETTINGS = "/etc/criu/runc.conf"
_VERBS = {criu_words.DUMP: "dump", criu_words.PRE_DUMP: "pre-dump", criu_words.RESTORE: "restore"}
# Flags of ours that are options of CRIU's, in both directions.
_COMMON = ("tcp-established", "ext-unix-sk", "shell-job", "file-locks", "auto-dedup", "lazy-pages")


class Places:
    """Where the images are and where CRIU writes its log, both made; descriptors of them."""

    def __init__(self, options: Parsed) -> None:
        self.images = os.path.abspath(options.text("image-path") or "checkpoint")
        self.work = os.path.abspath(options.text("work-path") or self.images)
        self.fds = [_directory(path) for path in (self.images, self.work)]

    def close(self) -> None:
        """Close the descriptors."""
        fds.close_all(self.fds)


def _directory(path: str) -> int:
    os.makedirs(path, 0o700, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def shared(places: Places, spec: dict[str, Any], options: Parsed, log: str) -> dict[str, Value]:
    """The options of both directions.

    Raises:
        UsageError: a flag has a value that it cannot have.
    """
    mode = options.text("manage-cgroups-mode") or "ignore"
    if mode not in criu_words.CGROUP_MODES:
        raise UsageError("Invalid manage cgroups mode")
    for kind in options.list("empty-ns"):
        if kind != "network":
            raise UsageError(f"namespace {kind} is not supported")
    asked: dict[str, Value] = {
        "images_dir_fd": places.fds[0],
        "work_dir_fd": places.fds[1],
        "log_level": 4,
        "log_file": os.path.basename(log),
        "notify_scripts": True,
        "manage_cgroups": True,
        "manage_cgroups_mode": criu_words.CGROUP_MODES[mode],
        "orphan_pts_master": True,
        # As under runc: what is in a network namespace is the business of who made it.
        "empty_ns": n.CLONE_NEWNET,
    }
    for flag in _COMMON:
        asked[flag.replace("-", "_")] = options.on(flag)
    settings = _settings(spec)
    return {**asked, "config_file": settings} if settings else asked


def _settings(spec: dict[str, Any]) -> str:
    """The file of CRIU's settings, runc's or that of the annotation; "" where there is none.

    CRIU executes what such a file names, so it has to be root's or our own, and nobody else's to
    write.
    """
    path = str((spec.get("annotations") or {}).get("org.criu.config", _SETTINGS))
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return ""
    owned = found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022
    if not owned or not stat.S_ISREG(found.st_mode):
        problem = "must be a file that only root can write"
        raise RuntimeFailure(0, f"annotations[org.criu.config]: {path} {problem}")
    return os.path.abspath(path)


def call(
    kind: int,
    asked: dict[str, Value],
    notified: Notified,
    options: Parsed,
    log: str,
    before: Callable[[int], dict[str, Value]] | None = None,
) -> int:
    """Have CRIU do it; the pid of the process that it restored, which is our child.

    `before` gets CRIU's pid before CRIU is asked, and has more options. `notified` gets each
    notice, with a pid where it is about one, and the descriptors that came along. Descriptors that
    are to be inherited must be inheritable.

    Raises:
        RuntimeFailure: it is not installed, or fails; with the last errors of its log.
    """
    program = _find("criu")
    kinds = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, kinds)
    os.set_inheritable(theirs.fileno(), True)
    pid = os.posix_spawn(program, [program, "swrk", str(theirs.fileno())], dict(os.environ))
    theirs.close()
    status = 0
    try:
        more = before(pid) if before is not None else {}
        fds.send(ours, criu_words.request(kind, {**asked, **more}))
        answer = _answered(ours, notified, options)
    except (BrokenPipeError, ConnectionResetError):  # it has ended, and left what was sent to it
        answer = None
    finally:
        ours.close()
        _, status = os.waitpid(pid, 0)
    # After a first dump it waits for the next one, and does not like it that there is none.
    code = 0 if kind == criu_words.PRE_DUMP else os.waitstatus_to_exitcode(status)
    if answer is None or not answer.is_success or code:
        said = _last_errors(log) or (answer.said if answer else "") or f"exit status {code}"
        raise RuntimeFailure(0, f"criu failed: {said}; its log is {log}", _VERBS[kind])
    return answer.pid


def _answered(
    sock: _socket.socket, notified: Notified, options: Parsed
) -> criu_words.Answer | None:
    """The answer, when every notice was acknowledged; None when CRIU has gone without one."""
    while True:
        data, passed = fds.receive(sock, _LARGEST)
        if not data:
            return None
        try:
            answer = criu_words.Answer(data)
        except ValueError as error:
            fds.close_all(passed)
            raise RuntimeFailure(0, f"criu: its answer is malformed: {error}") from error
        if answer.kind != criu_words.NOTIFY or not answer.is_success:
            fds.close_all(passed)
            return answer
        tell(options, f"notify: {answer.notice}")
        notified(answer.notice, answer.pid, passed)
        fds.send(sock, criu_words.acknowledgement())


def _find(name: str) -> str:
    for directory in os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").split(":"):
        path = f"{directory}/{name}"
        if directory.startswith("/") and os.access(path, os.X_OK):
            return path
    raise RuntimeFailure(0, f"{name} is not installed: checkpoint and restore are done by it")


def _last_errors(log: str) -> str:
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if "Error" in line]
    except FileNotFoundError:
        return ""
    return " | ".join(lines[-_TOLD:])
