from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import local

PYTHON = sys.executable


def job(root: Path, name: str, code: str, *depends_on: str) -> local.Job:
    return local.Job(name, (PYTHON, "-I", "-S", "-c", code), root / name, depends_on)


def append(path: Path, word: str) -> str:
    return f"open({str(path)!r}, 'a').write({word + ' '!r})"


def quiet(text: str) -> None:
    del text


def test_finished_jobs_are_skipped_and_failed_ones_run_again(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    flag = tmp_path / "flag"
    bad = f"import os, sys; {append(trace, 'bad')}; sys.exit(0 if os.path.exists({str(flag)!r}) else 3)"
    jobs = [job(tmp_path, "good", append(trace, "good")), job(tmp_path, "bad", bad)]
    first = local.run(jobs, say=quiet)
    assert first == {"good": "done", "bad": "failed"}
    assert local.exit_code(first) == 1
    flag.touch()
    second = local.run(jobs, say=quiet)
    assert local.exit_code(second) == 0
    assert trace.read_text().split() == ["good", "bad", "bad"]


def test_a_job_starts_after_what_it_depends_on_and_not_if_that_failed(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    jobs = [
        job(tmp_path, "last", append(trace, "last"), "middle"),
        job(tmp_path, "middle", append(trace, "middle"), "first"),
        job(tmp_path, "first", f"import time; time.sleep(0.2); {append(trace, 'first')}"),
        job(tmp_path, "broken", "raise SystemExit(2)"),
        job(tmp_path, "lost", append(trace, "lost"), "broken"),
    ]
    outcomes = local.run(jobs, parallel=2, say=quiet)
    assert trace.read_text().split() == ["first", "middle", "last"]
    assert outcomes["broken"] == "failed"
    assert outcomes["lost"] == "skipped"
    assert local.exit_code(outcomes) == 1


def test_no_more_than_parallel_jobs_run_at_once(tmp_path: Path) -> None:
    code = (
        "import os, time; p = {root!r} + '/{name}.on'; open(p, 'w'); time.sleep(0.2);"
        "print(sum(f.endswith('.on') for f in os.listdir({root!r}))); os.remove(p)"
    )
    names = ["a", "b", "c", "d"]
    local.run([job(tmp_path, n, code.format(root=str(tmp_path), name=n)) for n in names], parallel=2, say=quiet)
    seen = [int((tmp_path / name / "log.txt").read_text()) for name in names]
    assert max(seen) == 2


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores can be bound on Linux only")
def test_jobs_side_by_side_are_bound_to_different_cores(tmp_path: Path) -> None:
    available = os.sched_getaffinity(0)
    if len(available) < 2:
        pytest.skip("needs two cores")
    code = "import os, time; time.sleep(0.2); print(*os.sched_getaffinity(0))"
    local.run([job(tmp_path, name, code) for name in "ab"], parallel=2, cores_per_job=1, say=quiet)
    cores = [set((tmp_path / name / "log.txt").read_text().split()) for name in "ab"]
    assert [len(each) for each in cores] == [1, 1]
    assert not cores[0] & cores[1]


def test_cores_are_shared_evenly_and_never_oversubscribed() -> None:
    assert local.cores_of_slots(2, 0, {3, 1, 2, 0}) == ["0,1", "2,3"]
    assert local.cores_of_slots(1, 0, {0, 1}) == [""]
    assert local.cores_of_slots(3, 0, {0, 1}) == ["", "", ""]
    with pytest.raises(ValueError, match="cores_per_job=2 and parallel=2 need 4 cores, not 3"):
        local.cores_of_slots(2, 2, {0, 1, 2})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_jobs_and_leaves_them_to_be_resumed(tmp_path: Path, number: signal.Signals) -> None:
    code = (
        "import signal, sys, time\n"
        "def save(*_): print('saved', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save); print('ready', flush=True); time.sleep(60)"
    )
    command = [PYTHON, "-m", "launch.local", f"--directory={tmp_path / 'a'}", "--", PYTHON, "-I", "-S", "-c", code]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    log = tmp_path / "a" / "log.txt"
    deadline = time.monotonic() + 20
    while not (log.exists() and "ready" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    launcher.send_signal(number)
    output, _ = launcher.communicate(timeout=20)
    assert launcher.returncode == local.SAVED
    assert "stopped  a" in output
    assert log.read_text().split() == ["ready", "saved"]
    assert not (tmp_path / "a" / "DONE").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="a process can follow its parent on Linux only")
def test_jobs_do_not_outlive_a_killed_launcher(tmp_path: Path) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    command = [PYTHON, "-m", "launch.local", f"--directory={tmp_path / 'a'}", "--", PYTHON, "-I", "-S", "-c", code]
    launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
    log = tmp_path / "a" / "log.txt"
    deadline = time.monotonic() + 20
    while not (log.exists() and log.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.02)
    launcher.kill()
    launcher.wait()
    process = Path("/proc", log.read_text().strip(), "stat")
    while process.exists() and " Z " not in process.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not process.exists() or " Z " in process.read_text()


def test_a_job_that_saved_and_left_is_neither_done_nor_failed(tmp_path: Path) -> None:
    outcomes = local.run([job(tmp_path, "a", "raise SystemExit(75)"), job(tmp_path, "b", "", "a")], say=quiet)
    assert outcomes == {"a": "stopped", "b": "skipped"}
    assert local.exit_code(outcomes) == 75


def test_results_of_another_command_are_an_error_and_not_a_result(tmp_path: Path) -> None:
    local.run([job(tmp_path, "a", "print(1)")], say=quiet)
    with pytest.raises(ValueError, match="holds the results of another command than job 'a'"):
        local.run([job(tmp_path, "a", "print(2)")], say=quiet)


def test_a_failure_shows_the_end_of_its_log(tmp_path: Path) -> None:
    said: list[str] = []
    local.run([job(tmp_path, "a", "raise ValueError('the reason')")], say=said.append)
    assert "failed   a (exit 1" in said[-1]
    assert "ValueError: the reason" in said[-1]


@pytest.mark.parametrize(
    ("names", "needs", "message"),
    [
        (["a", "a"], [(), ()], "two jobs have the same name: a"),
        (["a", "b"], [("c",), ()], "job 'a' depends on c, which is no job"),
        (["a", "b"], [("b",), ("a",)], "in a circle"),
    ],
)
def test_impossible_jobs_are_refused_before_any_starts(
    tmp_path: Path, names: list[str], needs: list[tuple[str, ...]], message: str
) -> None:
    jobs = [job(tmp_path, name, "print()", *each) for name, each in zip(names, needs, strict=True)]
    with pytest.raises(ValueError, match=message):
        local.run(jobs, say=quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_does_not_exist_is_a_failed_job(tmp_path: Path) -> None:
    outcomes = local.run([local.Job("a", ("/nonexistent/program",), tmp_path / "a")], say=quiet)
    assert outcomes == {"a": "failed"}
    assert "cannot start /nonexistent/program" in (tmp_path / "a" / "log.txt").read_text()
