"""Why a container ended, in sentences. Pure: from its inspection and the head of its program."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SIGNALS = {
    1: ("SIGHUP", "its terminal or controller went away"),
    2: ("SIGINT", "it was interrupted, as by ctrl-c"),
    4: ("SIGILL", "it executed an instruction that this processor has not; is it for another?"),
    6: ("SIGABRT", "it gave itself up; its last output says why"),
    7: ("SIGBUS", "it touched memory without a page behind it; is /dev/shm or a volume full?"),
    8: ("SIGFPE", "an impossible calculation"),
    9: ("SIGKILL", "it was killed"),
    11: ("SIGSEGV", "it touched memory that is not its own"),
    13: ("SIGPIPE", "it wrote to a pipe that nobody reads"),
    15: ("SIGTERM", "it was asked to end and did"),
    24: ("SIGXCPU", "its limit of processor time was reached"),
    25: ("SIGXFSZ", "its limit of file size was reached"),
    31: ("SIGSYS", "a system call was refused by the seccomp filter"),
}  # fmt: skip
_MACHINES = {3: "386", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64", 22: "s390x"}
_HOST = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def explain(document: dict[str, Any]) -> list[str]:
    """Sentences about the state in an answer of `inspect`."""
    state = document["State"]
    status = state["Status"]
    if status in ("running", "paused", "restarting"):
        return _running(document, status)
    if status == "created" and not state.get("Error"):
        return ["It has never been started."]
    if state.get("Error"):
        return [f"It could not be started or watched: {state['Error']}."]
    return _ended(document, state)


def _running(document: dict[str, Any], status: str) -> list[str]:
    found = [f"It is {status}, with process {document['State'].get('Pid', 0)} of the host."]
    if document.get("RestartCount"):
        found.append(f"Its restart policy has started it {document['RestartCount']} times again.")
    health = document["State"].get("Health")
    if health:
        found.append(f"Its health checks say: {health['Status']}.")
        last = (health.get("Log") or [{}])[-1]
        if health["Status"] == "unhealthy":
            said = last.get("Output", "").strip()
            found.append(f"The last check ended with {last.get('ExitCode')}: {said}")
    return found


def _ended(document: dict[str, Any], state: dict[str, Any]) -> list[str]:
    code = state["ExitCode"]
    limit = document["HostConfig"].get("Memory") or 0
    if state.get("OOMKilled"):
        bound = f" of {limit >> 20} MiB" if limit else ""
        return [
            f"The kernel killed a process of it because its memory limit{bound} was reached.",
            "Give it more memory (--memory), or make it use less.",
        ]
    if code == 0:
        return ["Its first process ended by itself, successfully (0)."]
    if code > 128 and code - 128 in _SIGNALS:
        name, meaning = _SIGNALS[code - 128]
        found = [f"A signal ended it: {name} ({code}): {meaning}."]
        if code == 137:
            found.append("`stop` sends it when the time to end is over; `kill` at once.")
        return found
    if code == 127:
        return ["Its command was not found (127); a shell in the image says so for its own words."]
    if code == 126:
        return ["Its command was found, but could not be executed (126)."]
    return [f"Its first process ended by itself with {code}; what it means is the program's own."]


def examine(path: str, head: bytes, exists: Callable[[str], bool]) -> list[str]:
    """Sentences about a program that could not be executed, by the beginning of its file.

    `exists` tells whether a path is there in the container.
    """
    if head.startswith(b"#!"):
        return _script(path, head, exists)
    if head.startswith(b"\x7fELF"):
        return _elf(path, head, exists)
    return [f"{path} is neither an ELF program nor a script with #! in its first line."]


def _script(path: str, head: bytes, exists: Callable[[str], bool]) -> list[str]:
    line = head.split(b"\n", 1)[0]
    if line.endswith(b"\r"):
        return [
            f"The first line of the script {path} ends with a carriage return (CRLF).",
            "The kernel takes that for a part of the interpreter's name.",
            "Save it with the line ends of unix.",
        ]
    words = line[2:].split()
    interpreter = words[0].decode("utf-8", "replace") if words else ""
    if not exists(interpreter):
        return [f"The script {path} wants the interpreter {interpreter}, which the image has not."]
    return []


def _elf(path: str, head: bytes, exists: Callable[[str], bool]) -> list[str]:
    order = "little" if head[5:6] == b"\x01" else "big"
    machine = int.from_bytes(head[18:20], order)  # type: ignore[arg-type]
    name = _MACHINES.get(machine, f"machine {machine}")
    own = _HOST.get(os.uname().machine, os.uname().machine)
    if name != own:
        return [
            f"{path} is a program for {name}, and this host is {own}.",
            f"Pull the image for this platform (--platform linux/{own}).",
        ]
    loader = _loader(head)
    if loader and not exists(loader):
        return [
            f"{path} needs the loader {loader}, which the image has not.",
            "It was built for another C library: use an image that has it, or a static program.",
        ]
    return []


def _loader(head: bytes) -> str:
    """The interpreter that a 64-bit little-endian program names; "" for none."""
    start, size = int.from_bytes(head[32:40], "little"), int.from_bytes(head[54:56], "little")
    for index in range(int.from_bytes(head[56:58], "little")):
        entry = head[start + index * size :][:56]
        if int.from_bytes(entry[:4], "little") == 3:
            at, length = (int.from_bytes(entry[n : n + 8], "little") for n in (8, 32))
            return head[at : at + length].rstrip(b"\0").decode("utf-8", "replace")
    return ""
