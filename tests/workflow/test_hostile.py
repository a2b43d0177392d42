"""Text written by a model cannot crash, slow or run anything while it is read."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaagentx.workflow.ir import Design, Limits
from metaagentx.workflow.script import parse_script
from tests.workflow import fuzz
from tests.workflow.fragments import SIGNS
from tests.workflow.readers import READERS
from tests.workflow.scripts import HEAD, TOOLS


def test_mutated_texts_break_no_reader() -> None:
    """The first texts of `make fuzz`. How long they take is measured there, on a machine that does nothing else."""
    _, failures = fuzz.read_chunk((0, 0, 1000))
    assert not [failure for failure in failures if failure.kind != "slow"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(SIGNS), max_size=40).map(" ".join) | st.text(max_size=80))
def test_random_text_breaks_no_reader(text: str) -> None:
    for reader in READERS.values():
        assert reader(text) == ""
        assert reader(HEAD + text) == ""


def dawdle(text: str) -> str:
    begun = time.process_time()
    while time.process_time() < begun + 0.1:
        pass
    return ""


def hang(text: str) -> str:
    while True:
        pass


@pytest.mark.parametrize(
    ("reader", "kind"),
    [
        (lambda text: "a wrong result", "wrong"),
        (lambda text: str(1 // 0), "ZeroDivisionError"),
        (dawdle, "slow"),
        (hang, "hangs"),
    ],
)
def test_the_fuzzer_notices_a_reader_that_breaks(reader, kind, monkeypatch) -> None:
    monkeypatch.setitem(READERS, "script", reader)
    monkeypatch.setattr(fuzz, "HANGS", 2.0)
    _, failures = fuzz.read_chunk((0, 7, 8))
    assert {(failure.number, failure.reader, failure.kind) for failure in failures} == {(7, "script", kind)}
    assert failures[0].text == fuzz.text_of(0, 7)


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
    "dotted names": "from workflow" + ".x" * 30000 + " import y\n",
    "many runs": "w = Workflow().add_node(AgentNode(name='a'))\n" + "w.run(question)\n" * 3000,
    "many runs in a loop": "w = Workflow().add_node(AgentNode(name='a'))\nfor i in range(64):\n" + "  w.run(0)\n" * 99,
    "many steps of one name": "w = Workflow()\na = AgentNode(name='a')\n"
    + "w.add_node(a)\n" * 200
    + "w.run(question)\n",
    "steps inside steps": "a = AgentNode(name='a')\n"
    + "a = Workflow(name='w').add_nodes([a] * 9)\n" * 15
    + "a.run(question)\n",
    "dense graph": "g = AgentGraph()\n"
    + "for i in range(8):\n    g.add_node(AgentNode(name=str(i)))\n"
    + "for i in range(8):\n    for j in range(8):\n        g.add_edge(str(i), str(j), lambda c: 'x' in c)\n" * 3
    + "g.set_finish_point('7')\ng.run(question)\n",
    "wide letters": "x = '\U0001d400\u00df' * 32000\n" + "x.upper()\n" * 500,
    "lines to dedent": "from textwrap import dedent\nx = ' \\n' * 32000\n" + "dedent(x)\n" * 500,
    "fields to format": "x = '{}' * 20000\nx.format('a')\n" * 50,
    "lists of lists": "x = [1] * 999\n" + "list(zip(x, x))\n" * 999,
    "short: keywords": 'r=route{by:keywords["' + '">p,"'.join(map(str, range(7000))) + '">p],routes:[p:a=agent{}]}',
    "short: edges": "g=graph{nodes:[a=agent{},b=agent{}],edges:["
    + "a>a if agrees," * 4000
    + "a>b],entry:a,finish:[b]}",
    "short: conditions": "l=loop{body:[a=agent{}],until:any(" + "agrees," * 8000 + "agrees)}",
    "open thoughts": "<think>" * 30000,
    "open code": "<code>" * 30000,
    "fences": "```\n" * 40000,
    "imports": "from workflow import x\n" * 2500 + "(",
    "imports, each worse": "".join(f"from workflow import x{i}\n" + "x x\n" for i in range(2000)),
}


@pytest.mark.parametrize("name", SLOW)
def test_hostile_texts_are_read_in_the_time_that_honest_ones_take(name: str) -> None:
    for reader in ("script", "response", "short"):
        spent = fuzz.seconds(reader, SLOW[name], 3)
        assert spent < 3 * fuzz.allowed(reader, SLOW[name])  # a busy machine may be three times as slow


def test_a_design_as_large_as_the_limits_allow_is_read() -> None:
    agents = "".join(
        f"agent_{i} = AgentNode(\n    name='agent_{i}',\n    system_prompt='{'You solve problems. ' * 8}',\n"
        f"    tool_registry=registry,\n    max_turns=3,\n)\nw.add_node(agent_{i})\n"
        for i in range(64)
    )
    script = f"{HEAD}registry = ToolRegistry()\nw = Workflow(name='w')\n{agents}w.run(question)\n"
    design = parse_script(script, Limits(), TOOLS)
    assert isinstance(design, Design), design
    assert len(design.workflow.steps) == 64


ONE = "AgentNode(name='a{0}', system_prompt='Try {0}.', tool_registry=registry, max_turns=2)"
LISTED = f"w.add_nodes([{', '.join(map(ONE.format, range(50)))}])\n"
UNROLLED = "w.add_nodes([" + ONE.replace("'a", "f'a").replace("'T", "f'T").format("{i}") + " for i in range(64)])\n"
ONE_BY_ONE = "".join(f"a{i} = {ONE.format(i)}\nw.add_node(a{i})\n" for i in range(35))


@pytest.mark.parametrize(("written", "agents"), [(LISTED, 50), (UNROLLED, 64), (ONE_BY_ONE, 35)])
def test_many_agents_in_few_words_are_read(written: str, agents: int) -> None:
    begin = "from workflow import *\nregistry = ToolRegistry()\nregistry.register(name='calculator')\n"
    design = parse_script(f"{begin}w = Workflow(name='w')\n{written}w.run(question)\n", Limits(), TOOLS)
    assert isinstance(design, Design), design
    assert len(design.workflow.steps) == agents


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
