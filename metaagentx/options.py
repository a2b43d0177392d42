"""The sections of a config that belong to no room: where a run computes, what it starts from, how long it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from metaagentx.learn.options import OptimizerOptions
from metaagentx.policy.config import LoraOptions
from metaagentx.rollout.options import SamplingOptions, ServerOptions


@dataclass(frozen=True, slots=True)
class MeshOptions:
    """Devices along each axis of the mesh. `data` or `fsdp` may be 0: all that the other axes leave."""

    data: int = 0
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        if min(self.data, self.fsdp) < 0 or self.tensor < 1 or self.data == self.fsdp == 0:
            raise ValueError(
                "mesh.tensor must be at least 1, mesh.data and mesh.fsdp at least 1 or one of them 0 (all the rest), "
                f"not {self.data} x {self.fsdp} x {self.tensor}"
            )

    def sizes(self, devices: int) -> tuple[int, int, int]:
        """The mesh on so many devices. Raises ValueError if they do not fit."""
        known = max(self.data, 1) * max(self.fsdp, 1) * self.tensor
        rest = devices // known
        sizes = (self.data or rest, self.fsdp or rest, self.tensor)
        if sizes[0] * sizes[1] * sizes[2] != devices:
            raise ValueError(
                f"mesh.data x mesh.fsdp x mesh.tensor = {self.data} x {self.fsdp} x {self.tensor} (0: the rest) does "
                f"not fit {devices} devices"
            )
        return sizes


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """Where replies are sampled. Unless said otherwise, on the devices that train, and with their newest weights."""

    devices: int = 0  # the last so many are set apart for it: they sample while the others update; 0: all do both
    per_host: bool = False  # each process samples some of the questions, on its own devices; else all do it as one
    tensor: int = 1  # of either: ways in which one copy of the weights is cut, as mesh.tensor
    staleness: int = 0  # of devices set apart: updates that the weights which sample may be behind; 0: in turn

    def __post_init__(self) -> None:
        if min(self.devices, self.staleness) < 0 or self.tensor < 1:
            raise ValueError(
                "generation.devices and generation.staleness must be 0 or above, generation.tensor at least 1, not "
                f"{self.devices}, {self.staleness}, {self.tensor}"
            )
        if self.devices and self.per_host:
            raise ValueError("generation.devices are of a single process, generation.per_host of several: give one")
        if self.devices % self.tensor:
            raise ValueError(f"generation.tensor ({self.tensor}) must divide generation.devices ({self.devices})")
        if self.staleness and not self.devices:
            raise ValueError("generation.staleness is of devices set apart: give generation.devices too")
        if self.tensor > 1 and not (self.devices or self.per_host):
            raise ValueError(
                "generation.tensor wants generation.devices or generation.per_host; else it is mesh.tensor"
            )


@dataclass(frozen=True, slots=True)
class PretrainedOptions:
    """A published checkpoint to start from. Its own config.json gives the model's constants."""

    path: str = ""  # directory in Hugging Face's format, .gguf file, or hub id; "": random weights of config.model
    published: str = ""  # its config.json kept apart: constants for what needs no weights (launch.aot)
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # of weights and activations
    max_length: int = 0  # longest sequence of this run, at most the checkpoint's context; 0: its context
    thinking: bool = False  # for chat templates that can switch it on (Qwen3)

    def __post_init__(self) -> None:
        if self.max_length < 0:
            raise ValueError(f"pretrained.max_length must be 0 (the checkpoint's) or above, not {self.max_length}")


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """Which weights serve which role.

    "shared": one set of weights serves all. "split": each role has its own. "adapters": one frozen base, and a LoRA
    adapter for each role. A role with a server has no weights here.
    """

    layout: Literal["shared", "split", "adapters"] = "shared"
    lora: LoraOptions = LoraOptions()  # of layout "adapters"
    master: bool = True  # whether training keeps float32 copies of bfloat16 weights
    servers: Mapping[str, ServerOptions] = field(default_factory=dict)  # role -> its server; one without a url is none

    @property
    def served(self) -> dict[str, ServerOptions]:
        """The roles that a server answers for."""
        return {role: server for role, server in self.servers.items() if server.url}


@dataclass(frozen=True, slots=True)
class ColdStartOptions:
    """Supervised fine-tuning on demonstrations of every role, before any reinforcement."""

    steps: int = 700  # 0: none
    into: Literal["weights", "adapters"] = "weights"  # what it trains; "adapters" wants policies.layout "adapters"
    demonstrations: int = 20_000  # written by the task's teacher, shown in a new order each pass
    batch: int = 192  # demonstrations of one step
    optimizer: OptimizerOptions = OptimizerOptions()
    log_every: int = 50
    checkpoint_every: int = 200
    weights_from: str = ""  # work directory whose finished cold start is used instead of making one

    def __post_init__(self) -> None:
        for key in ("demonstrations", "batch", "log_every", "checkpoint_every"):
            if getattr(self, key) < 1:
                raise ValueError(f"cold_start.{key} must be at least 1, not {getattr(self, key)}")
        if self.steps < 0:
            raise ValueError(f"cold_start.steps must be 0 or above, not {self.steps}")
        if 0 < self.steps <= self.optimizer.warmup_steps:
            warmup = f"cold_start.optimizer.warmup_steps ({self.optimizer.warmup_steps})"
            raise ValueError(f"cold_start.steps must be more than {warmup}, not {self.steps}")
        if self.steps and self.optimizer.decay_steps < 0:  # without steps it may be what the warm-up leaves of none
            decay = f"cold_start.optimizer.decay_steps must be 0 or above, not {self.optimizer.decay_steps}"
            raise ValueError(decay)


@dataclass(frozen=True, slots=True)
class CurriculumOptions:
    """What is asked first (M-GRPO, arXiv 2511.13288, trains on simple questions and then on all)."""

    steps: int = 0  # the first so many steps ask train questions of `kinds` alone
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"train.curriculum.steps must be 0 or above, not {self.steps}")
        if bool(self.steps) != bool(self.kinds):
            raise ValueError(
                f"train.curriculum.steps ({self.steps}) and train.curriculum.kinds {self.kinds} go together: give both "
                "or neither"
            )


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """The reinforcement learning loop."""

    steps: int = 120
    questions: int = 16  # per step
    curriculum: CurriculumOptions = CurriculumOptions()
    updates: int = 1  # on each batch; above 1 the ratio leaves 1 and the clip acts
    token_budget: int = 0  # stop once so many tokens have been generated in training; 0: no bound
    evaluate_every: int = 10  # steps between evaluations on validation questions
    checkpoint_every: int = 10
    keep: int = 2  # checkpoints kept
    gap_bound: float = 0.05  # largest mean |log-prob gap| between sampler and trainer before the run stops
    episodes_every: int = 20  # steps between episodes recorded for reading

    def __post_init__(self) -> None:
        for key in ("questions", "updates", "evaluate_every", "checkpoint_every", "keep", "episodes_every"):
            if getattr(self, key) < 1:
                raise ValueError(f"train.{key} must be at least 1, not {getattr(self, key)}")
        for key in ("steps", "token_budget", "gap_bound"):
            if getattr(self, key) < 0:
                raise ValueError(f"train.{key} must be 0 or above, not {getattr(self, key)}")


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """How held-out accuracy is measured: every question with so many designs, each run so many times."""

    questions: int = 400  # test questions of the final table; 0: all
    validation_questions: int = 100  # of the curve during training
    designs: int = 2
    executions: int = 2  # a team answers designs x executions times
    temperature: float = 1.0  # of every role
    vote_tokens: int = 0  # of a team without sub-agents: tokens of a question that a majority may take; 0: no such row
    final: bool = True  # whether training ends with the table on test questions
    baselines: bool = True  # whether that table holds more than the trained system: cold start, cross-play, votes
    reference_designs: bool = False  # whether that table also holds the task's hand-written designs, cold executor

    def __post_init__(self) -> None:
        for key in ("validation_questions", "designs", "executions"):
            if getattr(self, key) < 1:
                raise ValueError(f"evaluate.{key} must be at least 1, not {getattr(self, key)}")
        for key in ("questions", "temperature", "vote_tokens"):
            if getattr(self, key) < 0:
                raise ValueError(f"evaluate.{key} must be 0 or above, not {getattr(self, key)}")

    @property
    def compares(self) -> bool:
        """Whether the final table wants the weights of the cold start too."""
        return self.baselines or self.reference_designs

    def drawing(self, sampling: Mapping[str, SamplingOptions]) -> dict[str, SamplingOptions]:
        """How each role draws in an evaluation."""
        return {role: replace(options, temperature=self.temperature) for role, options in sampling.items()}


@dataclass(frozen=True, slots=True)
class DataOptions:
    """Where prepared questions are kept."""

    directory: str = "~/.cache/metaagentx/data"
