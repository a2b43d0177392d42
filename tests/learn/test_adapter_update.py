"""Claims about training an adapter of a frozen base."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.learn import update as module
from metaagentx.learn.optimizer import optimizer
from metaagentx.learn.options import OptimizerOptions, RoleOptions, StageOptions
from metaagentx.learn.schedule import phase
from metaagentx.learn.state import create
from metaagentx.learn.supervised import begin, imitate
from metaagentx.learn.update import accumulate, freeze_old, logprobs, policy_loss, split, update
from metaagentx.policy.adapters import LoraOptions
from metaagentx.policy.params import initialise
from tests.learn.examples import COMPUTE, CONFIG, RECIPE, ROLE, ROLES, some_batch

LORA = LoraOptions(rank=2, alpha=8.0, targets=r"q|v|down")
LORA_COMPUTE = replace(COMPUTE, lora=LORA)
LORA_RECIPE = replace(RECIPE, compute=LORA_COMPUTE)
EXECUTOR = phase(StageOptions(mode="executor_only"), tuple(ROLES), 0)


def base():
    return initialise(CONFIG, jax.random.key(0))


def adapter(seed: int = 0):
    """Both factors at random, so that both have a gradient."""
    rng = np.random.default_rng(seed)

    def factors(name: str):
        layers, out, in_ = base()["layers"][name].shape
        return {"a": rng.normal(size=(layers, LORA.rank, in_)) / 8, "b": rng.normal(size=(layers, out, LORA.rank)) / 8}

    return jax.tree.map(lambda x: jnp.array(x, jnp.float32), {name: factors(name) for name in ("q", "v", "down")})


def merged(weights, factors):
    """The weights that a base and an adapter stand for, by definition: W + alpha / rank * B A (arXiv 2106.09685)."""
    layers = dict(weights["layers"])
    for name, pair in factors.items():
        product = np.einsum("lor,lri->loi", np.float64(pair["b"]), np.float64(pair["a"]))
        layers[name] = jnp.array(layers[name] + LORA.alpha / LORA.rank * product, jnp.float32)
    return {**weights, "layers": layers}


def projected(gradient, factors):
    """The adapter's gradient from that of the merged weights, by the chain rule."""
    scale = LORA.alpha / LORA.rank
    return {
        name: {
            "a": scale * np.einsum("lor,loi->lri", pair["b"], gradient["layers"][name]),
            "b": scale * np.einsum("loi,lri->lor", gradient["layers"][name], pair["a"]),
        }
        for name, pair in factors.items()
    }


def host(tree):
    return jax.tree.map(np.array, tree)


def same(a, b) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def close(a, b, atol: float) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol, rtol=1e-5), a, b)


def test_a_step_of_an_adapter_is_the_step_of_the_merged_weights_seen_through_it() -> None:
    weights, factors, batch = base(), adapter(), some_batch()

    @jax.jit
    def full(params, batch):
        def objective(params, micro):
            return policy_loss(params, micro, base=None, reference=None, role=ROLE, recipe=RECIPE)

        return accumulate(objective, params, batch)[1]

    expected = projected(host(full(merged(weights, factors), split(batch, 8))), host(factors))
    assert max(np.abs(g).max() for g in jax.tree.leaves(expected)) > 1e-2
    before = host((weights, factors))
    state = create(factors, ROLES, "per_role", master=True)
    other = host(state.opt_states["designer"])
    state, metrics = update(state, {"executor": batch}, EXECUTOR, LORA_RECIPE, base=weights)

    close(state.opt_states["executor"][0].mu, jax.tree.map(lambda g: 0.1 * g, expected), 1e-6)
    rule = optimizer(ROLE.optimizer)
    step, _ = jax.jit(rule.update)(expected, rule.init(before[1]), before[1])
    moved = jax.tree.map(lambda a, b: np.array(a) - b, state.params, before[1])
    large = jax.tree.map(lambda g: np.abs(g) > 1e-4, expected)  # Adam's first step is a sign: noise in the rest
    jax.tree.map(lambda m, s, at: np.testing.assert_allclose(m[at], s[at], atol=1e-5), moved, step, large)
    assert float(metrics["executor/gradient_norm"]) > 0

    same(host(weights), before[0])  # not donated, not moved
    same(state.opt_states["designer"], other)


def test_an_adapter_scores_as_the_merged_weights_do() -> None:
    weights, factors, batch = base(), adapter(), some_batch()
    expected = freeze_old(merged(weights, factors), batch, COMPUTE)
    close(freeze_old(factors, batch, LORA_COMPUTE, weights).old, expected.old, 1e-5)


def test_the_cold_start_teaches_an_adapter() -> None:
    weights, options, batch = base(), OptimizerOptions(learning_rate=1e-2), some_batch()
    before, losses = host(weights), []
    state = begin(adapter(), options, master=True)
    for _ in range(20):
        state, metrics = imitate(state, batch, options, LORA_COMPUTE, weights)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.05
    same(host(weights), before)


@pytest.mark.slow
def test_gradients_of_the_base_are_never_made() -> None:
    wide = replace(CONFIG, vocab_size=4096)
    weights, batch = initialise(wide, jax.random.key(0)), split(some_batch(), 8)

    def memory(params, lora, base):
        state = create(params, ROLES, "per_role", master=True)
        recipe = replace(RECIPE, compute=replace(COMPUTE, config=wide, chunk=1, lora=lora))
        program = module._update.lower(state, base, {"executor": batch}, {"executor": 1.0}, recipe)
        return program.compile().memory_analysis(), sum(leaf.nbytes for leaf in jax.tree.leaves(state))

    small, size = memory(adapter(), LORA, weights)
    assert size <= small.alias_size_in_bytes < weights["embed"].nbytes  # what is donated: the adapter's state alone
    large, _ = memory(weights, None, None)
    assert small.temp_size_in_bytes + weights["embed"].nbytes < large.temp_size_in_bytes


def test_muon_leaves_an_adapter_to_adamw() -> None:
    roles = {"executor": RoleOptions(optimizer=OptimizerOptions(name="muon", learning_rate=1e-3))}
    before = host(adapter())
    state = create(adapter(), roles, "per_role", master=True)
    recipe = replace(LORA_RECIPE, roles=tuple(roles.items()))
    state, _ = update(state, {"executor": some_batch()}, EXECUTOR, recipe, base=base())
    step = np.abs(np.array(state.params["q"]["a"]) - before["q"]["a"])
    np.testing.assert_allclose(step, step.max(), rtol=0.01)  # Adam's first step: as far in every direction
    assert step.max() > 1e-3


def test_a_base_without_its_options_is_refused() -> None:
    with pytest.raises(ValueError, match="needs both `base`"):
        jax.eval_shape(lambda p, b: logprobs(p, b, COMPUTE, base=p), base(), some_batch())
