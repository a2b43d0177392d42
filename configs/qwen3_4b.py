"""MetaAgent-X (arXiv 2605.14212) with its smaller model, Qwen3-4B; all else as in `configs/qwen3_8b.py`.

    python -m metaagentx.train --config=configs/qwen3_4b.py --workdir=/mnt/shared/qwen3_4b --distributed \
        --config.task.files.train=train.jsonl --config.task.files.validation=dev.jsonl \
        --config.task.files.test=test.jsonl --config.task.files.demonstrations=sharegpt.jsonl

Nobody has run this config. Its programs were compiled ahead of time for TPU slices: docs/scaling.md says which, what
memory they need and how fast they would be
(`python -m launch.aot --config configs/qwen3_4b.py --topology v5p:2x2x4`).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import qwen3_8b


def get_config(variant: str = "plain") -> ConfigDict:
    config = qwen3_8b.get_config(variant)
    config.pretrained.path = "Qwen/Qwen3-4B"
    config.pretrained.published = "configs/models/qwen3_4b.json"
    return config
