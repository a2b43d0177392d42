"""`python -m metaagentx.design`: what it says of designs that are accepted, and of those that are not."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from metaagentx.design import main
from metaagentx.workflow.ir import Limits
from metaagentx.workflow.script import parse_script
from metaagentx.workflow.short import parse_short

SCRIPT = """# A comment, so that lines of the file are not lines from the import.
from workflow import AgentNode, ToolRegistry, Workflow
registry = ToolRegistry()
registry.register(name="search", func=None, description="", parameters={})
w = Workflow(name="w")
w.add_node(AgentNode(name="a", system_prompt="Look it up.", tool_registry=registry, max_turns=2))
w.run(question)
"""


def _file(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_the_short_form_that_is_printed_reads_back_as_the_script(tmp_path, capsys):
    assert main([_file(tmp_path, "design.py", SCRIPT)]) == 0
    short, worst = capsys.readouterr().out.splitlines()
    tools = frozenset({"search"})
    assert parse_short(short, palette={}, limits=Limits(), tools=tools) == parse_script(SCRIPT, Limits(), tools)
    assert worst == "at most 1 agent calls, 3 model calls, 3 of them in a row"


def test_a_tool_that_is_not_there_is_a_remark_at_its_line(tmp_path, capsys):
    assert main([_file(tmp_path, "design.py", SCRIPT), "--tools=calculator"]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("4:")


def test_a_refusal_names_the_line_of_the_file_and_exits_with_1(tmp_path, capsys):
    assert main([_file(tmp_path, "design.py", SCRIPT.replace("max_turns=2", "max_turns=0"))]) == 1
    assert capsys.readouterr().out.startswith("6:")


def test_a_response_is_searched_for_its_script(tmp_path, capsys):
    response = f"<think>Hm.</think>I would look it up.\n<code>\n{SCRIPT}</code>"
    assert main([_file(tmp_path, "response.txt", response)]) == 0
    assert capsys.readouterr().out.startswith("w:a=agent{")


def test_a_short_form_from_standard_input_names_roles(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("a=solve(4 - 1);b=solve({a} - 7)x3\n"))
    assert main(["-"]) == 0
    assert capsys.readouterr().out.startswith("a=solve(4 - 1);b=solve({a} - 7)x3\nat most 4 agent calls, 4 model calls")


def test_limits_are_those_of_the_flags(tmp_path, capsys):
    assert main([_file(tmp_path, "design.py", SCRIPT), "--calls=2"]) == 1
    assert "too_large" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_a_line_and_no_traceback(tmp_path, capsys, content):
    path = tmp_path / "design.py"
    if content is not None:
        path.write_bytes(content)
    assert main([str(path)]) == 2
    assert str(path) in capsys.readouterr().err


def test_nothing_heavy_is_imported():
    program = "import sys, metaagentx.design; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0
