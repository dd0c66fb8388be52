"""The last operations: limits, user, capabilities, seccomp, and the execve itself.

`run` and `exec` share this file whole, so that a process that joins a container can never have more
than the one that started it. The order matters and is written once, in `plan.become`.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.kernel import capabilities, filters, process, rlimits, trampoline
from sampan.kernel import numbers as n
from sampan.kernel.libc import c_char_p, c_long, c_size_t, check, prototype
from sampan.runtime.failure import RuntimeFailure
from sampan.runtime.operations import Operation, open_proc
from sampan.runtime.stage import Stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_PASSWD = 10 << 20  # bytes
_SYS_GETCWD = {"x86_64": 79, "aarch64": 17}.get(n.MACHINE, -1)
_syscall_getcwd = prototype("syscall", c_long, c_long, c_char_p, c_size_t)


def find_home(root: int, process_spec: dict[str, Any]) -> None:
    """Note the home directory of a user that is a number, where the environment names none.

    /etc/passwd below the descriptor `root` says it, as under runc; what cannot be read there leaves
    `/`.
    """
    user = process_spec.setdefault("user", {})
    homes = [entry for entry in process_spec.get("env") or [] if entry.startswith("HOME=")]
    if "home" in user or (homes and homes[-1] != "HOME="):
        return
    wanted = b"%d" % (user.get("uid") or 0)
    for line in _users_of(root).split(b"\n"):
        fields = line.split(b":")
        if len(fields) > 5 and fields[2] == wanted:
            user["home"] = os.fsdecode(fields[5]) or "/"
            return


def _users_of(root: int) -> bytes:
    """/etc/passwd, or nothing. Without links on the way, which is usual, openat(2) is enough."""
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        etc = os.open("etc", os.O_PATH | os.O_DIRECTORY | flags, dir_fd=root)
        try:
            fd = os.open("passwd", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | flags, dir_fd=etc)
        finally:
            os.close(etc)
    except FileNotFoundError:
        return b""
    except OSError:
        return _users_behind_links(root)
    try:
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
        return os.read(fd, _MAX_PASSWD) if regular else b""
    finally:
        os.close(fd)


def _users_behind_links(root: int) -> bytes:
    from sampan.kernel.paths import Root

    try:
        return Root(root).read_file("/etc/passwd", _MAX_PASSWD)
    except OSError:
        return b""


class OomScore(Operation):
    """Set the score of the OOM killer, while /proc is the host's."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value

    def execute(self, stage: Stage) -> None:
        rlimits.set_oom_score_adj(open_proc(stage, "self/oom_score_adj"), self.value)

    def describe(self) -> str:
        return f"set oom_score_adj to {self.value}"


class Session(Operation):
    """A new session, standard streams in place, the terminal controlling if there is one."""

    __slots__ = ("terminal",)

    def __init__(self, *, terminal: bool) -> None:
        self.terminal = terminal

    def execute(self, stage: Stage) -> None:
        os.setsid()
        if self.terminal:
            from sampan.kernel.terminal import become_controlling  # `init` has it loaded

            become_controlling(stage.stdio[0])
        for target, source in enumerate(stage.stdio):
            os.dup2(source, target, inheritable=True)

    def describe(self) -> str:
        return "start a session" + (" with a controlling terminal" if self.terminal else "")


class Limit(Operation):
    """Set a resource limit."""

    __slots__ = ("hard", "kind", "soft")

    def __init__(self, kind: str, soft: int, hard: int) -> None:
        self.kind, self.soft, self.hard = kind, soft, hard

    def execute(self, stage: Stage) -> None:
        rlimits.set_limit(self.kind, self.soft, self.hard)

    def describe(self) -> str:
        return f"limit {self.kind} to {self.soft}:{self.hard}"


class FindProgram(Operation):
    """Resolve the command as execvp would, inside, so that a missing one fails before the start."""

    __slots__ = ("name", "search")

    def __init__(self, name: str, search: list[str]) -> None:
        self.name, self.search = name, search

    def execute(self, stage: Stage) -> None:
        if "/" in self.name:
            stage.program = _executable(self.name, self.name)
            return
        denied = False
        for directory in self.search:
            try:
                stage.program = _executable(f"{directory or '.'}/{self.name}", self.name)
                return
            except RuntimeFailure as failure:
                denied = denied or failure.errno == errno.EACCES
        code = errno.EACCES if denied else errno.ENOENT
        said = "permission denied" if denied else "executable file not found in $PATH"
        raise RuntimeFailure(code, f'exec: "{self.name}": {said}')

    def describe(self) -> str:
        return f"find the program {self.name}"


def _executable(path: str, name: str) -> bytes:
    """`path` for execve. Raises RuntimeFailure in runc's words when it cannot be executed."""
    try:
        found = os.stat(path)
    except OSError as error:
        said = os.strerror(error.errno or 0).lower()
        raise RuntimeFailure(error.errno or 0, f'exec: "{name}": stat {path}: {said}') from error
    if not stat.S_ISREG(found.st_mode) or not found.st_mode & 0o111:
        said = "is a directory" if stat.S_ISDIR(found.st_mode) else "permission denied"
        raise RuntimeFailure(errno.EACCES, f'exec: "{name}": {said}')
    return os.fsencode(path)


class Trampoline(Operation):
    """Have a sealed program ready that executes the container's (see `kernel.trampoline`)."""

    __slots__ = ("preserve",)

    def __init__(self, preserve: int) -> None:
        self.preserve = preserve

    def execute(self, stage: Stage) -> None:
        report = 3 + self.preserve
        stage.trampoline = trampoline.make(report)
        while stage.trampoline <= report:  # a number that is given away, or to another one
            stage.trampoline = os.dup(stage.trampoline)

    def describe(self) -> str:
        return "keep a sealed program ready to execute the command"


class Directory(Operation):
    """Change to the working directory, made if missing, and see that it lies inside the root.

    After chdir the raw getcwd(2) must give an absolute path: a directory outside of the root would
    be reported as unreachable (a leaked descriptor of the host named by /proc/self/fd).
    """

    __slots__ = ("create", "path")

    def __init__(self, path: str, *, create: bool) -> None:
        self.path, self.create = path, create

    def execute(self, stage: Stage) -> None:
        try:
            os.chdir(self.path)
        except FileNotFoundError:
            if not self.create:
                raise
            os.makedirs(self.path, 0o755, exist_ok=True)
            os.chdir(self.path)
        buffer = bytes(4096)
        length = check(_syscall_getcwd(_SYS_GETCWD, buffer, len(buffer)), "getcwd")
        if length < 1 or not buffer.startswith(b"/"):
            raise OSError(errno.ENOENT, "the working directory is outside of the container")

    def describe(self) -> str:
        return f"chdir to the working directory {self.path}"


class User(Operation):
    """Become the user: groups, gid, uid; capabilities survive until `Capabilities` sets them."""

    __slots__ = ("gid", "groups", "uid", "umask")

    def __init__(self, uid: int, gid: int, groups: list[int], umask: int) -> None:
        self.uid, self.gid, self.groups, self.umask = uid, gid, groups, umask

    def execute(self, stage: Stage) -> None:
        for fd in (0, 1, 2):
            give(fd, self.uid)
        process.prctl(n.PR_SET_KEEPCAPS, 1)
        try:
            os.setgroups(self.groups)
        except PermissionError:  # denied in a user namespace that an ordinary user has made
            if self.groups:
                raise
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        process.prctl(n.PR_SET_KEEPCAPS, 0)
        os.umask(self.umask)

    def describe(self) -> str:
        groups = ",".join(map(str, self.groups)) or "none"
        return f"become uid {self.uid}, gid {self.gid}, groups {groups}"


def give(fd: int, uid: int) -> None:
    """Let the user `uid` reopen a standard pipe or terminal; never a file of the host."""
    found = os.fstat(fd)
    pipe_or_pty = stat.S_ISFIFO(found.st_mode) or (
        stat.S_ISCHR(found.st_mode) and 136 <= os.major(found.st_rdev) <= 143
    )
    if pipe_or_pty and found.st_uid != uid:
        try:
            os.fchown(fd, uid, -1)
        except OSError as error:  # an id that is not mapped into the user namespace
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise


class Bounding(Operation):
    """Cut the bounding set; needs CAP_SETPCAP, so it comes before the change of user."""

    __slots__ = ("names",)

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def execute(self, stage: Stage) -> None:
        capabilities.drop_bounding(capabilities.mask(self.names))

    def describe(self) -> str:
        return f"bound the capabilities to {' '.join(self.names) or 'none'}"


class KeepCapabilities(Operation):
    """Make every permitted capability effective again after the change of user."""

    __slots__ = ()

    def execute(self, stage: Stage) -> None:
        _, permitted, inheritable = capabilities.get()
        capabilities.set_sets(permitted, permitted, inheritable)

    def describe(self) -> str:
        return "raise the permitted capabilities"


class Capabilities(Operation):
    """Set the permitted, effective, inheritable and ambient sets."""

    __slots__ = ("ambient", "effective", "inheritable", "permitted")

    def __init__(
        self, effective: list[str], permitted: list[str], inheritable: list[str], ambient: list[str]
    ) -> None:
        self.effective, self.permitted = effective, permitted
        self.inheritable, self.ambient = inheritable, ambient

    def execute(self, stage: Stage) -> None:
        _, available, _ = capabilities.get()
        permitted = capabilities.mask(self.permitted) & available
        effective = capabilities.mask(self.effective) & permitted
        inheritable = capabilities.mask(self.inheritable)
        capabilities.set_sets(effective, permitted, inheritable)
        capabilities.set_ambient(capabilities.mask(self.ambient) & permitted & inheritable)

    def describe(self) -> str:
        return f"set the capabilities to {' '.join(self.effective) or 'none'}"


class NoNewPrivileges(Operation):
    """No execve gives more than the caller had, from here on."""

    __slots__ = ()

    def execute(self, stage: Stage) -> None:
        process.prctl(n.PR_SET_NO_NEW_PRIVS, 1)

    def describe(self) -> str:
        return "set no_new_privs"


class Seccomp(Operation):
    """Load the filter that was compiled before."""

    __slots__ = ()

    def execute(self, stage: Stage) -> None:
        assert stage.seccomp is not None
        filters.load(*stage.seccomp)

    def describe(self) -> str:
        return "load the seccomp filter"


class DieWithParent(Operation):
    """Ask for SIGKILL when the monitor dies. After the change of user, which would clear it."""

    __slots__ = ()

    def execute(self, stage: Stage) -> None:
        process.set_parent_death_signal(process.SIGKILL)

    def describe(self) -> str:
        return "die with the parent"


class LetGo(Operation):
    """Give up what the new program is not to have: signals that are handled, descriptors.

    Before the filter is loaded, which may forbid the calls for it.
    """

    __slots__ = ("preserve",)

    def __init__(self, preserve: int) -> None:
        self.preserve = preserve

    def execute(self, stage: Stage) -> None:
        process.reset_signals()
        process.close_from(3 + self.preserve)

    def describe(self) -> str:
        return "let go of signals and descriptors"


class Execute(Operation):
    """execve. Returns only when the kernel refuses."""

    __slots__ = ("arguments", "environment", "preserve")

    def __init__(self, arguments: list[str], environment: list[str], preserve: int) -> None:
        self.arguments, self.environment, self.preserve = arguments, environment, preserve

    def execute(self, stage: Stage) -> None:
        arguments = [os.fsencode(word) for word in self.arguments]
        environment = {}
        for entry in self.environment:
            name, _, value = os.fsencode(entry).partition(b"=")
            environment[name] = value
        program: bytes | int = stage.program
        if stage.trampoline >= 0:
            os.dup2(stage.sync.fileno(), 3 + self.preserve, inheritable=True)
            program, arguments = stage.trampoline, [stage.program, *arguments]
        try:
            os.execve(program, arguments, environment)
        except OSError as error:
            said = os.strerror(error.errno or 0).lower()
            command = self.arguments[0]
            raise RuntimeFailure(error.errno or 0, f"exec {command}: {said}") from error

    def describe(self) -> str:
        return f"execute {' '.join(self.arguments)}"
