"""What a hostile program may ask of the kernel: a list of system calls, as a filter in classic BPF.

What is not on the list is refused with EPERM, whatever a later kernel adds: processes, sockets, pipes, memory files,
shared memory, namespaces, mounts, keys, queues, tracing, signals to others, writing to the file system but by `open`.
`clone3` gets ENOSYS, which makes the C library fall back to `clone`, where threads can be told from processes. A call
of another architecture kills the process.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Mapping

# Numbers on (x86_64, aarch64); None: there is no such call.
ALLOWED: Mapping[str, tuple[int, int | None]] = {
    "read": (0, 63),
    "readv": (19, 65),
    "pread64": (17, 67),
    "write": (1, 64),
    "writev": (20, 66),
    "close": (3, 57),
    "close_range": (436, 436),
    "lseek": (8, 62),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "stat": (4, None),
    "lstat": (6, None),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "open": (2, None),
    "openat": (257, 56),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "alarm": (37, None),
    "getitimer": (36, 102),
    "setitimer": (38, 103),
    "getrusage": (98, 165),
    "getrandom": (318, 278),
    "uname": (63, 160),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "pause": (34, None),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136),
    "rt_sigsuspend": (130, 133),
    "rt_sigtimedwait": (128, 137),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "tgkill": (234, 131),  # abort() and raise(); beside the program there is pid 1 alone, which no signal reaches
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getgroups": (115, 158),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
# Numbers as above, the argument that decides, and its values that are allowed.
DECIDED: Mapping[str, tuple[int, int, int, tuple[int, ...]]] = {
    "prlimit64": (302, 261, 0, (0,)),  # the limits of oneself, not those of pid 1
    "fcntl": (72, 25, 1, (0, 1, 2, 3, 4, 1030)),  # duplicates and flags: no locks or leases on the host's files
}
# Numbers as above, the argument that decides, and a bit that it must not have.
WITHOUT: Mapping[str, tuple[int, int, int, int]] = {
    "mmap": (9, 222, 3, 1),  # MAP_SHARED: of a mapping that is unmapped but for one page, all the memory stays
}
CLONE, CLONE3 = (56, 220), 435
_CLONE_THREAD = 0x00010000
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; arguments have 8 bytes each
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_PERMIT = (_RETURN, 0, 0, _ALLOW)
_REFUSE = (_RETURN, 0, 0, _ERROR | errno.EPERM)


def filter_program(machine: str = platform.machine()) -> bytes | None:
    """The filter for this machine's architecture, or None where its call numbers are not known here."""
    if machine not in _ARCHITECTURES:
        return None
    column, architecture = _ARCHITECTURES[machine]
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for numbers in ALLOWED.values():
        number = numbers[column]
        if number is not None:
            program += [(_EQUAL, 0, 1, number), _PERMIT]
    for *both, argument, values in DECIDED.values():
        program += [(_EQUAL, 0, 2 + 2 * len(values), both[column]), (_LOAD, 0, 0, _ARGUMENTS + 8 * argument)]
        for value in values:
            program += [(_EQUAL, 0, 1, value), _PERMIT]
        program += [_REFUSE]
    for *both, argument, bit in WITHOUT.values():
        program += [(_EQUAL, 0, 4, both[column]), (_LOAD, 0, 0, _ARGUMENTS + 8 * argument)]
        program += [(_ANY_BIT, 0, 1, bit), _REFUSE, _PERMIT]
    program += [
        (_EQUAL, 0, 1, CLONE3),
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
        (_EQUAL, 0, 3, CLONE[column]),
        (_LOAD, 0, 0, _ARGUMENTS),
        (_ANY_BIT, 0, 1, _CLONE_THREAD),
        _PERMIT,
        _REFUSE,
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
