"""What `python -m launch.aot --sweep` compiles: every large config on three kinds of slices, laid out for each.

A config's own mesh and passes are for one slice; these are the flags that change for another. A row is 16,384 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# config -> slice -> (data, fsdp, tensor), rows of a pass, what is recomputed, whether there is room for `engine.whole`
LAYOUTS: dict[str, dict[str, tuple[tuple[int, int, int], int, str, bool]]] = {
    "qwen3_4b": {
        "v5e:8x8": ((1, 64, 1), 64, "full", False),
        "v5p:2x2x4": ((1, 16, 1), 16, "attention", True),
        "v6e:4x8": ((1, 32, 1), 32, "full", False),
    },
    "qwen3_8b": {
        "v5e:16x16": ((1, 128, 2), 128, "full", False),
        "v5p:4x4x4": ((4, 16, 1), 64, "attention", True),
        "v6e:8x8": ((1, 64, 1), 64, "full", False),
    },
    "qwen3_30b_a3b_mgrpo": {
        "v5e:16x16": ((1, 64, 4), 64, "full", False),
        "v5p:4x4x4": ((4, 16, 1), 128, "attention", False),
        "v6e:16x16": ((1, 128, 2), 128, "full", False),
    },
}


def sweep() -> Iterator[dict[str, Any]]:
    """One job a config and slice: flags of `metaagentx.aot`."""
    for config, slices in LAYOUTS.items():
        for topology, ((data, fsdp, tensor), rows, remat, whole) in slices.items():
            yield {
                "config": f"configs/{config}.py",
                "topology": topology,
                "config.mesh.data": data,
                "config.mesh.fsdp": fsdp,
                "config.mesh.tensor": tensor,
                "config.pack.row_buckets": f"({max(rows, 128)},)",
                "config.pack.micro_rows": rows,
                "config.pack.remat": remat,
                "config.engine.admit_buckets": f"({rows},)",
                "config.engine.attention": "splash",
                "config.engine.whole": whole,
            }
