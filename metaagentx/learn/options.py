"""What can be chosen about credit, loss, optimiser and schedule: small choices, not one enum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from metaagentx.policy.attention import STEMS
from metaagentx.policy.config import KernelChoice, Remat

Grouping = Literal["metaagent_x", "per_design", "at_grpo", "per_agent", "m_grpo"]
Normaliser = Literal["mean_std", "mean", "loo"]
Ratio = Literal["token", "sequence"]
Aggregation = Literal["token_mean", "sequence_mean", "execution_mean", "constant"]
Estimator = Literal["k1", "k2", "k3"]


def _one_of(key: str, value: str, choices: object) -> None:
    allowed = get_args(choices)
    if value not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(map(repr, allowed))}, not {value!r}")


@dataclass(frozen=True, slots=True)
class CreditOptions:
    """From rewards to advantages."""

    grouping: Grouping = "metaagent_x"
    normaliser: Normaliser = "mean_std"
    std_floor: float = 0.0  # the divisor is max(std, floor) + 1e-6
    ddof: int = 1  # std over n - ddof

    def __post_init__(self) -> None:
        _one_of("credit.grouping", self.grouping, Grouping)
        _one_of("credit.normaliser", self.normaliser, Normaliser)
        if self.std_floor < 0:
            raise ValueError(f"credit.std_floor must be 0 or above, not {self.std_floor}")
        if self.ddof not in (0, 1):
            raise ValueError(f"credit.ddof must be 0 or 1, not {self.ddof}")


@dataclass(frozen=True, slots=True)
class LossOptions:
    """The surrogate and how tokens are averaged."""

    ratio: Ratio = "token"  # "sequence": GSPO
    clip_low: float = 0.2  # these bounds act on batches with `old` alone: used once, a batch has a ratio of exactly 1
    clip_high: float = 0.28
    aggregation: Aggregation = "token_mean"
    constant_length: int = 1024  # only read by aggregation "constant"
    kl_estimator: Estimator = "k3"  # of a role's KL term; only k2's gradient is that of KL(policy || reference)
    importance_cap: float = 2.0  # truncated importance weight C between sampler and trainer; 0: off

    def __post_init__(self) -> None:
        _one_of("loss.ratio", self.ratio, Ratio)
        _one_of("loss.aggregation", self.aggregation, Aggregation)
        _one_of("loss.kl_estimator", self.kl_estimator, Estimator)
        if not 0 <= self.clip_low < 1:
            raise ValueError(f"loss.clip_low must be in [0, 1), not {self.clip_low}")
        if self.clip_high < 0:
            raise ValueError(f"loss.clip_high must be 0 or above, not {self.clip_high}")
        if self.constant_length < 1:
            raise ValueError(f"loss.constant_length must be at least 1, not {self.constant_length}")
        if self.importance_cap < 0:
            raise ValueError(f"loss.importance_cap must be 0 or above, not {self.importance_cap}")


@dataclass(frozen=True, slots=True)
class OptimizerOptions:
    """One role's optimiser. Muon takes the weight matrices of the layers, AdamW everything else."""

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 5e-6  # AdamW's
    muon_learning_rate: float = 0.0  # only read by "muon"
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0  # global norm; 0: off
    warmup_steps: int = 0
    decay_steps: int = 0  # linear decay to 0 over so many of the role's own updates after warm-up; 0: constant

    def __post_init__(self) -> None:
        if self.name not in ("adamw", "muon"):
            raise ValueError(f"optimizer.name must be 'adamw' or 'muon', not {self.name!r}")
        for key in ("learning_rate", "muon_learning_rate", "weight_decay", "clip_norm", "warmup_steps"):
            if getattr(self, key) < 0:
                raise ValueError(f"optimizer.{key} must be 0 or above, not {getattr(self, key)}")
        for key in ("b1", "b2"):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(f"optimizer.{key} must be in [0, 1), not {getattr(self, key)}")


@dataclass(frozen=True, slots=True)
class RoleOptions:
    """What training does with one role."""

    weight: float = 1.0  # of this role's loss where several roles train in one step
    entropy: float = 0.0  # weight of an entropy bonus
    kl: float = 0.0  # weight of the KL divergence to the cold start
    optimizer: OptimizerOptions = OptimizerOptions()

    def __post_init__(self) -> None:
        for key in ("weight", "entropy", "kl"):
            if getattr(self, key) < 0:
                raise ValueError(f"roles.{key} must be 0 or above, not {getattr(self, key)}")
        if self.optimizer.decay_steps < 0:
            raise ValueError(f"roles.optimizer.decay_steps must be 0 or above, not {self.optimizer.decay_steps}")


@dataclass(frozen=True, slots=True)
class StageOptions:
    """Which role trains when (MetaAgent-X: executor first, 30 steps a phase). `schedule.check` knows the roles."""

    mode: str = "stagewise"  # or "joint", "none", "ROLE_only"
    length: int = 30  # P: steps of one phase
    first: str = ""  # role of the first phase; "": the last of the run's roles, which is the executor where designs are
    freeze: Literal["hard", "soft"] = "hard"
    soft_scale: float = 2e-4  # soft: the frozen role's learning rate is scaled by this (1e-9 / 5e-6 upstream)
    moments: Literal["per_role", "shared"] = "per_role"

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"stages.length must be at least 1, not {self.length}")
        if self.freeze not in ("hard", "soft"):
            raise ValueError(f"stages.freeze must be 'hard' or 'soft', not {self.freeze!r}")
        if self.moments not in ("per_role", "shared"):
            raise ValueError(f"stages.moments must be 'per_role' or 'shared', not {self.moments!r}")
        if self.soft_scale < 0:
            raise ValueError(f"stages.soft_scale must be 0 or above, not {self.soft_scale}")


@dataclass(frozen=True, slots=True)
class PackOptions:
    """Static shapes of a packed batch."""

    row_length: int = 256  # tokens of a row; a trajectory must fit into one
    row_buckets: tuple[int, ...] = (8, 32, 128)  # rows of a batch; beyond the last, it doubled (`pack.buckets`)
    micro_rows: int = 32  # rows of one forward and backward pass (gradient accumulation)
    chunk: int = 64  # positions of a row whose logits exist at a time
    remat: Remat = "none"  # what the backward pass recomputes: see `policy.model.forward`
    attention: KernelChoice = "dense"  # "auto" (by platform) or a kernel by name: see docs/models.md
    unroll: bool = False  # every layer has code of its own: on a CPU faster, but longer to compile
    # Samples of one prompt share it (`learn.share`): a row then is so many tokens of prompts, and then `sample_rows`
    # times `row_length` tokens of samples. 0: every sample has its own prompt.
    prompt_length: int = 0
    sample_rows: int = 1  # only read with `prompt_length`

    def __post_init__(self) -> None:
        _one_of("pack.remat", self.remat, Remat)
        _one_of("pack.attention", self.attention, KernelChoice)
        if self.row_length < 2:
            raise ValueError(f"pack.row_length must be at least 2, not {self.row_length}")
        for key in ("micro_rows", "chunk", "sample_rows"):
            if getattr(self, key) < 1:
                raise ValueError(f"pack.{key} must be at least 1, not {getattr(self, key)}")
        if self.prompt_length < 0:
            raise ValueError(f"pack.prompt_length must be 0 (nothing is shared) or above, not {self.prompt_length}")
        if self.prompt_length and self.attention not in ("auto", *STEMS):
            raise ValueError(
                f"pack.attention {self.attention!r} cannot attend to shared prompts (pack.prompt_length "
                f"{self.prompt_length}): 'dense', 'blocked' and 'strips' can, and 'auto' takes one of them"
            )
        if not self.row_buckets or min(self.row_buckets) < 1 or list(self.row_buckets) != sorted(set(self.row_buckets)):
            raise ValueError(f"pack.row_buckets must be increasing positive numbers, not {self.row_buckets}")
        if uneven := [size for size in self.row_buckets if size % min(size, self.micro_rows)]:
            raise ValueError(
                f"pack.row_buckets must be multiples of pack.micro_rows ({self.micro_rows}) or below it, "
                f"not {uneven[0]}"
            )

    @property
    def width(self) -> int:
        """Tokens of a row, its trunk included."""
        return self.prompt_length + self.sample_rows * self.row_length if self.prompt_length else self.row_length
