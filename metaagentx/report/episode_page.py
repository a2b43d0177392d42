"""Whole episodes as HTML to read: the drawn design, every agent's prompt and reply, rewards and advantages.

Every text in an episode was written by a model or a task: all of it is escaped, none of it becomes markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from metaagentx.report import graph, team_page
from metaagentx.report.turns import Json, conversation, price, scores, text, verdict


def choose(episodes: Sequence[Json], most: int = 10) -> list[Json]:
    """A few to read: of each kind of question the latest and the earliest, then the latest of all, newest first."""
    kinds = list(dict.fromkeys(episode["question"]["kind"] for episode in reversed(episodes)))
    by_kind = {kind: [i for i, e in enumerate(episodes) if e["question"]["kind"] == kind] for kind in kinds}
    wanted = [by_kind[kind][-1] for kind in kinds] + [by_kind[kind][0] for kind in kinds]
    chosen = list(dict.fromkeys([*wanted, *reversed(range(len(episodes)))]))[:most]
    return [episodes[i] for i in sorted(chosen, reverse=True)]


def episode(record: Json, *, opened: bool = False) -> str:
    """One episode, folded unless `opened`."""
    question, invalid = record["question"], 0
    if "rollouts" in record:
        runs = record["rollouts"]
        body = "".join(team_page.rollout(run, number) for number, run in enumerate(runs, 1))
    else:
        runs = [run for design in record["designs"] for run in design["executions"]]
        body = "".join(_design(design, number) for number, design in enumerate(record["designs"], 1))
        invalid = sum(not design["valid"] for design in record["designs"])
    right = sum(run["correct"] >= 0.5 for run in runs)
    count = f"{right} of {len(runs)} runs right" + (f", {invalid} invalid" if invalid else "")
    summary = (
        f'<summary><span class="tag">{escape(question["kind"])}</span>'
        f'<span class="q">{text(question["prompt"], 160)}</span>'
        f'<span class="num">{count}</span><span class="num">{escape(record["phase"].replace("_", " "))}'
        f" step {record['step']:,}</span></summary>"
    )
    prompt = f'<div class="who"><b>question</b></div><pre>{text(question["prompt"])}</pre>'
    return (
        f'<details class="episode"{" open" if opened else ""}>{summary}<div class="body">{prompt}{body}</div></details>'
    )


def _design(design: Json, number: int) -> str:
    parts = [f"<header><b>Design {number}</b>{scores(design)}</header>"]
    if design["valid"]:
        parts.append(f'<div class="drawing">{graph.draw(design["workflow"], style=False)}</div>')
    else:
        fault = design["diagnosis"]
        parts.append(
            f'<p class="diagnosis">Refused ({escape(fault["refusal"])}, line {fault["line"]},'
            f" column {fault['column']}): {text(fault['message'], 400)}</p>"
        )
    written = f'<div class="who"><b>the designer wrote</b></div><pre class="reply">{text(design["text"])}</pre>'
    parts.append(written)
    parts += [_execution(run, i) for i, run in enumerate(design["executions"], 1)]
    return f'<div class="design-part">{"".join(parts)}</div>'


def _execution(run: Json, number: int) -> str:
    summary = f"<summary><span>Run {number}</span>{verdict(run)}{price(run)}</summary>"
    return f'<details>{summary}<div class="body">{conversation(run["turns"])}</div></details>'
