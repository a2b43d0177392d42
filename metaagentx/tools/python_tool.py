"""The tool `python_execute(code)`: what a program prints, run in the sandbox."""

from __future__ import annotations

import dataclasses

from metaagentx.tools.sandbox import Ending, Sandbox, SandboxError
from metaagentx.tools.tool import Tool, ToolError

# Runs inside: what was printed, and in a last line what went wrong.
_RUNNER = """
import contextlib, io, sys, types

def run(code):
    printed, module = io.StringIO(), types.ModuleType("__main__")
    sys.modules["__main__"] = module
    with contextlib.redirect_stdout(printed):
        try:
            exec(compile(code, "<code>", "exec"), module.__dict__)
        except SystemExit:
            pass
        except BaseException as error:
            print(f"{type(error).__name__}: {error}")
    return printed.getvalue()
"""
_TROUBLE = {
    Ending.TIMEOUT: "the program took longer than {seconds:g} seconds",
    Ending.OVERFLOW: "the program printed more than {output_kb} kB",
}


def make_python(sandbox: Sandbox) -> Tool:
    """The tool. Its programs see the standard library and `sandbox.packages`, and keep nothing between calls."""

    def python_execute(code: str) -> str:
        """Runs a Python program (standard library only) and gives what it prints.

        Args:
          code: a whole program that prints its result
        """
        try:
            answers = sandbox.run(_RUNNER, [("run", [code])])
        except SandboxError as error:
            raise ToolError("the program could not be run; go on without it") from error
        value = answers.value(0)
        if value is None or not isinstance(value[0], str):
            trouble = _TROUBLE.get(answers.ending, "the program was stopped: too much memory, or an early exit")
            options = sandbox.options
            raise ToolError(trouble.format(seconds=options.seconds, output_kb=options.output_kb))
        return value[0].rstrip() or "(nothing was printed)"

    tool = Tool.of(python_execute)
    available = ", ".join(("standard library", *sandbox.options.packages))
    # The sandbox has limits of its own, and kills.
    return dataclasses.replace(tool, description=tool.description.replace("standard library", available), timed=True)
