"""Attacks on what belongs to the host: files, environment, other processes."""

from __future__ import annotations

from attack import Attack

ATTACKS = (
    Attack(
        "environment",
        "to read the environment",
        """
import os
def attack():
    return os.environ.get("HOST_SECRET") or [list(map(str, item)) for item in os.environ.items()]
""",
        control=True,
    ),
    Attack(
        "environment_in_memory",
        "to read the environment as the C library has it",
        """
import ctypes
def attack():
    ctypes.CDLL(None).getenv.restype = ctypes.c_char_p
    c = ctypes.CDLL(None)
    c.getenv.restype = ctypes.c_char_p
    return c.getenv(b"HOST_SECRET").decode()
""",
        control=True,
    ),
    Attack(
        "environment_in_proc",
        "to read its own environment, the launcher's and pid 1's in /proc",
        """
def attack():
    found = []
    for process in ("self", "1", HOST_PID):
        try:
            found.append(open(f"/proc/{process}/environ").read())
        except OSError:
            pass
    return found
""",
        control=True,
    ),
    Attack(
        "pid_1_in_proc",
        "to read pid 1: memory, files, command line",
        """
def attack():
    for name in ("mem", "maps", "cmdline", "fd/0", "root/etc/passwd", "status", "ns/pid"):
        try:
            open(f"/proc/1/{name}", "rb").read(1)
        except OSError:
            continue
        return "escaped"
""",
        control=True,
    ),
    Attack(
        "grader_s_file",
        "to read the file with the expected results",
        "def attack():\n    return open(HOST_FILE).read()",
        control=True,
    ),
    Attack(
        "grader_s_file_round_about",
        "to read it by other paths",
        """
import os
def attack():
    found = []
    for start in ("/proc/self/root", "/proc/self/cwd/../../..", "/proc/1/root", "/oldroot", "/newroot", "../../.."):
        try:
            found.append(open(start + HOST_FILE).read())
        except OSError:
            pass
    return found
""",
        control=True,
    ),
    Attack(
        "repository",
        "to read the grader's source and import it",
        """
import sys
sys.path.insert(0, REPOSITORY)
def attack():
    import metaagentx.tasks.grading
    return "escaped"
""",
    ),
    Attack(
        "repository_file",
        "to read the repository",
        "def attack():\n    return 'escaped' if open(REPOSITORY + '/README.md').read() else None",
        control=True,
    ),
    Attack(
        "test_module",
        "to import the test that watches it",
        """
import sys
sys.path.insert(0, REPOSITORY)
def attack():
    import tests.tools.attacks.test_attacks
    return "escaped"
""",
    ),
    Attack(
        "passwords",
        "to read /etc/passwd and /etc/shadow",
        """
def attack():
    for path in ("/etc/passwd", "/etc/shadow", "/etc/hosts", "/etc/hostname"):
        try:
            open(path).read(1)
        except OSError:
            continue
        return "escaped"
""",
        control=True,
    ),
    Attack(
        "other_users",
        "to look into homes",
        """
import os
def attack():
    for folder in ("/home", "/root", "/var", "/srv", "/opt", "/work", "/mnt", "/run", "/sys", "/boot"):
        try:
            names = set(os.listdir(folder)) - {".pyenv"}
        except OSError:
            continue
        if names:
            return "escaped"
""",
        control=True,
    ),
    Attack(
        "everything",
        "to find a secret in any file that it can see",
        """
import os
def attack():
    for folder, _, names in os.walk("/"):
        if "python3" in folder:
            continue
        for name in names:
            try:
                text = open(os.path.join(folder, name), errors="replace").read(10**5)
            except OSError:
                continue
            if "expected " + "results" in text:
                return "escaped"
""",
    ),
    Attack(
        "writes_outside",
        "to write a file of the host",
        """
def attack():
    open(HOST_FOLDER + "/written", "w").write("x")
    return "escaped"
""",
        control=True,
    ),
    Attack(
        "leaves_files",
        "to leave something for the next program",
        """
import os
def attack():
    for folder in ("/tmp", "/dev/shm", "/var/tmp", "/", "/dev", "/sandbox", "/run", os.path.dirname(os.__file__),
                   os.path.dirname(os.__file__) + "/site-packages", "/sandbox/packages", os.path.expanduser("~"), "."):
        try:
            os.mkdir(folder + "/left-by-an-attack")
            os.rmdir(folder + "/left-by-an-attack")
        except OSError:
            continue
        return "escaped"
""",
        control=True,
    ),
    Attack(
        "empty_files",
        "to leave files without content, which no bound on their size forbids",
        """
import os
def attack():
    for folder in ("/tmp", "/dev/shm", "/", "/dev", "/sandbox", os.path.dirname(os.__file__) + "/site-packages"):
        try:
            os.close(os.open(folder + "/left-by-an-attack", os.O_CREAT | os.O_WRONLY))
            os.unlink(folder + "/left-by-an-attack")
        except OSError:
            continue
        return "escaped"
""",
        control=True,
    ),
    Attack(
        "nameless_files",
        "to write where no name is needed",
        """
import os
def attack():
    for folder in ("/tmp", "/dev/shm", "/", "/dev", "/sandbox"):
        try:
            os.open(folder, os.O_TMPFILE | os.O_RDWR)
        except OSError:
            continue
        return "escaped"
""",
        control=True,
    ),
    Attack(
        "symbolic_link",
        "to reach a file by a link",
        """
import os
def attack():
    os.symlink(HOST_FILE, HOST_FOLDER + "/link")
    return "escaped"
""",
        control=True,
    ),
    Attack(
        "hard_link",
        "to reach a file by a hard link",
        """
import os
def attack():
    for folder in (HOST_FOLDER, "/tmp", "/", "/sandbox"):
        try:
            os.link(os.__file__ if folder != HOST_FOLDER else HOST_FILE, folder + "/hard")
        except OSError:
            continue
        return "escaped"
""",
        control=True,
    ),
    Attack(
        "named_pipe",
        "to leave a pipe",
        "import os\ndef attack():\n    os.mkfifo(HOST_FOLDER + '/pipe')\n    return 'escaped'",
        control=True,
    ),
    Attack(
        "overwrites_the_library",
        "to change what the next program imports",
        """
import os, json.decoder
def attack():
    for path in (os.__file__, json.decoder.__file__, json.decoder.__cached__, "/sandbox/metaagentx/tools/spelling.py"):
        try:
            os.close(os.open(path, os.O_WRONLY))
        except OSError:
            continue
        return "escaped"
""",
    ),
    Attack(
        "permissions",
        "to change rights and owners",
        """
import os
def attack():
    for change in (lambda: os.chmod(os.__file__, 0o777), lambda: os.chown(os.__file__, 0, 0),
                   lambda: os.utime(os.__file__), lambda: os.rename(os.__file__, os.__file__ + "x"),
                   lambda: os.setxattr(os.__file__, "user.x", b"x"), lambda: os.truncate(os.__file__, 0)):
        try:
            change()
        except OSError:
            continue
        return "escaped"
""",
    ),
    Attack(
        "devices",
        "to read disks and memory",
        """
import os
def attack():
    for path in ("/dev/mem", "/dev/kmsg", "/dev/vda", "/dev/sda", "/dev/kvm", "/dev/tty", "/dev/ptmx", "/dev/fuse"):
        try:
            os.open(path, os.O_RDONLY)
        except OSError:
            continue
        return "escaped"
""",
        control=True,
    ),
    Attack(
        "makes_a_device",
        "to make the disk anew",
        """
import os, stat
def attack():
    for folder in (HOST_FOLDER, "/tmp", "/dev"):
        try:
            os.mknod(folder + "/disk", stat.S_IFBLK | 0o600, os.makedev(254, 0))
        except OSError:
            continue
        return "escaped"
""",
    ),
    Attack(
        "locks_files",
        "to hold up the host by a lease or a lock on a file that both see",
        """
import fcntl, os
def attack():
    file = os.open(os.__file__, os.O_RDONLY)
    for take in (lambda: fcntl.fcntl(file, 1024, fcntl.F_RDLCK), lambda: fcntl.flock(file, fcntl.LOCK_SH),
                 lambda: fcntl.lockf(file, fcntl.LOCK_SH)):
        try:
            take()
        except OSError:
            continue
        return "escaped"
""",
        control=True,
    ),
    Attack(
        "watches_files",
        "to see what the host does with files that both see",
        """
import ctypes
def attack():
    c = ctypes.CDLL(None)
    return "escaped" if c.inotify_init1(0) >= 0 or c.fanotify_init(0, 0) >= 0 else None
""",
        control=True,
    ),
    Attack(
        "host_name",
        "to learn where it is",
        """
import os
def attack():
    return "escaped" if os.uname().nodename != "sandbox" else None
""",
        control=True,
    ),
)
