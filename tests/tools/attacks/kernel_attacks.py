"""Attacks through the kernel: network, signals, tracing, namespaces, stores that outlive a process."""

from __future__ import annotations

from attack import Attack


def _calls(name: str, tries: str, *calls: str) -> Attack:
    """Bare system calls, each of which would be an escape if it did not fail. Numbers of x86_64."""
    listed = ", ".join(f"({call},)" for call in calls)
    text = f"""
import ctypes, os, platform
def attack():
    if platform.machine() != "x86_64":
        return None
    c = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(4096)
    for call in ({listed},):
        if c.syscall(*call) >= 0:
            return "escaped"
"""
    return Attack(name, tries, text)


ATTACKS = (
    Attack(
        "connects",
        "to reach a server on the host",
        """
import socket
def attack():
    socket.create_connection(("127.0.0.1", HOST_PORT), 1).send(b"x")
    return "escaped"
""",
        control=True,
    ),
    Attack(
        "listens",
        "to offer a server",
        """
import socket
def attack():
    socket.create_server(("127.0.0.1", 0))
    return "escaped"
""",
        control=True,
    ),
    Attack(
        "asks_for_names",
        "to send what it knows in questions for names",
        """
import socket
def attack():
    socket.getaddrinfo("example.com", 80)
    socket.gethostbyname("example.com")
    return "escaped"
""",
    ),
    Attack(
        "sends_datagrams",
        "to send without a connection",
        """
import socket
def attack():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", HOST_PORT))
    return "escaped"
""",
        control=True,
    ),
    Attack(
        "other_sockets",
        "to talk by other families: UNIX, VSOCK, NETLINK, PACKET, ALG, raw",
        """
import socket
def attack():
    for family, kind in ((1, 1), (40, 1), (16, 3), (17, 3), (38, 5), (2, 3), (10, 1), (31, 3)):
        try:
            socket.socket(family, kind)
        except OSError:
            continue
        return "escaped"
""",
        control=True,
    ),
    Attack(
        "socket_pair",
        "to make a pair of sockets",
        "import socket\ndef attack():\n    socket.socketpair()\n    return 'escaped'",
        control=True,
    ),
    Attack(
        "pipes",
        "to keep memory in pipes",
        "import os\ndef attack():\n    os.pipe()\n    return 'escaped'",
        control=True,
    ),
    Attack(
        "passes_descriptors",
        "to send a descriptor out over its connection",
        """
import array, ctypes, os
def attack():
    c = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(256)
    for number in (46, 44, 47, 45, 48, 307):  # sendmsg, sendto, recvmsg, recvfrom, shutdown, sendmmsg
        for descriptor in range(8):
            if c.syscall(number, descriptor, buffer, 1, 0, 0, 0) >= 0:
                return "escaped"
""",
    ),
    Attack(
        "kills_its_parent",
        "to kill what started it",
        """
import ctypes, os, signal
def attack():
    reached = False
    for pid in (os.getppid(), 1, -1, 0, HOST_PID):
        for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGINT, signal.SIGSEGV, signal.SIGTERM):
            try:
                os.kill(pid, number)
                reached = True
            except OSError:
                pass
    return "escaped" if reached else None
""",
    ),
    Attack(
        "signals_by_other_ways",
        "to kill pid 1 by calls that ask for a thread or a descriptor",
        """
import ctypes, signal
def attack():
    c = ctypes.CDLL(None)
    for number in (9, 19, 2, 11, 15, 17, 10):
        c.syscall(234, 1, 1, number)  # tgkill
        c.syscall(200, 1, number)  # tkill
        c.sigqueue(1, number, None)
        c.syscall(424, c.syscall(434, 1, 0), number, None, 0)  # pidfd_send_signal
""",
    ),
    Attack(
        "slows_pid_1",
        "to make the next program slow",
        """
import os
def attack():
    changes = (lambda: os.setpriority(os.PRIO_PROCESS, 1, 19), lambda: os.sched_setaffinity(1, [0]),
               lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)), lambda: os.nice(5))
    for change in changes:
        try:
            change()
        except OSError:
            continue
        return "escaped"
""",
    ),
    Attack(
        "traces",
        "to trace pid 1 and the grader",
        """
import ctypes, os
def attack():
    c = ctypes.CDLL(None)
    for request in (16, 0x4206):  # ATTACH, SEIZE
        for pid in (1, os.getppid(), HOST_PID):
            if c.ptrace(request, pid, 0, 0) == 0:
                return "escaped"
""",
    ),
    _calls("is_traced", "to be traced, or to run what traces", "101, 0, 0, 0, 0"),
    Attack(
        "reads_memory",
        "to read the memory of pid 1 and of the grader",
        """
import ctypes, os
def attack():
    c = ctypes.CDLL(None)
    buffer = ctypes.create_string_buffer(8)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    for number in (310, 311):
        for pid in (1, os.getppid(), HOST_PID, os.getpid()):
            if c.syscall(number, pid, vector, 1, vector, 1, 0) > 0:
                return "escaped"
""",
        control=True,
    ),
    _calls(
        "takes_descriptors",
        "to take a descriptor of another process",
        "434, 1, 0",
        "434, os.getpid(), 0",
        "438, 3, 0, 0",
    ),
    _calls("io_uring", "to have the kernel work for it", "425, 8, buffer", "206, 8, buffer", "426, 3, 1, 0, 0, 0, 0"),
    _calls("keys", "to leave keys", "248, b'user', b'x', b'x', 1, -3", "250, 0, -4, 1", "249, b'user', b'x', 0, -3"),
    _calls(
        "system_v",
        "to leave System V memory, queues, semaphores",
        "29, 0, 4096, 0o1666",
        "68, 0, 0o1666",
        "64, 0, 1, 0o1666",
    ),
    _calls("posix_queues", "to leave POSIX queues", "240, b'x', 0o102, 0o666, 0", "241, b'x'"),
    _calls(
        "namespaces",
        "to become root of a namespace",
        "272, 0x10000000",
        "272, 0x20000",
        "272, 0x40000000",
        "308, 3, 0",
        "56, 0x10000011, 0, 0, 0, 0",
        "435, buffer, 88",
    ),
    _calls(
        "mounts",
        "to mount",
        "165, b'none', b'/dev', b'tmpfs', 0, 0",
        "166, b'/', 2",
        "155, b'/', b'/'",
        "161, b'/'",
        "428, -100, b'/', 1",
        "429, 3, b'', -100, b'/', 4",
        "430, b'tmpfs', 0",
        "442, -100, b'/', 0, buffer, 32",
    ),
    _calls(
        "file_handles", "to open files by their numbers", "303, -100, b'/', buffer, buffer, 0", "304, -100, buffer, 0"
    ),
    _calls(
        "kernel_programs",
        "to load programs into the kernel",
        "321, 0, buffer, 64",
        "298, buffer, 0, -1, -1, 0",
        "323, 0",
        "175, buffer, 16, b''",
        "313, 0, b'', 0",
        "246, 0, 0, 0, 0",
    ),
    _calls(
        "machine",
        "to switch off or rename the machine",
        "169, 0xfee1dead, 672274793, 0",
        "170, b'x', 1",
        "171, b'x', 1",
        "167, b'/x', 0",
        "163, b'/x'",
        "227, 0, buffer",
        "159, buffer",
        "103, 3, buffer, 100",
    ),
    _calls("execve", "to run another program in its place", "59, b'/bin/sh', 0, 0", "322, -100, b'/bin/sh', 0, 0, 0"),
    _calls(
        "identity",
        "to become somebody else",
        "105, 0",
        "106, 0",
        "117, 0, 0, 0",
        "116, 0, 0",
        "126, buffer, buffer",
        "135, 0",
    ),
    _calls("session", "to leave its session and group", "112", "109, 0, 0"),
    _calls(
        "confinement",
        "to lift its own confinement",
        "157, 4, 1, 0, 0, 0",
        "157, 22, 2, buffer, 0, 0",
        "317, 1, 0, buffer",
        "157, 38, 0, 0, 0, 0",
        "444, buffer, 8, 0",
        "446, 3, 0",
        "158, 0x1002, buffer",
    ),
    _calls(
        "uncounted_memory",
        "to make memory that no bound counts",
        "319, b'x', 0",
        "447, 0",
        "284, 0, 0",
        "290, 0, 0",
        "291, 0",
        "283, 0, 0",
        "289, -1, buffer, 8, 0",
        "253",
        "276, 3, 4, 1, 0",
        "278, 3, buffer, 1, 0",
        "275, 3, 0, 4, 0, 1, 0",
    ),
    _calls("timers", "to set timers and see other processes' clocks", "222, 1, buffer, buffer", "305, 0, buffer"),
    _calls(
        "other_numbers",
        "to send by numbers that filters forget",
        "0x40000000 + 57",
        "0x40000000 + 41, 1, 1, 0",
        "0xffffffff",
        "1000",
    ),
    Attack(
        "other_architecture",
        "to call the kernel as a 32-bit program",
        """
import ctypes, mmap, platform
def attack():
    if platform.machine() != "x86_64":
        return None
    page = mmap.mmap(-1, 4096, prot=7)
    page.write(bytes.fromhex("53b802000000cd805bc3"))  # push rbx; mov eax, 2 (fork); int 0x80; pop rbx; ret
    code = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    return "escaped" if code() >= 0 else None
""",
    ),
    Attack(
        "closes_everything",
        "to close the descriptors of whoever answers",
        """
import os
os.closerange(0, 100)
def attack():
    return None
""",
    ),
    Attack(
        "replaces_descriptors",
        "to put something else in the place of its connection",
        """
import os
null = os.open("/dev/null", os.O_RDWR)
for descriptor in range(32):
    try:
        os.dup2(null, descriptor)
    except OSError:
        pass
def attack():
    return None
""",
    ),
    Attack(
        "blocking",
        "to change its connection's mode for others",
        """
import os
for descriptor in range(8):
    try:
        os.set_blocking(descriptor, False)
    except OSError:
        pass
def attack():
    return "x" * 10**6
""",
    ),
)
