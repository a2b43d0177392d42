"""Conversations as token ids, token in, token out: what was sampled is never decoded and encoded again."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import cast

from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]  # {"role": ..., "content": ...}, as chat templates read them
Key = tuple[tuple[tuple[str, str], ...], ...]  # messages, hashable

# Stands for a reply when the template is asked what follows one. Templates may rewrite earlier replies (Qwen3 drops
# their thoughts), so the place is looked up in the rendered text and not measured by its length.
REPLY = "7c1e0b5a93f2"


class Chat:
    """Renders conversations for any Hugging Face tokenizer with a chat template."""

    end: int  # id of the token that ends a reply

    def __init__(self, tokenizer: PreTrainedTokenizerBase, cached: int = 1 << 16, *, thinking: bool = False):
        """Conversations in the manner of a tokenizer.

        Args:
          tokenizer: with a chat template.
          cached: how many renderings are kept; rollouts ask for the same ones often.
          thinking: whether a reply may begin with thoughts, for templates that ask (`enable_thinking` of Qwen3).

        Raises:
          ValueError: the template does not end an assistant's message with a special token.
        """
        self.tokenizer = tokenizer
        self.thinking = thinking
        self._special = re.compile("|".join(map(re.escape, tokenizer.all_special_tokens)))
        conversation = [{"role": "user", "content": "?"}, {"role": "assistant", "content": REPLY}]
        closing = self._special.match(self._template(conversation, prompt=False).partition(REPLY)[2].lstrip())
        if closing is None or not closing.group():  # without special tokens, the pattern matches nothing
            raise ValueError("the tokenizer's chat_template must end an assistant's message with a special token")
        self._end = closing.group()
        self.end = cast(int, tokenizer.convert_tokens_to_ids(self._end))
        self._begin = functools.lru_cache(cached)(self._render_begin)
        self._extension = functools.lru_cache(cached)(self._render_extension)

    def begin(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation, up to where the assistant's reply starts."""
        return list(self._begin(_key(messages)))

    def extend(self, ids: Sequence[int], messages: Sequence[Message], ended: bool) -> list[int]:
        """Ids of the next turn: `ids` (which end with a reply), `messages`, and where the next reply starts.

        Args:
          ids: the conversation so far, an exact prefix of what is returned.
          messages: what is said between the two replies.
          ended: whether `ids` end with the end token; a reply that was cut or stopped is closed here.
        """
        return [*ids, *(() if ended else (self.end,)), *self._extension(_key(messages))]

    def conversation(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Ids of a whole conversation, and True for each that the assistant says, its end tokens included.

        Raises:
          ValueError: the last message is not the assistant's.
        """
        if not messages or messages[-1]["role"] != "assistant":
            raise ValueError("a conversation to learn from must end with an assistant's message")
        ids: list[int] = []
        mask: list[bool] = []
        between: list[Message] = []
        for message in messages:
            if message["role"] != "assistant":
                between.append(message)
                continue
            ids = self.extend(ids, between, ended=True) if mask else self.begin(between)
            mask += [False] * (len(ids) - len(mask))
            ids += [*self.encode(message["content"]), self.end]
            mask += [True] * (len(ids) - len(mask))
            between = []
        return ids, mask

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; a special token spelled in it counts as a space."""
        return self.tokenizer.encode(self._plain(text), add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special tokens."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return cast(str, text)

    def _render_begin(self, key: Key) -> tuple[int, ...]:
        return self._ids(self._template([dict(items) for items in key], prompt=True))

    def _render_extension(self, key: Key) -> tuple[int, ...]:
        conversation = [{"role": "user", "content": "?"}, {"role": "assistant", "content": REPLY}]
        conversation += [dict(items) for items in key]
        following = self._template(conversation, prompt=True).partition(REPLY)[2].lstrip()
        return self._ids(following.removeprefix(self._end))

    def _template(self, messages: Sequence[Message], prompt: bool) -> str:
        # What a message says can neither open nor close a turn.
        plain = [{**message, "content": self._plain(message["content"])} for message in messages]
        text = self.tokenizer.apply_chat_template(
            plain, tokenize=False, add_generation_prompt=prompt, enable_thinking=self.thinking
        )
        return cast(str, text)

    def _plain(self, text: str) -> str:
        # A space in its place: what stands around it does not become one token, let alone another special one.
        # Half a surrogate pair (JSON and Python escapes spell it) is no text that a tokenizer takes.
        return self._special.sub(" ", text).encode(errors="replace").decode()

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))


def _key(messages: Sequence[Message]) -> Key:
    return tuple(tuple(message.items()) for message in messages)
