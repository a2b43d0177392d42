"""The tokenizer inside a GGUF file, as a Hugging Face tokenizer: vocabulary, merges, special tokens, chat template."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from metaagentx.policy.errors import DamagedFile, UnsupportedGguf
from metaagentx.policy.gguf import field, open_file

CONTROL, USER_DEFINED = 3, 4  # llama.cpp's token types

# How text is cut before merging, from the models' own tokenizer.json; GGUF only names it.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def read_gguf_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE as the file describes it.

    Raises:
      UnsupportedGguf: a tokenizer of another kind, or a way of cutting text that is not known here.
      DamagedFile: it is no whole GGUF file.
    """
    reader = open_file(path)
    kind, cut = (field(reader, path, f"tokenizer.ggml.{name}") for name in ("model", "pre"))
    if kind != "gpt2":
        raise UnsupportedGguf(f"{path}: tokenizer.ggml.model must be 'gpt2' (byte-level BPE), not {kind!r}")
    pre_tokenizer = _pre_tokenizer(cut, path)
    pieces, types, merges = (
        field(reader, path, f"tokenizer.ggml.{name}") for name in ("tokens", "token_type", "merges")
    )

    try:
        bpe = models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=[tuple(merge.split(" ", 1)) for merge in merges],
            ignore_merges=cut == "llama-bpe",
        )
    except Exception as error:  # what the Rust library raises has no class of its own
        raise DamagedFile(f"{path}: tokenizer.ggml.merges do not fit tokenizer.ggml.tokens: {error}") from error
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizer
    if cut == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    kinds = list(zip(pieces, types, strict=True))
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece, type in kinds if type == USER_DEFINED])

    roles = {}
    for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        id = reader.get_field(f"tokenizer.ggml.{key}_token_id")
        if id is not None:
            roles[f"{role}_token"] = pieces[id.contents()]
    template = reader.get_field("tokenizer.chat_template")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        additional_special_tokens=[
            AddedToken(piece, normalized=False, special=True) for piece, type in kinds if type == CONTROL
        ],
        chat_template=template.contents() if template else None,
        model_max_length=field(reader, path, f"{field(reader, path, 'general.architecture')}.context_length"),
        clean_up_tokenization_spaces=False,
        **roles,
    )


def _pre_tokenizer(cut: str, path: Path) -> pre_tokenizers.PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel
    if cut == "smollm":
        parts = [pre_tokenizers.Digits(individual_digits=True), byte_level(add_prefix_space=False)]
    elif cut == "gpt-2":
        parts = [byte_level(add_prefix_space=False)]
    elif cut in ("qwen2", "llama-bpe"):
        split = pre_tokenizers.Split(Regex(QWEN2 if cut == "qwen2" else LLAMA3), behavior="isolated")
        parts = [split, byte_level(add_prefix_space=False, use_regex=False)]
    else:
        raise UnsupportedGguf(f"{path}: tokenizer.ggml.pre must be smollm, gpt-2, qwen2 or llama-bpe, not {cut!r}")
    return pre_tokenizers.Sequence(parts)
