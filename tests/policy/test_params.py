import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.policy import params, spec
from metaagentx.rollout.compilation import count_compilations
from tests.policy import tiny


@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_weights_have_the_shapes_and_dtypes_of_the_table(name):
    config = dataclasses.replace(tiny.CONFIGS[name], dtype="bfloat16")
    weights = jax.eval_shape(lambda: params.initialise(config, jax.random.key(0)))
    assert weights == params.abstract(config)
    assert params.count(config) == sum(w.size for w in jax.tree.leaves(weights))
    assert ("head" in weights) is not config.tied_embeddings
    assert ("q_norm" in weights["layers"]) is config.qk_norm
    assert ("q_bias" in weights["layers"]) is config.qkv_bias
    assert ("router" in weights["layers"]) is (config.experts is not None)


def test_weights_asked_for_again_compile_nothing_and_are_the_same():
    weights = params.initialise(tiny.config(), jax.random.key(0))
    with count_compilations() as compilations:
        again = params.initialise(tiny.config(), jax.random.key(0))
    assert compilations.count == 0
    assert jax.tree.all(jax.tree.map(np.array_equal, weights, again))


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_every_weight_has_its_own_hugging_face_name(name):
    names = [s.hf_name for s in jax.tree.leaves(spec.table(tiny.FAMILIES[name]))]
    assert len(set(names)) == len(names)
    assert "model.layers.{}.self_attn.q_proj.weight" in names
    assert ("lm_head.weight" in names) is not tiny.FAMILIES[name].tied_embeddings
    assert ("model.layers.{}.mlp.experts.{}.up_proj.weight" in names) is (name == "qwen3_moe")


def test_matrices_start_with_the_variance_of_their_fan_in_and_norms_at_one():
    config = tiny.config()
    weights = params.initialise(config, jax.random.key(0))
    gate, down = weights["layers"]["gate"], weights["layers"]["down"]
    assert float(jnp.std(gate)) == pytest.approx(config.d_model**-0.5, rel=0.05)
    assert float(jnp.std(down)) == pytest.approx((2 * config.layers * config.d_ff) ** -0.5, rel=0.05)
    assert bool((weights["final_norm"] == 1).all())


def test_an_expert_starts_as_an_mlp_of_its_size_and_biases_at_zero():
    config = tiny.QWEN3_MOE
    layers = params.initialise(config, jax.random.key(0))["layers"]
    assert float(jnp.std(layers["gate"])) == pytest.approx(config.d_model**-0.5, rel=0.05)
    assert float(jnp.std(layers["down"])) == pytest.approx((2 * config.layers * config.experts.d_ff) ** -0.5, rel=0.05)
    assert not params.initialise(tiny.QWEN2, jax.random.key(0))["layers"]["k_bias"].any()


def test_different_keys_and_different_matrices_start_differently():
    config = tiny.config()
    one, other = (params.initialise(config, jax.random.key(seed))["layers"] for seed in (0, 1))
    assert not jnp.allclose(one["q"], other["q"])
    assert not jnp.allclose(one["gate"], one["up"])
    assert not jnp.allclose(one["q"][0], one["q"][1])
