"""Compile a run's programs for a TPU slice that is not at hand: do they fit, and how fast would they be?

    python -m launch.aot --config=configs/qwen3_8b.py --topology=v5p:4x4x4
    python -m launch.aot --sweep

needs libtpu (`pip install 'metaagentx[aot]'`) and no TPU. The flags are those of `metaagentx.aot`, and `--config.KEY`
as in training. `--sweep` does all of `configs/scaling.py`, one after the other, skips what benchmarks/results/aot.json
holds of the same programs, and writes the table of docs/scaling.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

RESULTS = "benchmarks/results/aot.json"
DOCUMENT = "docs/scaling.md"

# libtpu looks for the machine's TPUs and waits for a metadata server, unless it is told that there is none.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is held, so several may compile at once
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


def command(flags: Sequence[str]) -> list[str]:
    """The program that compiles."""
    return [sys.executable, "-m", "metaagentx.aot", *flags]


def flags_of(job: Mapping[str, Any]) -> list[str]:
    """A job of a sweep as flags."""
    return [f"--{key}={value}" for key, value in job.items()]


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0, or that of the first job that failed."""
    environment = os.environ | ENVIRONMENT
    if "--sweep" not in arguments:
        return subprocess.run(command(arguments), env=environment, check=False).returncode
    from configs import scaling

    rest = [argument for argument in arguments if argument != "--sweep"]
    codes = [
        subprocess.run(command([*flags_of(job), f"--json={RESULTS}", *rest]), env=environment, check=False).returncode
        for job in scaling.sweep()
    ]
    table = subprocess.run(command([f"--json={RESULTS}", f"--document={DOCUMENT}"]), env=environment, check=False)
    return next((code for code in [*codes, table.returncode] if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
