"""What can be chosen about a rollout. Bad values are errors that name their key."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from metaagentx.policy.config import DecodeChoice, KernelChoice
from metaagentx.rollout.stop import BROKEN
from metaagentx.tools.exchange import check_url, check_variable


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How one role samples. Order as in transformers' `generate`: bias, temperature, top-k, top-p."""

    temperature: float = 1.0  # 0: greedy
    max_tokens: int = 64  # bound on new tokens of one reply
    top_k: int = 0  # draw from so many most likely tokens; 0: from all
    top_p: float = 1.0  # draw from the fewest most likely tokens that have this share of the mass; 1: from all
    stop: tuple[str, ...] = ()  # a reply ends where its text first holds one of these
    bias: tuple[tuple[str, float], ...] = ()  # tokens, as text or piece, and what is added to their logits
    only: tuple[str, ...] = ()  # the tokens that a reply may have, beside the one that ends it; (): all
    valid: Literal["any", "language"] = "any"  # "language": only tokens that a reply of this role in the task can have

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"sampling.temperature must be 0 (greedy) or above, and finite, not {self.temperature}")
        if self.max_tokens < 1:
            raise ValueError(f"sampling.max_tokens must be at least 1, not {self.max_tokens}")
        if self.top_k < 0:
            raise ValueError(f"sampling.top_k must be 0 (off) or above, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"sampling.top_p must be above 0 and at most 1 (off), not {self.top_p}")
        if "" in self.stop:
            raise ValueError(f"sampling.stop must not hold an empty string: every reply would end at once: {self.stop}")
        if any(BROKEN in string for string in self.stop):
            raise ValueError(f"sampling.stop must not hold U+FFFD, which stands for half a character: {self.stop}")
        if len({token for token, _ in self.bias}) < len(self.bias):
            raise ValueError(f"sampling.bias must name each token once, not {self.bias}")
        if not all(math.isfinite(value) for _, value in self.bias):
            raise ValueError(
                f"sampling.bias must be of finite numbers (sampling.only leaves tokens out), not {self.bias}"
            )

    @property
    def truncated(self) -> bool:
        """Whether top-k or top-p leave tokens out."""
        return self.top_k > 0 or self.top_p < 1

    @property
    def biased(self) -> bool:
        """Whether anything is added to the logits."""
        return bool(self.bias or self.only) or self.valid != "any"


Share = Literal["prefix", "prompt", "none"]
DuringTools = Literal["keep", "leave"]
Layers = Literal["auto", "separate", "stacked"]  # how the weights are held that the engine samples with
Bits = Literal["float", "int8"]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What the engine does with its slots, and its static shapes: fixed at start, so that later nothing compiles."""

    slots: int = 256  # calls decoded side by side
    capacity: int = 128  # tokens of cache per slot: prompt and reply together
    prompt_buckets: tuple[int, ...] = (32, 64, 128)  # prefill lengths
    # Prompts, or blocks of them, prefilled, or calls started, at once; blocks also all of the longest prompt's.
    admit_buckets: tuple[int, ...] = (16, 64, 256)
    chunk: int = 4  # decode steps per dispatch
    capacity_buckets: tuple[int, ...] = ()  # narrower caches that decoding reads while all calls are short
    ahead: int = 1  # dispatches that the device has still to do when the host reads one: 0 or 1
    waves: bool = False  # calls start only when all slots are free: how batch-synchronous sampling would do
    share: Share = "prefix"  # what prompts copy instead of computing it: any beginning | equal "prompt"s | "none"
    share_unit: int = 16  # tokens of a block: prompts are shared, and computed, in whole ones; a power of two
    during_tools: DuringTools = "keep"  # while tools or sub-agents work for a dialogue: "keep" its row | "leave" it
    whole: bool = False  # sample from a copy of the weights that is gathered over mesh.fsdp once a step
    layers: Layers = "auto"  # sample from a copy with "separate" layers | the "stacked" ones; auto: a copy on a CPU
    weights: Bits = "float"  # sample from the policy's weights as they are | from a copy in 8 bits, see docs/models.md
    # What suits the platform ("auto"), or a kernel by name: see docs/models.md.
    attention: KernelChoice = "dense"  # of prompts, as `pack.attention` of rows
    decode_attention: DecodeChoice = "dense"  # of a reply's tokens: "dense" | "paged" (TPU) | "cudnn" (GPU)

    def __post_init__(self) -> None:
        for name in ("slots", "capacity", "chunk", "share_unit"):
            if getattr(self, name) < 1:
                raise ValueError(f"engine.{name} must be at least 1, not {getattr(self, name)}")
        if self.share_unit & (self.share_unit - 1):
            raise ValueError(f"engine.share_unit must be a power of two, not {self.share_unit}")
        if self.ahead not in (0, 1):
            raise ValueError(f"engine.ahead must be 0 or 1, not {self.ahead}")
        for name in ("prompt_buckets", "admit_buckets", "capacity_buckets"):
            buckets = getattr(self, name)
            if min(buckets, default=1) < 1 or list(buckets) != sorted(set(buckets)):
                raise ValueError(f"engine.{name} must be increasing positive numbers, not {buckets}")
            if not buckets and name != "capacity_buckets":
                raise ValueError(f"engine.{name} must not be empty")
        kernels = ("attention", KernelChoice), ("decode_attention", DecodeChoice)
        words = ("share", Share), ("during_tools", DuringTools), ("layers", Layers), ("weights", Bits)
        for name, kind in (*kernels, *words):
            kinds = get_args(kind)
            if getattr(self, name) not in kinds:
                raise ValueError(
                    f"engine.{name} must be one of {', '.join(map(repr, kinds))}, not {getattr(self, name)!r}"
                )
        if self.prompt_buckets[-1] > self.capacity:
            raise ValueError(
                f"engine.prompt_buckets ends at {self.prompt_buckets[-1]}, above engine.capacity ({self.capacity})"
            )
        if self.capacity_buckets and self.capacity_buckets[-1] >= self.capacity:
            raise ValueError(
                f"engine.capacity_buckets ends at {self.capacity_buckets[-1]}, not below engine.capacity "
                f"({self.capacity}), which is the last bucket anyway"
            )

    @property
    def row(self) -> int:
        """Tokens of a slot's row in the cache: the capacity in whole blocks."""
        return -(-self.capacity // self.share_unit) * self.share_unit

    def separates(self, platform: str) -> bool:
        """Whether an engine copies the layers of its weights apart."""
        return self.layers == "separate" or (self.layers == "auto" and platform == "cpu")


@dataclass(frozen=True, slots=True)
class TreeOptions:
    """The M x N tree of one question, and the reward of its executions (`R` of MetaAgent-X, arXiv 2605.14212)."""

    designs: int = 4  # M
    executions: int = 4  # N
    fixed_design: str = ""  # a short-form design to run instead of sampling designs; "" samples
    tool_calls: int = 64  # tools that one execution may run; an agent that asks for more is told so
    prompt_tokens: int = 0  # longest prompt of an agent: older material is left out; 0: what the engine has room for
    w_correct: float = 1.0
    w_format: float = 0.1
    w_cost: float = 0.0
    w_invalid: float = 0.0  # an invalid design's reward is minus this
    cost_form: Literal["additive", "product"] = "additive"
    cost_unit: Literal["tokens", "calls"] = "tokens"
    budget: int = 4096  # tokens or calls of one execution at which its cost is 1

    def __post_init__(self) -> None:
        for name in ("designs", "executions", "budget"):
            if getattr(self, name) < 1:
                raise ValueError(f"tree.{name} must be at least 1, not {getattr(self, name)}")
        for name in ("tool_calls", "prompt_tokens"):
            if getattr(self, name) < 0:
                raise ValueError(f"tree.{name} must be 0 or above, not {getattr(self, name)}")
        for name in ("w_correct", "w_format", "w_cost", "w_invalid"):
            if getattr(self, name) < 0:
                raise ValueError(f"tree.{name} must be 0 or above, not {getattr(self, name)}")
        if self.cost_form not in ("additive", "product"):
            raise ValueError(f"tree.cost_form must be 'additive' or 'product', not {self.cost_form!r}")
        if self.cost_unit not in ("tokens", "calls"):
            raise ValueError(f"tree.cost_unit must be 'tokens' or 'calls', not {self.cost_unit!r}")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """An OpenAI-compatible server (vLLM, SGLang, a hosted API) that answers for a role, which then does not train."""

    url: str = ""  # what /chat/completions is added to: "http://localhost:8000/v1"; "": this run's weights answer
    model: str = ""  # as the server calls it
    key_variable: str = ""  # the environment variable that holds the key, never the key itself; "": none is needed
    length_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # the server's word for a reply's bound
    context: int = 0  # tokens of prompt and reply, as this run's tokenizer counts; 0: engine.capacity
    in_flight: int = 32  # calls at a time
    seconds: float = 300.0  # of one attempt
    retries: int = 4  # after no answer, or one of status 408, 429 or 5xx

    def __post_init__(self) -> None:
        # The key may have been written where its name belongs: that message does not repeat the value.
        check_variable(self.key_variable, "key_variable")
        if self.url:
            check_url(self.url, "url", plain=not self.key_variable)
            if "?" in self.url:
                raise ValueError("url may hold no query: /chat/completions is added to it")
        if bool(self.url) != bool(self.model):
            raise ValueError("url and model must both be given, or neither")
        if self.in_flight < 1 or self.context < 0 or not 0 < self.seconds <= 3600 or not 0 <= self.retries <= 10:
            raise ValueError(
                "in_flight must be at least 1, context 0 or above, seconds in (0, 3600] and retries from 0 to 10"
            )
