"""Claims about the memory of the compiled programs: what is recomputed, donated, and never there at all."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest

from metaagentx.learn import supervised, update
from metaagentx.learn.state import create
from metaagentx.learn.update import Compute
from metaagentx.policy.params import initialise
from tests.learn.examples import COMPUTE, CONFIG, RECIPE, ROLES, some_batch

VOCAB, ROWS = 101, 16  # a prime: what it divides holds logits or weights of the vocabulary
MODEL = replace(CONFIG, vocab_size=VOCAB, layers=4, d_model=32, d_ff=64)
LENGTH = some_batch().tokens.shape[1]
LOGITS = ROWS * LENGTH * VOCAB


def compute(remat: str = "none", chunk: int = 4) -> Compute:
    return replace(COMPUTE, config=MODEL, micro_rows=ROWS, remat=remat, chunk=chunk)


@cache
def state():
    return create(initialise(MODEL, jax.random.key(0)), ROLES, "per_role", master=False)


@cache
def compiled(program: str, remat: str, chunk: int):
    cut, batch = compute(remat, chunk), update.split(some_batch(), ROWS)
    if program == "update":
        recipe = replace(RECIPE, compute=cut)
        lowered = update._update.lower(state(), None, {"executor": batch}, {"executor": 1.0}, recipe)
    elif program == "freeze_old":
        lowered = update._score.lower(state().params, None, batch, cut)
    else:
        alone = supervised.begin(state().params, ROLES["executor"].optimizer, master=False)
        lowered = supervised._imitate.lower(alone, None, batch, ROLES["executor"].optimizer, cut)
    return lowered.compile()


def logits_of_all_positions(program) -> list[str]:
    """Shapes of the program that are [rows, length, vocabulary] in any order or larger, also inside of fusions."""
    shapes = set(re.findall(r"\b[a-z]+\d+\[([\d,]+)\]", program.as_text()))
    sizes = {shape: np.prod([int(size) for size in shape.split(",")]) for shape in shapes}
    assert f"{VOCAB},{MODEL.d_model}" in sizes
    return [shape for shape, size in sizes.items() if size >= LOGITS and size % VOCAB == 0]


@pytest.mark.parametrize("program", ["update", "freeze_old", "imitate"])
def test_logits_of_all_positions_never_exist(program: str) -> None:
    assert not logits_of_all_positions(compiled(program, "dots", 4))


@pytest.mark.parametrize("program", [pytest.param("update", marks=pytest.mark.slow), "freeze_old"])
def test_with_one_chunk_they_would(program: str) -> None:
    assert logits_of_all_positions(compiled(program, "dots", LENGTH))


def test_recomputing_more_takes_less_memory() -> None:
    full, dots, none = (compiled("update", remat, 4).memory_analysis() for remat in ("full", "dots", "none"))
    assert full.temp_size_in_bytes < dots.temp_size_in_bytes < none.temp_size_in_bytes


@pytest.mark.parametrize("program", ["update", "imitate"])
def test_a_new_state_takes_the_place_of_the_old(program: str) -> None:
    memory = compiled(program, "dots", 4).memory_analysis()
    keys = ROLES if program == "update" else ["executor"]
    moments = [state().opt_states[key] for key in keys]
    assert memory.alias_size_in_bytes >= sum(leaf.nbytes for leaf in jax.tree.leaves((state().params, moments)))


def test_recomputing_changes_no_gradient() -> None:
    batch = {"executor": update.split(some_batch(), ROWS)}

    def gradient(remat: str):
        alone = jax.tree.map(jax.numpy.array, state())  # it is donated
        return jax.device_get(
            compiled("update", remat, 4)(alone, None, batch, {"executor": 1.0})[0].opt_states["executor"][0].mu
        )

    none = gradient("none")
    assert max(float(np.abs(g).max()) for g in jax.tree.leaves(none)) > 1e-3
    for remat in ("dots", "full"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), gradient(remat), none)
