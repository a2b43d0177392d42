"""Products of SmolLM2-135M's matrices with a few rows on a CPU, in every layout: what decoding spends its time on.

    XLA_FLAGS=--xla_cpu_multi_thread_eigen=false taskset -c 1 python -m benchmarks.products

Each line: processor time for as many different matrices as make 60 MB in float32, so that none is read from a cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from metaagentx.policy.quantise import product, quantise

SHAPES = {"gate, up": (1536, 576), "down": (576, 1536), "head": (49_152, 576)}  # [out, in]
FORMS: dict[str, tuple[Callable[..., jax.Array], Callable[[jax.Array], object]]] = {
    "[out, in]": (lambda x, w: jnp.einsum("bi,oi->bo", x, w), lambda w: w),
    "[in, out]": (lambda x, w: jnp.einsum("bi,io->bo", x, w), lambda w: w.T.copy()),
    "int8": (lambda x, w: product(x, w, None), quantise),
}
BYTES, TURNS = 60e6, 5


def main() -> None:
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


def _seconds(program: Callable[..., object], *arguments: object) -> float:
    begun = time.process_time()
    jax.block_until_ready(program(*arguments))
    return time.process_time() - begun


if __name__ == "__main__":
    main()
