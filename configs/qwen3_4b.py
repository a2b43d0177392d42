"""MetaAgent-X (arXiv 2605.14212) with its smaller model, Qwen3-4B; all else as in `configs/qwen3_8b.py`.

    python -m metaagentx.train --config=configs/qwen3_4b.py --workdir=/mnt/shared/qwen3_4b --distributed \
        --config.task.files.train=train.jsonl --config.task.files.validation=dev.jsonl \
        --config.task.files.test=test.jsonl --config.task.files.demonstrations=sharegpt.jsonl

Nobody has run this config. What was done: its update, prefill and decode programs compile for TPU v5e, v5p and v6e and
fit their memory (docs/scaling.md; `python -m launch.aot --config configs/qwen3_4b.py --topology v5e:8x8`).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import qwen3_8b


def get_config() -> ConfigDict:
    config = qwen3_8b.get_config()
    config.pretrained.path = "Qwen/Qwen3-4B"
    config.pretrained.published = "configs/models/qwen3_4b.json"
    return config
