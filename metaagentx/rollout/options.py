"""What can be chosen about a rollout. Bad values are errors that name their key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from metaagentx.policy.config import Kernel
from metaagentx.tools.exchange import check_url, check_variable


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How one role samples. Training at temperature 1 keeps the policy ratio unbiased."""

    temperature: float = 1.0
    max_tokens: int = 64  # bound on new tokens of one reply

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"sampling.temperature must be 0 (greedy) or above, not {self.temperature}")
        if self.max_tokens < 1:
            raise ValueError(f"sampling.max_tokens must be at least 1, not {self.max_tokens}")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Static shapes of the engine: fixed at start, so that a steady-state step compiles nothing."""

    slots: int = 256  # calls decoded side by side
    capacity: int = 128  # tokens of cache per slot: prompt and reply together
    prompt_buckets: tuple[int, ...] = (32, 64, 128)  # prefill lengths
    admit_buckets: tuple[int, ...] = (16, 64, 256)  # prompts prefilled, or slots filled, at once
    chunk: int = 4  # decode steps per dispatch
    whole: bool = False  # sample from a copy of the weights that is gathered over mesh.fsdp once a step
    attention: Kernel = "dense"  # of prompts: "dense" | "blocked" | "splash" (TPU)

    def __post_init__(self) -> None:
        for name in ("slots", "capacity", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"engine.{name} must be at least 1, not {getattr(self, name)}")
        for name in ("prompt_buckets", "admit_buckets"):
            buckets = getattr(self, name)
            if not buckets or min(buckets) < 1 or list(buckets) != sorted(set(buckets)):
                raise ValueError(f"engine.{name} must be increasing positive numbers, not {buckets}")
        if self.attention not in get_args(Kernel):
            raise ValueError(
                f"engine.attention must be one of {', '.join(map(repr, get_args(Kernel)))}, not {self.attention!r}"
            )
        if self.prompt_buckets[-1] > self.capacity:
            raise ValueError(
                f"engine.prompt_buckets ends at {self.prompt_buckets[-1]}, above engine.capacity ({self.capacity})"
            )


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
