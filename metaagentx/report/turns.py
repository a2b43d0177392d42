"""What agents were shown and replied, as HTML.

Every text in an episode was written by a model or a task: all of it is escaped, none of it becomes markup.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any, TypeAlias

Json = Mapping[str, Any]
LONGEST = 6000  # characters shown of one text
Sent: TypeAlias = Callable[[Json], str]
"""A call as HTML; "" where it is a tool's."""


def nobody(call: Json) -> str:
    """All calls are of tools."""
    return ""


def text(content: Any, limit: int = LONGEST) -> str:
    """Hostile text as HTML text: escaped, bounded, control characters made visible."""
    whole = str(content)
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in whole[:limit])
    more = f" … ({len(whole) - limit:,} more characters)" if len(whole) > limit else ""
    return escape(shown + more, quote=True)


def scores(record: Json) -> str:
    """Reward and advantage."""
    parts = [f'<span class="num">reward {record["reward"]:.2f}</span>']
    if record["advantage"] is not None:
        kind = "good" if record["advantage"] > 0 else "bad" if record["advantage"] < 0 else ""
        parts.append(f'<span class="num {kind}">advantage {record["advantage"]:+.2f}</span>'.replace("-", "−"))
    if record["masked"]:
        parts.append('<span class="num">not trained on (our own fault)</span>')
    return "".join(parts)


def verdict(run: Json) -> str:
    """Whether a run is right, its answer, what it earned and how it ended."""
    right = '<span class="good">✓ right</span>' if run["correct"] >= 0.5 else '<span class="bad">✗ wrong</span>'
    answer = "no answer" if run["answer"] is None else f"answer {text(run['answer'], 80)}"
    return f"{right}<span>{answer}</span>{scores(run)}{outcome(run)}"


def outcome(record: Json) -> str:
    """How it ended, where that was not well."""
    ended = record["outcome"].replace("_", " ")
    return "" if ended == "ok" else f'<span class="num">{escape(ended)}</span>'


def price(run: Json) -> str:
    """Model calls and generated tokens."""
    calls = f"{run['calls']} {'call' if run['calls'] == 1 else 'calls'}"
    return f'<span class="num">{calls}, {run["tokens"]:,} tokens</span>'


def conversation(turns: Sequence[Json], sent: Sent = nobody) -> str:
    """All turns of a run; those who were shown the same stand below it together."""
    groups = groupby(turns, key=lambda turn: turn["messages"])
    return "".join(shown(messages, list(own), sent) for messages, own in groups)


def shown(messages: Sequence[Json], turns: Sequence[Json], sent: Sent = nobody) -> str:
    """Messages, and the turns of those who were shown them, one after the other: members of a vote read the same.

    `sent`: how a call is shown that is no tool's.
    """
    to = ", ".join(f"<b>{text(agent, 80)}</b>" for agent in dict.fromkeys(turn["agent"] for turn in turns))
    asked = "".join(
        f'<div class="who">{escape(message["role"])} to {to}</div><pre>{text(message["content"])}</pre>'
        for message in messages
    )
    if left_out := turns[0].get("left_out"):  # records of earlier versions do not say it
        asked += f'<div class="who">there was no room for {left_out:,} characters of earlier steps and results</div>'
    return asked + "".join(_turn(turn, sent) for turn in turns)


def _turn(turn: Json, sent: Sent) -> str:
    parts = []
    ended = "" if turn["outcome"] == "ok" else f" · {escape(turn['outcome'].replace('_', ' '))}"
    if turn["reply"] or turn["outcome"] != "ok":
        parts.append(
            f'<div class="who"><b>{text(turn["agent"], 80)}</b> replies · {turn["tokens"]} tokens{ended}</div>'
        )
        parts.append(f'<pre class="reply">{text(turn["reply"]) or "(nothing)"}</pre>')
    for i, call in enumerate(turn["tool_calls"]):
        if errand := sent(call):
            parts.append(errand)
            continue
        parts.append(f'<div class="who">calls the tool <b>{text(call["name"], 80)}</b></div>')
        parts.append(f'<pre class="tool">{text(json.dumps(call["arguments"], ensure_ascii=False))}</pre>')
        if i < len(turn["tool_results"]):
            result = turn["tool_results"][i]
            parts.append(f'<div class="who">tool {"result" if result["ok"] else "error"}</div>')
            parts.append(f'<pre class="tool">{text(result["text"])}</pre>')
    return "".join(parts)
