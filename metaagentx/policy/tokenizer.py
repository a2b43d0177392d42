"""A small tokenizer made of a list of pieces: whole phrases first, single characters for the rest."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, END = "<pad>", "<unk>", "<|end|>"
MARKERS = ("<|system|>", "<|user|>", "<|tool|>", "<|assistant|>")
SPECIAL = (PAD, UNKNOWN, END, *MARKERS)  # ids 0, 1, 2, ...

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build(pieces: Sequence[str], characters: str, max_length: int) -> PreTrainedTokenizerFast:
    """A Hugging Face tokenizer whose tokens are `SPECIAL`, then `pieces`, then `characters`, ids in this order.

    Text is cut from the left, each time at the longest piece that fits; a character in neither list is `<unk>`.

    Raises:
      ValueError: a piece is empty, special, or named twice.
    """
    vocabulary = [*SPECIAL, *pieces, *characters]
    repeated = sorted({piece for piece in vocabulary if vocabulary.count(piece) > 1})
    if "" in vocabulary or repeated:
        raise ValueError(f"tokenizer pieces and characters must be distinct and not empty; repeated: {repeated}")

    longest_first = sorted(vocabulary[len(SPECIAL) :], key=len, reverse=True)
    pattern = "|".join([*map(re.escape, longest_first), r"[\s\S]"])
    ids = {piece: i for i, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=list(MARKERS),
        chat_template=TEMPLATE,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
