import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.policy import ragged

INPUTS, OUTPUTS = 24, 40
# Even, uneven with nothing for some, all for one, rows that are nobody's, more than a tile of 128, nothing at all.
SIZES = [[4, 4, 4], [0, 11, 1], [12, 0, 0], [3, 2, 0], [100, 0, 170], [0, 0, 0]]


def case(sizes):
    draw = np.random.default_rng(0).normal
    rows = max(12, sum(sizes))
    x, g = (draw(size=(rows, width)).astype(np.float32) for width in (INPUTS, OUTPUTS))
    return x, draw(size=(len(sizes), OUTPUTS, INPUTS)).astype(np.float32), np.int32(sizes), g


def plain(x, w, sizes, g):
    """One row after the other: the product and its gradients."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    y, dx, dw = np.zeros_like(g), np.zeros_like(x), np.zeros_like(w)
    for row, e in enumerate(owner):
        y[row], dx[row] = w[e] @ x[row], g[row] @ w[e]
        dw[e] += np.outer(g[row], x[row])
    return y, dx, dw


def assert_equal(found, expected, total):
    (y, dx, dw), (y_, dx_, dw_) = found, expected
    np.testing.assert_allclose(y[:total], y_[:total], atol=1e-4)  # what remains is undefined
    np.testing.assert_allclose(dx[:total], dx_[:total], atol=1e-4)
    np.testing.assert_allclose(dw, dw_, atol=1e-4)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_each_run_meets_its_own_matrix(sizes):
    x, w, n, g = case(sizes)
    y, gradient = jax.vjp(lambda x, w: ragged.product(x, w, n), x, w)
    assert_equal((y, *gradient(jnp.asarray(g))), plain(x, w, n, g), sum(sizes))


@pytest.mark.parametrize("sizes", SIZES[-3:], ids=str)
def test_the_kernels_for_tpus_compute_the_same(sizes):
    x, w, n, g = case(sizes)
    # Rows that are nobody's hold what must not spread.
    x[sum(sizes) :], g[sum(sizes) :] = np.nan, np.nan
    y = ragged.megablox(x, w, n, interpret=True)
    assert_equal((y, *ragged.megablox_gradients(x, w, n, g, interpret=True)), plain(x, w, n, g), sum(sizes))
