"""Records the workload of `benchmarks.tree`: what the rollout asks for while it grows real trees.

    python -m benchmarks.record_tree

Everything but the replies is the system itself: questions, the designer's prompt, designs as they are read, the
agents' prompts as the interpreter makes them, the calculator's results. Replies are written by a script, since a
workload needs realistic lengths and SmolLM2 unlearned writes no designs: of n tokens each, n lognormal (`MEAN`,
`SPREAD`, at most `MOST`), thoughts first and then a design, a call of the calculator or an answer. Writes
`benchmarks/workloads/tree.json`; the same seed gives the same file.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from benchmarks.workload import FILE
from configs import smollm2_gym
from metaagentx.policy.chat import Chat
from metaagentx.rollout.sampled import Ask, Sampled
from metaagentx.rollout.scheduler import run
from metaagentx.rollout.tree import forest
from metaagentx.settings import read
from metaagentx.workbench import open_workbench
from metaagentx.workflow.protocol import Outcome

SEED, QUESTIONS, DESIGNS, EXECUTIONS = 0, 8, 4, 4
MEAN, SPREAD, MOST = 146, 1.0, 512  # tokens of a reply: mean before the bound, standard deviation of the logarithm
LEAST = 48  # tokens: what a reply needs to say anything
PLANS = (
    "a=solve()",
    "a=solve()x3",
    "a=plan();b=solve()",
    "a=solve();b=check()",
    "a=calc();b=check()",
    "a=plan();b=calc();c=check()",
)
THOUGHTS = (
    "so the next step is to take the first part and the rest of it then we see that this must be equal to what was "
    "asked because each number in the question counts once and no other way gives a smaller result if we check again"
)


class Recorder:
    """Answers all calls that wait at once, and writes down what was asked."""

    version = 0

    def __init__(self, chat: Chat, seed: int) -> None:
        self.chat, self.draw = chat, np.random.default_rng(seed)
        self.asks: list[Ask] = []
        self.waiting: list[Ask] = []
        self.said: dict[int, list[int]] = {}  # of a conversation: prompt and reply so far
        self.rounds: dict[tuple[int, ...], int] = {}
        self.calls: list[dict[str, Any]] = []
        self.texts: dict[str, int] = {}

    def submit(self, ask: Ask) -> None:
        self.waiting.append(ask)

    def hold(self, conversation: int) -> None:
        """Where a dialogue goes on, a tool worked for it."""

    def release(self, conversation: int) -> None:
        self.said.pop(conversation, None)

    def drop(self) -> None:
        self.waiting.clear()

    def step(self) -> list[tuple[int, Sampled]]:
        asks, self.waiting = self.waiting, []
        seen = set()
        done = []
        for ask in sorted(asks, key=lambda ask: ask.ids):
            place = tuple(ask.ids[2:5])
            if place not in seen:
                seen.add(place)
                self.rounds[place] = self.rounds.get(place, -1) + 1
            done.append((ask.ticket, self.answer(ask, place)))
        return done

    def answer(self, ask: Ask, place: tuple[int, ...]) -> Sampled:
        before = self.said.get(ask.conversation, [])
        prompt = ask.prompt.tolist()
        assert prompt[: len(before)] == before
        text = str(self.chat.tokenizer.decode(prompt[len(before) :]))
        assert self.chat.tokenizer.encode(text, add_special_tokens=False) == prompt[len(before) :], text
        drawn = self.draw.lognormal(math.log(MEAN) - SPREAD**2 / 2, SPREAD)
        reply = self.reply(ask, min(max(round(drawn), LEAST), MOST))
        self.said[ask.conversation] = [*prompt, *reply]
        self.calls.append(
            dict(zip(("question", "design", "execution"), place, strict=True))
            | {"round": self.rounds[place], "conversation": ask.conversation, "role": ask.role}
            | {"text": self.texts.setdefault(text, len(self.texts)), "reply": len(reply)}
        )
        tokens = np.array(reply, np.int32)
        return Sampled(tokens, np.zeros(len(tokens), np.float32), Outcome.OK)

    def reply(self, ask: Ask, length: int) -> list[int]:
        """`length` tokens: thoughts, then what the role must say, then the end of its turn."""
        if ask.role == "designer":
            last = str(self.draw.choice(PLANS))
        elif "calculator" in ask.messages[0].content and ask.messages[-1].role == "user" and len(ask.messages) < 4:
            last = '<tool_call>{"name": "calculator", "arguments": {"expression": "12 * 7 + 5"}}</tool_call>'
        else:
            last = "The answer is \\boxed{" + str(self.draw.integers(100)) + "}."
        closing = [*self.chat.encode(f"</think>\n{last}" if ask.role == "designer" else f"\n{last}"), self.chat.end]
        opening = self.chat.encode("<think>") if ask.role == "designer" else []
        thoughts = self.chat.encode(" ".join(self.draw.choice(THOUGHTS.split(), 2 * MOST)))
        return [*opening, *thoughts[: max(length - len(opening) - len(closing), 0)], *closing]


def record() -> dict[str, Any]:
    """The workload."""
    with open_workbench(read(smollm2_gym.get_config())) as bench:
        recorder = Recorder(bench.chat, SEED)
        questions = [bench.task.question("train", number, seed=SEED) for number in range(QUESTIONS)]
        options = bench.settings.tree
        assert (options.designs, options.executions) == (DESIGNS, EXECUTIONS)
        process = forest(questions, bench.task, options, bench.language)
        engines = dict.fromkeys(("designer", "executor"), recorder)
        sampling = bench.settings.sampling
        trees, _, _ = run(process, engines, bench.chat, bench.toolbox, sampling, seed=SEED, step=0)
    assert all(len(design.executions) == EXECUTIONS for tree in trees for design in tree.designs)
    return {"seed": SEED, "texts": [*recorder.texts], "calls": recorder.calls}


def lines(workload: dict[str, Any]) -> str:
    """JSON with a line for each text and each call."""
    parts = [f'"seed": {workload["seed"]}']
    for name in ("texts", "calls"):
        entries = ",\n".join(map(json.dumps, workload[name]))
        parts.append(f'"{name}": [\n{entries}\n]')
    return "{" + ",\n".join(parts) + "}\n"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(lines(record()), encoding="utf-8")
    print(f"written: {FILE}")
