from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.mesh import make_mesh
from metaagentx.policy.logprobs import token_logprobs
from metaagentx.policy.model import forward, unembed
from metaagentx.policy.params import shardings
from metaagentx.rollout import calls
from metaagentx.rollout.compilation import count_compilations
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.options import SamplingOptions
from metaagentx.rollout.sampled import Ask
from metaagentx.workflow.protocol import Outcome

EOS = 1
PLAIN = SamplingOptions(temperature=1.0, max_tokens=8)


@pytest.fixture(scope="module")
def few(config, params, options):
    """Another engine: fewer slots, longer chunks, one bucket of rows."""
    few = Engine(config, dataclasses.replace(options, slots=3, chunk=5, admit_buckets=(2,)), (EOS,))
    few.load(params, 1)
    with count_compilations() as compilations:
        few.warmup()
    assert compilations.count > 0
    return few


def prompts(count, seed=0, longest=12):
    """Ragged random prompts, every second one a repetition."""
    rng = np.random.default_rng(seed)
    fresh = [rng.integers(2, 13, rng.integers(1, longest + 1)).astype(np.int32) for _ in range(count)]
    return [fresh[i // 2 * 2] for i in range(count)]


def ids(number):
    return (0, 0, 0, 0, -1, number)


def finish(engine, expected):
    done = {}
    for _ in range(1000):
        for ticket, sampled in engine.step():
            assert ticket not in done
            done[ticket] = sampled
        if len(done) == expected:
            return done
    raise AssertionError("calls are missing")


def sample(engine, rows, sampling=PLAIN, order=None):
    for number in order if order is not None else range(len(rows)):
        engine.submit(Ask(number, rows[number], ids(number), sampling, "executor"))
    return finish(engine, len(rows))


@functools.partial(jax.jit, static_argnums=0)
def scores(config, params, tokens):
    """The trainer's view of rows [B, T]: most likely next tokens and log-probs of the actual ones, [B, T - 1]."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden = forward(params, config, tokens, positions, jnp.ones_like(tokens))[:, :-1]
    logprobs, _ = token_logprobs(params, config, hidden, tokens[:, 1:], chunk=8)
    return jnp.argmax(unembed(params, config, hidden), axis=-1), logprobs


def rescore(config, params, rows, done):
    """For each of 8 calls, (most likely tokens, log-probs) at the places of its reply."""
    tokens = np.zeros((8, 24), np.int32)  # one shape; causal, so the padding after a row is not seen
    for i, sampled in done.items():
        row = np.concatenate([rows[i], sampled.tokens])
        tokens[i, : len(row)] = row
    best, logprobs = map(np.asarray, scores(config, params, tokens))
    places = {i: slice(len(rows[i]) - 1, len(rows[i]) - 1 + len(sampled.tokens)) for i, sampled in done.items()}
    return {i: (best[i, place], logprobs[i, place]) for i, place in places.items()}


def test_greedy_replies_are_the_stepwise_most_likely_tokens(config, params, engine):
    rows = prompts(8)
    done = sample(engine, rows, SamplingOptions(0.0, 6))
    for i, (best, _) in rescore(config, params, rows, done).items():
        np.testing.assert_array_equal(done[i].tokens, best)
        assert done[i].tokens[-1] == EOS or len(done[i].tokens) == 6


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_stored_logprobs_are_the_trainers(config, params, engine, temperature):
    rows = prompts(8)
    done = sample(engine, rows, SamplingOptions(temperature, 8))
    for i, (_, logprobs) in rescore(config, params, rows, done).items():
        np.testing.assert_allclose(done[i].logprobs, logprobs, atol=1e-4)


def test_a_calls_tokens_depend_on_nothing_but_the_call(params, engine, few):
    rows = prompts(20)
    expected = sample(engine, rows)
    assert len({tuple(s.tokens) for s in expected.values()}) > 10

    alone = {}
    for number in (4, 5, 17):
        engine.load(params, 1)
        engine.submit(Ask(number, rows[number], ids(number), PLAIN, "executor"))
        alone |= finish(engine, 1)
    for other in (sample(few, rows, order=np.random.default_rng(1).permutation(20)), alone):
        for number, sampled in other.items():
            np.testing.assert_array_equal(sampled.tokens, expected[number].tokens)
            np.testing.assert_allclose(sampled.logprobs, expected[number].logprobs, atol=1e-5)
            assert sampled.outcome == expected[number].outcome


def test_the_same_submissions_give_the_same_bits(params, engine):
    first = sample(engine, prompts(20))
    engine.load(params, 2)
    second = sample(engine, prompts(20))
    for number, sampled in first.items():
        np.testing.assert_array_equal(sampled.tokens, second[number].tokens)
        np.testing.assert_array_equal(sampled.logprobs, second[number].logprobs)


def test_a_forked_prompt_samples_like_a_prefilled_one(params, engine):
    row = prompts(1)[0]
    forked = sample(engine, [row] * 8)
    work = engine.take_work()
    assert (work.prompt_tokens, work.prefilled_tokens) == (8 * len(row), len(row))
    assert work.forked_tokens == 7 * len(row)
    for number, sampled in forked.items():
        engine.load(params, 1)  # forgets the prompt
        engine.submit(Ask(number, row, ids(number), PLAIN, "executor"))
        separate = finish(engine, 1)[number]
        np.testing.assert_array_equal(sampled.tokens, separate.tokens)
        np.testing.assert_allclose(sampled.logprobs, separate.logprobs, atol=1e-5)
    assert engine.take_work().prefilled_tokens == 8 * len(row)


def test_a_prompt_is_forked_from_a_slot_that_still_holds_it(engine):
    rows = [row for row in prompts(6) for _ in range(3)]
    first = sample(engine, rows)
    distinct = {row.tobytes(): len(row) for row in rows}
    assert len(distinct) == 3
    assert engine.take_work().prefilled_tokens == sum(distinct.values())  # 18 calls through 8 slots
    again = sample(engine, rows)
    for number, sampled in first.items():
        np.testing.assert_array_equal(sampled.tokens, again[number].tokens)


def test_new_weights_forget_every_prompt(config, params, engine):
    rows = prompts(4)
    sample(engine, rows)
    other = jax.tree.map(lambda w: w * 0.5, params)
    engine.load(other, 2)
    fresh = Engine(config, engine.options, (EOS,))
    fresh.load(other, 2)
    again, expected = sample(engine, rows), sample(fresh, rows)
    for number, sampled in again.items():
        np.testing.assert_array_equal(sampled.tokens, expected[number].tokens)
        np.testing.assert_array_equal(sampled.logprobs, expected[number].logprobs)


def test_nothing_compiles_after_warmup(params, few):
    sample(few, prompts(23, seed=1))
    few.load(params, 2)
    with count_compilations() as after:
        sample(few, prompts(5, seed=2, longest=4), SamplingOptions(0.7, 3))
        sample(few, prompts(1, seed=3))
        sample(few, prompts(40, seed=4))
    assert after.count == 0


def test_a_mesh_changes_no_token_and_compiles_nothing_later(config, params, options, engine):
    rows = prompts(20)
    expected = sample(engine, rows)
    mesh = make_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        cut = Engine(config, dataclasses.replace(options, prompt_buckets=(12,), admit_buckets=(8,)), (EOS,))
        cut.load(jax.device_put(params, shardings(config, mesh)), 1)
        cut.warmup()
        with count_compilations() as after:
            done = sample(cut, rows)
    assert after.count == 0
    for number, sampled in done.items():
        np.testing.assert_array_equal(sampled.tokens, expected[number].tokens)
        np.testing.assert_allclose(sampled.logprobs, expected[number].logprobs, atol=1e-4)


def test_occupancy_counts_every_decode_step_of_every_slot(config, params, options):
    never = Engine(config, options, (99,))  # no such token: lengths are the bounds
    never.load(params, 1)
    row = prompts(1)[0]
    for number, bound in enumerate((1, 2, 6)):
        never.submit(Ask(number, row, ids(number), SamplingOptions(1.0, bound), "executor"))
    done = finish(never, 3)
    assert [len(done[i].tokens) for i in range(3)] == [1, 2, 6]
    # The first token of a reply comes with its prompt; five steps bring the rest: two slots in the first, then one.
    work = never.take_work()
    assert (work.slot_steps, work.busy_slot_steps, work.generated_tokens) == (5 * 8, 1 + 5, 9)


def test_outcomes(config, params, options):
    row = np.array([2, 3, 4], np.int32)

    def reply(prompt, eos):
        engine = Engine(config, options, (eos,))
        engine.load(params, 1)
        engine.submit(Ask(0, prompt, ids(0), SamplingOptions(1.0, 50), "executor"))
        return finish(engine, 1)[0]

    cut = reply(row, 99)  # no such token
    assert (cut.outcome, len(cut.tokens)) == (Outcome.CUT, options.capacity - 3)
    first = int(cut.tokens[0])
    later = next(int(token) for token in cut.tokens if token != first)
    assert reply(row, first).outcome == Outcome.EMPTY
    assert reply(row, later).outcome == Outcome.OK
    for length in (13, 40):
        too_long = reply(np.full(length, 2, np.int32), EOS)
        assert (too_long.outcome, len(too_long.tokens)) == (Outcome.TOO_LONG, 0)


def test_a_row_is_kept_for_its_dialogue_while_a_tool_works_as_the_options_say(config, params, options):
    first, other = prompts(3, seed=5)[::2]
    for during_tools, computed in (("keep", 2), ("leave", 10)):
        narrow = dataclasses.replace(options, slots=2, admit_buckets=(2,), share_unit=1, during_tools=during_tools)
        engine = Engine(config, narrow, (EOS,))
        engine.load(params, 1)

        def ask(number, row, conversation, engine=engine):
            engine.submit(Ask(number, row, ids(number), SamplingOptions(0.0, 3), "executor", conversation))

        ask(0, np.full(6, 4, np.int32), 0)
        reply = finish(engine, 1)[0].tokens
        engine.hold(0)
        for number, row in enumerate((first, other), 1):
            ask(number, row, number)
        finish(engine, 2)
        engine.take_work()
        ask(3, np.array([4] * 6 + [*reply, 5], np.int32), 0)
        finish(engine, 1)
        work = engine.take_work()
        assert work.prefilled_tokens == computed


def test_a_hold_that_nobody_comes_back_for_stops_nothing(config, params, options):
    engine = Engine(config, dataclasses.replace(options, slots=2, admit_buckets=(2,)), (EOS,))
    engine.load(params, 1)
    for number in range(6):
        engine.submit(Ask(number, np.array([2, 3], np.int32), ids(number), SamplingOptions(1.0, 2), "executor", number))
        finish(engine, 1)
        engine.hold(number)


def test_a_row_that_is_kept_for_a_turn_that_does_not_fit_is_free_again(config, params, options):
    engine = Engine(config, dataclasses.replace(options, slots=2, admit_buckets=(1, 2), chunk=1), (99,))
    engine.load(params, 1)

    def ask(number, size, conversation):
        row = np.full(size, 2, np.int32)
        engine.submit(Ask(number, row, ids(number), SamplingOptions(1.0, 4), "executor", conversation))

    ask(0, 2, 0)
    finish(engine, 1)
    engine.hold(0)
    ask(1, 99, 0)
    assert finish(engine, 1)[1].outcome == Outcome.TOO_LONG
    engine.take_work()
    for number in (2, 3):
        ask(number, 2, number)
    finish(engine, 2)
    work = engine.take_work()
    assert (work.slot_steps, work.busy_slot_steps) == (2 * 3, 2 * 3)  # side by side


def test_in_waves_no_call_starts_before_all_others_have_ended(config, params, options):
    engine = Engine(config, dataclasses.replace(options, slots=2, admit_buckets=(2,), chunk=1, waves=True), (99,))
    engine.load(params, 1)
    row = prompts(1)[0]
    for number, bound in enumerate((9, 2, 2)):
        engine.submit(Ask(number, row, ids(number), SamplingOptions(1.0, bound), "executor"))
    assert list(finish(engine, 3)) == [1, 0, 2]
    work = engine.take_work()
    assert (work.slot_steps, work.busy_slot_steps) == (2 * (8 + 1), 8 + 1 + 1)


def test_a_chunk_ends_early_where_calls_wait_for_the_slots_that_became_free(config, params, options):
    engine = Engine(config, dataclasses.replace(options, slots=2, admit_buckets=(1, 2), chunk=16), (99,))
    engine.load(params, 1)
    row = prompts(1)[0]
    for number, bound in enumerate((12, 3, 10)):
        engine.submit(Ask(number, row, ids(number), SamplingOptions(1.0, bound), "executor"))
    finish(engine, 3)
    work = engine.take_work()
    assert (work.slot_steps, work.busy_slot_steps) == (2 * 11, 11 + 2 + 9)


def test_decoding_reads_as_much_of_the_cache_as_the_longest_call_needs(config, params, options, monkeypatch):
    engine = Engine(config, dataclasses.replace(options, capacity_buckets=(8, 16), chunk=2, ahead=0), (99,))
    engine.load(params, 1)
    widths, decode = [], calls._decode
    monkeypatch.setattr(calls, "_decode", lambda *args: widths.append(args[3]) or decode(*args))
    engine.submit(Ask(0, np.full(4, 3, np.int32), ids(0), SamplingOptions(1.0, 20), "executor"))
    finish(engine, 1)
    assert widths == [8] * 2 + [16] * 4 + [24] * 4  # the first token came with the prompt, the last needs no row


@pytest.mark.parametrize(("ahead", "order"), [(0, "drdrdrdr"), (1, "ddrdrdrdrr")])
def test_the_next_chunk_is_dispatched_before_the_last_is_read(config, params, options, monkeypatch, ahead, order):
    """With `ahead`; a reply's end is read one chunk late then, so one more is decoded in vain."""
    engine = Engine(config, dataclasses.replace(options, chunk=2, ahead=ahead), (99,))
    engine.load(params, 1)
    events, decode, read = [], calls._decode, jax.device_get
    monkeypatch.setattr(calls, "_decode", lambda *args: events.append("d") or decode(*args))
    monkeypatch.setattr(jax, "device_get", lambda report: events.append("r") or read(report))
    engine.submit(Ask(0, np.full(4, 3, np.int32), ids(0), SamplingOptions(1.0, 9), "executor"))
    assert len(finish(engine, 1)[0].tokens) == 9
    assert "".join(events) == order


def test_an_idle_engine_asks_nothing_of_the_device(engine, monkeypatch):
    sample(engine, prompts(2))
    monkeypatch.setattr(calls, "_decode", None)
    assert engine.step() == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"ahead": 2}, "engine.ahead"),
        ({"share": "all"}, "engine.share"),
        ({"share_unit": 0}, "engine.share_unit"),
        ({"during_tools": "drop"}, "engine.during_tools"),
        ({"capacity_buckets": (8, 4)}, "engine.capacity_buckets"),
        ({"capacity_buckets": (24,)}, "engine.capacity_buckets ends at 24"),
        ({"prompt_buckets": ()}, "engine.prompt_buckets"),
    ],
)
def test_a_bad_option_is_named(options, change, match):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(options, **change)


def test_misuse_is_named(config, params, options):
    engine = Engine(config, options, (EOS,))
    with pytest.raises(ValueError, match="the prompt is empty"):
        engine.submit(Ask(0, np.zeros(0, np.int32), ids(0), PLAIN, "executor"))
    engine.submit(Ask(0, np.array([2], np.int32), ids(0), PLAIN, "executor"))
    with pytest.raises(RuntimeError, match="load weights"):
        engine.step()
    with pytest.raises(RuntimeError, match="in flight"):
        engine.load(params, 1)
    with pytest.raises(ValueError, match=r"engine.capacity \(65\)"):
        Engine(config, dataclasses.replace(options, capacity=65), (EOS,))
    with pytest.raises(ValueError, match="there is a bias or mask, but the engine was made without"):
        engine.submit(Ask(0, np.array([2], np.int32), ids(0), SamplingOptions(only=("a",)), "executor"))
