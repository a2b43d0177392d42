"""Attacks by races, by waiting and by what the kernel counts late: against the killer, the reader and the neighbour."""

from __future__ import annotations

from attack import Attack

_KERNEL = """
import ctypes, os
c = ctypes.CDLL(None, use_errno=True)
c.mmap.restype = ctypes.c_void_p
c.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
c.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
c.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
"""

ATTACKS = (
    Attack(
        "torn_huge_pages",
        "to hold huge pages of which 4 kB each are mapped and counted",
        _KERNEL
        + """
import resource
def attack():
    huge, count = 2**21, 40
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    place = c.mmap(None, (count + 1) * huge, 3, 0x22, -1, 0)
    first = (place + huge - 1) // huge * huge
    c.madvise(first, count * huge, 14)  # MADV_HUGEPAGE
    for number in range(count):
        ctypes.memset(first + number * huge, 1, 1)
        c.madvise(first + number * huge, huge, 25)  # MADV_COLLAPSE
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return "escaped" if held > count * 1024 else None
""",
    ),
    Attack(
        "scattered_mappings",
        "to have the kernel keep a table for every page of its memory",
        _KERNEL
        + """
def attack():
    for number in range(1, 66000):
        if c.mmap(number * 2**30, 4096, 3, 0x22, -1, 0) == 2**64 - 1:
            return None
    return "escaped"
""",
    ),
    Attack(
        "threads_that_are_more",
        "to start threads that lie in other namespaces, or are processes in disguise",
        _KERNEL
        + """
import platform
def attack():
    if platform.machine() != "x86_64":
        return None
    thread = 0x10000 | 0x800 | 0x100  # THREAD, SIGHAND, VM
    for flag in (0x10000000, 0x20000000, 0x40000000, 0x20000, 0x8000000, 0x4000000, 0x2000000):
        if c.syscall(56, thread | flag, 0, 0, 0, 0) == 0:
            c.syscall(60, 0)
    for flags in (0x4111, 0x1011, 0x8011, 0x100, 0x800, 0x2011, 0x200000011):
        if c.syscall(56, flags, 0, 0, 0, 0) >= 0:
            return "escaped"
""",
    ),
    Attack(
        "stops_itself",
        "to stop so that nothing it is sent arrives",
        """
import os, signal, threading
def attack():
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
""",
    ),
    Attack(
        "threads_that_hold_memory",
        "to be slow to kill: many threads, all its memory, every descriptor",
        """
import os, threading, time
def attack():
    threading.stack_size(32768)
    kept = []
    try:
        while True:
            threading.Thread(target=time.sleep, args=(10**6,), daemon=True).start()
    except RuntimeError:
        pass
    try:
        while True:
            kept.append(b"x" * 2**20)
    except MemoryError:
        pass
    try:
        while True:
            os.open("/", os.O_RDONLY)
    except OSError:
        pass
    os.write(3, b"null")
""",
    ),
    Attack(
        "writes_a_byte_at_a_time",
        "to keep the reader awake with many small pieces, from many threads, up to the deadline",
        """
import os, threading
def write():
    while True:
        os.write(3, b" ")
def attack():
    for _ in range(8):
        threading.Thread(target=write, daemon=True).start()
    write()
""",
    ),
    Attack(
        "trickles",
        "to hang the reader in a line that never ends",
        """
import os, time
def attack():
    os.write(3, b'{"ok": [')
    while True:
        os.write(3, b"1,")
        time.sleep(0.05)
""",
    ),
    Attack(
        "last_answer_and_a_flood",
        "to write on while it is killed for having answered",
        """
import os, threading
def write():
    while True:
        os.write(3, b'{"ok": 918}\\n' * 1000)
def attack():
    for _ in range(8):
        threading.Thread(target=write, daemon=True).start()
    os.write(3, b'{"ok": 0}\\n{"ok": 0}\\n{"ok": 0}\\n"ready"\\n')
    while True:
        pass
""",
    ),
    Attack(
        "shuts_the_connection",
        "to end the connection and live on",
        """
import os, time
def attack():
    os.close(3)
    time.sleep(10**6)
""",
    ),
    Attack(
        "reads_what_is_sent_next",
        "to wait on its connection for another program's questions",
        """
import os, select, threading
def attack():
    for descriptor in range(32):
        try:
            if select.select([descriptor], [], [], 0)[0] and os.read(descriptor, 65536):
                return "escaped"
        except OSError:
            pass
""",
    ),
    Attack(
        "interrupts_itself",
        "to be woken by timers and signals in whatever its caller does",
        """
import signal
def again(*_):
    raise KeyboardInterrupt
for number in (signal.SIGALRM, signal.SIGINT, signal.SIGPROF, signal.SIGVTALRM):
    signal.signal(number, again)
def attack():
    signal.setitimer(signal.ITIMER_PROF, 1e-4, 1e-4)
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
""",
    ),
    Attack(
        "spoils_what_is_shared",
        "to change the pages that it has in common with the next program",
        """
import ctypes
def attack():
    ctypes.memset(id(200) + 24, 201, 1)  # 200 is 201
    proxy = str.__dict__
    ctypes.py_object.from_address(id(proxy) + 16).value["kept_by_an_attack"] = 1
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(str))
    return int("200") == 0xC9 and "".kept_by_an_attack == 1
""",
    ),
    Attack(
        "reads_its_start",
        "to find in its memory how it was started, and by whom",
        """
import ctypes, sys
def attack():
    count, words = ctypes.c_int(), ctypes.POINTER(ctypes.c_wchar_p)()
    ctypes.pythonapi.Py_GetArgcArgv(ctypes.byref(count), ctypes.byref(words))
    start = " ".join([*sys.argv, *sys.orig_argv, *[words[n] or "" for n in range(count.value)]])
    secrets = [HOST_FOLDER, REPOSITORY, HOST_FILE, "HOST_SECRET"]
    return "escaped" if any(secret in start for secret in secrets) else None
""",
    ),
    Attack(
        "forgets_files",
        "to drop the pages of the interpreter's files, which all processes have in common",
        """
import os
def attack():
    os.posix_fadvise(os.open(os.__file__, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
    return "escaped"
""",
        control=True,
    ),
)
