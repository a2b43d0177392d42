"""Nothing about how calls are served changes what they get: slots, chunks, order, sharing, turns, holds, adapters."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.policy import adapters
from metaagentx.policy.config import LoraOptions
from metaagentx.rollout.compilation import count_compilations
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.options import EngineOptions, SamplingOptions
from metaagentx.rollout.sampled import Ask
from metaagentx.workflow.protocol import Outcome

EOS, LORA, ROLES = 1, LoraOptions(rank=2, alpha=4.0), ("designer", "executor", "critic")  # the last has no adapter
LONGEST = 40  # tokens of a prompt
STOPS = ("db", "ggg", "k")  # of ids as letters
SAMPLING = (
    SamplingOptions(),
    SamplingOptions(0.7, stop=STOPS),
    SamplingOptions(0.0),
    SamplingOptions(top_k=5),
    SamplingOptions(top_p=0.8, stop=STOPS),
)

PLAIN = EngineOptions(
    slots=4,
    capacity=48,
    prompt_buckets=(LONGEST,),
    admit_buckets=(4,),
    chunk=1,
    ahead=0,
    share="none",
    attention="blocked",
)
SHARED = EngineOptions(
    slots=8, capacity=48, prompt_buckets=(12, LONGEST), admit_buckets=(2, 8), chunk=3, ahead=1, share_unit=1,
    capacity_buckets=(16,),
)  # fmt: skip
SERVED = {
    "prefix": SHARED,
    "reads at once": dataclasses.replace(SHARED, ahead=0, share_unit=4),
    "whole rows": dataclasses.replace(SHARED, attention="blocked", share_unit=2),
    "leaves": dataclasses.replace(SHARED, during_tools="leave"),
    "waves of equal prompts": dataclasses.replace(SHARED, waves=True, share="prompt"),
    "few": EngineOptions(
        slots=3, capacity=48, prompt_buckets=(6, 20, LONGEST), admit_buckets=(1, 3), chunk=5, ahead=1, share_unit=2
    ),
}


@pytest.fixture(scope="module")
def made(config, params):
    """Makes engines with two adapters that take calls of every kind."""
    rng = np.random.default_rng(1)
    pair = {
        role: jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), x.dtype), adapters.abstract(config, LORA))
        for role in ROLES[:2]
    }

    def make(options):
        engine = Engine(config, options, (EOS,), LORA, truncated=True, decode=text)
        engine.load(params, 1, pair)
        return engine

    return make


def text(ids):
    return "".join(chr(ord("a") + token) for token in ids)


@dataclasses.dataclass
class Dialogue:
    """What is said to an agent depends on the seed and on its replies, and on nothing else."""

    number: int
    seed: int
    prompt: np.ndarray
    turn: int = 0

    def ask(self, ticket):
        sampling = dataclasses.replace(SAMPLING[self.number % len(SAMPLING)], max_tokens=1 + self.number % 9)
        ids = (self.seed, 0, 0, 0, self.number, self.turn)
        return Ask(ticket, self.prompt, ids, sampling, ROLES[self.number % len(ROLES)], self.number)

    def hear(self, reply):
        """Whether there is another turn."""
        rng = np.random.default_rng((self.seed, self.number, self.turn))
        self.prompt = np.concatenate([self.prompt, reply, rng.integers(2, 13, rng.integers(1, 5))]).astype(np.int32)
        self.turn += 1
        return self.turn < 4 and len(self.prompt) <= LONGEST and rng.random() < 0.8


def dialogues(seed, count):
    """First prompts as trees have them: a common beginning, a few questions, several times each, short ends."""
    rng = np.random.default_rng(seed)
    system = rng.integers(2, 13, 7)
    questions = [rng.integers(2, 13, rng.integers(0, 9)) for _ in range(3)]
    ends = [rng.integers(2, 13, rng.integers(0, 3)) for _ in range(2)]
    parts = [(system[: rng.integers(1, 8)], questions[rng.integers(3)], ends[rng.integers(2)]) for _ in range(count)]
    return [Dialogue(i, seed, np.concatenate(part).astype(np.int32)) for i, part in enumerate(parts)]


def serve(engine, spoken, order):
    """Every reply by (dialogue, turn); dialogues come, pause for tools and go on as `order` draws it."""
    waiting, asked, pausing, replies = list(spoken), {}, [], {}
    for step in range(10_000):
        order.shuffle(waiting)
        for _ in range(order.integers(0, 6)):
            if waiting:
                dialogue, ticket = waiting.pop(), len(asked) + len(replies) + 1000 * step
                engine.submit(dialogue.ask(ticket))
                asked[ticket] = dialogue
        for ticket, sampled in engine.step():
            dialogue = asked.pop(ticket)
            replies[dialogue.number, dialogue.turn] = sampled
            if dialogue.hear(sampled.tokens):
                engine.hold(dialogue.number)
                pausing.append(dialogue)
        back = [dialogue for dialogue in pausing if order.random() < 0.4]
        pausing = [dialogue for dialogue in pausing if dialogue not in back]
        waiting += back
        if not (waiting or asked or pausing):
            return replies
    raise AssertionError("calls are missing")


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, sampled in expected.items():
        np.testing.assert_array_equal(found[key].tokens, sampled.tokens)
        np.testing.assert_allclose(found[key].logprobs, sampled.logprobs, atol=1e-5)
        np.testing.assert_allclose(found[key].kept, sampled.kept, atol=1e-5)
        assert found[key].outcome == sampled.outcome


@pytest.fixture(scope="module")
def expected(made):
    """What each workload's calls get when every prompt is computed and four calls at a time take one token."""
    return {seed: serve(made(PLAIN), dialogues(seed, 40), np.random.default_rng(seed)) for seed in range(3)}


@pytest.mark.parametrize("served", [pytest.param(n, marks=pytest.mark.slow if n == "few" else ()) for n in SERVED])
def test_what_a_call_gets_does_not_depend_on_how_it_is_served(made, expected, served):
    engine = made(SERVED[served])
    for seed, replies in expected.items():
        found = serve(engine, dialogues(seed, 40), np.random.default_rng(seed + 100))
        assert_equal(found, replies)
        assert len({tuple(sampled.tokens) for sampled in found.values()}) > 40
    work = engine.take_work()
    assert work.equal_tokens > 0
    assert (work.prefix_tokens > 0) == (work.dialogue_tokens > 0) == (engine.options.share == "prefix")


def test_a_reply_ends_with_the_token_that_completes_a_stop_string(expected):
    said = [
        (key, text(sampled.tokens), sampled.outcome)
        for replies in expected.values()
        for key, sampled in replies.items()
    ]
    stopping = [(words, outcome) for (number, _), words, outcome in said if SAMPLING[number % len(SAMPLING)].stop]
    assert sum(outcome == Outcome.STOPPED for _, outcome in stopping) > 10
    for words, outcome in stopping:
        assert words.endswith(STOPS) == (outcome == Outcome.STOPPED)
        assert not any(stop in words[:-1] for stop in STOPS)
    assert any(stop in words[:-1] for _, words, _ in said for stop in STOPS)  # of calls without


def test_every_program_is_compiled_at_warmup(made):
    engine = made(SHARED)
    # Blocks that read two widths, for 3 numbers of rows (one: the longest prompt's); copies and starts for 2; decoding.
    assert len(engine.warmup()) == (3 + 2) * 2 + 2 + 2
    with count_compilations() as compilations:
        for seed in range(5):
            serve(engine, dialogues(seed, 50), np.random.default_rng(seed))
    assert compilations.count == 0
