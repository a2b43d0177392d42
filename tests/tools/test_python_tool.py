import contextlib

import pytest

from metaagentx.tools.python_tool import make_python
from metaagentx.tools.sandbox import Sandbox, SandboxOptions, SandboxUnavailable
from metaagentx.tools.toolbox import Toolbox
from metaagentx.workflow.protocol import ToolCall


@pytest.fixture(scope="module")
def toolbox():
    try:
        return Toolbox([make_python(Sandbox(SandboxOptions(seconds=2, cpu_seconds=1, output_kb=16)))])
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("code", "ok", "text"),
    [
        ("print(6 * 7)", True, "42"),
        ("import math\nprint(math.comb(5, 2), end='')", True, "10"),
        ("x = 1", True, "(nothing was printed)"),
        ("print('half way')\n1 / 0", True, "half way\nZeroDivisionError: division by zero"),
        ("def f(:", True, "SyntaxError"),
        ("import pickle\ndef f(): pass\nprint(pickle.loads(pickle.dumps(f)) is f)", True, "True"),
        ("if __name__ == '__main__':\n    print('main')\n    exit()", True, "main"),
        ("import time; time.sleep(9)", False, "longer than 2 seconds"),
        ("print('x' * 10**5)", False, "more than 16 kB"),
        ("import os; os._exit(0)", False, "was stopped"),
    ],
)
def test_a_program_s_output_or_its_trouble_is_the_result(toolbox, code, ok, text):
    result = toolbox.run(ToolCall("python_execute", {"code": code}, "a"))
    assert result.ok is ok
    assert text in result.text


def test_nothing_is_kept_between_calls(toolbox):
    toolbox.run(ToolCall("python_execute", {"code": "import builtins; builtins.kept = 1; kept = 1"}, "a"))
    assert "NameError" in toolbox.run(ToolCall("python_execute", {"code": "print(kept)"}, "a")).text


def test_agents_are_told_which_packages_there_are():
    with contextlib.closing(Sandbox(SandboxOptions(packages=("numpy",), workers=1))) as sandbox:
        tool = make_python(sandbox)
        assert "(standard library, numpy only)" in tool.description
        assert tool.function(code="import numpy\nprint(numpy.arange(4).sum())") == "6"


def test_a_broken_sandbox_is_told_and_not_raised(toolbox, monkeypatch):
    sandbox = toolbox.tools["python_execute"].function.__closure__[0].cell_contents
    monkeypatch.setattr(sandbox, "_bubblewrap", "/bin/false")
    while sandbox._idle:
        sandbox._idle.pop().kill()
    result = toolbox.run(ToolCall("python_execute", {"code": "print(1)"}, "a"))
    assert not result.ok
    assert "could not be run" in result.text
