"""One episode as text for a terminal: the design as a tree or the sub-tasks, every turn, the answer and the verdict."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from metaagentx.report.graph import STRATEGIES, condition

Json = Mapping[str, Any]


def render(record: Json, *, graded: bool = True, width: int = 120) -> str:
    """An episode, as `records.episode` makes it, as plain text. `graded` False: nobody knows the true answer."""
    stream = io.StringIO()
    _print(Console(file=stream, width=width, highlight=False, emoji=False, markup=False), record, graded)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def show(record: Json, *, graded: bool = True) -> None:
    """Print an episode, in colour on a terminal."""
    _print(
        Console(width=None if sys.stdout.isatty() else 120, highlight=False, emoji=False, markup=False), record, graded
    )


def _print(console: Console, record: Json, graded: bool) -> None:
    """Model text is printed as text, without control characters."""
    console.print(
        _line(("Question ", "bold"), (f"({record['question']['kind']}) ", "dim"), record["question"]["prompt"])
    )
    for number, rollout in enumerate(record.get("rollouts", ()), 1):
        label = f"\nRollout {number}" if len(record["rollouts"]) > 1 else ""
        console.print(_line((label, "bold"), (_scores(rollout) if graded else "", "dim")))
        _rollout(console, rollout, graded)
    for number, design in enumerate(record.get("designs", ()), 1):
        console.print()
        label = f"Design {number}" if len(record["designs"]) > 1 else "Design"
        console.print(_line((label, "bold"), (_scores(design) if graded else "", "dim")))
        if not design["valid"]:
            fault = design["diagnosis"]
            console.print(_line("  ", design["text"]))
            where = f"line {fault['line']}, column {fault['column']}"
            console.print(_line((f"  refused ({fault['refusal']}, {where}): ", "red"), fault["message"]))
            continue
        console.print(tree(design["workflow"], design["short"]))
        for i, run in enumerate(design["executions"], 1):
            if len(design["executions"]) > 1:
                console.print(_line(f"\nRun {i}", (_scores(run) if graded else "", "dim")))
            _execution(console, run, graded)


def tree(workflow: Json, title: str) -> Tree:
    """A workflow as a tree: steps in order, members and branches below their node."""
    root = Tree(_line((title or workflow["name"], "cyan")), guide_style="dim")
    for step in workflow["steps"]:
        _grow(root, step, "")
    return root


def _grow(parent: Tree, node: Json, edge: str) -> None:
    branch = parent.add(_line((edge, "dim"), (node["name"], "bold"), (_about(node), "dim")))
    for name, child in _children(node):
        _grow(branch, child, name)


def _about(node: Json) -> str:
    """What a node is, in a few words."""
    match node["type"]:
        case "Agent":
            asked = f"  asked {node['task']!r}" if node["task"] is not None else ""
            return asked + (f"  tools: {', '.join(node['tools'])}" if node["tools"] else "")
        case "Ensemble":
            return f"  {STRATEGIES[node['strategy']]} of {len(node['agents'])}"
        case "Reflection":
            return f"  reflection, at most {node['iterations']} times" + ("" if node["critic"] else ", own critic")
        case "Debate":
            return f"  debate, {node['rounds']} rounds"
        case "Router":
            return "  router"
        case "Loop":
            return f"  loop until {condition(node['until'])}, at most {node['max_iterations']} times"
        case "Branch":
            return f"  if {condition(node['condition'])}"
        case "Graph":
            edges = (
                f"{e['source']} → {e['target']}" + (f" if {condition(e['condition'])}" if e["condition"] else "")
                for e in node["edges"]
            )
            return f"  graph from {node['entry']} to {', '.join(node['finish'])}: {'; '.join(edges)}"
        case _:
            return "  workflow"


def _children(node: Json) -> Iterator[tuple[str, Json]]:
    """A node's own nodes, each with what it is to it."""
    for field in ("agents", "debaters", "body", "nodes", "steps"):
        for child in node.get(field) or ():
            yield "", child
    for name, child in node.get("routes") or ():
        yield f"{name}: ", child
    if node.get("rule", {}).get("agent"):
        yield "chooses: ", node["rule"]["agent"]
    for field in ("agent", "critic", "judge"):
        if node.get(field):
            yield f"{field}: ", node[field]


def _rollout(console: Console, run: Json, graded: bool) -> None:
    """The main agent's turns, then what sub-agents did, in the order in which they were asked."""
    _turns(console, run["turns"], "  ")
    for number, errand in enumerate(run["errands"], 1):
        mark = "" if not graded or errand["mark"] is None else f", marked {errand['mark']:.2f}"
        earned = _scores(errand) if graded else ""
        console.print(_line((f"  Sub-task {number} for {errand['sub']}", "bold"), (f"{earned}{mark}", "dim")))
        _turns(console, errand["turns"], "    ")
    _end(console, run, graded)


def _execution(console: Console, run: Json, graded: bool) -> None:
    _turns(console, run["turns"], "  ")
    _end(console, run, graded)


def _turns(console: Console, turns: Iterable[Json], indent: str) -> None:
    for turn in turns:
        for message in turn["messages"]:
            if message["role"] != "system":
                console.print(_line((f"{indent}{message['role']} → {turn['agent']}: ", "dim"), message["content"]))
        if turn["reply"] or turn["outcome"] != "ok":
            console.print(_line((f"{indent}{turn['agent']}: ", "bold"), turn["reply"] or f"({turn['outcome']})"))
        for i, call in enumerate(turn["tool_calls"]):
            given = json.dumps(call["arguments"], ensure_ascii=False)
            result = turn["tool_results"][i]["text"] if i < len(turn["tool_results"]) else ""
            console.print(_line((f"{indent}tool ", "green"), f"{call['name']} {given} → {result}"))


def _end(console: Console, run: Json, graded: bool) -> None:
    """The answer, the verdict and the price."""
    verdict = ("right", "green") if run["correct"] >= 0.5 else ("wrong", "red")
    verdict = verdict if graded else ("", "")
    answer = "none" if run["answer"] is None else run["answer"]
    console.print(_line(("  Answer: ", "bold"), answer, ("  ", ""), verdict))
    price = f"  {run['calls']} calls, {run['tokens']} tokens"
    console.print(_line((price if run["outcome"] == "ok" else f"{price}, {run['outcome']}", "dim")))


def _scores(record: Json) -> str:
    advantage = "" if record["advantage"] is None else f", advantage {record['advantage']:+.2f}"
    return f"  reward {record['reward']:.2f}{advantage}"


def _line(*parts: str | tuple[str, str]) -> Text:
    """Text without control characters: a model must not move the cursor or colour the screen."""
    line = Text()
    for part in parts:
        text, style = part if isinstance(part, tuple) else (part, "")
        line.append("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text), style)
    return line
