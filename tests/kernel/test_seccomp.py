"""Compiled filters on the real kernel: the ways that others were got around, tried for real."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select

import pytest

from sampan.engine import profiles
from sampan.kernel import seccomp
from sampan.kernel.syscall_table import X86_64

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86_64 numbers")

HIGH = 1 << 32
NEWUSER = 0x10000000
PR_SET_NO_NEW_PRIVS = 38
raw = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_ulong] * 7, use_errno=True)(
    ("syscall", ctypes.CDLL(None, use_errno=True))
)
prctl = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, *[ctypes.c_ulong] * 4)(
    ("prctl", ctypes.CDLL(None))
)


def call(number, *args):
    """The system call as the kernel sees it, all bits of each argument; -errno for a failure."""
    result = raw(number, *(*args, 0, 0, 0, 0, 0, 0)[:6])
    return -ctypes.get_errno() if result == -1 else result


def int80(number, *args):
    """A call through the 32 bit entry, which any 64 bit program may use."""
    code = b"\x53\x89\xf8\x89\xf3\x89\xd1\x31\xd2\xcd\x80\x5b\x48\x98\xc3"
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    function = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_ulong] * 3)(address)
    return function(number, *(*args, 0, 0)[:2])


def confined(program, action):
    """Run `action` in a child under the filter: what it answers, or ("signal", number)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            seccomp.load(program.program, program.flags)
            os.write(writer, repr(action()).encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as stream:
        answer = stream.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return answer if status >= 0 else ("signal", -status)


@pytest.fixture(scope="module")
def default_filter():
    return seccomp.compile(profiles.seccomp_profile(profiles.DEFAULT_CAPABILITIES))


@pytest.mark.parametrize(
    ("name", "args", "error"),
    [
        ("socket", (40 | HIGH, 1), errno.EPERM),
        ("socket", (40, 1), errno.EPERM),
        ("socket", (38, 5), errno.EPERM),
        ("socket", (38 | HIGH, 5), errno.EPERM),
        ("personality", (0x40000,), errno.EPERM),
        ("personality", (0x40000 | HIGH,), errno.EPERM),
        ("clone", (NEWUSER | HIGH | 17,), errno.EPERM),
        ("clone", (NEWUSER | 17,), errno.EPERM),
        ("unshare", (NEWUSER,), errno.EPERM),
        ("clone3", (0, 0), errno.ENOSYS),
        ("io_uring_setup", (1, 0), errno.EPERM),
        ("keyctl", (0, 0), errno.EPERM),
        ("mount", (0, 0, 0, 0, 0), errno.EPERM),
        (999, (), errno.ENOSYS),
        (0x40000000 | 39, (), errno.ENOSYS),
        (0x40000000 | 165, (0, 0, 0, 0, 0), errno.ENOSYS),
    ],
)
def test_refused(default_filter, name, args, error):
    number = X86_64[name] if isinstance(name, str) else name
    assert confined(default_filter, lambda: call(number, *args)) == str(-error)


def test_without_the_filter_the_same_calls_do_something():
    """What the test above forbids is there to be forbidden: the vectors are real."""
    nothing = seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW"})
    for name, args in (("personality", (0x40000 | HIGH,)), ("unshare", (0x20000 | HIGH,))):
        answer = confined(nothing, lambda name=name, args=args: call(X86_64[name], *args))
        assert answer != str(-errno.EPERM)


def test_permitted(default_filter):
    assert confined(default_filter, lambda: call(X86_64["personality"], HIGH)) == "0"
    assert int(confined(default_filter, lambda: call(X86_64["socket"], 1 | HIGH, 1))) > 2
    assert confined(default_filter, lambda: call(X86_64["getppid"])) == str(os.getpid())
    assert confined(default_filter, os.fork) != "0"


def has_32_bit_entry():
    return confined(seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW"}), lambda: int80(64)) == str(
        os.getpid()
    )


def test_32_bit_entry(default_filter):
    if not has_32_bit_entry():
        pytest.skip("this kernel has no 32 bit entry")
    assert confined(default_filter, lambda: int80(64)) == str(os.getpid())  # getppid
    assert confined(default_filter, lambda: int80(102, 1)) == str(-errno.EPERM)  # socketcall
    assert confined(default_filter, lambda: int80(359, 40)) == str(-errno.EPERM)  # socket
    assert confined(default_filter, lambda: int80(310, NEWUSER)) == str(-errno.EPERM)  # unshare
    assert confined(default_filter, lambda: int80(999)) == str(-errno.ENOSYS)
    unlisted = seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW", "architectures": []})
    assert confined(unlisted, lambda: int80(64)) == ("signal", 31)


@pytest.mark.parametrize(
    ("action", "answer"),
    [
        ("SCMP_ACT_KILL", ("signal", 31)),
        ("SCMP_ACT_KILL_THREAD", ("signal", 31)),
        ("SCMP_ACT_KILL_PROCESS", ("signal", 31)),
        ("SCMP_ACT_TRAP", ("signal", 31)),
        ("SCMP_ACT_ERRNO", str(-errno.EPERM)),
        ("SCMP_ACT_TRACE", str(-errno.ENOSYS)),
        ("SCMP_ACT_LOG", str(os.getpid())),
        ("SCMP_ACT_ALLOW", str(os.getpid())),
    ],
)
def test_actions(action, answer):
    rules = [{"names": ["getppid"], "action": action}]
    document = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    if action == "SCMP_ACT_ALLOW":
        document["defaultAction"] = "SCMP_ACT_LOG"
    got = confined(seccomp.compile(document), lambda: call(X86_64["getppid"]))
    assert got == answer


def test_notify_gives_a_listener():
    rules = [{"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}]
    program = seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})

    def listen():
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        listener = seccomp.load(program.program, program.flags)
        child = os.fork()
        if child == 0:
            call(X86_64["getppid"])
            os._exit(0)
        ready = select.select([listener], [], [], 10)[0] == [listener]
        os.kill(child, 9)
        os.waitpid(child, 0)
        return ready

    plain = seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW"})
    assert confined(plain, listen) == "True"


def test_a_broken_program_is_an_error_that_names_the_call():
    def load():
        try:
            seccomp.load(b"\0" * 8, 0)
        except OSError as error:
            return error.errno, "seccomp" in str(error)

    plain = seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW"})
    assert confined(plain, load) == repr((errno.EINVAL, True))
