"""Outside a sandbox: the process that a program is handed to, and what comes back from there, within bounds."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, TypeAlias

from metaagentx.tools.spelling import Spelled

START_SECONDS = 60.0  # of wall time, for a worker to be warm
_STOP_SECONDS = 5.0  # of wall time, for a worker to have killed what is inside

_CREDENTIALS = struct.Struct("3i")  # struct ucred: the sender's process as it is called out here, user, group

FunctionCall: TypeAlias = tuple[str, Sequence[Spelled]]
"""A function's name and its arguments, spelled."""


class SandboxError(RuntimeError):
    """The sandbox itself broke down while a program ran: nothing is known of the program."""


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


@dataclass(frozen=True, slots=True)
class Patience:
    """What is waited for, and read, of one program."""

    seconds: float  # of wall time
    most: int  # bytes of answers


class Worker:
    """A warm interpreter (`zygote`) that runs one program after the other, each in a process and on a connection of
    its own. What a program leaves running is killed before `run` returns."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start it. To be called in a thread that lives as long: a worker dies with the thread that started it.

        Raises:
          SandboxError: it did not become warm; the message holds what it complained of.
        """
        self._process, self._control, complaints = _start(command)
        self._zygote: int | None = None  # a pidfd
        self.pid = 0  # of the zygote, as it is called out here
        self.alive = True
        with complaints:
            self._control.settimeout(START_SECONDS)
            try:
                message, about, *_ = self._control.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
                if not message:
                    raise OSError("it ended")
                self.pid = _CREDENTIALS.unpack(about[0][2])[0]
                self._zygote = os.pidfd_open(self.pid)
            except OSError as error:
                self.kill()
                raise SandboxError(f"a sandbox did not start ({error}): {_read(complaints)}") from error

    def run(self, program: str, calls: Sequence[FunctionCall], patience: Patience) -> Answers:
        """Run one program.

        Raises:
          SandboxError: the worker broke down before it read the program; it is not `alive` any more.
        """
        request = _request(program, calls)
        ours, theirs = socket.socketpair()
        with ours:
            with theirs, contextlib.suppress(OSError):  # of a dead worker the connection ends at once
                socket.send_fds(self._control, [b"."], [theirs.fileno()])
            output, ending = _exchange(ours, request, len(calls), patience)
        with contextlib.suppress(OSError):
            self._control.send(b".")
        if not self._acknowledged(_STOP_SECONDS):
            self.kill()
        return _answers(output, ending, len(calls), "")

    def kill(self) -> None:
        """Kill it, with everything inside, and wait for that."""
        if not self.alive:
            return
        self.alive = False
        self._control.close()
        if self._zygote is None:
            self._process.kill()
        else:  # bubblewrap lacks the right to kill another user's process, and ends with it
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._zygote, signal.SIGKILL)
            ended = select.poll()
            ended.register(self._zygote, select.POLLIN)
            ended.poll(_STOP_SECONDS * 1000)  # pid 1 has ended when all inside have
            os.close(self._zygote)
        self._process.wait()

    def _acknowledged(self, seconds: float) -> bool:
        self._control.settimeout(seconds)
        try:
            return self._control.recv(1) == b"."
        except OSError:
            return False


def run_once(command: Sequence[str], program: str, calls: Sequence[FunctionCall], patience: Patience) -> Answers:
    """Run one program in a process that is started for it (`jail.unjailed`), else as `Worker.run`."""
    request = _request(program, calls)
    process, ours, complaints = _start(command)
    with ours, complaints:
        try:
            output, ending = _exchange(ours, request, len(calls), patience)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return _answers(output, ending, len(calls), _read(complaints))


def _start(command: Sequence[str]) -> tuple[subprocess.Popen[bytes], socket.socket, IO[bytes]]:
    """The process, our end of the socket that is its standard input, and where it complains.

    Its environment is empty: a process inside can read its launcher's. Raises SandboxError if there is no such command.
    """
    complaints = tempfile.TemporaryFile()  # noqa: SIM115 - the caller's
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    with theirs:
        try:
            process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                env={},
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            complaints.close()
            raise SandboxError(f"a sandbox did not start: {error}") from error
    return process, ours, complaints


def _read(complaints: IO[bytes]) -> str:
    complaints.seek(0)
    return complaints.read(2000).decode(errors="replace").strip()


def _request(program: str, calls: Sequence[FunctionCall]) -> bytes:
    return json.dumps({"program": program, "calls": calls}).encode()


def _exchange(connection: socket.socket, request: bytes, count: int, patience: Patience) -> tuple[bytes, Ending]:
    """Send a request; receive up to the last answer, the end, the deadline or too many bytes."""
    deadline = time.monotonic() + patience.seconds
    pieces: list[bytes] = []
    size, lines = 0, 0
    connection.settimeout(patience.seconds)
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        while size <= patience.most and lines <= count:
            connection.settimeout(max(deadline - time.monotonic(), 1e-6))
            piece = connection.recv(1 << 16)
            if not piece:
                return b"".join(pieces), Ending.FINISHED
            pieces.append(piece)
            size += len(piece)
            lines += piece.count(b"\n")
    except TimeoutError:
        return b"".join(pieces), Ending.TIMEOUT
    except ConnectionResetError:  # it died with something left to read
        return b"".join(pieces), Ending.FINISHED
    return b"".join(pieces)[: patience.most], Ending.OVERFLOW if size > patience.most else Ending.FINISHED


def _answers(output: bytes, ending: Ending, count: int, complaint: str) -> Answers:
    """What the lines say. Raises SandboxError if the program was not even read."""
    ready, *lines = output.split(b"\n")
    if ready != b'"ready"':
        raise SandboxError(f"a sandbox did not start ({ending}): {ready[:200].decode(errors='replace')} {complaint}")
    results = _results(lines[:-1], count)  # the last piece is empty, or a line that was cut
    if len(results) == count:
        return Answers(results, Ending.FINISHED)
    return Answers(results, Ending.DIED if ending == Ending.FINISHED else ending)


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
