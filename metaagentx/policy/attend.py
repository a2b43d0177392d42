"""How the rows of a batch attend within themselves: by the kernel of a name. Letters as in `attention`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax

from metaagentx.policy.attention import STEMS, Attend, KeyValue, Stems, attention, visible
from metaagentx.policy.attention_blocked import blocked
from metaagentx.policy.attention_kernels import fused, splash, triton
from metaagentx.policy.attention_strips import strips
from metaagentx.policy.config import Kernel


def within(
    kernel: Kernel, positions: jax.Array, segments: jax.Array, alone: bool = False, stems: Stems | None = None
) -> Attend:
    """How the rows of a packed batch attend within themselves; arguments as in `model.forward`.

    With `alone` every row is one segment and then padding, whose outputs nobody reads: "cudnn" then needs no mask.

    Raises:
      ValueError: a kernel that cannot attend along `stems`.
    """
    if kernel == "dense":
        mask = visible(positions, segments, stems)
        return lambda q, k, v: (attention(q, k, v, mask), (k, v))
    if stems is not None and kernel not in STEMS:
        raise ValueError(f"shared prefixes want attention 'dense', 'blocked' or 'strips', not {kernel!r}")
    kernels: dict[str, Callable[..., jax.Array]] = {
        "blocked": functools.partial(blocked, stems=stems),
        "strips": functools.partial(strips, stems=stems),
        "splash": splash,
        "triton": triton,
        "cudnn": functools.partial(fused, alone=alone),
    }
    attend = kernels[kernel]

    def attend_rows(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, KeyValue]:
        return attend(segments, q, k, v), (k, v)

    return attend_rows
