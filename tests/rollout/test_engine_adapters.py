"""Roles with adapters of their own, over one engine."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.mesh import make_mesh
from metaagentx.policy import adapters
from metaagentx.policy.config import LoraOptions
from metaagentx.policy.params import shardings as weight_shardings
from metaagentx.rollout.compilation import count_compilations
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.sampled import Ask
from tests.rollout.test_engine import EOS, PLAIN, finish, ids, prompts, rescore

LORA = LoraOptions(rank=2, alpha=4.0)
ROLES = ("designer", "executor", "critic")  # the last has no adapter


def noisy(config, seed, size=0.5):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, size, x.shape), x.dtype), adapters.abstract(config, LORA))


@pytest.fixture(scope="module")
def pair(config):
    return {"executor": noisy(config, 1), "designer": noisy(config, 2)}


@pytest.fixture
def two(config, params, options, pair):
    engine = Engine(config, options, (EOS,), LORA)
    engine.load(params, 1, pair)
    return engine


def sample(engine, rows, roles):
    """Replies to `rows`, the i-th asked as `roles[i % len(roles)]`."""
    for number, row in enumerate(rows):
        engine.submit(Ask(number, row, ids(number), PLAIN, roles[number % len(roles)]))
    return finish(engine, len(rows))


def acting(params, pair, role):
    return params if role not in pair else adapters.merge(params, pair[role], LORA)


def same_tokens(one, other):
    return all(np.array_equal(one[number].tokens, other[number].tokens) for number in one)


def test_two_roles_over_one_engine_equal_an_engine_each_with_merged_weights(params, engine, two, pair):
    rows = prompts(12)
    mixed = sample(two, rows, ROLES)
    for place, role in enumerate(ROLES):
        engine.load(acting(params, pair, role), 1)
        alone = sample(engine, rows, ("any",))
        for number in range(place, len(rows), len(ROLES)):
            np.testing.assert_array_equal(mixed[number].tokens, alone[number].tokens)
            np.testing.assert_allclose(mixed[number].logprobs, alone[number].logprobs, atol=1e-4)


def test_an_adapter_changes_samples_and_the_log_probs_stay_the_trainers(config, params, two, pair):
    rows = prompts(8)
    replies = {role: sample(two, rows, (role,)) for role in ROLES}
    assert not same_tokens(replies["designer"], replies["executor"])
    assert not same_tokens(replies["designer"], replies["critic"])
    for role, done in replies.items():
        weights = adapters.attach(params, pair[role], LORA) if role in pair else params
        for number, (_, logprobs) in rescore(config, weights, rows, done).items():
            np.testing.assert_allclose(done[number].logprobs, logprobs, atol=1e-4)


def test_a_calls_tokens_do_not_depend_on_the_adapters_of_its_neighbours(config, params, two, pair):
    rows = prompts(8)
    before = sample(two, rows, ROLES)
    two.load(params, 1, {**pair, "designer": noisy(config, 5)})
    after = sample(two, rows, ROLES)
    designers = range(0, len(rows), len(ROLES))
    assert any(not np.array_equal(before[number].tokens, after[number].tokens) for number in designers)
    for number in set(before).difference(designers):
        np.testing.assert_array_equal(before[number].tokens, after[number].tokens)
        np.testing.assert_array_equal(before[number].logprobs, after[number].logprobs)


def test_a_prompt_is_shared_by_calls_with_one_adapter_only(config, params, two, pair):
    row = prompts(1)[0]
    first = sample(two, [row] * 8, ROLES)
    assert two.take_work().prefilled_tokens == 3 * len(row)
    again = sample(two, [row] * 8, ROLES)  # every prompt is still in a slot
    assert two.take_work().prefilled_tokens == 0
    assert same_tokens(first, again)
    two.load(params, 2, {**pair, "executor": noisy(config, 6)})
    swapped = sample(two, [row] * 8, ROLES)
    assert two.take_work().prefilled_tokens == 3 * len(row)
    assert not same_tokens(first, swapped)


def test_new_adapters_compile_nothing_after_warmup_also_on_a_mesh(config, params, options, two, pair):
    rows = prompts(9)
    expected = sample(two, rows, ROLES)
    two.load(params, 2, {**pair, "designer": noisy(config, 7)})
    expected_later = sample(two, rows, ROLES)
    mesh = make_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, weight_shardings(config, mesh))
        where = adapters.shardings(config, LORA, mesh)
        one = {role: jax.device_put(adapter, where) for role, adapter in pair.items()}
        other = {**one, "designer": jax.device_put(noisy(config, 7), where)}
        few = dataclasses.replace(options, prompt_buckets=(12,), admit_buckets=(8,))
        cut = Engine(config, few, (EOS,), LORA)
        cut.load(placed, 1, one)
        cut.warmup()
        with count_compilations() as after:
            done = sample(cut, rows, ROLES)
            cut.load(placed, 2, other)
            later = sample(cut, rows, ROLES)
    assert after.count == 0
    assert same_tokens(done, expected)
    assert same_tokens(later, expected_later)


def test_misuse_is_named(config, params, options, engine, two, pair):
    with pytest.raises(ValueError, match="lora is None"):
        engine.load(params, 2, pair)
    with pytest.raises(ValueError, match=r"no adapters, but the engine's lora is LoraOptions\(rank=2"):
        two.load(params, 2)
    with pytest.raises(ValueError, match=r"adapters of \['critic'\].*\['designer', 'executor'\]"):
        two.load(params, 2, {"critic": pair["designer"]})
