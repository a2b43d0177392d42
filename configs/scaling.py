"""What `python -m launch.aot --sweep` compiles: every large config on three kinds of slices, laid out for each.

A config's own mesh and passes are for one slice; these are the flags that change for another. A row is 16,384 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# config -> slice -> (data, fsdp, tensor), rows of a pass, what is recomputed, and what else changes there
LAYOUTS: dict[str, dict[str, tuple[tuple[int, int, int], int, str, dict[str, Any]]]] = {
    "qwen3_4b": {
        "v5e:8x16": ((1, 64, 2), 64, "full", {}),
        "v5p:2x2x4": ((1, 16, 1), 16, "attention", {"engine.whole": True}),
        "v6e:4x8": ((1, 32, 1), 32, "full", {}),
    },
    "qwen3_8b": {
        "v5e:16x16": ((1, 128, 2), 128, "full", {}),
        "v5p:4x4x4": ((4, 16, 1), 64, "attention", {"engine.whole": True}),
        "v6e:8x8": ((1, 64, 1), 64, "full", {}),
    },
    "qwen3_30b_a3b_mgrpo": {
        "v5e:16x16": ((1, 64, 4), 64, "full", {"engine.slots": 64, "pack.chunk": 512}),
        "v5p:4x4x4": ((1, 16, 4), 64, "attention", {}),
        "v6e:8x16": ((1, 32, 4), 64, "full", {}),
    },
}


def sweep() -> Iterator[dict[str, Any]]:
    """One job a config and slice: flags of `metaagentx.aot`."""
    for config, slices in LAYOUTS.items():
        for topology, ((data, fsdp, tensor), rows, remat, other) in slices.items():
            keys = {
                "mesh.data": data,
                "mesh.fsdp": fsdp,
                "mesh.tensor": tensor,
                "pack.row_buckets": f"({max(rows, 128)},)",
                "pack.micro_rows": rows,
                "pack.remat": remat,
                "engine.admit_buckets": f"({rows},)",
                "engine.whole": False,
            }
            flags = {f"config.{key}": value for key, value in (keys | other).items()}
            yield {"config": f"configs/{config}.py", "topology": topology, **flags}
