"""Published tokenizers with their chat templates, from a Hugging Face directory or a GGUF file."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from metaagentx.policy.config import ModelConfig
from metaagentx.policy.errors import NoChatTemplate, NoTokenizer, VocabularyTooLarge, some
from metaagentx.policy.hub import resolve


def read_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint; `path` as in `hub.resolve`. Code that a checkpoint carries is never run.

    Raises:
      NoTokenizer: its files are not there, or are damaged.
      NoChatTemplate: it does not say how a conversation is written, as tokenizers of base models do not.
      UnsupportedGguf, DamagedFile: see `gguf_tokenizer`.
    """
    path = resolve(path)
    if path.suffix == ".gguf":
        from metaagentx.policy.gguf_tokenizer import read_gguf_tokenizer

        tokenizer: PreTrainedTokenizerBase = read_gguf_tokenizer(path)
    else:
        if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
            raise NoTokenizer(f"{path} has no tokenizer.json and no tokenizer_config.json; copy the model's")
        from transformers import AutoTokenizer  # knows every tokenizer there is: its import takes a while

        try:
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # transformers and the Rust library below it raise whatever they meet
            raise NoTokenizer(f"{path} holds no tokenizer that transformers can read: {error}") from error
    if not tokenizer.chat_template:
        raise NoChatTemplate(
            f"the tokenizer of {path} has no chat_template (chat_template.jinja, or the key in "
            "tokenizer_config.json); a base model needs the one of its chat model"
        )
    return tokenizer


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: ModelConfig) -> None:
    """That the model embeds every id of the tokenizer. It may have more rows: many are padded to a round number.

    Raises:
      VocabularyTooLarge: naming the tokens outside.
    """
    outside = [repr(token) for token, id in tokenizer.get_vocab().items() if id >= config.vocab_size]
    if outside:
        raise VocabularyTooLarge(
            f"model.vocab_size ({config.vocab_size}) must be above every id of the tokenizer; outside: {some(outside)}"
        )
