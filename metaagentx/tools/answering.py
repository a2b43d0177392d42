"""The script that runs inside a sandbox: it loads a program and answers calls of its functions, trusting nobody.

Standard input: {"program": text, "calls": [[function, [argument, ...]], ...], "memory": bytes, "seconds": int}.
Standard output, a line each, written as soon as it is known: "ready", then {"ok": value} or {"error": text} per call.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys

from metaagentx.tools.spelling import rebuild, spell

LONGEST_ERROR = 200  # characters


def confine(memory: int, seconds: int) -> None:
    """Bounds that cannot be lifted again: address space, processor time, no writing to files, few descriptors."""
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 32,
    }
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (bound, bound))


def explain(error: BaseException) -> str:
    """An exception in a line; of one that cannot be printed, its type."""
    try:
        return f"{type(error).__name__}: {error}"[:LONGEST_ERROR]
    except BaseException:
        return type(error).__name__[:LONGEST_ERROR]


def main() -> None:
    request = json.loads(sys.stdin.buffer.read())
    out, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)  # what the program prints goes nowhere
    confine(request["memory"], request["seconds"])

    def say(line: object) -> None:
        data = json.dumps(line).encode() + b"\n"
        while data:
            data = data[os.write(out, data) :]

    say("ready")
    space = {"__name__": "solution"}
    try:
        exec(compile(request["program"], "<program>", "exec"), space)
    except BaseException as error:
        say({"error": explain(error)})
        os._exit(0)
    for function, arguments in request["calls"]:
        sys.stdout, sys.stdin = io.StringIO(), io.StringIO()
        try:
            answer = {"ok": spell(space[function](*map(rebuild, arguments)))}  # type: ignore[operator]
            say(answer)
        except BaseException as error:
            say({"error": explain(error)})
    os._exit(0)


if __name__ == "__main__":
    main()
