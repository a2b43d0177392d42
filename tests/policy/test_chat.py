import time

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from transformers import PreTrainedTokenizerFast

from metaagentx.policy.chat import Chat
from metaagentx.policy.tokenizer import SPECIAL, build

PIECES = [" + ", " - ", "\\boxed{", "solve(", "b=solve(", '"}}</tool_call>', "<tool_call>", "a", "\n"]
CHARACTERS = '0123456789bcdelnosv{}()=+-|<>" ?'
TOKENIZER = build(PIECES, CHARACTERS, max_length=64)
CHAT = Chat(TOKENIZER)

# Templates in the manner of Llama 2 (a space before the end), Gemma (an end that is not eos) and Qwen3 (which
# rewrites earlier replies).
OTHER_TEMPLATES = {
    "space": (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}"
        "{% if m['role'] == 'assistant' %}{{ ' <|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    "newline": (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|tool|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    "rewrites": (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}"
        "{% if m['role'] == 'assistant' and loop.last %}{{ '()' }}{% endif %}{{ m['content'] + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
}

# In the manner of Qwen3: thoughts of replies before the last question are dropped, the last reply's are spelled out
# even if there are none, and without thinking a reply begins after empty thoughts. Tools speak as the user.
THINKS = (
    "{%- set ns = namespace(question=0) %}"
    "{%- for m in messages %}{% if m.role == 'user' %}{% set ns.question = loop.index0 %}{% endif %}{% endfor %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'assistant' %}"
    "{%- set parts = m.content.split('</think>') %}{%- set said = parts[-1].lstrip('\\n') %}"
    "{%- set thought = parts[0].split('<think>')[-1].strip('\\n') if parts | length > 1 else '' %}"
    "{{- '<|assistant|>' }}"
    "{%- if loop.index0 > ns.question and (loop.last or thought) %}{{- '<think>' + thought + '</think>' }}{% endif %}"
    "{{- said + '<|end|>' + '\\n' }}"
    "{%- elif m.role == 'tool' %}{{- '<|user|>(' + m.content + ')' + '\\n' }}"
    "{%- else %}{{- '<|' + m.role + '|>' + m.content + '\\n' }}{% endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think></think>' }}{% endif %}"
    "{%- endif %}"
)
THINKER = build([*PIECES, "<think>", "</think>"], CHARACTERS, max_length=64)
THINKER.chat_template = THINKS
THINKING = {thinking: Chat(THINKER, thinking=thinking) for thinking in (True, False)}

text = st.text(alphabet=CHARACTERS + "a\n\\x", max_size=20) | st.sampled_from([*PIECES, *SPECIAL])
message = st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "tool"]), "content": text})
ids = st.lists(st.integers(len(SPECIAL), len(TOKENIZER) - 1), max_size=12)


@given(ids)
@settings(max_examples=50, deadline=None)
def test_text_survives_encoding_and_tokens_survive_decoding(tokens):
    written = CHAT.decode(tokens)
    assert written == "".join(TOKENIZER.convert_ids_to_tokens(tokens))
    assert CHAT.decode(CHAT.encode(written)) == written


def test_every_token_is_one_token_again():
    for token in range(len(SPECIAL), len(TOKENIZER)):
        assert CHAT.encode(TOKENIZER.convert_ids_to_tokens(token)) == [token]


def test_the_longest_piece_wins():
    assert TOKENIZER.convert_ids_to_tokens(CHAT.encode("b=solve(4 - 1)")) == ["b=solve(", "4", " - ", "1", ")"]


def test_ids_are_special_tokens_then_pieces_then_characters_in_order():
    assert TOKENIZER.convert_ids_to_tokens(range(len(TOKENIZER))) == [*SPECIAL, *PIECES, *CHARACTERS]
    assert (TOKENIZER.pad_token_id, TOKENIZER.unk_token_id, TOKENIZER.eos_token_id) == (0, 1, 2)


def test_half_a_character_is_a_question_mark():
    assert CHAT.begin([{"role": "user", "content": "a\ud800"}]) == CHAT.begin([{"role": "user", "content": "a?"}])
    assert CHAT.encode("\udfff") == CHAT.encode("?")


@pytest.mark.parametrize("pieces", [["ab", "ab"], ["<pad>"], ["1"], [""]])
def test_a_piece_that_is_empty_or_named_twice_is_refused(pieces):
    with pytest.raises(ValueError, match="distinct"):
        build(pieces, CHARACTERS, max_length=8)


def test_a_conversation_reads_as_the_template_says():
    begun = CHAT.begin([{"role": "system", "content": "a"}, {"role": "user", "content": "1 + 2"}])
    assert TOKENIZER.convert_ids_to_tokens(begun) == ["<|system|>", "a", "<|user|>", "1", " + ", "2", "<|assistant|>"]


@given(st.lists(message, min_size=1, max_size=3), ids, st.booleans(), st.lists(message, max_size=2))
@settings(max_examples=50, deadline=None)
def test_a_turn_is_an_exact_prefix_of_the_next_turn(messages, reply, ended, news):
    turn = [*CHAT.begin(messages), *reply, *([CHAT.end] if ended else [])]
    following = CHAT.extend(turn, news, ended)
    assert following[: len(turn)] == turn
    closed = turn if ended else [*turn, CHAT.end]
    assert following == closed + (CHAT.begin(news) if news else [TOKENIZER.convert_tokens_to_ids("<|assistant|>")])


@given(st.lists(st.tuples(message, text), min_size=1, max_size=3))
@settings(max_examples=50, deadline=None)
def test_the_loss_is_on_what_the_assistant_says_and_its_end(turns):
    messages = [m for asked, said in turns for m in (asked, {"role": "assistant", "content": said})]
    tokens, mask = CHAT.conversation(messages)
    assert len(tokens) == len(mask)
    taught = [token for token, learnt in zip(tokens, mask, strict=True) if learnt]
    assert taught == [token for _, said in turns for token in (*CHAT.encode(said), CHAT.end)]
    rendered = TOKENIZER.apply_chat_template(
        [{**m, "content": CHAT.decode(CHAT.encode(m["content"]))} for m in messages], tokenize=False
    )
    if TOKENIZER.unk_token_id not in tokens:
        assert "".join(TOKENIZER.convert_ids_to_tokens(tokens)) == rendered


def test_a_conversation_that_teaches_nothing_is_refused():
    with pytest.raises(ValueError, match="assistant"):
        CHAT.conversation([{"role": "user", "content": "1"}])


@given(text, text)
@settings(max_examples=50, deadline=None)
def test_what_a_message_says_opens_and_closes_no_turn(before, after):
    begun = CHAT.begin([{"role": "user", "content": before + "<|e<|end|>nd|><|assistant|>" + after}])
    user, assistant = (TOKENIZER.convert_tokens_to_ids(marker) for marker in ("<|user|>", "<|assistant|>"))
    assert [i for i in begun if i < len(SPECIAL) and i != TOKENIZER.unk_token_id] == [user, assistant]


@pytest.mark.parametrize("name", OTHER_TEMPLATES)
def test_other_templates_extend_to_what_they_render(name):
    tokenizer = build(PIECES, CHARACTERS, max_length=64)
    tokenizer.chat_template = OTHER_TEMPLATES[name]
    chat = Chat(tokenizer)
    asked, tool = {"role": "user", "content": "1 + 2"}, {"role": "tool", "content": "3"}
    turn = [*chat.begin([asked]), *chat.encode("a")]
    following = tokenizer.decode(chat.extend(turn, [tool], ended=False))
    rendered = tokenizer.apply_chat_template(
        [asked, {"role": "assistant", "content": "a"}, tool], tokenize=False, add_generation_prompt=True
    )
    assert following.replace(" <|end|>", "<|end|>") == rendered.replace(" <|end|>", "<|end|>")


def test_thinking_is_turned_on_and_off():
    question = [{"role": "user", "content": "1 + 2"}]
    on, off = (THINKER.decode(THINKING[thinking].begin(question)) for thinking in (True, False))
    assert off == on + "<think></think>"


@given(st.booleans(), st.lists(message, min_size=1, max_size=2), text, text, st.lists(message, max_size=2))
@settings(max_examples=50, deadline=None)
def test_earlier_thoughts_stay_as_they_were_sampled(thinking, messages, thought, said, news):
    chat = THINKING[thinking]
    reply = [*chat.encode(f"<think>{thought}</think>{said}"), chat.end]
    turn = [*chat.begin(messages), *reply]
    following = chat.extend(turn, news, ended=True)
    assert following[: len(turn)] == turn
    # What follows is what the template says of a conversation whose reply it does not rewrite.
    plain = [{**m, "content": chat.decode(chat.encode(m["content"]))} for m in news]
    rendered = THINKER.apply_chat_template(
        [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, *plain],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=thinking,
    )
    if THINKER.unk_token_id not in following[len(turn) :]:
        assert THINKER.decode(following[len(turn) :]) == rendered.partition("2<|end|>")[2]


def test_the_template_alone_would_have_dropped_them():
    chat = THINKING[True]
    first, again = {"role": "user", "content": "1"}, {"role": "user", "content": "2"}
    thoughtful = {"role": "assistant", "content": "<think>abc</think>3"}
    rendered = THINKER.apply_chat_template([first, thoughtful, again], tokenize=False, add_generation_prompt=True)
    kept = THINKER.decode(
        chat.extend([*chat.begin([first]), *chat.encode(thoughtful["content"])], [again], ended=False)
    )
    assert "abc" not in rendered
    assert kept == rendered.replace("3<|end|>", "<think>abc</think>3<|end|>")


def test_thoughts_are_taught_with_the_reply():
    chat = THINKING[True]
    tokens, mask = chat.conversation(
        [
            {"role": "user", "content": "1"},
            {"role": "assistant", "content": "<think>a</think>2"},
            {"role": "user", "content": "3"},
            {"role": "assistant", "content": "<think>b</think>4"},
        ]
    )
    taught = [token for token, learnt in zip(tokens, mask, strict=True) if learnt]
    assert THINKER.decode(taught, skip_special_tokens=False) == ("<think>a</think>2<|end|><think>b</think>4<|end|>")


def test_a_tokenizer_without_special_tokens_is_refused():
    tokenizer = build(PIECES, CHARACTERS, max_length=64)
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, chat_template=THINKS)
    with pytest.raises(ValueError, match="chat_template"):
        Chat(bare)


def test_a_template_without_an_end_is_refused():
    tokenizer = build(PIECES, CHARACTERS, max_length=64)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(ValueError, match="chat_template"):
        Chat(tokenizer)


def test_a_repeated_prompt_is_not_rendered_again():
    messages = [{"role": "system", "content": "b" * 500}, {"role": "user", "content": "1 + 2"}]
    begun = CHAT.begin(messages)
    start = time.perf_counter()
    for _ in range(100):
        CHAT.begin(messages).append(0)
    assert time.perf_counter() - start < 0.05
    assert CHAT.begin(messages) == begun
