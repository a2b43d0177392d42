"""Eight devices draw what one does, also under top-k, top-p and biases."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from metaagentx.mesh import make_mesh
from metaagentx.rollout.draw import Knobs, draw
from metaagentx.rollout.options import SamplingOptions

ROWS, VOCABULARY = 16, 1000
SEVERAL = [SamplingOptions(), SamplingOptions(top_k=3), SamplingOptions(top_k=200, top_p=0.9), SamplingOptions(0.0)] * 4


@pytest.mark.parametrize("layout", [(8, 1, 1), (2, 2, 2)])
def test_eight_devices_draw_what_one_does(layout):
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(ROWS, VOCABULARY)) * rng.uniform(0.1, 4, (ROWS, 1))).astype(np.float32)
    table = np.stack([np.zeros(VOCABULARY), rng.normal(size=VOCABULARY)]).astype(np.float32)
    knobs, keys = Knobs.of(SEVERAL, [row % 2 for row in range(ROWS)], ROWS), jax.random.split(jax.random.key(0), ROWS)

    def drawn():
        return jax.device_get(jax.jit(draw, static_argnums=5)(logits, knobs, keys, np.arange(ROWS), table, True))

    tokens, logprobs, kept = drawn()
    with jax.set_mesh(make_mesh(*layout)):
        other = drawn()
    np.testing.assert_array_equal(tokens, other[0])
    np.testing.assert_allclose(logprobs, other[1], atol=1e-5)
    np.testing.assert_allclose(kept, other[2], atol=1e-5)
