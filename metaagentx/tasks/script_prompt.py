"""What tells a large language model how to write a design as a script: the constructors, the rules, two examples."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, str] = {
    "Three independent attempts and a vote, then a check": """\
from workflow import AgentNode, EnsembleNode, ReflectionNode, Workflow

hints = ["Work forward from the data.", "Work back from what is asked.", "Try small cases first."]
attempts = [
    AgentNode(name=f"solver_{i}", system_prompt=f"Solve the problem carefully. {hint}")
    for i, hint in enumerate(hints)
]
vote = EnsembleNode(name="vote", agents=attempts, strategy="majority_vote")
final = AgentNode(name="final", system_prompt="Give the final solution, using the vote.")
critic = AgentNode(
    name="critic",
    system_prompt="Look for the first wrong step. End with VERDICT: CORRECT or VERDICT: INCORRECT.",
)
check = ReflectionNode(name="check", agent=final, critic_agent=critic, num_iterations=1)

workflow = Workflow(name="vote_and_check")
workflow.add_nodes([vote, check])
result = workflow.run(question)
""",
    "A computation divided between two agents, one of them with a tool": """\
from workflow import AgentNode, ToolRegistry, Workflow

tools = ToolRegistry()
tools.register("calculator")
compute = AgentNode(
    name="compute",
    system_prompt="Compute exactly, with the calculator.",
    tool_registry=tools,
    max_turns=3,
    task="Compute the intermediate values that this problem needs, and only those: {question}",
)
answer = AgentNode(name="answer", system_prompt="Finish the solution from the intermediate values.")

workflow = Workflow(name="compute_then_answer")
workflow.add_nodes([compute, answer])
result = workflow.run(question)
""",
}

_RULES = """\
You design a team of agents that will solve the user's problem. You do not solve it yourself. Think about what the \
problem needs, then write one Python script between <code> and </code>. The script is read, never executed: it may \
only build nodes and run one workflow, and the answer must not be in it.

Nodes (import them from `workflow`):
- AgentNode(name, system_prompt, tool_registry=None, max_turns=10, task=None): one agent. It sees the problem and what \
earlier steps delivered. With `task` it is asked that text instead, where {question} stands for the problem and {name} \
for the answer of the earlier step of that name.
- EnsembleNode(name, agents, strategy="majority_vote" | "weighted_vote" | "consensus", consensus_agent=None, \
weights=None): independent members; a vote on their answers, or a judge that reads them all.
- ReflectionNode(name, agent, critic_agent=None, num_iterations=2): solve, criticise, improve; it stops at \
"VERDICT: CORRECT".
- DebateNode(name, debaters, judge=None, num_rounds=2): agents that read each other's solutions, then a judge.
- RouterNode(name, routes={"key": node, ...}, routing_agent=agent, default_route="key"): an agent picks the branch.
- create_keyword_router(name, keyword_routes={"word": node, ...}, default_node=node): a word of the latest message does.
- Workflow(name) with .add_node(node) or .add_nodes([node, ...]), in order; the last step's message is the result.
- LoopWorkflow(name, max_iterations=5) with .add_nodes([...]) and \
.set_loop_condition(lambda ctx: not answer_agrees(ctx)) repeats its nodes while the condition holds. answer_agrees: \
the last two answers are equal; verdict_accepts: the last verdict accepts.

A node may be a step, or a member of another node. At most {agents} agents and {calls} model calls. Every agent is the \
same language model: what makes it good is its prompt and what it is shown. Use the smallest team that the problem \
needs.
"""
_TOOLS = """\
Tools: `tools = ToolRegistry()`, `tools.register("name")`, then `tool_registry=tools` for the agents that may call \
them. There is
"""


def script_prompt(tools: Mapping[str, str], *, agents: int, calls: int) -> str:
    """A designer's system prompt. tools: name -> description; agents, calls: the limits that a design must keep."""
    rules = _RULES.replace("{agents}", str(agents)).replace("{calls}", str(calls))
    listed = "\n".join(f"- {name}: {text}" for name, text in tools.items())
    about_tools = f"{_TOOLS}{listed}" if tools else "There are no tools."
    examples = "\n\n".join(f"{title}:\n<code>\n{script}</code>" for title, script in EXAMPLES.items())
    return f"{rules}\n{about_tools}\n\nExamples.\n\n{examples}"
