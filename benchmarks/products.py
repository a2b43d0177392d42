"""Products of SmolLM2-135M's matrices on a CPU: what decoding and training spend their time on.

    XLA_FLAGS=--xla_cpu_multi_thread_eigen=false taskset -c 1 python -m benchmarks.products [--training]

Processor time. Of decoding: a few rows in every layout, by as many different matrices as make 60 MB in float32, so that
none is read from a cache. Of training: the three products of a linear layer with a row of a batch, by XLA and, where it
is installed, by torch in turns.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from metaagentx.policy.quantise import product, quantise

SHAPES = {"gate, up": (1536, 576), "down": (576, 1536), "head": (49_152, 576)}  # [out, in]
FORMS: dict[str, tuple[Callable[..., jax.Array], Callable[[jax.Array], object]]] = {
    "[out, in]": (lambda x, w: jnp.einsum("bi,oi->bo", x, w), lambda w: w),
    "[in, out]": (lambda x, w: jnp.einsum("bi,io->bo", x, w), lambda w: w.T.copy()),
    "int8": (lambda x, w: product(x, w, None), quantise),
}
BYTES, TURNS = 60e6, 5
# Of x [t, i], w [o, i] and the gradient y [t, o] of x w^T.
TRAINING = {"x w^T": ("ti,oi->to", "xw"), "y w": ("to,oi->ti", "yw"), "y^T x": ("to,ti->oi", "yx")}
ROW = 512  # tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", action="store_true", help="the products of training")
    training() if parser.parse_args().training else decoding()


def decoding() -> None:
    """A few rows, in every layout."""
    for name, (out, wide) in SHAPES.items():
        count = max(1, int(BYTES / (4 * out * wide)))
        matrices = [jax.random.normal(jax.random.key(i), (out, wide)) for i in range(count)]
        for form, (multiply, made) in FORMS.items():
            weights = [made(w) for w in matrices]
            for rows in (1, 8, 32):
                x = jax.random.normal(jax.random.key(rows), (rows, wide))
                program = jax.jit(lambda x, ws, multiply=multiply: [multiply(x, w) for w in ws])
                jax.block_until_ready(program(x, weights))
                seconds = min(_seconds(program, x, weights) for _ in range(TURNS))
                rate = count * out * wide / seconds / 1e9
                print(f"{name:8} {form:9} {rows:2} rows: {rate:5.2f} Gweights/s, {2 * rows * rate:6.1f} GFLOP/s")


def training() -> None:
    """A row of a batch: forward, and both gradients."""
    rng = np.random.default_rng(0)
    for name, (out, wide) in SHAPES.items():
        shapes = {"x": (ROW, wide), "w": (out, wide), "y": (ROW, out)}
        arrays = {letter: rng.standard_normal(shape, np.float32) for letter, shape in shapes.items()}
        for form, (letters, which) in TRAINING.items():
            programs: dict[str, tuple[Callable[..., object], Callable[..., object]]] = {}
            programs["XLA"] = (jax.jit(lambda a, b, e=letters: jnp.einsum(e, a, b)), jnp.asarray)
            if importlib.util.find_spec("torch"):
                import torch

                torch.set_num_threads(1)
                programs["torch"] = (lambda a, b, e=letters: torch.einsum(e, a, b), torch.from_numpy)
            given = {by: [made(arrays[letter]) for letter in which] for by, (_, made) in programs.items()}
            times: dict[str, list[float]] = {by: [] for by in programs}
            for turn in range(TURNS + 1):
                for by, (program, _) in programs.items():
                    seconds = _seconds(program, *given[by])
                    times[by] += [seconds] if turn else []  # the first compiles
            rates = {by: 2e-9 * ROW * out * wide / statistics.median(found) for by, found in times.items()}
            print(f"{name:8} {form:6}", *(f"{by} {rate:6.1f} GFLOP/s" for by, rate in rates.items()), flush=True)


def _seconds(program: Callable[..., object], *arguments: object) -> float:
    begun = time.process_time()
    jax.block_until_ready(program(*arguments))
    return time.process_time() - begun


if __name__ == "__main__":
    main()
