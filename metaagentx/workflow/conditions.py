"""When a condition holds: conditions are data, read here."""

from __future__ import annotations

from metaagentx.workflow.context import Context
from metaagentx.workflow.ir import AllOf, AnswerAgrees, AnyOf, Condition, Contains, Not, VerdictAccepts
from metaagentx.workflow.protocol import Delivery
from metaagentx.workflow.verdict import accepts


def holds(condition: Condition, context: Context, delivery: Delivery) -> bool:
    """Whether `condition` holds after what has been said."""
    match condition:
        case Contains(text, ignore_case):
            latest = context.latest
            return text.casefold() in latest.casefold() if ignore_case else text in latest
        case AnswerAgrees():
            answers = [said.answer for said in context.history if said.answer is not None][-2:]
            return len(answers) == 2 and delivery.normalise(answers[0]) == delivery.normalise(answers[1])
        case VerdictAccepts():
            return accepts(context.latest) is True
        case Not(inner):
            return not holds(inner, context, delivery)
        case AllOf(conditions):
            return all(holds(each, context, delivery) for each in conditions)
        case AnyOf(conditions):
            return any(holds(each, context, delivery) for each in conditions)
