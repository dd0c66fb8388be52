"""The operations that make the process what it becomes, as calls of a script (`assembly`): session,
directory, program, limits, credentials, execve.
"""

from __future__ import annotations

import errno
import os
import struct

from sampan.kernel import capabilities, process
from sampan.kernel import numbers as n
from sampan.kernel.machine import SYS
from sampan.kernel.rlimits import KINDS as LIMITS
from sampan.runtime import credentials as c
from sampan.runtime.calls import MISSING, Calls
from sampan.runtime.failure import NeedsInterpreter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.runtime import operations as o
    from sampan.runtime.assembly import Assembly, Writers

_UNLIMITED = 0xFFFFFFFFFFFFFFFF


def _oom_score(a: Assembly, one: c.OomScore) -> None:
    fd = a.calls.open_host("/proc/self/oom_score_adj", os.O_WRONLY)
    raw = str(one.value).encode()
    a.calls.call(SYS["write"], fd, raw, len(raw), tolerate=(errno.EACCES, errno.EPERM))


def _session(a: Assembly, one: c.Session) -> None:
    if one.terminal:
        raise NeedsInterpreter("a terminal")
    a.calls.call(SYS["setsid"])
    for number, fd in enumerate(a.stdio):
        a.calls.call(SYS["dup2"], fd, number)


def _directory(a: Assembly, one: c.Directory) -> None:
    path = os.path.normpath(one.path)
    if one.create and path != "/" and not any(path.startswith(m) for m in a.mounted):
        a.prepare.append((path, True))
    # No link of /proc may lead out of the container, as getcwd(2) is asked to confirm elsewhere.
    resolve = n.RESOLVE_NO_MAGICLINKS
    how = a.calls.data(struct.pack("<QQQ", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, resolve))
    fd = a.calls.call(n.SYS_openat2, n.AT_FDCWD, os.fsencode(one.path), how, 24)
    a.calls.call(SYS["fchdir"], fd)


def _find_program(a: Assembly, one: c.FindProgram) -> None:
    names = [one.name]
    if "/" not in one.name:
        names = [f"{directory or '.'}/{one.name}" for directory in one.search]
    a.program = [os.fsencode(name) for name in names]


def _limit(a: Assembly, one: c.Limit) -> None:
    wanted = struct.pack("<QQ", one.soft & _UNLIMITED, one.hard & _UNLIMITED)
    a.calls.call(SYS["prlimit64"], 0, LIMITS[one.kind], a.calls.data(wanted), 0)


def _bounding(a: Assembly, one: c.Bounding) -> None:
    keep = capabilities.mask(one.names)
    for bit in range(len(capabilities.NAMES)):
        if not keep >> bit & 1:
            a.calls.prctl(n.PR_CAPBSET_DROP, bit)


def _user(a: Assembly, one: c.User) -> None:
    groups = a.calls.data(struct.pack(f"<{len(one.groups)}I", *one.groups))
    a.calls.prctl(n.PR_SET_KEEPCAPS, 1)
    a.calls.call(SYS["setgroups"], len(one.groups), groups)
    a.calls.call(SYS["setresgid"], one.gid, one.gid, one.gid)
    a.calls.call(SYS["setresuid"], one.uid, one.uid, one.uid)
    a.calls.prctl(n.PR_SET_KEEPCAPS, 0)
    a.calls.call(SYS["umask"], one.umask)


def _keep_capabilities(a: Assembly, _one: c.KeepCapabilities) -> None:
    permitted, inheritable = a.permitted()
    _set_capabilities(a, permitted, permitted, inheritable)


def _capabilities(a: Assembly, one: c.Capabilities) -> None:
    available, _ = a.permitted()
    permitted = capabilities.mask(one.permitted) & available
    effective = capabilities.mask(one.effective) & permitted
    inheritable = capabilities.mask(one.inheritable)
    ambient = capabilities.mask(one.ambient) & permitted & inheritable
    _set_capabilities(a, effective, permitted, inheritable)
    a.calls.prctl(n.PR_CAP_AMBIENT, n.PR_CAP_AMBIENT_CLEAR_ALL)
    for bit in range(len(capabilities.NAMES)):
        if ambient >> bit & 1:
            a.calls.prctl(n.PR_CAP_AMBIENT, n.PR_CAP_AMBIENT_RAISE, bit)


def _set_capabilities(a: Assembly, *sets: int) -> None:
    header, words = capabilities.structures(*sets)
    a.calls.call(SYS["capset"], a.calls.data(header), a.calls.data(words))


def _no_new_privileges(a: Assembly, _one: c.NoNewPrivileges) -> None:
    a.calls.prctl(n.PR_SET_NO_NEW_PRIVS, 1)


def _die_with_parent(a: Assembly, _one: c.DieWithParent) -> None:
    a.calls.prctl(n.PR_SET_PDEATHSIG, process.SIGKILL)


def vectors(calls: Calls, one: c.Execute) -> tuple[int, int]:
    """The addresses of argv and the environment. Of a name that comes twice the last one counts."""
    environment: dict[bytes, bytes] = {}
    for entry in one.environment:
        name, _, value = os.fsencode(entry).partition(b"=")
        environment[name] = value
    arguments = calls.strings([os.fsencode(word) for word in one.arguments])
    return arguments, calls.strings([b"=".join(item) for item in environment.items()])


def _execute(a: Assembly, one: c.Execute) -> None:
    if one.preserve:
        raise NeedsInterpreter("descriptors to preserve")
    arguments, variables = vectors(a.calls, one)
    *others, last = a.program
    for path in others:
        a.calls.call(SYS["execve"], path, arguments, variables, tolerate=MISSING)
    a.calls.call(SYS["execve"], last, arguments, variables)


def _nothing(_a: Assembly, _one: o.Operation) -> None:
    """The blank has done it, or the machine needs it not."""


WRITERS: Writers = {
    c.Bounding: _bounding,
    c.Capabilities: _capabilities,
    c.DieWithParent: _die_with_parent,
    c.Directory: _directory,
    c.Execute: _execute,
    c.FindProgram: _find_program,
    c.KeepCapabilities: _keep_capabilities,
    c.LetGo: lambda a, _one: a.calls.close_at_execve(),
    c.Limit: _limit,
    c.NoNewPrivileges: _no_new_privileges,
    c.OomScore: _oom_score,
    c.Session: _session,
    c.Trampoline: _nothing,
    c.User: _user,
}
