"""`sampan-oci exec`: a process from the command line in a running container."""

from __future__ import annotations

import os

from sampan.kernel import process, seccomp
from sampan.runtime import bundle, console
from sampan.runtime.arguments import Parsed, UsageError
from sampan.runtime.exec import Execed, spawn
from sampan.runtime.failure import RuntimeFailure
from sampan.runtime.launch import write_pid
from sampan.runtime.state import StateDirectory, status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def exec_command(root: str, container_id: str, command: list[str], options: Parsed) -> int:
    """Run the process; its exit code, or 0 at once with `--detach`."""
    directory = StateDirectory(root, container_id)
    state = directory.load()
    _check_status(status_of(directory, state), options)
    spec = _process(state["config"]["process"], command, options)
    detached = options.on("detach")
    if spec.get("terminal") and detached and not options.text("console-socket"):
        raise UsageError(
            "cannot allocate tty if sampan-oci will detach without setting console socket"
        )
    execed = _spawn(state, spec)
    if execed.master >= 0 and options.text("console-socket"):
        console.hand_over(options.text("console-socket"), execed.master)
        execed.master = -1
    if options.text("pid-file"):
        write_pid(options.text("pid-file"), execed.pid)
    return 0 if detached else _wait(execed)


def _check_status(status: str, options: Parsed) -> None:
    if status == "stopped":
        raise RuntimeFailure(0, "cannot exec in a stopped container")
    if status == "paused" and not options.on("ignore-paused"):
        raise RuntimeFailure(
            0, "cannot exec in a paused container (use --ignore-paused to override)"
        )


def _spawn(state: dict[str, Any], spec: dict[str, Any]) -> Execed:
    pidfd = process.pidfd_open(state["pid"])
    try:
        # The pid may have been taken by another process since: only now is its identity sure.
        if not process.is_alive(state["pid"], state["start_time"]):
            raise RuntimeFailure(0, "cannot exec in a stopped container")
        profile = (state["config"].get("linux") or {}).get("seccomp")
        compiled = seccomp.compile(profile) if profile else None
        program = (compiled.program, compiled.flags) if compiled else None
        return spawn(state, spec, pidfd=pidfd, stdio=(0, 1, 2), filter_program=program)
    finally:
        os.close(pidfd)


def _wait(execed: Execed) -> int:
    if execed.master >= 0:
        console.relay(execed.master, execed.pidfd)
    result = process.wait_pidfd(execed.pidfd)
    os.close(execed.pidfd)
    return result[0] if result else 0


def _process(base: dict[str, Any], command: list[str], options: Parsed) -> dict[str, Any]:
    """The process of `--process`, or the container's own with the flags applied, as runc does."""
    if options.text("process"):
        path = options.text("process")
        with open(path, "rb") as file:
            return bundle.parse(file.read(bundle.MAX_CONFIG + 1), path)
    if not command:
        raise UsageError("exec args cannot be empty")
    spec = {**base, "args": command, "terminal": options.on("tty")}
    spec.pop("consoleSize", None)
    spec["preserveFds"] = options.number("preserve-fds")
    spec["cwd"] = options.text("cwd") or base["cwd"]
    spec["env"] = [*(base.get("env") or []), *options.list("env")]
    if options.on("no-new-privs"):
        spec["noNewPrivileges"] = True
    if options.list("cap"):
        spec["capabilities"] = _with_capabilities(base, options.list("cap"))
    spec["user"] = _user(base, options)
    return spec


def _with_capabilities(base: dict[str, Any], names: list[str]) -> dict[str, list[str]]:
    """`--cap` adds to bounding, effective, permitted, and to ambient where inheritable is set."""
    sets = {key: list(values) for key, values in (base.get("capabilities") or {}).items()}
    kinds = ["bounding", "effective", "permitted"]
    if sets.get("inheritable"):
        kinds += ["inheritable", "ambient"]
    for kind in kinds:
        found = sets.setdefault(kind, [])
        found += [name for name in names if name not in found]
    return sets


def _user(base: dict[str, Any], options: Parsed) -> dict[str, Any]:
    user = dict(base.get("user") or {})
    if options.text("user"):
        uid, _, gid = options.text("user").partition(":")
        for text in (uid, gid or "0"):
            if not (text.isascii() and text.isdigit()):
                raise UsageError(f'converting "{text}" as a user or group id: not a number')
        user = {**user, "uid": int(uid)}
        if gid:
            user["gid"] = int(gid)
    if options.list("additional-gids"):
        user["additionalGids"] = [int(gid) for gid in options.list("additional-gids")]
    return user
