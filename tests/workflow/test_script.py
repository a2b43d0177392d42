"""Scripts mean what their authors meant, and every refusal says what and where."""

from __future__ import annotations

import re

import pytest

from metaagentx.workflow.ir import Design, Diagnosis, Limits
from metaagentx.workflow.script import parse_script
from tests.workflow.scripts import ACCEPTED, HEAD, HEAD_LINES, TOOLS, run

LIMITS = Limits()
DEEP = "[" * 17 + "]" * 17

# name -> (script, refusal, line after HEAD, column)
REFUSED: dict[str, tuple[str, str, int, int]] = {
    "unclosed bracket": (f"{HEAD}x = (1,\n", "syntax", 1, 5),
    "syntax before anything else": (f"{HEAD}open('x')\nx = = 1\n", "syntax", 2, 5),
    "NUL character": (f"{HEAD}x = 'a'\ny = '\0'\n", "syntax", 2, 6),
    "half of a surrogate pair": (f"{HEAD}x = 'é'\ny = 'é\ud800'\n", "syntax", 2, 7),
    "return at the top": (f"{HEAD}return 1\n", "syntax", 1, 1),
    "keyword twice": (f"{HEAD}x = AgentNode(name='x', name='y')\n", "syntax", 1, 25),
    "nothing run": (f"{HEAD}w = Workflow(name='w').add_node(a)\n", "no_workflow", 1 - HEAD_LINES, 1),
    "unbound name": (f"{HEAD}x = AgentNode(name='x', system_prompt=prompt)\n", "unknown_name", 1, 39),
    "unbound name as a key, before its value": (f"{HEAD}x = {{key: value}}\n", "unknown_name", 1, 6),
    "unbound name after wide characters": (f"{HEAD}x = 'é数' + prompt\n", "unknown_name", 1, 12),
    "unbound name in an f-string": (f"{HEAD}x = f'a {{prompt}}'\n", "unknown_name", 1, 5),
    "unknown keyword": (f"{HEAD}x = AgentNode(name='x', prompt='p')\n", "unknown_keyword", 1, 25),
    "unknown keyword in **": (f"{HEAD}d = {{'prompt': 1}}\nx = AgentNode(name='x', **d)\n", "unknown_keyword", 2, 27),
    "unknown keyword of a method": (f"{HEAD}w = Workflow().add_node(step=a)\n", "unknown_keyword", 1, 25),
    "condition on a plain workflow": (f"{HEAD}Workflow().add_node(a, True)\n", "bad_value", 1, 24),
    "positional argument": (f"{HEAD}x = AgentNode('x')\n", "bad_value", 1, 15),
    "no name": (f"{HEAD}x = AgentNode(system_prompt='x')\n", "bad_value", 1, 5),
    "prompt of a wrong type": (f"{HEAD}x = AgentNode(name='x', system_prompt=3)\n", "bad_value", 1, 39),
    "no turns": (f"{HEAD}x = AgentNode(name='x', max_turns=0)\n", "bad_value", 1, 35),
    "unknown strategy": (f"{HEAD}x = EnsembleNode(name='x', agents=[a], strategy='best')\n", "bad_value", 1, 49),
    "text as a member": (f"{HEAD}x = EnsembleNode(name='x', agents=[a, 'b'])\n", "bad_value", 1, 39),
    "weights of another number": (
        f"{HEAD}x = EnsembleNode(name='x', agents=[a], weights=[1, 2])\n",
        "bad_value",
        1,
        48,
    ),
    "loop without a condition": (
        f"{HEAD}x = LoopWorkflow(name='x').add_node(a)\nx.run(question)\n",
        "bad_value",
        2,
        1,
    ),
    "graph that never finishes": (
        f"{HEAD}g = AgentGraph().add_nodes([a, b])\ng.add_edge(a, a)\ng.set_finish_point('b')\ng.run(question)\n",
        "bad_value",
        4,
        1,
    ),
    "unbound agent as a step": (f"{HEAD}w = Workflow(name='w')\nw.add_node(solver)\n", "unbound_agent", 2, 12),
    "unbound agent as a member": (f"{HEAD}x = EnsembleNode(name='x', agents=[a, d])\n", "unbound_agent", 1, 39),
    "unbound agent as a route": (
        f"{HEAD}x = create_keyword_router(name='x', keyword_routes={{'k': d}})\n",
        "unbound_agent",
        1,
        58,
    ),
    "unbound agent in a sum of lists": (
        f"{HEAD}x = DebateNode(name='x', debaters=[a] + [d])\n",
        "unbound_agent",
        1,
        42,
    ),
    "unbound agent as an entry": (f"{HEAD}AgentGraph().add_node(a).set_entry_point(d)\n", "unbound_agent", 1, 42),
    "unbound agent as a target": (
        f"{HEAD}AgentGraph().add_node(a).add_conditional_edges(a, lambda c: 'x', {{'x': d}})\n",
        "unbound_agent",
        1,
        72,
    ),
    "name bound to text as a step": (f"{HEAD}s = 'x'\nWorkflow().add_node(s)\n", "unbound_agent", 2, 21),
    "empty ensemble": (f"{HEAD}x = EnsembleNode(name='x', agents=[])\n", "empty_ensemble", 1, 35),
    "empty debate": (f"{HEAD}x = DebateNode(name='x', debaters=[])\n", "empty_ensemble", 1, 35),
    "workflow in itself": (f"{HEAD}w = Workflow()\nw.add_node(w)\n", "cycle", 2, 12),
    "workflow in itself, through others": (
        f"{HEAD}w = Workflow()\nv = Workflow().add_node(EnsembleNode(name='e', agents=[a, w]))\nw.add_node(v)\n",
        "cycle",
        3,
        12,
    ),
    "too many turns": (f"{HEAD}x = AgentNode(name='x', max_turns=21)\n", "too_large", 1, 35),
    "too many rounds": (f"{HEAD}x = DebateNode(name='x', debaters=[a], num_rounds=11)\n", "too_large", 1, 51),
    "too many steps of a graph": (f"{HEAD}x = AgentGraph(max_steps=51)\n", "too_large", 1, 26),
    "too many agents": (
        f"{HEAD}w = Workflow()\nfor i in range(33):\n    w.add_node(a)\n    w.add_node(b)\nw.run(question)\n",
        "too_large",
        5,
        1,
    ),
    "too many calls": (
        f"{HEAD}x = a\nfor i in range(3):\n    x = ReflectionNode(name=f'r{{i}}', agent=x, num_iterations=10)\n"
        "w = Workflow().add_node(x)\nw.run(question)\n",
        "too_large",
        5,
        1,
    ),
    "nodes nested too deep": (
        f"{HEAD}x = a\nfor i in range(16):\n    x = Workflow().add_node(x)\nx.run(question)\n",
        "too_large",
        4,
        1,
    ),
    "loop too long": (f"{HEAD}for i in range(65):\n    pass\n", "too_large", 1, 10),
    "loops too long together": (
        f"{HEAD}for i in range(5):\n    for j in range(64):\n        pass\n",
        "too_large",
        2,
        14,
    ),
    "expression nested too deep": (f"{HEAD}x = {DEEP}\n", "too_large", 1, 21),
    "text too long": (f"{HEAD}x = 'ab' * 40000\n", "too_long", 1, 5),
    "text too long by replacing": (f"{HEAD}x = ('a' * 999).replace('a', 'b' * 999)\n", "too_long", 1, 5),
    "list too long": (f"{HEAD}x = [1] * 1001\n", "too_long", 1, 5),
    "number too long": (f"{HEAD}x = 0x{'f' * 99}\n", "too_long", 1, 5),
    "script too long": (HEAD + "#" * 65536, "too_long", 1 - HEAD_LINES, 1),
    "while": (f"{HEAD}while True:\n    pass\n", "forbidden", 1, 1),
    "class": (f"{HEAD}class Mine(AgentNode):\n    pass\n", "forbidden", 1, 1),
    "decorator": (f"{HEAD}@a.name\ndef f():\n    pass\n", "forbidden", 1, 2),
    "with": (f"{HEAD}with open('x') as f:\n    pass\n", "forbidden", 1, 1),
    "exec": (f"{HEAD}exec('1')\n", "forbidden", 1, 1),
    "open": (f"{HEAD}x = open('/etc/passwd').read()\n", "forbidden", 1, 5),
    "dunder of text": (f"{HEAD}x = ''.__class__\n", "forbidden", 1, 5),
    "dunder through format": (f"{HEAD}x = '{{0.__class__}}'.format(a)\n", "forbidden", 1, 5),
    "dunder of something opaque": (f"{HEAD}import os\nx = os.environ.__class__\n", "forbidden", 2, 5),
    "os.system": (f"{HEAD}import os\nos.system('ls')\n", "forbidden", 2, 1),
    "other imports": (f"{HEAD}import subprocess\n", "forbidden", 1, 1),
    "own function with a parameter": (f"{HEAD}def f(x):\n    return x\nf(1)\n", "forbidden", 3, 1),
    "function that calls itself": (f"{HEAD}def f():\n    f()\nf()\n", "forbidden", 2, 5),
    "assigned attribute": (f"{HEAD}a.system_prompt = 'x'\n", "forbidden", 1, 1),
    "called lambda": (f"{HEAD}(lambda: 1)()\n", "forbidden", 1, 1),
    "length of the question": (f"{HEAD}n = len(question)\n", "unsupported", 1, 5),
    "piece of the question": (f"{HEAD}n = question[:5]\n", "unsupported", 1, 5),
    "length of a text with the question": (f"{HEAD}n = len(f'Solve {{question}}')\n", "unsupported", 1, 5),
    "letter of the question": (f"{HEAD}n = question[0]\n", "unsupported", 1, 5),
    "letters of the question": (f"{HEAD}n = [k for k in question]\n", "unsupported", 1, 17),
    "test on the question": (f"{HEAD}x = a if question == '1 + 1' else b\n", "unsupported", 1, 10),
    "test on the question in a comprehension": (
        f"{HEAD}x = [a for k in 'ab' if k in question]\n",
        "unsupported",
        1,
        25,
    ),
    "starred assignment": (f"{HEAD}x, *y = [a, b]\n", "unsupported", 1, 1),
    "condition that goes through messages": (
        f"{HEAD}x = LoopWorkflow()\nx.set_loop_condition(lambda c: any('x' in m.content for m in c.messages))\n",
        "unsupported",
        2,
        62,
    ),
    "condition that looks for what a message says": (
        f"{HEAD}x = LoopWorkflow()\nx.set_loop_condition(lambda c: c.content in c.content)\n",
        "unsupported",
        2,
        32,
    ),
    "condition that calls itself": (
        f"{HEAD}def again(c):\n    return again(c)\nx = LoopWorkflow()\nx.set_loop_condition(again)\n",
        "too_large",
        2,
        5,
    ),
    "condition that calls another with something else": (
        f"{HEAD}def f(c):\n    return True\nx = LoopWorkflow()\nx.set_loop_condition(lambda c: f(1))\n",
        "unsupported",
        4,
        32,
    ),
    "walrus": (f"{HEAD}(x := 1)\n", "unsupported", 1, 2),
    "sorted": (f"{HEAD}x = sorted([1])\n", "unsupported", 1, 5),
    "test on a result": (f"{HEAD}r = Workflow().add_node(a).run(question)\nif r:\n    pass\n", "unsupported", 2, 4),
    "condition on state": (
        f"{HEAD}x = LoopWorkflow()\nx.set_loop_condition(lambda ctx: ctx.state['n'] < 3)\n",
        "unsupported",
        2,
        34,
    ),
    "two workflows run": (
        f"{HEAD}Workflow().add_node(a).run(question)\nWorkflow().add_node(b).run(question)\n",
        "unsupported",
        2,
        1,
    ),
    "workflow without steps": (f"{HEAD}w = Workflow()\nprint(w.run(question))\n", "empty_workflow", 2, 7),
    "nested workflow without steps": (
        f"{HEAD}w = Workflow().add_node(Workflow(name='v'))\nw.run(question)\n",
        "empty_workflow",
        2,
        1,
    ),
    "consensus without a judge": (
        f"{HEAD}x = EnsembleNode(name='x', agents=[a], strategy='consensus')\n",
        "missing_judge",
        1,
        5,
    ),
    "default to nowhere": (
        f"{HEAD}x = RouterNode(name='x', routes={{'p': a}}, routing_agent=b, default_route='q')\n",
        "unknown_target",
        1,
        74,
    ),
    "route to nowhere": (
        f"{HEAD}x = RouterNode(name='x', routes={{'p': a}}, routing_func=lambda c: 'q')\n",
        "unknown_target",
        1,
        66,
    ),
    "edge to nowhere": (
        f"{HEAD}g = AgentGraph().add_node(a)\ng.add_edge('a', 'z')\ng.run(question)\n",
        "unknown_target",
        2,
        1,
    ),
    "too many nodes added": (
        f"{HEAD}w = Workflow()\nfor i in range(2):\n    w.add_nodes([a] * 129)\n",
        "too_large",
        3,
        5,
    ),
    "first of two bad arguments": (f"{HEAD}x = AgentNode(name=3, system_prompt=prompt, y=1)\n", "bad_value", 1, 20),
    "unknown keyword before its value": (f"{HEAD}x = AgentNode(name='x', y=prompt)\n", "unknown_keyword", 1, 25),
    "first refusal of two": (f"{HEAD}x = prompt\nwhile True:\n    pass\n", "unknown_name", 1, 5),
    "dead code is read": (f"{HEAD}Workflow().add_node(a).run(question)\nopen('x')\n", "forbidden", 2, 1),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_script_means_its_workflow(name: str) -> None:
    script, expected = ACCEPTED[name]
    design = parse_script(script, LIMITS, TOOLS)
    assert isinstance(design, Design), design
    assert design.workflow == expected


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_names_its_kind_line_and_column(name: str) -> None:
    script, refusal, line, column = REFUSED[name]
    diagnosis = parse_script(script, LIMITS, TOOLS)
    assert isinstance(diagnosis, Diagnosis), diagnosis
    assert (diagnosis.refusal, diagnosis.line - HEAD_LINES, diagnosis.column) == (refusal, line, column), diagnosis


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_says_what_would_be_right(name: str) -> None:
    script, refusal, *_ = REFUSED[name]
    diagnosis = parse_script(script, LIMITS, TOOLS)
    assert isinstance(diagnosis, Diagnosis)
    if refusal != "syntax":  # Python says that in its own words
        assert re.search("; |must|at most|may not exceed|only|needs? |takes ", diagnosis.message), diagnosis


def test_ignored_keywords_unknown_tools_and_renamed_agents_are_remarked_where_they_stand() -> None:
    script = (
        "from workflow import *\n"
        "r = ToolRegistry()\n"
        "r.register(name='teleport', func=None, description='', parameters={})\n"
        "x = AgentNode(name='s', ai_client=None, tool_registry=r)\n"
        "y = AgentNode(name='s')\n"
        "w = Workflow().add_nodes([x, y])\n"
        "w.run('What is 1 + 1?')\n"
    )
    design = parse_script(script, LIMITS, TOOLS)
    assert isinstance(design, Design), design
    assert [agent.name for agent in design.workflow.steps] == ["s", "s#2"]
    assert [(remark.line, remark.column) for remark in design.remarks] == [(3, 1), (4, 35), (5, 5), (7, 1)]
    assert "teleport" in design.remarks[0].message


def test_what_is_registered_later_counts_until_the_run() -> None:
    script = run(
        "r = ToolRegistry()\nx = AgentNode(name='x', tool_registry=r)\nr.register('search')\nr.register('search')"
    )
    design = parse_script(script, LIMITS, TOOLS)
    assert isinstance(design, Design)
    assert design.workflow.steps[0].tools == ("search",)


def test_line_ends_of_other_systems_change_nothing() -> None:
    script, expected = ACCEPTED["graph"]
    design = parse_script(script.replace("\n", "\r\n"), LIMITS, TOOLS)
    assert isinstance(design, Design)
    assert design.workflow == expected


def test_limits_come_from_the_caller() -> None:
    script, _ = ACCEPTED["debate"]
    assert isinstance(parse_script(script, Limits(iterations=3, model_calls=7), TOOLS), Design)
    for limits in (Limits(iterations=2), Limits(model_calls=6), Limits(agents=2)):
        diagnosis = parse_script(script, limits, TOOLS)
        assert isinstance(diagnosis, Diagnosis)
        assert diagnosis.refusal == "too_large"
