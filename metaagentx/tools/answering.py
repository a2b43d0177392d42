"""Inside a sandbox: loads a program and answers calls of its functions, trusting nobody.

On one connection comes {"program": text, "calls": [[function, [argument, ...]], ...]}, then its end. Back go lines,
each as soon as it is known: "ready" (or why not), then {"ok": value} or {"error": text} for every call.
"""

from __future__ import annotations

import io
import json
import os
import sys
import types

from metaagentx.tools.confinement import Bounds, confine, settle
from metaagentx.tools.spelling import rebuild, spell

LONGEST_ERROR = 200  # characters
_CONNECTION = 3


def answer(connection: int, bounds: Bounds) -> None:
    """Confine this process, serve one program on the descriptor `connection`, and exit: this does not return."""
    try:
        _keep_only(connection)
        try:
            confine(bounds)
            request = json.loads(_everything())
        except BaseException as error:
            _say(_explain(error))
            return
        _say("ready")
        _serve(request["program"], request["calls"])
    finally:
        os._exit(0)


def _keep_only(connection: int) -> None:
    """Close every descriptor but one, which becomes number 3; what is printed goes nowhere."""
    if connection != _CONNECTION:
        os.dup2(connection, _CONNECTION)
    os.closerange(_CONNECTION + 1, 1 << 16)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)


def _serve(text: str, calls: list[tuple[str, list[object]]]) -> None:
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    try:
        exec(compile(text, "<program>", "exec"), module.__dict__)
    except BaseException as error:
        _say({"error": _explain(error)})
        return
    for function, arguments in calls:
        sys.stdout, sys.stdin = io.StringIO(), io.StringIO()
        try:
            line = {"ok": spell(module.__dict__[function](*map(rebuild, arguments)))}
            _say(line)
        except BaseException as error:
            _say({"error": _explain(error)})


def _everything() -> bytes:
    pieces = []
    while piece := os.read(_CONNECTION, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def _say(line: object) -> None:
    data = json.dumps(line).encode() + b"\n"
    while data:
        data = data[os.write(_CONNECTION, data) :]


def _explain(error: BaseException) -> str:
    """An exception in a line; of one that cannot be printed, its type."""
    try:
        return f"{type(error).__name__}: {error}"[:LONGEST_ERROR]
    except BaseException:
        return type(error).__name__[:LONGEST_ERROR]


if __name__ == "__main__":  # one program, on standard input and output
    own: Bounds = json.loads(sys.argv.pop())
    settle(own)
    answer(0, own)
