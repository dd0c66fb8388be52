"""The default profile against the vectors by which others were got around."""

from __future__ import annotations

import errno

import pytest

from bpfmachine import run_classic, seccomp_data
from sampan.engine import profiles
from sampan.kernel import seccomp
from sampan.kernel.syscall_table import I386, X86_64

NATIVE, COMPAT = 0xC000003E, 0x40000003
ENOSYS, EPERM = (seccomp.ERRNO | number for number in (errno.ENOSYS, errno.EPERM))
HIGH = 1 << 32
NEWUSER = 0x10000000
NEVER = (
    "add_key keyctl request_key io_uring_setup io_uring_enter io_uring_register kexec_load "
    "kexec_file_load migrate_pages move_pages pivot_root swapon swapoff sysfs userfaultfd uselib "
    "ustat nfsservctl _sysctl create_module query_module get_kernel_syms afs_syscall security "
    "tuxcall vserver getpmsg putpmsg"
).split()


@pytest.fixture(scope="module")
def programs():
    def build(*capabilities, architecture="amd64"):
        key = (capabilities, architecture)
        if key not in built:
            document = profiles.seccomp_profile(capabilities, architecture)
            built[key] = seccomp.compile(document, "x86_64").program
        return built[key]

    built = {}
    return build


def ask(program, name, *args, arch=NATIVE):
    number = {NATIVE: X86_64, COMPAT: I386}[arch][name] if isinstance(name, str) else name
    return run_classic(program, seccomp_data(number, arch, *args))[0]


@pytest.mark.parametrize("family", [38, 40, 45, 3, 9, 0, 255])
@pytest.mark.parametrize("high", [0, HIGH, 1 << 63, 0xFFFFFFFF << 32])
def test_socket_families_out_of_reach(programs, family, high):
    program = programs(*profiles.DEFAULT_CAPABILITIES)
    assert ask(program, "socket", family | high) == EPERM
    assert ask(program, "socket", family | high, arch=COMPAT) == EPERM


def test_socket_families_that_programs_use(programs):
    program = programs()
    for family in (1, 2, 10, 16):
        assert ask(program, "socket", family) == seccomp.ALLOW
        # The kernel looks at 32 bits, and so do we: this is a plain internet socket.
        assert ask(program, "socket", family | HIGH) == seccomp.ALLOW
    assert ask(program, "socket", 17) == EPERM
    assert ask(programs("CAP_NET_RAW"), "socket", 17) == seccomp.ALLOW
    assert ask(program, "socketpair", 1) == seccomp.ALLOW
    assert ask(program, "socketpair", 30) == EPERM


def test_socketcall_makes_no_socket_in_64_bit_images(programs):
    program = programs(*profiles.DEFAULT_CAPABILITIES)
    assert ask(program, "socketcall", 1, arch=COMPAT) == EPERM
    assert ask(program, "socketcall", 8, arch=COMPAT) == EPERM
    assert ask(program, "socketcall", 3, arch=COMPAT) == seccomp.ALLOW
    assert ask(programs(architecture="386"), "socketcall", 1, arch=COMPAT) == seccomp.ALLOW


def test_personality(programs):
    program = programs()
    for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF, HIGH, HIGH | 8):
        assert ask(program, "personality", value) == seccomp.ALLOW
    for value in (0x40000, 0x40000 | HIGH, 0x400000, 0x0400000 | 8, 1):
        assert ask(program, "personality", value) == EPERM


def test_clone_makes_no_namespaces(programs):
    program = programs(*profiles.DEFAULT_CAPABILITIES)
    assert ask(program, "clone", 17) == seccomp.ALLOW
    assert ask(program, "clone", 0x3D0F00) == seccomp.ALLOW  # a thread of glibc
    for flag in (NEWUSER, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x20000000, 0x40000000):
        for high in (0, HIGH):
            assert ask(program, "clone", flag | 17 | high) == EPERM
            assert ask(program, "clone", flag | 17 | high, arch=COMPAT) == EPERM
    assert ask(program, "clone3") == ENOSYS
    assert ask(program, "unshare", NEWUSER) == EPERM
    privileged = programs("CAP_SYS_ADMIN")
    for name in ("clone", "clone3", "unshare", "mount", "setns"):
        assert ask(privileged, name, NEWUSER) == seccomp.ALLOW


@pytest.mark.parametrize("name", NEVER)
def test_never(programs, name):
    everything = programs("CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_SYS_MODULE")
    for arch, table in ((NATIVE, X86_64), (COMPAT, I386)):
        if name in table:
            assert ask(everything, name, arch=arch) in {EPERM, ENOSYS}


def test_numbers_from_outside_of_the_table(programs):
    program = programs()
    for number in (999, 512, 547, 0x40000000, 0x40000000 | 2, 0x40000000 | 545, 0xFFFFFFFF):
        assert ask(program, number) == ENOSYS
    assert ask(program, 999, arch=COMPAT) == ENOSYS
    assert ask(program, 0, arch=COMPAT) == seccomp.ALLOW  # restart_syscall, through int 0x80
    assert run_classic(program, seccomp_data(0, 0xC00000B7))[0] == seccomp.KILL_PROCESS


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_CHROOT", "chroot"),
        ("CAP_SYS_MODULE", "init_module"),
        ("CAP_SYS_PACCT", "acct"),
        ("CAP_SYS_PTRACE", "kcmp"),
        ("CAP_SYS_RAWIO", "iopl"),
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_SYS_TTY_CONFIG", "vhangup"),
        ("CAP_SYS_NICE", "mbind"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_BPF", "bpf"),
        ("CAP_PERFMON", "perf_event_open"),
    ],
)
def test_capabilities_unlock(programs, capability, name):
    assert ask(programs(), name) == EPERM
    assert ask(programs(capability), name) == seccomp.ALLOW


def test_what_programs_need_most_is_quick(programs):
    program = programs(*profiles.DEFAULT_CAPABILITIES)
    names = "read write openat close futex mmap epoll_wait execve recvmsg newfstatat ptrace".split()
    for name in names:
        result, steps = run_classic(program, seccomp_data(X86_64[name], NATIVE))
        assert result == seccomp.ALLOW
        assert steps <= 12
    for name in ("cachestat", "fchmodat2", "mseal", "statmount", "getxattrat", "arch_prctl"):
        assert ask(program, name) == seccomp.ALLOW


def test_other_architectures():
    for architecture in ("arm64", "arm"):
        document = profiles.seccomp_profile((), architecture)
        assert seccomp.compile(document, "aarch64").program
    with pytest.raises(ValueError, match="riscv64"):
        profiles.seccomp_profile((), "riscv64")


def test_paths_and_capabilities():
    assert len(profiles.DEFAULT_CAPABILITIES) == 14
    assert "CAP_SYS_ADMIN" not in profiles.DEFAULT_CAPABILITIES
    assert set(profiles.MASKED_PATHS) <= set(profiles.masked_paths())
    assert not set(profiles.masked_paths()) & set(profiles.READONLY_PATHS)
    assert {"/proc/kcore", "/sys/firmware", "/proc/keys"} <= set(profiles.masked_paths())
