"""The machine itself: QEMU with the distribution's kernel, paused until its pod is started.

All sockets are made here and handed over listening, so that whoever connects waits in their queue
and nobody has to look whether QEMU has come so far. Its console goes into QEMU's memory, the last
CONSOLE bytes of it, which are shown when a machine does not come up.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from json import dumps, loads
from typing import TYPE_CHECKING, Any

from sampan.kernel import cgroups, process
from sampan.vm import initramfs, network
from sampan.vm.frames import document, read_document
from sampan.vm.port import Port, say_and_hear

if TYPE_CHECKING:
    from collections.abc import Iterable

PORTS = 30
"""Ports of the serial line: one for each container and exec, and the last one for questions."""

QUESTIONS = PORTS - 1
QUESTION_SECONDS = 5.0

BOOT_SECONDS = 90.0
_LOOK_SECONDS = 2.0
CONSOLE = 1 << 16
QMP = "qmp.sock"
FACTS = "machine.json"
LOG = "qemu.log"
_QEMU = ("/usr/bin/qemu-system-x86_64", "/usr/local/bin/qemu-system-x86_64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`kernel` is a bzImage, `modules` its directory; memory in MiB; `accelerator` is kvm, tcg or
    auto: kvm where it can be opened. `cache` is where first root file systems are kept."""

    kernel: str
    modules: str
    memory: int
    accelerator: str
    cache: str


def find_qemu() -> str:
    """Its path, "" when it is not installed."""
    return next((path for path in _QEMU if os.access(path, os.X_OK)), "")


def create(settings: Settings, spec: dict[str, Any]) -> int:
    """Start QEMU for the bundle in the current directory, paused; its pid, a child of ours.

    Raises:
        OSError: something that it needs is missing.
    """
    image = initramfs.build(settings.cache, settings.modules)
    os.mkdir("share", 0o700)
    cgroup = cgroups.manager(spec["linux"]["cgroupsPath"])
    cgroup.create({})
    names = [QMP, *(f"port{number}" for number in range(PORTS))]
    listeners = [_listen(name) for name in names]
    space = _namespace_of(spec)
    link = network.prepare(space) if space else None
    facts: dict[str, Any] = {"hostname": spec.get("hostname") or "pod"}
    if link is not None:
        facts |= {
            "address": link.address,
            "prefix": link.prefix,
            "gateway": link.gateway,
            "address6": link.address6,
            "prefix6": link.prefix6,
            "gateway6": link.gateway6,
            "mtu": link.mtu,
        }
    with open(FACTS, "w", encoding="utf-8") as file:
        file.write(dumps(facts))
    argv = arguments(settings, image, [sock.fileno() for sock in listeners], link)
    passed = [sock.fileno() for sock in listeners] + ([link.tap] if link else [])
    for fd in passed:
        os.set_inheritable(fd, True)
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    actions = [(os.POSIX_SPAWN_DUP2, log, number) for number in (1, 2)]
    environment = {"PATH": "/usr/bin:/bin"}
    pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions, setsigmask=())
    cgroup.join(pid)
    for sock in listeners:
        sock.close()
    return pid


def arguments(
    settings: Settings, image: str, fds: list[int], link: network.Link | None
) -> list[str]:
    """The command line of QEMU. Pure."""
    words = [find_qemu(), "-name", "sampan", "-nodefaults", "-no-user-config", "-no-reboot"]
    words += ["-display", "none", "-machine", "q35", "-cpu", "max", "-smp", "1", "-S"]
    words += [word for kind in _accelerators(settings.accelerator) for word in ("-accel", kind)]
    words += ["-m", str(settings.memory), "-kernel", settings.kernel, "-initrd", image]
    words += ["-append", "console=ttyS0 quiet loglevel=4 panic=-1 rdinit=/init"]
    words += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny"]
    words += ["-chardev", f"ringbuf,id=console,size={CONSOLE}", "-serial", "chardev:console"]
    qmp, *ports = fds
    words += ["-chardev", f"socket,id=qmp,fd={qmp},server=on,wait=off", "-mon", "qmp,mode=control"]
    words += ["-device", "virtio-serial-pci,max_ports=31"]
    for number, fd in enumerate(ports):
        words += ["-chardev", f"socket,id=port{number},fd={fd},server=on,wait=off"]
        words += ["-device", f"virtserialport,chardev=port{number},name=sampan.{number}"]
    shared = "local,path=share,mount_tag=share,security_model=passthrough,multidevs=remap"
    words += ["-virtfs", shared]
    if link is not None:
        words += ["-netdev", f"tap,id=pod,fd={link.tap}"]
        words += ["-device", f"virtio-net-pci,netdev=pod,mac={link.mac},romfile="]
    return words


def start() -> None:
    """Let the machine of the current directory run, and wait until its agent answers.

    Raises:
        OSError: it did not come up; with the last words of its console.
    """
    with open(FACTS, "rb") as file:
        facts = read_document(file.read())
    control = _Qmp()
    try:
        # A kernel that gives up stays as it is until its last words are read.
        control.ask("set-action", shutdown="pause")
        control.ask("cont")
        with Port(".", 0) as port:
            port.sock.settimeout(_LOOK_SECONDS)
            frame = document("C", op="machine", **facts)
            say_and_hear(port, frame, lambda: _check_alive(control))
        control.ask("set-action", shutdown="poweroff")
    finally:
        control.close()


def counters(directory: str, name: str) -> dict[str, Any]:
    """The counters of a container in the machine of `directory`, as `kernel.cgroups.stats` has
    them. Blocking, up to QUESTION_SECONDS.

    Raises:
        OSError: another question is asked, or the machine does not answer.
    """
    with Port(directory, QUESTIONS) as port:
        port.sock.settimeout(QUESTION_SECONDS)
        return say_and_hear(port, document("C", op="counters", cgroup=f"/{name}"), _give_up)


def _give_up() -> None:
    raise TimeoutError(110, "the machine does not answer")


def _check_alive(control: _Qmp) -> None:
    """Called every _LOOK_SECONDS until the agent answers. Raises OSError: it never will."""
    control.looks += 1
    status = control.ask("query-status")
    if status["status"] == "running" and control.looks * _LOOK_SECONDS < BOOT_SECONDS:
        return
    said = str(control.ask("ringbuf-read", device="console", size=CONSOLE))
    raise OSError(5, f"the machine did not come up ({status['status']}): {said[-1500:]}")


def end(pid: int) -> None:
    """Kill the machine of the current directory, if the process is that."""
    try:
        pidfd = process.pidfd_open(pid) if pid else -1
    except ProcessLookupError:
        return
    if pidfd < 0:
        return
    try:
        # Looked at behind the descriptor: what the number meant before is of no interest.
        if is_machine(pid, "."):
            process.pidfd_send_signal(pidfd, process.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def is_machine(pid: int, home: str) -> bool:
    """Whether the process is the machine whose bundle is `home`, which it was started in."""
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as file:
            name = file.read()
        return name.startswith("qemu-system") and os.path.samefile(f"/proc/{pid}/cwd", home)
    except OSError:
        return False


def _accelerators(wish: str) -> Iterable[str]:
    if wish != "auto":
        return (wish,)
    return ("kvm", "tcg") if os.access("/dev/kvm", os.R_OK | os.W_OK) else ("tcg",)


def _namespace_of(spec: dict[str, Any]) -> str:
    for one in spec["linux"].get("namespaces") or ():
        if one["type"] == "network" and one.get("path"):
            return str(one["path"])
    return ""


def _listen(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(name)
    os.chmod(name, 0o600)
    sock.listen(4)
    return sock


class _Qmp:
    """QEMU's monitor."""

    def __init__(self) -> None:
        self.looks = 0
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(BOOT_SECONDS)
        try:
            self._sock.connect(QMP)
        except ConnectionRefusedError:
            raise _ended() from None
        self._file = self._sock.makefile("r", encoding="utf-8")
        self._file.readline()  # the greeting
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments_: Any) -> Any:
        """One command; its answer. Raises OSError when it is refused or QEMU has ended."""
        words = dumps({"execute": command, "arguments": arguments_})
        self._sock.sendall(words.encode() + b"\n")
        while line := self._file.readline():
            answer = loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise OSError(5, f"{command}: {answer['error'].get('desc')}")
        raise _ended()

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._sock.close()


def _ended() -> OSError:
    with open(LOG, encoding="utf-8", errors="replace") as file:
        return OSError(5, f"QEMU has ended: {file.read(1 << 16)[-1000:].strip()}")
