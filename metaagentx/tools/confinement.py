"""Inside a sandbox: how a process gives up what it could do, for good, before it reads a hostile byte."""

from __future__ import annotations

import base64
import ctypes
import os
import resource
import signal
from typing import TypedDict

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _PR_SET_THP_DISABLE = 1, 4, 22, 38, 41
_SECCOMP_MODE_FILTER = 2
_C = ctypes.CDLL(None, use_errno=True)


class Bounds(TypedDict):
    """What a process inside is told of itself: JSON, its one argument."""

    memory: int  # bytes of address space
    seconds: int  # of processor time
    threads: int  # of a program; 0: as many as it can start
    identity: int  # user and group to become; 0: none
    filter: str  # of system calls, base64 of `seccomp.filter_program`; "": none
    packages: list[str]  # to import before programs come


class _Filter(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def settle(bounds: Bounds) -> None:
    """As our own process, once: another user, no debugger, dead with its parent, deaf to signals from inside."""
    if bounds["identity"]:
        os.setgroups([])
        os.setresgid(*[bounds["identity"]] * 3)
        os.setresuid(*[bounds["identity"]] * 3)
    _control(_PR_SET_PDEATHSIG, signal.SIGKILL)  # which a change of user has cleared
    _control(_PR_SET_DUMPABLE, 0)
    _control(_PR_SET_THP_DISABLE, 1)  # of a huge page that is unmapped but for 4 kB, all the memory may stay
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which pid 1 of a namespace ignores, as it does every other
    os.environ.clear()


def confine(bounds: Bounds) -> None:
    """As a program, before it is read: bounds that cannot be lifted, and the filter of system calls."""
    limits = {
        resource.RLIMIT_AS: bounds["memory"],
        resource.RLIMIT_CPU: bounds["seconds"],
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 32,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_SIGPENDING: 64,
    }
    if bounds["threads"]:
        limits[resource.RLIMIT_NPROC] = bounds["threads"] + 1  # pid 1 counts
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (bound, bound))
    if bounds["filter"]:
        program = base64.b64decode(bounds["filter"])
        _control(_PR_SET_NO_NEW_PRIVS, 1)
        _control(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_Filter(len(program) // 8, program)))


def _control(*arguments: object) -> None:
    """prctl. Raises OSError if it fails."""
    padded = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in (*arguments, 0, 0, 0, 0)[:5]]
    if _C.prctl(*padded) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {arguments[0]} failed")
