"""Conditions as data: when they hold, and how they are joined without what changes nothing."""

from __future__ import annotations

from metaagentx.workflow.context import Context
from metaagentx.workflow.ir import AllOf, AnswerAgrees, AnyOf, Condition, Contains, Not, VerdictAccepts
from metaagentx.workflow.protocol import Delivery
from metaagentx.workflow.verdict import accepts

ALWAYS, NEVER = AllOf(()), AnyOf(())


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


def negate(condition: Condition) -> Condition:
    """`not condition`, without a double negation."""
    match condition:
        case Not(inner):
            return inner
        case AllOf(()):
            return NEVER
        case AnyOf(()):
            return ALWAYS
    return Not(condition)


def all_of(*conditions: Condition) -> Condition:
    """All of `conditions`, constants simplified away."""
    open_ = tuple(each for each in conditions if each != ALWAYS)
    return NEVER if NEVER in open_ else open_[0] if len(open_) == 1 else AllOf(open_)


def any_of(*conditions: Condition) -> Condition:
    """Any of `conditions`, constants simplified away."""
    open_ = tuple(each for each in conditions if each != NEVER)
    return ALWAYS if ALWAYS in open_ else open_[0] if len(open_) == 1 else AnyOf(open_)


def simplified(condition: Condition) -> Condition:
    """A condition that always holds when `condition` does, the same for all that differ in how they are written."""
    match condition:
        case Contains(""):
            return ALWAYS
        case Contains(text, ignore_case=True):
            return Contains(text.casefold(), ignore_case=True)
        case Not(inner):
            return negate(simplified(inner))
        case AllOf(conditions):
            parts = [simplified(each) for each in conditions]
            return all_of(*(p for part in parts for p in (part.conditions if isinstance(part, AllOf) else (part,))))
        case AnyOf(conditions):
            parts = [simplified(each) for each in conditions]
            return any_of(*(p for part in parts for p in (part.conditions if isinstance(part, AnyOf) else (part,))))
    return condition


def constant(condition: Condition) -> bool | None:
    """What `condition` always is, whatever is said; None where it may be either."""
    simple = simplified(condition)
    return True if simple == ALWAYS else False if simple == NEVER else None
