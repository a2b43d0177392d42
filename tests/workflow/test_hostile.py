"""Text written by a model cannot crash, slow or run anything while it is read."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaagentx.workflow.ir import Design, Diagnosis, Limits
from metaagentx.workflow.parse import parse_response
from metaagentx.workflow.script import parse_script
from tests.workflow.scripts import ACCEPTED, HEAD, TOOLS
from tests.workflow.test_script import REFUSED

SCRIPTS = [script for script, *_ in (*ACCEPTED.values(), *REFUSED.values()) if len(script) < 4000]
PIECES = sorted(
    {word for script in SCRIPTS for word in script.replace("(", " ( ").replace(",", " , ").split()}
    | {
        "{",
        "}",
        "\n",
        "\n    ",
        "'''",
        "f'{",
        "lambda c:",
        "[0]",
        "**",
        "\x00",
        "\ud800",
        "é",
        "<code>",
        "```\n",
        "x10",
    }
)


def outcome(text: str) -> str:
    """What reading `text` as a script and as a response gives; anything but a design or a diagnosis fails."""
    for result in (
        parse_script(text, Limits(), TOOLS),
        parse_response(text, limits=Limits(), tools=TOOLS, palette={}),
    ):
        assert isinstance(result, Design | Diagnosis)
        if isinstance(result, Diagnosis):
            assert result.message
            assert result.line >= 1
            assert result.column >= 1
    return "read"


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SCRIPTS), st.data())
def test_mutated_scripts_are_designs_or_diagnoses(script: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(script)))
        end = min(len(script), start + data.draw(st.integers(0, 12)))
        script = script[:start] + data.draw(st.sampled_from(PIECES)) + script[end:]
    assert outcome(script)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map(" ".join) | st.text(max_size=80))
def test_random_text_is_a_design_or_a_diagnosis(text: str) -> None:
    assert outcome(text)
    assert outcome(HEAD + text)


SLOW = {
    "unary": "x = " + "-" * 60000 + "1",
    "attributes": "x = a" + ".b" * 30000,
    "sum": "x = 0" + "+1" * 30000,
    "calls": "x = a" + "()" * 900,
    "brackets": "(" * 60000,
    "not": "x = " + "not " * 15000 + "1",
    "lambdas": "x = " + "lambda:" * 9000 + "1",
    "f-strings": 'x = f"' + "{1}" * 20000 + '"',
    "statements": "x=1\n" * 16000,
    "long texts again and again": "s = 'a' * 65000\n" + "s=s.lower()\n" * 5000,
    "long sums again and again": "s = 'a' * 65000\n" + "t=s+''\n" * 8000,
    "unrolled statements": "for i in range(64):\n" + "    x=1;x=1;x=1;x=1\n" * 3000,
    "unrolled prints": "for i in range(64):\n    print(" + "1," * 30000 + ")\n",
    "nested loops": "".join(f"{' ' * i}for i{i} in range(64):\n" for i in range(15)) + " " * 15 + "pass\n",
    "nested comprehensions": "x = [1 " + "for i in range(64) " * 3000 + "]",
    "shared lists": "x = [1]\n" + "x = [x, x]\n" * 3000 + "y = x == x\nz = x in x\n",
    "doubling": "x = 'ab'\n" + "x += x\n" * 5000,
    "list in itself": "x = []\nx.append(x)\ny = x == x\nz = f'{len(x)}'\n",
    "huge range": "x = list(range(10 ** 15))\n",
    "huge loop": "for i in range(9007199254740991):\n    pass\n",
    "huge format": "x = '{:9999999999}'.format(1)\n",
    "huge index": "x = '{99999999999999999999}'.format(1)\n",
    "shared workflows": "x = AgentNode(name='a')\n" + "x = Workflow().add_nodes([x] * 30)\n" * 12 + "x.run(question)\n",
    "deep workflows": "x = AgentNode(name='a')\n" + "x = Workflow().add_node(x)\n" * 2000 + "x.run(question)\n",
    "many workflows": "w = Workflow()\n" + "w.add_node(Workflow())\n" * 2500,
    "many conditions": "l = LoopWorkflow()\nl.set_loop_condition(lambda c: " + "'x' in c and " * 4000 + "'y' in c)\n",
    "many cases": "f = lambda c: "
    + "'p' if 'x' in c else " * 2500
    + "'q'\nr = RouterNode(name='r', routes={}, routing_func=f)",
    "open thoughts": "<think>" * 30000,
    "open code": "<code>" * 30000,
    "fences": "```\n" * 40000,
    "imports": "from workflow import x\n" * 2500 + "(",
    "imports, each worse": "".join(f"from workflow import x{i}\n" + "x x\n" for i in range(2000)),
}


@pytest.mark.parametrize("name", SLOW)
def test_hostile_scripts_are_read_in_bounded_time(name: str) -> None:
    began = time.process_time()
    assert outcome(SLOW[name])
    assert time.process_time() - began < 3.0  # seconds; a script of the largest size takes a few tenths


AUDITED = """
import sys, warnings
from metaagentx.workflow.ir import Limits
from metaagentx.workflow.parse import parse_response
from metaagentx.workflow.script import parse_script
from tests.workflow.scripts import ACCEPTED, HEAD, TOOLS
from tests.workflow.test_script import REFUSED

def read(script):
    parse_script(script, Limits(), TOOLS)
    parse_response(f"<code>{script}</code>", limits=Limits(), tools=TOOLS, palette={})

scripts = [script for script, *_ in (*ACCEPTED.values(), *REFUSED.values())]
scripts += [HEAD + "x = '\\\\d'\\nimport antigravity", HEAD + "__import__('os').system('true')"]
for script in scripts:  # whatever Python loads lazily is loaded now
    read(script)
seen = set()
watching = False
def hook(event, arguments):
    if watching:
        seen.add((event, arguments[0] if event == "open" else ""))
sys.addaudithook(hook)
watching = True
for script in scripts:
    read(script)
watching = False
print(sorted(seen))
"""


def test_reading_imports_opens_and_runs_nothing() -> None:
    """Python's parser is asked for syntax trees; for the text of a wrong line it looks into a file that cannot be."""
    done = subprocess.run([sys.executable, "-c", AUDITED], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == str([("builtins.id", ""), ("compile", ""), ("open", "/dev/null/design")])
