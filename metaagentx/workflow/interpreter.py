"""How a design runs: a workflow and a question become a process that asks for replies and ends in a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from metaagentx.workflow.context import Context, Said
from metaagentx.workflow.conversation import Setting
from metaagentx.workflow.ir import Workflow
from metaagentx.workflow.ledger import Ledger
from metaagentx.workflow.nodes import run_node
from metaagentx.workflow.prompts import Wording
from metaagentx.workflow.protocol import Delivery, Outcome, Process, RunResult, Turn
from metaagentx.workflow.room import CHARACTERS, Room

_NO_TEXTS: Mapping[str, str] = MappingProxyType({})


def run(
    workflow: Workflow,
    question_prompt: str,
    delivery: Delivery,
    *,
    wording: Wording = Wording(),  # noqa: B008 (frozen)
    max_calls: int,
    max_tool_calls: int = 64,
    room: Room = CHARACTERS,
    role: str = "executor",
    tool_texts: Mapping[str, str] = _NO_TEXTS,
) -> Process[RunResult]:
    """One run of `workflow` on one question.

    Args:
      workflow: a valid design.
      question_prompt: what the first agent is asked.
      delivery: how answers are handed in and read back.
      wording: everything said to agents that neither the design nor the task says.
      max_calls: model calls that may be sampled; later ones end as OVER_BUDGET without sampling.
      max_tool_calls: tools that may be run; later ones are not, and who asked for them is told so.
      room: how long an agent's prompt may become. Earlier steps and tools' results are shortened to fit into it, the
        oldest steps first; the question, the system message and the design's own words never are.
      role: whose policy answers.
      tool_texts: a description of each tool by name, shown to the agents that may call it; none are shown by default.

    Returns:
      A process whose result depends on nothing but what it is answered: not on when, nor on the order in which parallel
      branches are. `RunResult.turns` are in the order of the design, branch by branch.
    """
    ledger = Ledger(max_calls, max_tool_calls)
    setting = Setting(delivery, wording, role, tool_texts, room)
    said = yield from run_node(workflow, Context(question_prompt), setting, ledger)
    last = said or Said.silent(workflow.name)
    return RunResult(
        text=last.text,
        answer=last.answer,
        outcome=_outcome(last, ledger.turns),
        calls=ledger.calls,
        tool_calls=ledger.tool_calls,
        refused_tool_calls=ledger.refused_tool_calls,
        tokens=ledger.tokens,
        left_out=sum(turn.left_out for turn in ledger.turns),
        turns=tuple(ledger.turns),
    )


def _outcome(last: Said, turns: Sequence[Turn]) -> Outcome:
    """A cut reply that holds an answer counts; text without an answer is unparsable; silence keeps its reason.

    A run of which any reply was lost by our own fault is not the run that the design would have had.
    """
    if any(turn.reply.outcome is Outcome.FAILED for turn in turns):
        return Outcome.FAILED
    if last.is_silent:
        return last.outcome
    return Outcome.UNPARSABLE if last.answer is None else Outcome.OK
