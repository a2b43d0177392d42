"""What a main agent's policy replied, kept by its server until the step is trained and saved.

Played again, a step meets its sub-agents' reports at other moments, and so the engine makes other batches: a draw that
falls within their rounding would ask for another sub-task. So a call is replied to as it was the first time.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from metaagentx.rollout.observed import Watched
from metaagentx.rollout.sampled import Ask, Sampled
from metaagentx.rollout.work import Clock, Work
from metaagentx.teams.recall import Answer, Answers
from metaagentx.workflow.protocol import Outcome


class Repeating:
    """Has `sampler` reply to every call (see `sampled.Sampler`), and replies as it did when the step was played before.

    It samples again, so that its rows hold what they held: where nothing is rounded otherwise, all is equal bit for
    bit. A reply is kept before anybody reads it. `step` raises ValueError where a call had another prompt.
    """

    def __init__(self, sampler: Watched, answers: Answers) -> None:
        self.version = sampler.version
        self._sampler, self._answers = sampler, answers
        self._asked: dict[int, Ask] = {}  # by ticket

    def submit(self, ask: Ask) -> None:
        self._asked[ask.ticket] = ask
        self._sampler.submit(ask)

    def step(self) -> list[tuple[int, Sampled]]:
        done = self._sampler.step()
        found = [_answer(self._asked.pop(ticket), sampled) for ticket, sampled in done]
        return [(ticket, _read(text)) for (ticket, _), text in zip(done, self._answers.keep(found), strict=True)]

    def hold(self, conversation: int) -> None:
        self._sampler.hold(conversation)

    def release(self, conversation: int) -> None:
        self._sampler.release(conversation)

    def drop(self) -> None:
        self._asked.clear()
        self._sampler.drop()

    def watch(self, clock: Clock) -> None:
        self._sampler.watch(clock)

    def take_work(self) -> Work:
        return self._sampler.take_work()


def _answer(ask: Ask, sampled: Sampled) -> Answer:
    """Under a key made of the call's ids. JSON has as many digits as bring every float32 back bit for bit."""
    _, step, *rest = ask.ids
    kept = None if sampled.kept is None else sampled.kept.tolist()
    return Answer(
        f"{step:07}/reply {' '.join(map(str, rest))}",
        step,
        f"{ask.role} {hashlib.sha256(ask.prompt.tobytes()).hexdigest()}",
        json.dumps([sampled.tokens.tolist(), sampled.logprobs.tolist(), sampled.outcome, kept]),
    )


def _read(text: str) -> Sampled:
    tokens, logprobs, outcome, kept = json.loads(text)
    left = None if kept is None else np.array(kept, np.float32)
    return Sampled(np.array(tokens, np.int32), np.array(logprobs, np.float32), Outcome(outcome), left)
