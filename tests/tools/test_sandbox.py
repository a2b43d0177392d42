import contextlib
import os
import re
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from metaagentx.tools import jail
from metaagentx.tools.sandbox import Ending, Sandbox, SandboxError, SandboxOptions, SandboxUnavailable
from metaagentx.tools.seccomp import ALLOWED, CLONE, DECIDED, WITHOUT, filter_program
from metaagentx.tools.spelling import spell

QUICK = SandboxOptions(seconds=2.0, cpu_seconds=1, memory_mb=256, output_kb=64, workers=2)


@pytest.fixture(scope="module")
def sandbox():
    try:
        return Sandbox(QUICK)
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def run(sandbox, body, *, before=""):
    """What `f()` with this body gives."""
    return sandbox.run(f"{before}\ndef f():\n    {body}\n", [("f", [])])


def test_calls_are_answered_in_order_and_an_error_is_an_answer(sandbox):
    program = "def half(n):\n    return n / 2\ndef keys(d):\n    return tuple(d)\n"
    answers = sandbox.run(program, [("half", [5]), ("half", ["x"]), ("keys", [spell({(1, 2): 3})]), ("gone", [])])
    assert answers.ending == Ending.FINISHED
    assert answers.results[0] == {"ok": 2.5}
    assert answers.results[1]["error"].startswith("TypeError")
    assert answers.results[2] == {"ok": {"tuple": [{"tuple": [1, 2]}]}}
    assert answers.results[3]["error"].startswith("KeyError")
    assert answers.value(0) == (2.5,)
    assert answers.value(1) is answers.value(9) is None


def test_a_program_that_does_not_load_answers_nothing_but_why(sandbox):
    for program in ("def f(:", "raise SystemExit", "1 / 0", "\0", "x = " + "(" * 5000, "x" * 100_000):
        answers = sandbox.run(program, [("f", []), ("f", [])])
        assert answers.ending == Ending.DIED
        assert all("error" in result for result in answers.results)


def test_printing_is_harmless(sandbox):
    answers = run(sandbox, "print('{\"ok\": 5}'); os.write(1, b'noise'); return 1", before="import os\nprint('hello')")
    assert answers.value(0) == (1,)


def test_the_environment_is_empty(sandbox, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    answers = run(sandbox, "return [sorted(os.environ), os.path.exists('/proc')]", before="import os")
    assert answers.value(0) == ([[], False],)


def test_no_file_of_the_host_can_be_seen_or_written(sandbox, tmp_path):
    (tmp_path / "answers").write_text("42")
    tries = [
        str(tmp_path / "answers"),
        "/etc/passwd",
        "/proc/self/environ",
        os.path.abspath(__file__),
        os.__file__[:-5],
    ]
    for path in tries:
        assert "error" in run(sandbox, f"return open({path!r}).read()").results[0]
    for path in ("/tmp/x", "/x", "/dev/x", "/sandbox/x", os.__file__):
        assert "error" in run(sandbox, f"open({path!r}, 'w').write('x')").results[0]


def test_packages_that_are_installed_cannot_be_imported(sandbox):
    assert run(sandbox, "import pytest").results[0]["error"].startswith("ModuleNotFoundError")
    assert run(sandbox, "import metaagentx.tasks").results[0]["error"].startswith("ModuleNotFoundError")


def test_there_is_no_network(sandbox):
    for family in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_VSOCK"):
        answers = run(sandbox, f"socket.socket(socket.{family})", before="import socket")
        assert answers.results[0]["error"].startswith("PermissionError")


def test_there_are_no_further_processes_but_threads(sandbox):
    assert run(sandbox, "os.fork()", before="import os").results[0]["error"].startswith("PermissionError")
    spawn = run(sandbox, "subprocess.run([sys.executable, '-V'])", before="import subprocess, sys")
    assert "error" in spawn.results[0]
    join = "t = threading.Thread(target=list.append, args=(found, 7)); t.start(); t.join(); return found"
    assert run(sandbox, join, before="import threading\nfound = []").value(0) == ([7],)


@pytest.mark.parametrize(
    ("body", "before", "ending"),
    [
        ("time.sleep(60)", "import time", Ending.TIMEOUT),
        ("signal.pause()", "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)", Ending.TIMEOUT),
        ("return 'x' * 10**6", "", Ending.OVERFLOW),
        ("os._exit(0)", "import os", Ending.DIED),
        ("signal.raise_signal(9)", "import signal", Ending.DIED),
    ],
)
def test_bounds_end_a_program_and_say_so(sandbox, body, before, ending):
    start = time.monotonic()
    answers = run(sandbox, body, before=before)
    assert answers.ending == ending
    assert answers.results == ()
    assert time.monotonic() - start < QUICK.seconds + 2


def test_an_endless_loop_ends_by_processor_time_or_on_a_busy_machine_by_wall_time(sandbox):
    answers = run(sandbox, "while True: pass")
    assert answers.ending in (Ending.DIED, Ending.TIMEOUT)
    assert answers.results == ()


def test_memory_is_bounded_wherever_it_is_asked_for(sandbox):
    assert run(sandbox, "return len(bytearray(10**10))").results[0]["error"].startswith("MemoryError")
    assert "error" in run(sandbox, "os.memfd_create('x')", before="import os").results[0]


def test_an_object_that_equals_everything_is_no_answer(sandbox):
    class_ = "class Yes(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__"
    for body in ("return Yes()", "return [Yes()]", "return {1: Yes()}"):
        assert run(sandbox, body, before=class_).results[0]["error"].startswith("TypeError")


def test_a_forged_result_is_one_more_guess(sandbox):
    forge = """
for fd in range(3, 30):
    try:
        os.write(fd, b'{"ok": "forged"}\\n' * 2 + b'{"grade": 1}\\n[' * 99)
    except OSError:
        pass
"""
    answers = sandbox.run("import os\n" + forge + "def f(): return 5", [("f", [])] * 3)
    assert answers.results == ({"ok": "forged"},) * 2  # compared like any other, and all that is read
    assert answers.ending == Ending.DIED


def test_programs_of_a_batch_run_side_by_side(sandbox):
    start = time.monotonic()
    futures = [sandbox.submit("import time\ndef f(): time.sleep(0.9)", [("f", [])]) for _ in range(2)]
    assert [future.result().value(0) for future in futures] == [(None,)] * 2
    assert time.monotonic() - start < 1.7


@pytest.fixture
def broken(tmp_path):
    """A bubblewrap that is not allowed to isolate."""
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    return str(fake)


def test_a_sandbox_that_breaks_down_is_no_verdict_on_the_program(sandbox, broken, monkeypatch):
    monkeypatch.setattr(sandbox, "_bubblewrap", broken)
    lose_workers(sandbox)
    with pytest.raises(SandboxError, match="No permissions"):
        sandbox.run("def f(): return 1", [("f", [])])


def lose_workers(sandbox):
    """As if somebody killed them all while they wait."""
    for worker in sandbox.workers():
        os.kill(worker.pid, signal.SIGKILL)
        worker._process.wait()


def test_a_worker_that_somebody_kills_is_replaced(sandbox):
    for _ in range(3):
        assert run(sandbox, "return 1").value(0) == (1,)
        lose_workers(sandbox)
    running = sandbox.submit("import time\ndef f(): time.sleep(1)\n", [("f", [])])
    assert run(sandbox, "return 2").value(0) == (2,)
    assert running.result().value(0) == (None,)


def test_where_nothing_isolates_there_is_an_error_with_three_ways_out(monkeypatch, broken):
    found = jail.bubblewraps
    monkeypatch.setattr(jail, "bubblewraps", lambda: [broken])
    with pytest.raises(SandboxUnavailable, match=r"No permissions.*Three ways out.*isolation='none'"):
        Sandbox(QUICK)
    monkeypatch.setattr(jail, "filter_program", lambda: None)
    monkeypatch.setattr(jail, "bubblewraps", found)
    with pytest.raises(SandboxUnavailable, match="no system call filter"):
        Sandbox(QUICK)
    monkeypatch.setattr(jail, "bubblewraps", list)
    with pytest.raises(SandboxUnavailable, match="no bubblewrap was found"):
        Sandbox(QUICK)


def test_bounds_in_which_nothing_can_run_are_told_with_their_reason(sandbox):
    with pytest.raises(SandboxUnavailable, match="MemoryError"):
        Sandbox(SandboxOptions(memory_mb=1))


def test_every_worker_is_another_user(sandbox):
    program = "import os, time\ndef f():\n    time.sleep(0.5)\n    return os.getuid()"
    users = [future.result().value(0) for future in [sandbox.submit(program, [("f", [])]) for _ in range(2)]]
    if os.geteuid() == 0:
        assert len({(0,), *users}) == 3
    else:
        assert users == [(os.geteuid(),)] * 2


def test_no_two_workers_are_the_same_user_even_where_there_are_few(monkeypatch):
    monkeypatch.setattr(jail.Path, "read_text", lambda path: "0 100000 65536\n")
    assert len({jail._spare_identity() for _ in range(1000)}) == 1000


def test_a_bubblewrap_that_lets_processes_through_is_not_taken(monkeypatch, sandbox):
    allow_all = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
    monkeypatch.setattr(jail, "filter_program", lambda: allow_all)
    with pytest.raises(SandboxUnavailable, match="was not isolated"):
        Sandbox(QUICK)


def test_the_filter_is_known_for_two_architectures():
    assert len(filter_program("x86_64")) % 8 == len(filter_program("aarch64")) % 8 == 0
    assert filter_program("riscv64") is None


@pytest.mark.parametrize(
    ("column", "header", "pattern"),
    [
        (0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+) (\d+)"),
        (1, "/usr/include/asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+) (\d+)"),
    ],
)
def test_the_numbers_of_system_calls_are_those_of_the_kernel_s_headers(column, header, pattern):
    if not Path(header).exists():
        pytest.skip("no kernel headers")
    known = {name: int(number) for name, number in re.findall(pattern, Path(header).read_text())}
    known.setdefault("newfstatat", known.get("fstatat", -1))
    ours = {name: numbers[column] for name, numbers in (ALLOWED | DECIDED | WITHOUT | {"clone": CLONE}).items()}
    assert {name: known.get(name) for name in ours} == ours


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"memory_mb": 0}, r"sandbox\.memory_mb"),
        ({"workers": -1}, r"sandbox\.workers"),
        ({"packages": ("numpy>=2",)}, r"sandbox\.packages.*'numpy>=2'"),
    ],
)
def test_bad_options_name_their_field(options, field):
    with pytest.raises(ValueError, match=field):
        SandboxOptions(**options)


def test_a_package_that_is_not_installed_is_named_before_anything_runs():
    with pytest.raises(ValueError, match=r"sandbox\.packages.*'no_such_package'"):
        Sandbox(SandboxOptions(packages=("no_such_package",)))


def test_named_packages_are_loaded_beforehand_and_no_others_are_there(sandbox):
    program = (
        "import sys\nthere = 'numpy' in sys.modules\nimport numpy\ndef f(): return [there, int(numpy.ones(7).sum())]"
    )
    with contextlib.closing(Sandbox(SandboxOptions(packages=("numpy",), workers=1))) as with_numpy:
        assert with_numpy.run(program, [("f", [])]).value(0) == ([True, 7],)
        assert run(with_numpy, "import scipy").results[0]["error"].startswith("ModuleNotFoundError")
    assert "ModuleNotFoundError" in sandbox.run(program, [("f", [])]).results[0]["error"]


def test_what_a_used_pool_answers_is_what_a_fresh_one_answers(sandbox):
    programs = [
        "def f(): return sorted({'b', 'a', 'c'}), list({'x': 1, 'y': 2}), hash('word'), [*{'q', 'r', 's', 't'}]",
        "import os\ndef f(): return os.getcwd(), os.listdir('/sandbox'), dict(os.environ), os.umask",
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
        "def f(): return P(3).x, P.__module__",
        "def f(): return __name__, open",
    ]
    with contextlib.closing(Sandbox(QUICK)) as fresh:
        for program in programs:
            assert fresh.run(program, [("f", [])]) == sandbox.run(program, [("f", [])])


def test_a_worker_outlives_the_thread_that_asked_for_it():
    with contextlib.closing(Sandbox(SandboxOptions(workers=1))) as sandbox:
        before = sandbox.workers()
        thread = threading.Thread(target=run, args=(sandbox, "return 1"))
        thread.start()
        thread.join()
        assert run(sandbox, "return 2").value(0) == (2,)
        assert sandbox.workers() == before


def test_a_trainer_that_is_killed_leaves_nothing_behind(sandbox):
    script = (
        "from metaagentx.tools.sandbox import Sandbox, SandboxOptions\n"
        "sandbox = Sandbox(SandboxOptions())\n"
        "print(sandbox.workers()[0].pid, flush=True)\n"
        "sandbox.run('import time\\ntime.sleep(60)', [('f', [])])\n"
    )
    trainer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert trainer.stdout is not None
    watch = os.pidfd_open(int(trainer.stdout.readline()))
    time.sleep(0.2)
    trainer.kill()
    trainer.communicate()
    assert select.select([watch], [], [], 5)[0]
    os.close(watch)


def test_without_isolation_there_is_a_warning_and_limits_but_no_walls(tmp_path, monkeypatch):
    monkeypatch.setattr(jail, "bubblewraps", list)  # it takes none, as none is needed
    with pytest.warns(RuntimeWarning, match=r"sandbox\.isolation is 'none'"):
        opened = Sandbox(SandboxOptions(isolation="none", seconds=2.0, cpu_seconds=1, memory_mb=256, output_kb=64))
    (tmp_path / "seen").write_text("42")
    with contextlib.closing(opened) as sandbox:
        assert run(sandbox, f"return open({str(tmp_path / 'seen')!r}).read()").value(0) == ("42",)
        assert run(sandbox, "return dict(os.environ)", before="import os").value(0) == ({"dict": []},)
        assert run(sandbox, "return len(bytearray(10**10))").results[0]["error"].startswith("MemoryError")
        assert run(sandbox, "return 'x' * 10**6").ending == Ending.OVERFLOW
        assert run(sandbox, "os._exit(0)", before="import os").ending == Ending.DIED
        assert run(sandbox, "time.sleep(60)", before="import time").ending == Ending.TIMEOUT


def children(parent):
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if f"\nPPid:\t{parent}\n" in status.read_text():
                found.append(status)
    return found


def test_no_process_outlives_its_program_and_no_worker_its_sandbox():
    with contextlib.closing(Sandbox(QUICK)) as sandbox:
        (worker,) = sandbox.workers()
        zygote, running = worker.pid, sandbox.submit("import time\ndef f(): time.sleep(60)", [("f", [])])
        time.sleep(0.5)
        assert len(children(zygote)) == 1
        assert running.result().ending == Ending.TIMEOUT
        assert children(zygote) == []
        watch = os.pidfd_open(zygote)
    assert select.select([watch], [], [], 0)[0]  # it has ended
    os.close(watch)
    assert worker._process.returncode is not None
