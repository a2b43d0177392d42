"""A run's weights in the formats that others read: Hugging Face checkpoints, and PEFT adapters.

    python -m metaagentx.export --workdir=runs/smollm2 --to=exported/smollm2

One set of weights goes to `--to` itself; a policy of each role goes to a directory of its name below it. Adapters
are written in PEFT's format, beside the `base/` that they belong to unless that is a published checkpoint in Hugging
Face's format, as it was; or with `--merge` added into it: then every role is a checkpoint of its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from absl import app, flags

from metaagentx import command_line, policies
from metaagentx.checkpoint import CheckpointError, claimed
from metaagentx.evaluate import newest
from metaagentx.mesh import is_primary
from metaagentx.policies import Weights
from metaagentx.policy.adapters import merge
from metaagentx.policy.config import ModelConfig
from metaagentx.policy.hub import resolve
from metaagentx.policy.peft_format import save_adapter
from metaagentx.policy.pretrained_config import read_config
from metaagentx.policy.save import save
from metaagentx.settings import Settings, read
from metaagentx.workbench import Workbench, open_workbench

TO = flags.DEFINE_string("to", None, "Directory to write; it must not exist yet.")
MERGE = flags.DEFINE_bool("merge", False, "Add adapters into their base.")


def export(bench: Workbench, weights: Weights, to: Path, *, merged: bool) -> list[Path]:
    """Write `weights` below `to`. Returns the directories written."""
    lora, model, tokenizer = bench.settings.policies.lora, _described(bench), bench.chat.tokenizer
    if weights.base is not None and merged:
        for role, adapter in weights.adapters.items():  # one sum at a time is in memory
            save(to / role, merge(weights.base, adapter, lora), model, tokenizer)
        return [to / role for role in weights.adapters]

    published = published_base(bench.settings)
    full = {"" if name == policies.SHARED else name: params for name, params in weights.full.items()}
    if published and weights.base is not None:
        del full[policies.BASE]
    for name, params in full.items():
        save(to / name, params, model, tokenizer)
    for role, adapter in weights.adapters.items():
        save_adapter(to / role, adapter, lora, bench.model, published or str((to / policies.BASE).resolve()))
    return [to / name for name in (*full, *weights.adapters)]


def published_base(settings: Settings) -> str:
    """Directory or Hub id of the published weights, if adapters lie over these and PEFT can read them; else ""."""
    path, cold = settings.pretrained.path, settings.cold_start
    if not path or (cold.steps and cold.into == "weights"):
        return ""
    found = resolve(path)
    if found.is_file():  # a GGUF file
        return ""
    return str(found.resolve()) if Path(path).expanduser().exists() else path


def _described(bench: Workbench) -> ModelConfig:
    """The model as published: a run may bound its sequences below the checkpoint's context."""
    pretrained = bench.settings.pretrained
    if not pretrained.path:
        return bench.model
    return replace(bench.model, max_length=read_config(pretrained.path, pretrained.dtype).max_length)


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise app.UsageError(f"unknown argument {arguments[1]!r}")
    workdir = command_line.workdir()
    if not TO.value:
        raise app.UsageError("--to=DIRECTORY is needed: where the checkpoint goes")
    to = Path(TO.value).expanduser()
    with command_line.errors_in_words():
        command_line.join()
        if to.exists():
            raise CheckpointError(f"{to} exists: name a directory that does not")
        with open_workbench(read(claimed(workdir))) as bench:
            written = export(bench, newest(bench, workdir), to, merged=MERGE.value)
    if is_primary():
        print("\n".join(f"wrote {path}" for path in written))


if __name__ == "__main__":
    app.run(main)
