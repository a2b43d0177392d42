"""Claims about prompts that their samples share: nothing is learned otherwise than without, in fewer tokens."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaagentx.learn.options import LossOptions, PackOptions, StageOptions
from metaagentx.learn.pack import Batch, pack
from metaagentx.learn.schedule import phase
from metaagentx.learn.share import grow
from metaagentx.learn.state import create
from metaagentx.learn.update import _update, accumulate, freeze_old, policy_loss, rows_over_mesh, split, update
from metaagentx.mesh import make_mesh
from metaagentx.policy import adapters
from metaagentx.policy.config import Experts, LoraOptions
from metaagentx.policy.params import initialise, shardings
from tests.learn.examples import COMPUTE, CONFIG, LAYOUTS, RECIPE, ROLE, trajectory

BRANCH, ROWS = 16, 16
WHOLE = PackOptions(row_length=BRANCH, row_buckets=(ROWS,), micro_rows=8)
ALL_TERMS = replace(
    RECIPE,
    loss=LossOptions(ratio="sequence", aggregation="execution_mean", kl_estimator="k2"),
    roles=(("executor", replace(ROLE, entropy=0.1, kl=0.2)),),
)


def tree(seed: int, groups: int = 6) -> tuple[list, np.ndarray]:
    """Prompts of 1 to 12 tokens with 1 to 6 samples each; some of these go on after a tool's answer."""
    rng = np.random.default_rng(seed)
    found = []
    for group in range(groups):
        prompt = rng.integers(1, CONFIG.vocab_size, int(rng.integers(1, 13))).tolist()
        for sample in range(int(rng.integers(1, 7))):
            length = int(rng.integers(1, BRANCH - len(prompt) + 1))
            one = trajectory(
                prompt + rng.integers(1, CONFIG.vocab_size, length).tolist(), len(prompt), ids=(group, 0, sample)
            )
            if length > 4:
                one.loss_mask[-3] = one.logprobs[-3] = 0
            found.append(one)
    order = rng.permutation(len(found))
    return [found[i] for i in order], rng.choice([-1.5, 0.0, 0.5, 2.0], len(found)).astype(np.float32)


def both(seed: int, trunk: int = 12, rows: int = 2, loss: LossOptions = RECIPE.loss) -> tuple[Batch, Batch]:
    """The same tree packed plainly and with shared prompts."""
    shared = replace(WHOLE, prompt_length=trunk, sample_rows=rows)
    plain, grown = (pack(*tree(seed), options, loss, True) for options in (WHOLE, shared))
    return plain, grown


@cache
def compiled(attention: str, recipe, remat: str = "none", lora: LoraOptions | None = None):
    compute = replace(recipe.compute, attention=attention, remat=remat, lora=lora)
    recipe = replace(recipe, compute=compute)

    @jax.jit
    def gradient(params, batch, reference, base):
        role = dict(recipe.roles)["executor"]
        objective = partial(policy_loss, base=base, reference=reference, role=role, recipe=recipe)
        return accumulate(objective, params, rows_over_mesh(batch))[:2]

    return lambda params, batch, reference=None, base=None: gradient(params, split(batch, 8), reference, base)


@cache
def initial(seed: int = 0, experts: Experts | None = None):
    return initialise(replace(CONFIG, experts=experts), jax.random.key(seed))


def close(a, b, atol: float) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol, rtol=0), a, b)


def same(a, b) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from([("dense", 5, 1), ("strips", 24, 3)]))
def test_gradients_of_ragged_trees_are_those_without_sharing(seed: int, shape: tuple[str, int, int]) -> None:
    attention, trunk, rows = shape
    plain, grown = both(seed, trunk, rows, ALL_TERMS.loss)
    expected = compiled("dense", ALL_TERMS)(initial(), plain, initial(1))
    close(compiled(attention, ALL_TERMS)(initial(), grown, initial(1)), expected, 1e-5)
    assert max(float(abs(g).max()) for g in jax.tree.leaves(expected[1])) > 1e-3


@pytest.mark.parametrize(
    "remat", ["full", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dots", "attention"))]
)
def test_what_is_recomputed_changes_no_gradient(remat: str) -> None:
    plain, grown = both(1)
    close(compiled("blocked", RECIPE, remat)(initial(), grown), compiled("dense", RECIPE)(initial(), plain), 1e-5)


def test_gradients_of_an_adapter_are_those_without_sharing() -> None:
    plain, grown = both(2)
    lora = LoraOptions(rank=2)
    adapter = jax.tree.map(lambda x: x + 0.1, adapters.initialise(CONFIG, lora, jax.random.key(3)))
    expected, found = (
        compiled(attention, RECIPE, lora=lora)(adapter, batch, base=initial())
        for attention, batch in (("dense", plain), ("blocked", grown))
    )
    close(found, expected, 1e-5)


@pytest.mark.slow
def test_gradients_of_experts_are_those_without_sharing() -> None:
    plain, grown = both(3)
    experts = Experts(count=4, active=2, d_ff=16, normalise=True)
    recipe = replace(RECIPE, compute=replace(COMPUTE, config=replace(CONFIG, experts=experts)))
    params = initial(0, experts)
    close(compiled("blocked", recipe)(params, grown), compiled("dense", recipe)(params, plain), 1e-5)


@pytest.mark.parametrize(
    "sizes", [LAYOUTS[-1], *(pytest.param(sizes, marks=pytest.mark.slow) for sizes in LAYOUTS[:-1])]
)
def test_gradients_on_a_mesh_are_those_of_one_device(sizes: tuple[int, int, int]) -> None:
    _, grown = both(4)
    expected = compiled("blocked", RECIPE)(initial(), grown)
    mesh = make_mesh(*sizes)
    with jax.set_mesh(mesh):
        params = jax.device_put(initial(), shardings(CONFIG, mesh))
        close(compiled("blocked", replace(RECIPE, gap_bound=float(sum(sizes))))(params, grown), expected, 1e-5)


def test_updates_and_their_metrics_are_those_without_sharing() -> None:
    plain, grown = both(5)
    executor = phase(StageOptions(mode="executor_only"), ("executor",), 0)
    recipe = replace(RECIPE, roles=(("executor", ROLE),))
    outcomes = []
    for batch in (plain, grown):
        batch = freeze_old(initial(), batch, COMPUTE)
        state = create(jax.tree.map(lambda x: x.copy(), initial()), dict(recipe.roles), "per_role", master=True)
        state, _ = update(state, {"executor": batch}, executor, recipe)
        outcomes.append(update(state, {"executor": batch}, executor, recipe)[1])
    assert outcomes[0].keys() == outcomes[1].keys()
    for name, value in outcomes[0].items():
        np.testing.assert_allclose(outcomes[1][name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("attention", ["dense", "blocked", "strips"])
def test_what_padding_holds_changes_no_bit(attention: str) -> None:
    _, grown = both(6)
    padding = grown.segments == 0
    dirty = grown.replace(tokens=np.where(padding, 7, grown.tokens), targets=np.where(padding, 3, grown.targets))
    gradient = compiled(attention, RECIPE)
    same(gradient(initial(), grown), gradient(initial(), dirty))


def test_trees_of_other_shapes_are_no_other_program() -> None:
    executor = phase(StageOptions(mode="executor_only"), ("executor",), 0)
    recipe = replace(RECIPE, roles=(("executor", ROLE),))
    state = create(jax.tree.map(lambda x: x.copy(), initial()), dict(recipe.roles), "per_role", master=True)
    state, _ = update(state, {"executor": both(7)[1]}, executor, recipe)
    programs = _update._cache_size()
    for seed in (8, 9):
        state, _ = update(state, {"executor": both(seed)[1]}, executor, recipe)
    assert _update._cache_size() == programs


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_every_token_lies_once_and_every_prompt_once_a_row(seed: int) -> None:
    trajectories, _ = tree(seed)
    tokens, masks = [t.tokens for t in trajectories], [t.loss_mask for t in trajectories]
    places = grow(tokens, masks, trunk=12, branches=2, branch=BRANCH)
    taken = np.zeros((places.rows, 12 + 2 * BRANCH), int)
    stems: dict[tuple[int, int], bytes] = {}
    for i, ids in enumerate(tokens):
        row, length = places.row[i], places.length[i]
        taken[row, places.offset[i] : places.offset[i] + len(ids) - length] += 1
        if not length:
            continue
        stem = ids[:length].tobytes()
        assert places.start[i] + length <= 12 <= places.offset[i]
        assert not masks[i][: length + 1].any()  # the token that predicts the first one is in the branch
        if (row, int(places.stem[i])) not in stems:
            taken[row, places.start[i] : places.start[i] + length] += 1
        assert stems.setdefault((row, int(places.stem[i])), stem) == stem
    assert taken.max() == 1
    assert (taken[:, 12:].any(axis=1)).all()


def test_four_samples_of_a_prompt_take_a_row_of_one_prompt_and_four_samples() -> None:
    samples = [trajectory([1] * 12 + [2 + i] * 4, 12, ids=(0, 0, i)) for i in range(4)]
    options = replace(WHOLE, row_length=BRANCH, prompt_length=11, sample_rows=2, row_buckets=(1,))
    batch = pack(samples, np.ones(4, np.float32), options, LossOptions(), False)
    assert batch.tokens.shape == (1, 11 + 2 * BRANCH)
    assert (batch.segments > 0).sum() == 11 + 4 * 5  # the prompt's last token is each sample's first
    assert batch.mask.sum() == 16


def test_what_cannot_be_shared_is_an_error_that_names_the_keys() -> None:
    with pytest.raises(ValueError, match=r"pack\.attention 'splash' cannot .*pack\.prompt_length 8"):
        replace(WHOLE, prompt_length=8, attention="splash")
    assert replace(WHOLE, prompt_length=8, attention="auto").width == 8 + BRANCH
    with pytest.raises(ValueError, match=r"pack\.prompt_length must be 0"):
        replace(WHOLE, prompt_length=-1)
    with pytest.raises(ValueError, match=r"17 tokens, more than pack\.row_length \(16\)"):
        pack([trajectory([1] * 17, 1)], np.ones(1, np.float32), replace(WHOLE, prompt_length=8), LossOptions(), False)


def test_what_is_longer_than_a_branch_may_fit_without_its_prompt() -> None:
    sample = trajectory([1] * 8 + [2] * 12, 8)
    batch = pack([sample], np.ones(1, np.float32), replace(WHOLE, prompt_length=8), LossOptions(), False)
    assert (batch.segments > 0).sum() == 20
    assert batch.mask.sum() == 12
