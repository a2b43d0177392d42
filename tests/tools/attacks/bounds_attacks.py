"""Attacks on the bounds: time, memory, processes, output."""

from __future__ import annotations

from attack import Attack

ATTACKS = (
    Attack(
        "fork_bomb",
        "to fork without end",
        """
import os
def attack():
    for _ in range(3):
        if os.fork() == 0:
            os._exit(0)
    return "escaped"
""",
        control=True,
    ),
    Attack(
        "daemon",
        "to leave a grandchild of its own session behind",
        """
import os, time
def attack():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(30)
        os._exit(0)
    return "escaped"
""",
    ),
    Attack(
        "vfork_and_clone",
        "to get a process by the bare system calls",
        """
import ctypes, os
def attack():
    c = ctypes.CDLL(None, use_errno=True)
    me = os.getpid()
    for call in ((57,), (58,), (56, 17, 0, 0, 0, 0), (435, 0, 88)):
        if c.syscall(*call) >= 0:
            if os.getpid() != me:
                os._exit(0)
            return "escaped"
""",
    ),
    Attack(
        "subprocess",
        "to run a shell",
        """
import subprocess
def attack():
    return "escaped" if subprocess.run(["/bin/sh", "-c", "echo hello"], capture_output=True).stdout else None
""",
        control=True,
    ),
    Attack(
        "multiprocessing",
        "to compute in other processes",
        """
import multiprocessing
def attack():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(abs, [1, 2])
    return "escaped"
""",
    ),
    Attack(
        "zombies",
        "to fill the table of processes with dead ones",
        """
import os
def attack():
    made = 0
    for _ in range(10):
        try:
            pid = os.posix_spawn("/bin/true", ["true"], {})
            made += 1
        except OSError:
            pass
    return "escaped" if made else None
""",
        control=True,
    ),
    Attack(
        "ten_gigabytes",
        "to allocate 10 GB at once",
        """
def attack():
    return "escaped" if bytearray(10**10) else None
""",
    ),
    Attack(
        "growing",
        "to allocate more and more",
        """
def attack():
    kept = []
    while len(kept) < 1000:
        try:
            kept.append(b"x" * 2**20)
        except MemoryError:
            return len(kept)
    return "escaped"
""",
        control=True,
    ),
    Attack(
        "shared_mappings",
        "to allocate shared memory, which belongs to no process",
        """
import mmap
def attack():
    kept = [mmap.mmap(-1, 2**26) for _ in range(20)]
    return "escaped"
""",
        control=True,
    ),
    Attack(
        "memory_file",
        "to fill a file that lies in memory",
        """
import os
def attack():
    file = os.memfd_create("x")
    os.write(file, b"x" * 10**6)
    return "escaped"
""",
        control=True,
    ),
    Attack(
        "memory_lock",
        "to lock memory",
        """
import ctypes
def attack():
    return "escaped" if ctypes.CDLL(None).mlockall(3) == 0 else None
""",
    ),
    Attack(
        "thread_bomb",
        "to start threads until the kernel has no more",
        """
import threading
def attack():
    threading.stack_size(32768)
    end = threading.Event()
    try:
        for _ in range(300):
            threading.Thread(target=end.wait, daemon=True).start()
    finally:
        end.set()
    return "escaped"
""",
        control=True,
    ),
    Attack(
        "many_threads_of_work",
        "to use several processors' time in threads that hold no lock",
        """
import hashlib, threading
def work():
    while True:
        hashlib.sha256(b"x" * 10**7)
def attack():
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
""",
    ),
    Attack("endless_loop", "to compute for ever", "def attack():\n    while True:\n        pass"),
    Attack("endless_loop_at_load", "to compute for ever before it has a function", "while True:\n    pass"),
    Attack("endless_sleep", "to wait for ever", "import time\ndef attack():\n    time.sleep(10**6)"),
    Attack(
        "endless_power",
        "to compute for ever inside of one instruction",
        "def attack():\n    return 3 ** 10**10 % 7",
    ),
    Attack(
        "deaf",
        "to ignore every signal that could end it",
        """
import signal
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
def attack():
    while True:
        pass
""",
    ),
    Attack(
        "greedy_thread",
        "to keep the interpreter's lock from the thread that answers",
        """
import sys, threading
sys.setswitchinterval(10**6)
def spin():
    while True:
        pass
threading.Thread(target=spin).start()
def attack():
    return None
""",
    ),
    Attack(
        "answers_then_hangs",
        "to answer and then stay",
        """
import threading, time
def attack():
    threading.Thread(target=time.sleep, args=(10**6,)).start()
    return None
""",
    ),
    Attack(
        "hangs_at_exit",
        "to stay when it is told to go",
        """
import atexit, time
atexit.register(time.sleep, 10**6)
def attack():
    raise SystemExit
""",
    ),
    Attack("prints_without_end", "to print for ever", "def attack():\n    while True:\n        print('x' * 10**6)"),
    Attack("prints_at_load", "to print much", "print('x' * 10**8)\ndef attack():\n    return None"),
    Attack("large_result", "to answer with 100 MB", "def attack():\n    return 'x' * 10**8"),
    Attack(
        "large_results_of_parts",
        "to answer with what is small inside and large outside",
        "def attack():\n    part = ['x' * 1000] * 1000\n    return [part] * 1000",
    ),
    Attack(
        "floods_descriptors",
        "to write to every descriptor without end",
        """
import os
def attack():
    while True:
        for descriptor in range(64):
            try:
                os.write(descriptor, b"x" * 65536)
            except OSError:
                pass
""",
    ),
    Attack(
        "floods_stderr",
        "to fill what it complains to",
        """
import os, sys
def attack():
    for _ in range(2000):
        os.write(2, b"x" * 65536)
        sys.stderr.write("x" * 65536)
""",
    ),
    Attack(
        "recursion",
        "to overflow the stack of the interpreter",
        "import sys\nsys.setrecursionlimit(10**9)\ndef attack():\n    return attack()",
    ),
    Attack(
        "nested_result",
        "to answer with what nests too deep to be read",
        """
def attack():
    value = []
    for _ in range(10**5):
        value = [value]
    return value
""",
    ),
    Attack(
        "endless_result", "to answer with what holds itself", "def attack():\n    x = []\n    x.append(x)\n    return x"
    ),
    Attack(
        "huge_integer",
        "to have an endless number written out",
        "import sys\nsys.set_int_max_str_digits(0)\ndef attack():\n    return str(7 ** 10**7)",
    ),
    Attack(
        "huge_integer_as_result",
        "to have a number read that takes long to read",
        "import sys\nsys.set_int_max_str_digits(0)\ndef attack():\n    return 7 ** 10**5",
    ),
    Attack(
        "regular_expression",
        "to match with backtracking without end",
        "import re\ndef attack():\n    return bool(re.match('(a+)+$', 'a' * 60 + 'b'))",
    ),
    Attack("deep_source", "to crash the parser", "x = " + "(" * 10000),
    Attack("wide_source", "to hold up the compiler", "x = " + "-" * 30000 + "1"),
    Attack(
        "compiles_itself",
        "to compile more and more",
        "def attack():\n    text = 'x = 1'\n    while True:\n        text = f'exec({text!r})'\n        exec(text)",
    ),
    Attack(
        "constant_folding",
        "to have the compiler compute",
        "def attack():\n    return compile('+'.join(['(1 << 10**4) * 3'] * 5000), 'x', 'eval') and 9 ** 9 ** 9",
    ),
    Attack(
        "decompression",
        "to unpack a bomb",
        """
import zlib
def attack():
    packed = zlib.compress(b"x" * 10**8)
    return "escaped" if len(zlib.decompress(packed) * 8) else None
""",
    ),
    Attack(
        "raises_limits",
        "to lift its limits",
        """
import resource
def attack():
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):
        try:
            resource.setrlimit(kind, (10**6, 10**12))
        except (ValueError, OSError):
            continue
        return "escaped"
""",
        control=True,
    ),
    Attack(
        "limits_of_pid_1",
        "to lower the limits of the process that the next program comes from",
        """
import os, resource
def attack():
    for pid in (1, os.getppid()):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0))
    return "escaped"
""",
    ),
    Attack(
        "descriptors",
        "to open files without end",
        """
import os
def attack():
    for _ in range(200):
        os.open("/", os.O_RDONLY)
    return "escaped"
""",
        control=True,
    ),
)
