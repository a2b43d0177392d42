"""Designs are found in responses wherever designers put them."""

from __future__ import annotations

import pytest

from metaagentx.workflow.extract import candidates, without_thinking
from metaagentx.workflow.ir import Agent, Design, Diagnosis, Limits, Role, Workflow
from metaagentx.workflow.parse import parse_response
from tests.workflow.scripts import TOOLS

PALETTE = {"solve": Role("Solve.")}


def script(name: str = "a", prompt: str = "P") -> str:
    return (
        "from workflow import AgentNode, Workflow\n"
        f"a = AgentNode(name={name!r}, system_prompt='''{prompt}''')\n"
        "w = Workflow(name='w')\nw.add_node(a)\nw.run(question)\n"
    )


def read(response: str) -> Design | Diagnosis:
    return parse_response(response, limits=Limits(), tools=TOOLS, palette=PALETTE)


FENCES = "Write\n```python\nprint(1)\n```\nthen stop."
TAGS = "Write <code>1</code> and <code>."
WORSE = "This is no Python: ((("

# name -> (response, name of the agent, its prompt)
FOUND = {
    "code and fence": (f"Problem Type: MATH\n\n<code>\n```python\n{script()}```\n</code>", "a", "P"),
    "code in capitals": (f"<CODE>\n```\n{script()}\n```\n</Code> Done.", "a", "P"),
    "code without a fence": (f"<code>\n{script()}</code>", "a", "P"),
    "code that is cut before it closes": (f"<code>\n```python\n{script()}", "a", "P"),
    "fences inside a prompt": (f"<code>\n```python\n{script('a', FENCES)}```\n</code>", "a", FENCES),
    "fences inside a prompt, no fence": (f"<code>\n{script('a', FENCES)}</code>", "a", FENCES),
    "tags inside a prompt": (f"<code>\n```python\n{script('a', TAGS)}```\n</code>", "a", TAGS),
    "fence only": (f"Here it is:\n```python\n{script()}```\nGood luck!", "a", "P"),
    "fence with fences inside a prompt": (f"Here:\n```python\n{script('a', FENCES)}```\nBye", "a", FENCES),
    "last code block wins": (f"<code>{script('a')}</code> or <code>{script('b')}</code>", "b", "P"),
    "last code block that is valid wins": (f"<code>{script('a')}</code> or <code>{WORSE}</code>", "a", "P"),
    "code before fences": (f"<code>{script('a')}</code>\n```python\n{script('b')}```", "a", "P"),
    "fences after bad code": (f"<code>{WORSE}</code>\n```python\n{script('b')}```", "b", "P"),
    "last fence wins": (f"```\n{script('a')}```\nor\n```python\n{script('b')}```", "b", "P"),
    "text from the first import": (f"I propose this.\n{script()}\nThis design is good (I think.", "a", "P"),
    "import in the middle of a line": (f"So {script()}Voilà !", "a", "P"),
    "thinking is removed": (f"<think>\n<code>{script('a')}</code>\n</think>\n<code>{script('b')}</code>", "b", "P"),
    "thinking that began in the prompt": (f"Hm, <code>{script('a')}</code></think>{script('b')}", "b", "P"),
    "short form": ("  a=solve()\n", "a", "Solve."),
    "short form after thinking": ("<think>from workflow import\n</think>a=solve()", "a", "Solve."),
    "short form in a code block": ("<code>a=solve()</code>", "a", "Solve."),
    "short form in a fence": ("So:\n```\na=solve()\n```", "a", "Solve."),
}


@pytest.mark.parametrize("name", FOUND)
def test_design_is_found(name: str) -> None:
    response, agent, prompt = FOUND[name]
    design = read(response)
    assert isinstance(design, Design), design
    assert isinstance(design.workflow, Workflow)
    (step,) = design.workflow.steps
    assert isinstance(step, Agent)
    assert (step.name, step.system_prompt) == (agent, prompt)


@pytest.mark.parametrize(
    ("response", "refusal", "line", "column"),
    [
        ("", "no_code", 1, 1),
        ("<think>only", "no_code", 1, 1),
        ("<code>\n</code>", "no_code", 1, 1),
        ("```python\n```", "no_code", 1, 1),
        ("x" * (256 * 1024 + 1), "too_long", 1, 1),
        ("é" * (128 * 1024 + 1), "too_long", 1, 1),
        (f"<code>\n```python\n{script()}x = y\n```\n</code>", "unknown_name", 6, 5),
        (f"<code>\n{script()}x = y\n</code>", "unknown_name", 6, 5),
        (f"<code>\nimport x\n</code>\n```\n{WORSE}\n```", "forbidden", 1, 1),
        (f"Text.\nfrom workflow import Workflow\nw = Workflow()\nw.run(question)\n{WORSE}", "empty_workflow", 3, 1),
    ],
)
def test_first_candidate_is_diagnosed_in_its_own_lines(response: str, refusal: str, line: int, column: int) -> None:
    diagnosis = read(response)
    assert isinstance(diagnosis, Diagnosis), diagnosis
    assert (diagnosis.refusal, diagnosis.line, diagnosis.column) == (refusal, line, column), diagnosis


def test_prose_is_diagnosed_as_a_short_form() -> None:
    assert isinstance(read("I am not sure what to do."), Diagnosis)


def test_only_closed_or_leading_thinking_is_removed() -> None:
    assert without_thinking("a<think>b</think>c<THINK>d</THINK>e") == "ace"
    assert without_thinking("a</think>b") == "b"
    assert without_thinking("use <think> tags") == "use <think> tags"
    assert without_thinking("  <think>cut") == ""
    assert without_thinking("<think>a<think>b</think>c") == "c"


def test_few_candidates_are_tried_however_many_there_are() -> None:
    assert len(candidates("<code>1" * 9999)) <= 8
    assert len(candidates("```\n1\n" * 9999)) <= 8
    assert len(candidates("from workflow import (\n" * 999)) <= 8
