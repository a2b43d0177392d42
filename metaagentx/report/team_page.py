"""A team's rollouts as HTML to read: the main agent's turns, and in them whom it asked what, and what came back."""

from __future__ import annotations

from metaagentx.report.turns import Json, conversation, outcome, price, scores, text, verdict


def rollout(run: Json, number: int) -> str:
    """One rollout. A sub-task is unfolded where the main agent asked for it."""
    waiting = list(run["errands"])  # in the order in which the main agent asked

    def sent(call: Json) -> str:
        """The sub-task that a call of the main agent is."""
        task = str(call["arguments"].get("task")).strip()
        if not waiting or (call["name"], task) != (waiting[0]["sub"], waiting[0]["task"]):
            return ""
        return _errand(waiting.pop(0))

    asked = len(run["errands"])
    refused = f", {run['refused']} more refused" if run["refused"] else ""
    count = f'<span class="num">{asked} sub-task{"" if asked == 1 else "s"}{refused}</span>'
    header = f"<header><b>Rollout {number}</b>{verdict(run)}{count}{price(run)}</header>"
    return f'<div class="design-part">{header}{conversation(run["turns"], sent)}</div>'


def _errand(errand: Json) -> str:
    mark = "nobody could mark it" if errand["mark"] is None else f"report marked {errand['mark']:.2f}"
    asked = f'<span>asks <b>{text(errand["sub"], 80)}</b></span><span class="q">{text(errand["task"], 160)}</span>'
    said = f"<span>→ {text(errand['report'], 120) or 'no report'}</span>"
    summary = f'{asked}{said}<span class="num">{mark}</span>{scores(errand)}{outcome(errand)}'
    body = conversation(errand["turns"])
    return f'<details class="errand"><summary>{summary}</summary><div class="body">{body}</div></details>'
