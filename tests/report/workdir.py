"""A made-up work directory, shaped like a real one: cold start, alternating phases, episodes of every sort."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from metaagentx.metrics import JsonLines
from metaagentx.report.charts import SIGNATURES
from metaagentx.report.records import episode
from metaagentx.rollout.trajectory import DesignRollout, Execution, Tree
from metaagentx.tasks.task import Question
from metaagentx.workflow.ir import Agent, Design, Diagnosis, Ensemble, Refusal, Workflow
from metaagentx.workflow.protocol import Message, Outcome, Reply, RunResult, ToolCall, ToolResult, Turn

KINDS = ("sum3", "sum5", "tool", "spell")
HOSTILE = "</pre></details><script>alert('owned')</script><img src=https://evil.example/x onerror=alert(1)>"
RESULTS = {
    "config": {"stages": {"mode": "stagewise", "length": 10}, "tree": {"designs": 4, "executions": 4}, "steps": 120},
    "seed": 3,
    "device": "cpu (2 cores)",
    "versions": {"python": "3.11.9", "jax": "0.10.2", "metaagentx": "0.1.0", "git": "a11dbc3"},
    "table": [
        {"name": name, "accuracy": accuracy, "low": accuracy - 0.043, "high": accuracy + 0.044, "questions": 400}
        | {"tokens_per_question": tokens, "calls_per_question": calls, "by_kind": dict(zip(KINDS, kinds, strict=True))}
        for name, accuracy, tokens, calls, kinds in (
            ("single agent", 0.1925, 4.7, 1.0, (0.21, 0.04, 0.0, 0.52)),
            ("self-consistency ×5", 0.275, 23.1, 5.0, (0.32, 0.06, 0.0, 0.72)),
            ("cold-started designer", 0.286, 12.4, 2.6, (0.28, 0.11, 0.23, 0.53)),
            ("trained", 0.668, 15.9, 3.2, (0.68, 0.39, 0.9, 0.74)),
        )
    ],
    "crossplay": {"cold/cold": 0.286, "trained/cold": 0.527, "cold/trained": 0.394, "trained/trained": 0.668},
    "players": ["designer", "executor"],
    "ways_by_kind": {
        "sum3": [
            {"way": "a=solve({question});b=solve({a} - 7)", "share": 0.61, "accuracy": 0.71},
            {"way": "a=solve()x5", "share": 0.35, "accuracy": 0.64},
            {"way": "invalid", "share": 0.04, "accuracy": 0.0},
        ],
        "sum5": [
            {"way": "chain+vote", "share": 0.83, "accuracy": 0.42},
            {"way": "vote", "share": 0.17, "accuracy": 0.2},
        ],
        "tool": [
            {"way": "a=tool()", "share": 0.97, "accuracy": 0.91},
            {"way": "single", "share": 0.03, "accuracy": 0.0},
        ],
        "spell": [
            {"way": "a=spell()x5", "share": 0.9, "accuracy": 0.76},
            {"way": "single", "share": 0.1, "accuracy": 0.6},
        ],
    },
}


def metrics(steps: int = 120, phase_length: int = 20) -> list[dict]:
    """Twelve points of cold start, then `steps` steps of alternating phases."""
    random = np.random.default_rng(0)
    lines: list[dict] = []
    for i in range(12):
        line = {
            "step": 60 * (i + 1),
            "phase": "cold_start",
            "time": 10.0 * i,
            "cold_start/loss": 3 * math.exp(-i / 3) + 0.4,
        }
        if i % 3 == 2:
            line["eval/accuracy"] = 0.28 * (1 - math.exp(-i / 4))
        lines.append(line)
    lines.append({"step": 0, "phase": "start", "time": 120.0, "eval/accuracy": 0.28})
    skill = taste = 0.0
    for step in range(1, steps + 1):
        phase = "executor" if (step - 1) // phase_length % 2 == 0 else "designer"
        skill, taste = skill + (phase == "executor") / 60, taste + (phase == "designer") / 60
        accuracy = 0.28 + 0.12 * skill + 0.26 * taste
        line = {"step": step, "phase": phase, "time": 120.0 + 2.5 * step}
        line["credit/reward/designer"] = accuracy + 0.05 * random.normal()
        line["credit/reward/executor"] = accuracy + 0.02 + 0.06 * random.normal()
        entropy = {"designer": 1.4 - 0.8 * taste, "executor": 0.5 - 0.3 * skill}[phase]
        line[f"train/{phase}/entropy"] = entropy + 0.03 * random.normal()  # measured while the role trains
        line["rollout/tokens_per_execution"] = 12.4 + 4 * taste + 0.5 * random.normal()
        line["engine/occupancy"] = 0.8 + 0.03 * random.normal()
        for k, kind in enumerate(KINDS):
            weights = np.array(
                [1.0 - 0.9 * taste, 1.2 - 0.8 * skill, 1.0, 1.0, 0.8, 0.6 - 0.5 * taste, 0.5 - 0.45 * taste]
            )
            weights[(3, 3, 4, 1)[k]] += 4 * taste
            weights = np.maximum(weights + 0.08 * random.normal(size=7), 0.01)
            for name, share in zip(SIGNATURES, weights / weights.sum(), strict=True):
                line[f"designs/{kind}/{name}"] = float(share)
        if step % 10 == 0:
            line["eval/accuracy"] = accuracy + 0.01 * random.normal()
            line["eval/tokens_per_question"] = 19.0 + 5 * taste + 0.3 * random.normal()
            for kind, scale in zip(KINDS, (1.0, 0.55, 1.25, 1.2), strict=True):
                line[f"eval/accuracy/{kind}"] = min(0.98, accuracy * scale)
        lines.append(line)
    return lines


def _turn(agent: str, asked: str, reply: str, *, tools: bool = False) -> Turn:
    shown = (Message("system", f"You are {agent}. Answer in \\boxed{{}}."), Message("user", asked))
    if not tools:
        return Turn(agent, shown, Reply(reply, Outcome.OK, 5))
    calls = (ToolCall("calculator", {"expression": "gcd(26, 38)"}, agent),)
    return Turn(agent, shown, Reply(reply, Outcome.OK, 9), calls, (ToolResult("2"),))


def _run(turns: list[Turn], answer: str | None, correct: float) -> Execution:
    outcome = Outcome.OK if answer is not None else Outcome.UNPARSABLE
    tokens = sum(turn.reply.tokens for turn in turns)
    result = RunResult(turns[-1].reply.text, answer, outcome, len(turns), tokens=tokens, turns=tuple(turns))
    return Execution(result, correct, float(answer is not None), 0.1, correct + 0.1)


def tree(kind: str, number: int) -> Tree:
    """A chain, a vote, a tool call and a refused design for one question."""
    question = Question(
        f"{kind}-{number}", kind, f"State the final answer to the following problem: 4 - 1 + {number} =", "text"
    )
    solve = "You add two numbers, with care."
    chain = Workflow("w", (Agent("a", solve, task="4 - 1"), Agent("b", solve, task=f"{{a}} + {number}")))
    vote = Workflow("w", (Ensemble("a", tuple(Agent(f"a{i}", solve) for i in range(5))),))
    tool = Workflow("w", (Agent("a", "You may use a calculator.", tools=("calculator",), max_turns=2),))
    right, wrong = str(3 + number), str(2 + number)
    good = [_turn("a", "4 - 1", "\\boxed{3}"), _turn("b", f"3 + {number}", f"\\boxed{{{right}}}")]
    bad = [_turn("a", "4 - 1", HOSTILE), _turn("b", f" + {number}", "no idea")]
    votes = [_turn(f"a{i}", question.prompt, f"\\boxed{{{right if i % 2 else wrong}}}") for i in range(5)]
    call = '<tool_call>{"name": "calculator", "arguments": {"expression": "gcd(26, 38)"}}</tool_call>'
    used = [
        _turn("a", question.prompt, call, tools=True),
        Turn("a", (Message("tool", "2"),), Reply("\\boxed{2}", Outcome.OK, 4)),
    ]
    fault = Diagnosis(Refusal.UNKNOWN_NAME, f"no role is called 'slove'; roles: solve, tool {HOSTILE}", 1, 3)

    def rollout(text: str, flow: Workflow, reward: float, runs: list[Execution]) -> DesignRollout:
        return DesignRollout(text, Design(flow), "key", text, reward, Outcome.OK, executions=runs)

    return Tree(
        question,
        [
            rollout(
                f"a=solve(4 - 1);b=solve({{a}} + {number})", chain, 0.6, [_run(good, right, 1.0), _run(bad, None, 0.0)]
            ),
            rollout("a=solve()x5", vote, 0.1, [_run(votes, wrong, 0.0), _run(votes, wrong, 0.0)]),
            rollout("a=tool()", tool, 0.1, [_run(used, "2", 0.0), _run(used, "2", 0.0)]),
            DesignRollout(f"a=slove() {HOSTILE}", fault, "", "", -0.2, Outcome.OK),
        ],
    )


def episodes() -> list[dict]:
    """Two of each kind, early and late."""
    return [
        episode(
            tree(kind, step // 20),
            step=step,
            phase="executor" if step < 60 else "designer",
            design_advantages=[1.4, -0.2, -0.2, -1.0],
            execution_advantages=[[1.7, -0.6], [-0.6, -0.6], [-0.6, -0.6], []],
        )
        for step in (20, 120)
        for kind in KINDS
    ]


def make(folder: Path, *, finished: bool = True, steps: int = 120) -> Path:
    """Write it all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in (("metrics.jsonl", metrics(steps)), ("episodes.jsonl", episodes())):
        lines = JsonLines(folder / name)
        for record in records:
            lines.append(record)
    if finished:
        (folder / "results.json").write_text(json.dumps(RESULTS))
    return folder
