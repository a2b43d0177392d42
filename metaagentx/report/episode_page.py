"""Whole episodes as HTML to read: the drawn design, every agent's prompt and reply, rewards and advantages.

Every text in an episode was written by a model or a task: all of it is escaped, none of it becomes markup.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

from metaagentx.report import graph

Json = Mapping[str, Any]
LONGEST = 6000  # characters shown of one text


def choose(episodes: Sequence[Json], most: int = 10) -> list[Json]:
    """A few to read: of each kind of question the latest and the earliest, then the latest of all, newest first."""
    kinds = list(dict.fromkeys(episode["question"]["kind"] for episode in reversed(episodes)))
    by_kind = {kind: [i for i, e in enumerate(episodes) if e["question"]["kind"] == kind] for kind in kinds}
    wanted = [by_kind[kind][-1] for kind in kinds] + [by_kind[kind][0] for kind in kinds]
    chosen = list(dict.fromkeys([*wanted, *reversed(range(len(episodes)))]))[:most]
    return [episodes[i] for i in sorted(chosen, reverse=True)]


def episode(record: Json, *, opened: bool = False) -> str:
    """One episode, folded unless `opened`."""
    question, designs = record["question"], record["designs"]
    runs = [run for design in designs for run in design["executions"]]
    right = sum(run["correct"] >= 0.5 for run in runs)
    invalid = sum(not design["valid"] for design in designs)
    count = f"{right} of {len(runs)} runs right" + (f", {invalid} invalid" if invalid else "")
    summary = (
        f'<summary><span class="tag">{escape(question["kind"])}</span>'
        f'<span class="q">{text(question["prompt"], 160)}</span>'
        f'<span class="num">{count}</span><span class="num">{escape(record["phase"].replace("_", " "))}'
        f" step {record['step']:,}</span></summary>"
    )
    body = "".join(_design(design, number) for number, design in enumerate(designs, 1))
    prompt = f'<div class="who"><b>question</b></div><pre>{text(question["prompt"])}</pre>'
    return (
        f'<details class="episode"{" open" if opened else ""}>{summary}<div class="body">{prompt}{body}</div></details>'
    )


def text(content: Any, limit: int = LONGEST) -> str:
    """Hostile text as HTML text: escaped, bounded, control characters made visible."""
    whole = str(content)
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in whole[:limit])
    more = f" … ({len(whole) - limit:,} more characters)" if len(whole) > limit else ""
    return escape(shown + more, quote=True)


def _scores(record: Json) -> str:
    parts = [f'<span class="num">reward {record["reward"]:.2f}</span>']
    if record["advantage"] is not None:
        kind = "good" if record["advantage"] > 0 else "bad" if record["advantage"] < 0 else ""
        parts.append(f'<span class="num {kind}">advantage {record["advantage"]:+.2f}</span>'.replace("-", "−"))
    if record["masked"]:
        parts.append('<span class="num">not trained on (our own fault)</span>')
    return "".join(parts)


def _design(design: Json, number: int) -> str:
    parts = [f"<header><b>Design {number}</b>{_scores(design)}</header>"]
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
    verdict = '<span class="good">✓ right</span>' if run["correct"] >= 0.5 else '<span class="bad">✗ wrong</span>'
    answer = "no answer" if run["answer"] is None else f"answer {text(run['answer'], 80)}"
    outcome = "" if run["outcome"] == "ok" else f'<span class="num">{escape(run["outcome"].replace("_", " "))}</span>'
    calls = f"{run['calls']} {'call' if run['calls'] == 1 else 'calls'}"
    summary = (
        f"<summary><span>Run {number}</span>{verdict}<span>{answer}</span>{_scores(run)}{outcome}"
        f'<span class="num">{calls}, {run["tokens"]:,} tokens</span></summary>'
    )
    groups = groupby(run["turns"], key=lambda turn: turn["messages"])
    turns = "".join(_shown(messages, list(turns)) for messages, turns in groups)
    return f'<details>{summary}<div class="body">{turns}</div></details>'


def _shown(messages: Sequence[Json], turns: Sequence[Json]) -> str:
    """Messages, and the turns of those who were shown them, one after the other: members of a vote read the same."""
    to = ", ".join(f"<b>{text(agent, 80)}</b>" for agent in dict.fromkeys(turn["agent"] for turn in turns))
    asked = "".join(
        f'<div class="who">{escape(message["role"])} to {to}</div><pre>{text(message["content"])}</pre>'
        for message in messages
    )
    if left_out := turns[0].get("left_out"):  # records of earlier versions do not say it
        asked += f'<div class="who">there was no room for {left_out:,} characters of earlier steps and results</div>'
    return asked + "".join(_turn(turn) for turn in turns)


def _turn(turn: Json) -> str:
    parts = []
    ended = "" if turn["outcome"] == "ok" else f" · {escape(turn['outcome'].replace('_', ' '))}"
    if turn["reply"] or turn["outcome"] != "ok":
        parts.append(
            f'<div class="who"><b>{text(turn["agent"], 80)}</b> replies · {turn["tokens"]} tokens{ended}</div>'
        )
        parts.append(f'<pre class="reply">{text(turn["reply"]) or "(nothing)"}</pre>')
    for i, call in enumerate(turn["tool_calls"]):
        parts.append(f'<div class="who">calls the tool <b>{text(call["name"], 80)}</b></div>')
        parts.append(f'<pre class="tool">{text(json.dumps(call["arguments"], ensure_ascii=False))}</pre>')
        if i < len(turn["tool_results"]):
            result = turn["tool_results"][i]
            parts.append(f'<div class="who">tool {"result" if result["ok"] else "error"}</div>')
            parts.append(f'<pre class="tool">{text(result["text"])}</pre>')
    return "".join(parts)
