"""Scripts in the published style, with the workflows that they mean."""

from __future__ import annotations

from metaagentx.workflow import ir

TOOLS = frozenset({"python_execute", "calculator", "search", "fetch_data"})

HEAD = """from workflow import AgentNode, Workflow, ToolRegistry, answer_agrees, verdict_accepts
from workflow.nodes import EnsembleNode, ReflectionNode, DebateNode, RouterNode, create_keyword_router
from workflow.workflow import ConditionalWorkflow, LoopWorkflow
from workflow.graph import AgentGraph
a = AgentNode(name="a", system_prompt="A")
b = AgentNode(name="b", system_prompt="B")
c = AgentNode(name="c", system_prompt="C")
"""
A, B, C = (ir.Agent(name, name.upper()) for name in "abc")
HEAD_LINES = HEAD.count("\n")


def only(node: ir.Node, name: str = "w") -> ir.Workflow:
    return ir.Workflow(name, (node,))


def run(build: str, node: str = "x") -> str:
    """A script that builds `x` and runs it."""
    return (
        f"{HEAD}{build}\nw = Workflow(name='w')\nw.add_node({node})\nresult = w.run(question)\nprint(result.content)\n"
    )


LATEST = "ctx.get_latest_message().content"
YES, NO = ir.Contains("yes"), ir.Contains("no")

# name -> (script, the workflow that it means)
ACCEPTED: dict[str, tuple[str, ir.Workflow]] = {
    "single agent, parenthesised prompt": (
        """from workflow import AgentNode, Workflow, ToolRegistry

# No tools needed - pure reasoning
tool_registry = ToolRegistry()
math_agent = AgentNode(
    name="MathSolver",
    system_prompt=(
        "You are an expert.\\n\\n"

        "Put your answer in \\\\boxed{}."
    ),
    tool_registry=tool_registry,
    max_turns=1
)
workflow = Workflow(name="math_single_solver")
workflow.add_node(math_agent)
print("=" * 48)
result = workflow.run(question)
print(result.content)
""",
        only(
            ir.Agent("MathSolver", "You are an expert.\n\nPut your answer in \\boxed{}.", max_turns=1),
            "math_single_solver",
        ),
    ),
    "vote with a judge": (
        run("x = EnsembleNode(name='x', agents=[a, b], strategy='majority_vote', consensus_agent=c)"),
        only(ir.Ensemble("x", (A, B), "majority_vote", C)),
    ),
    "consensus": (
        run("x = EnsembleNode(name='x', agents=(a, b), strategy='consensus', consensus_agent=c)"),
        only(ir.Ensemble("x", (A, B), "consensus", C)),
    ),
    "weighted vote, by list and by name": (
        run("x = EnsembleNode(name='x', agents=[a, b], strategy='weighted_vote', weights={'b': 2, 'a': 1.5})"),
        only(ir.Ensemble("x", (A, B), "weighted_vote", weights=(1.5, 2.0))),
    ),
    "reflection with a critic": (
        run("x = ReflectionNode(name='x', agent=a, critic_agent=b, num_iterations=3, reflection_prompt='{response}?')"),
        only(ir.Reflection("x", A, B, 3, "{response}?")),
    ),
    "reflection on itself": (run("x = ReflectionNode(name='x', agent=a)"), only(ir.Reflection("x", A))),
    "debate": (
        run("x = DebateNode(name='x', debaters=[a, b], judge=c, num_rounds=3)"),
        only(ir.Debate("x", (A, B), C, 3)),
    ),
    "keyword router": (
        run("x = create_keyword_router(name='x', keyword_routes={'sum': a, 'search': b}, default_node=c)"),
        only(
            ir.Router(
                "x",
                (("sum", A), ("search", B), ("default", C)),
                ir.KeywordRule((("sum", "sum"), ("search", "search"))),
                "default",
            )
        ),
    ),
    "router by a lambda": (
        run(
            "x = RouterNode(name='x', routes={'p': a, 'q': b}, routing_func=lambda ctx: "
            f"'p' if 'yes' in {LATEST} else 'q')"
        ),
        only(ir.Router("x", (("p", A), ("q", B)), ir.ConditionRule(((YES, "p"),)), "q")),
    ),
    "router by a def": (
        run(
            "def pick(ctx):\n"
            "    '''Choose.'''\n"
            f"    text = str({LATEST}).lower()\n"
            "    if 'yes' in text or 'ja' in text:\n"
            "        return 'p'\n"
            "    elif 'no' not in text:\n"
            "        return 'q'\n"
            "x = RouterNode(name='x', routes={'p': a, 'q': b}, routing_func=pick, default_route='p')"
        ),
        only(
            ir.Router(
                "x",
                (("p", A), ("q", B)),
                ir.ConditionRule(
                    (
                        (ir.AnyOf((ir.Contains("yes", True), ir.Contains("ja", True))), "p"),
                        (ir.Not(ir.Contains("no", True)), "q"),
                    )
                ),
                "p",
            )
        ),
    ),
    "router by an agent": (
        run("x = RouterNode(name='x', routes={'p': a}, routing_agent=b)"),
        only(ir.Router("x", (("p", A),), ir.AgentRule(B))),
    ),
    "loop goes on while its condition holds": (
        run(
            "x = LoopWorkflow(name='x', max_iterations=4)\nx.add_node(a).add_node(b)\n"
            f"x.set_loop_condition(lambda ctx: 'yes' not in {LATEST} and not answer_agrees)"
        ),
        only(ir.Loop("x", (A, B), ir.Not(ir.AllOf((ir.Not(YES), ir.Not(ir.AnswerAgrees())))), 4)),
    ),
    "loop until a verdict accepts": (
        run("x = LoopWorkflow(name='x')\nx.add_nodes([a, b])\nx.set_loop_condition(lambda c: not verdict_accepts(c))"),
        only(ir.Loop("x", (A, B), ir.VerdictAccepts())),
    ),
    "loop that always goes on": (
        run("x = LoopWorkflow(name='x')\nx.add_node(a)\nx.set_loop_condition(lambda ctx: True)"),
        only(ir.Loop("x", (A,), ir.AnyOf(()))),
    ),
    "conditional workflow": (
        f"{HEAD}w = ConditionalWorkflow(name='w')\nw.add_node(a)\n"
        f"w.add_node(node=b, condition=lambda ctx: 'no' in {LATEST})\nw.run(question)\n",
        ir.Workflow("w", (A, ir.Branch("b", NO, (B,)))),
    ),
    "condition by a def that returns booleans": (
        f"{HEAD}def check(ctx):\n    if 'yes' in {LATEST}:\n        return False\n    return True\n"
        "w = ConditionalWorkflow(name='w')\nw.add_node(a, condition=check)\nw.run(question)\n",
        only(ir.Branch("a", ir.Not(YES), (A,))),
    ),
    "graph": (
        run(
            "x = AgentGraph(name='x', max_steps=6)\nx.add_node('write', a)\nx.add_node('check', b)\nx.add_node(c)\n"
            "x.add_edge('write', 'check')\n"
            f"x.add_conditional_edges('check', lambda ctx: 'done' if 'yes' in {LATEST} else 'again', "
            "{'done': 'c', 'again': 'write'})\nx.set_entry_point('write')\nx.set_finish_point('c')"
        ),
        only(
            ir.Graph(
                "x", (A, B, C), (ir.Edge("a", "b"), ir.Edge("b", "c", YES), ir.Edge("b", "a")), "a", ("c",), max_steps=6
            )
        ),
    ),
    "graph by nodes, with defaults": (
        run("x = AgentGraph(name='x')\nx.add_nodes([a, b])\nx.add_edge(a, b, condition=verdict_accepts)"),
        only(ir.Graph("x", (A, B), (ir.Edge("a", "b", ir.VerdictAccepts()),), "a", ("b",))),
    ),
    "graph run by itself": (
        f"{HEAD}g = AgentGraph(name='g')\ng.add_node(a)\ng.run(question)\n",
        ir.Workflow("g", (ir.Graph("g", (A,), (), "a", ("a",)),)),
    ),
    "workflow as a member and as a step": (
        run(
            "p = Workflow(name='p').add_node(a).add_node(b)\nx = EnsembleNode(name='x', agents=[p, c])",
        ),
        only(ir.Ensemble("x", (ir.Workflow("p", (A, B)), C))),
    ),
    "pipeline of composites": (
        f"{HEAD}e = EnsembleNode(name='e', agents=[a, b])\nr = ReflectionNode(name='r', agent=e)\n"
        "w = Workflow(name='w')\nw.add_nodes([e, r])\nw.run(question)\n",
        ir.Workflow("w", (ir.Ensemble("e", (A, B)), ir.Reflection("r", ir.Ensemble("e", (A, B))))),
    ),
    "unrolled for": (
        run(
            "agents = []\nfor i, style in enumerate(['forward', 'backward']):\n"
            "    agents.append(AgentNode(name=f's{i + 1}', system_prompt='Reason ' + style.upper()))\n"
            "x = EnsembleNode(name='x', agents=agents)"
        ),
        only(ir.Ensemble("x", (ir.Agent("s1", "Reason FORWARD"), ir.Agent("s2", "Reason BACKWARD")))),
    ),
    "list comprehension": (
        run("x = EnsembleNode(name='x', agents=[AgentNode(name=f's{i}') for i in range(4) if i != 1])"),
        only(ir.Ensemble("x", (ir.Agent("s0"), ir.Agent("s2"), ir.Agent("s3")))),
    ),
    "task that decomposes": (
        f"{HEAD}d = AgentNode(name='d', system_prompt='D', task='{{a}} - 7')\n"
        "w = Workflow(name='w')\nw.add_node(a)\nw.add_node(d)\nw.run(question)\n",
        ir.Workflow("w", (A, ir.Agent("d", "D", task="{a} - 7"))),
    ),
    "question in a prompt, also rebound": (
        run(
            "question = 'What is 2 + 2?'\n"
            "x = AgentNode(name='x', system_prompt=f'Solve: {question}' + ' Carefully. {0}'.format(question))"
        ),
        only(ir.Agent("x", "Solve: {question} Carefully. {question}")),
    ),
    "question under another name, shouted": (
        run(
            "from workflow import AgentNode as question\nimport os as question\n"
            "p = f'solve {question}'.upper() + question.title()\n"
            "x = AgentNode(name='x', system_prompt=p, task=question.strip())"
        ),
        only(ir.Agent("x", "SOLVE {question}{question}", task="{question}")),
    ),
    "what is known only after the run may be written into text": (
        f"{HEAD}w = Workflow(name='w').add_node(a)\nr = w.run(question)\ns = f'A: {{r.content}}' + '!'\n"
        "t = ', '.join(['B', s])\nu = 'C {0} {s}'.format(t, s=s).strip()\nprint(u)\n",
        only(A),
    ),
    "condition that calls another": (
        run(
            "def accepted(ctx):\n    return verdict_accepts(ctx)\n"
            f"def good(context):\n    return accepted(context) or 'yes' in {LATEST.replace('ctx', 'context')}\n"
            "x = LoopWorkflow(name='x').add_node(a)\nx.set_loop_condition(lambda ctx: not good(ctx))"
        ),
        only(ir.Loop("x", (A,), ir.AnyOf((ir.VerdictAccepts(), YES)))),
    ),
    "nodes in tests": (
        run("x = Workflow(name='x').add_node(None or a and b).add_node([] and b or c)"),
        only(ir.Workflow("x", (B, C))),
    ),
    "main inside print": (
        f"{HEAD}def main():\n    return Workflow(name='w').add_node(a).run(question)\nprint('A:', main().content)\n",
        only(A),
    ),
    "main called before, and again inside print": (
        f"{HEAD}def main():\n    return Workflow(name='w').add_node(a).run(question)\nr = main()\nprint(main())\n",
        only(A),
    ),
    "values of text": (
        run(
            "import textwrap\nparts = ['one', 'two']\nparts += ['three']\n"
            "parts.extend(('four',))\nn, m = len(parts), -1\nstyle: str = {'k': 'Calm'}['k']\n"
            "p = textwrap.dedent('''\n    Be\n    brief.\n    ''').strip()\n"
            "p += ' ' + '-'.join(parts).replace('t', 'T')\n"
            "x = AgentNode(name='x', system_prompt=p + f' {n}{m} {style.lower()} ' + (parts[-1] if n > 3 else 'no'))"
        ),
        only(ir.Agent("x", "Be\nbrief. one-Two-Three-four 4-1 calm four")),
    ),
    "tools, with wrappers never run": (
        '''import os, re, json, sys
from typing import Any, Dict
from utils.environments.math_env import MathEnvironment
from workflow import AgentNode, Workflow, ToolRegistry

env = MathEnvironment(timeout=5, key=os.getenv("KEY") or "none")
sys.path.append(os.path.dirname(os.path.abspath(__file__)))

def execute(code: str, retries: int = 3) -> str:
    """Runs code."""
    while True:
        exec(code); return open("/etc/passwd").read()

registry = ToolRegistry()
registry.register(name="python_execute", func=execute, description="Run.", parameters={
    "type": "object", "properties": {"code": {"type": "string", "description": "d"}}, "required": ["code"]})
registry.register("calculator", lambda expression: eval(expression), "Compute.", {})
registry.register(name="search", func=env.search, description="", parameters={})
solver = AgentNode(name="s", system_prompt="Use ```python\\n...\\n``` blocks.", tool_registry=registry, max_turns=4)
w = Workflow(name="w")
w.add_node(solver)
try:
    final = w.run(question)
    print(json.dumps({"answer": final.content}))
except Exception as error:
    print(f"failed: {error}")
    sys.exit(1)
''',
        only(ir.Agent("s", "Use ```python\n...\n``` blocks.", ("python_execute", "calculator", "search"), max_turns=4)),
    ),
    "main with a guard": (
        f"{HEAD}import logging\nlogger = logging.getLogger(__name__)\ndef main():\n    w = Workflow(name='w')\n"
        "    w.add_node(a)\n    logger.info('run %s', undefined)\n    return w.run(question)\n"
        "if __name__ == '__main__':\n    result = main()\n"
        "    text = result.content if hasattr(result, 'content') else str(result)\n    print(text)\n",
        only(A),
    ),
    "run inside print": (f"{HEAD}w = Workflow(name='w').add_node(a)\nprint('A:', w.run(question).content)\n", only(A)),
    "keywords from a dictionary": (
        run("common = dict(max_turns=2, system_prompt='P')\nx = AgentNode(name='x', **common)"),
        only(ir.Agent("x", "P", max_turns=2)),
    ),
    "routes built one by one": (
        run(
            "routes = {}\nroutes['p'] = a\nroutes['q'] = b\n"
            "x = RouterNode(name='x', routes=routes, routing_func=lambda m: 'p' if 'YES' in str(m).upper() else 'q')"
        ),
        only(ir.Router("x", (("p", A), ("q", B)), ir.ConditionRule(((ir.Contains("YES", True), "p"),)), "q")),
    ),
    "code: solver, tester, fixer": (
        run(
            "x = Workflow(name='code')\nfor node in (a, b):\n    x.add_node(node)\n"
            "x.add_node(ReflectionNode(name='fix', agent=c, critic_agent=b, num_iterations=1))"
        ),
        only(ir.Workflow("code", (A, B, ir.Reflection("fix", C, B, 1)))),
    ),
}
