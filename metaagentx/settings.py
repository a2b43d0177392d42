"""A run's settings: every key of a config, typed, checked and read.

A config file returns an `ml_collections.ConfigDict` whose tree mirrors the dataclasses here; `read` turns it into
`Settings`. Since each section is the very options object that its room takes, a key that nothing reads cannot exist,
and an unknown key, a missing key, a wrong type or a value out of range is an error that names the key.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from metaagentx.learn.options import (
    CreditOptions,
    LossOptions,
    OptimizerOptions,
    PackOptions,
    RoleOptions,
    StageOptions,
)
from metaagentx.learn.schedule import phases
from metaagentx.policy.config import LoraOptions, ModelConfig
from metaagentx.rollout.options import EngineOptions, SamplingOptions, ServerOptions, TreeOptions
from metaagentx.tasks.open import TaskOptions
from metaagentx.workflow.ir import Limits

T = TypeVar("T")


class SettingsError(ValueError):
    """A config that cannot be used; the message names the key and says what would be right."""


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
class RoleServers:
    designer: ServerOptions = ServerOptions()
    executor: ServerOptions = ServerOptions()

    def by_role(self) -> dict[str, ServerOptions]:
        """The roles that a server answers for."""
        return {role: server for role in ("designer", "executor") if (server := getattr(self, role)).url}


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """Which weights serve which role.

    "shared": one set of weights serves both. "split": each role has its own. "adapters": one frozen base, and a LoRA
    adapter for each role. A role with a server has no weights here.
    """

    layout: Literal["shared", "split", "adapters"] = "shared"
    lora: LoraOptions = LoraOptions()  # of layout "adapters"
    master: bool = True  # whether training keeps float32 copies of bfloat16 weights
    servers: RoleServers = RoleServers()


@dataclass(frozen=True, slots=True)
class RoleSampling:
    designer: SamplingOptions = SamplingOptions()
    executor: SamplingOptions = SamplingOptions()

    def by_role(self) -> dict[str, SamplingOptions]:
        return {"designer": self.designer, "executor": self.executor}

    @property
    def truncated(self) -> bool:
        """Whether any role has a top-k or top-p."""
        return self.designer.truncated or self.executor.truncated

    @property
    def reshaped(self) -> bool:
        """Whether any role draws, at temperature 1, from anything but the plain distribution."""
        return self.truncated or self.designer.biased or self.executor.biased


@dataclass(frozen=True, slots=True)
class RoleTraining:
    designer: RoleOptions = RoleOptions()
    executor: RoleOptions = RoleOptions()

    def by_role(self) -> dict[str, RoleOptions]:
        return {"designer": self.designer, "executor": self.executor}


@dataclass(frozen=True, slots=True)
class ColdStartOptions:
    """Supervised fine-tuning on demonstrations of both roles, before any reinforcement."""

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


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """The reinforcement learning loop."""

    steps: int = 120
    questions: int = 16  # per step
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
    executions: int = 2
    temperature: float = 1.0  # of both roles
    final: bool = True  # whether training ends with the table on test questions
    baselines: bool = True  # whether that table holds more than the trained system: cold start, cross-play, votes
    reference_designs: bool = False  # whether that table also holds the task's hand-written designs, cold executor

    def __post_init__(self) -> None:
        for key in ("validation_questions", "designs", "executions"):
            if getattr(self, key) < 1:
                raise ValueError(f"evaluate.{key} must be at least 1, not {getattr(self, key)}")
        for key in ("questions", "temperature"):
            if getattr(self, key) < 0:
                raise ValueError(f"evaluate.{key} must be 0 or above, not {getattr(self, key)}")


@dataclass(frozen=True, slots=True)
class DataOptions:
    """Where prepared questions are kept."""

    directory: str = "~/.cache/metaagentx/data"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a run can be told."""

    model: ModelConfig | None = None  # a model's constants, for random weights; or give pretrained.path
    pretrained: PretrainedOptions = PretrainedOptions()
    policies: PolicyOptions = PolicyOptions()
    seed: int = 0
    mesh: MeshOptions = MeshOptions()
    generation: GenerationOptions = GenerationOptions()
    data: DataOptions = DataOptions()
    task: TaskOptions = TaskOptions()
    limits: Limits = Limits()
    engine: EngineOptions = EngineOptions()
    sampling: RoleSampling = RoleSampling()
    tree: TreeOptions = TreeOptions()
    credit: CreditOptions = CreditOptions()
    loss: LossOptions = LossOptions()
    roles: RoleTraining = RoleTraining()
    stages: StageOptions = StageOptions()
    pack: PackOptions = PackOptions()
    cold_start: ColdStartOptions = ColdStartOptions()
    train: TrainOptions = TrainOptions()
    evaluate: EvaluateOptions = EvaluateOptions()

    def __post_init__(self) -> None:
        if (self.model is None) == (not self.pretrained.path):
            raise ValueError(
                "one of config.model (constants of a model to make) and config.pretrained.path (a checkpoint to start "
                "from) must be given" + ("" if self.model is None else ", not both")
            )
        if self.cold_start.into == "adapters" and self.policies.layout != "adapters":
            raise ValueError(
                f"cold_start.into 'adapters' wants policies.layout 'adapters', not {self.policies.layout!r}"
            )
        if self.generation.staleness and not self.loss.importance_cap:
            raise ValueError(
                f"generation.staleness ({self.generation.staleness}) wants loss.importance_cap above 0: tokens of "
                "older weights count by what the newest think of them"
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2^32), not {self.seed}")
        served = self.policies.servers.by_role()
        for role in served:
            if any(phase.trains[role] > 0 for phase in phases(self.stages)):
                raise ValueError(
                    f"policies.servers.{role}: the {role} trains (stages.mode {self.stages.mode!r}), and a server's "
                    "replies have no log-probabilities to train on: freeze it, or take its url away"
                )
            sampling = self.sampling.by_role()[role]
            if sampling.top_k or sampling.biased:
                raise ValueError(
                    f"sampling.{role} must not have top_k, bias, only or valid where a server answers: it knows "
                    "temperature, top_p and stop"
                )
        if len(served) == 2 and self.cold_start.steps:
            raise ValueError("cold_start.steps must be 0 where servers answer for both roles: there are no weights")
        for role, sampling in self.sampling.by_role().items():
            if self.stages.mode != "none" and sampling.temperature != 1 and role not in served:
                raise ValueError(
                    f"sampling.{role}.temperature must be 1 while training (it biases the policy ratio), not "
                    f"{sampling.temperature}; evaluate.temperature is free"
                )
            if sampling.valid == "language" and self.task.kind != "tiny":
                raise ValueError(
                    f"sampling.{role}.valid may be 'language' where the task knows every token of a reply, which "
                    f"task.kind 'tiny' does, not {self.task.kind!r}; sampling.{role}.only lists tokens"
                )
        if self.model is not None and self.engine.capacity > self.model.max_length:
            raise ValueError(
                f"engine.capacity ({self.engine.capacity}) must not exceed model.max_length ({self.model.max_length})"
            )
        if self.pack.row_length < self.engine.capacity:
            raise ValueError(
                f"pack.row_length ({self.pack.row_length}) must be at least engine.capacity "
                f"({self.engine.capacity}), or a trajectory may not fit into a row"
            )


def read(config: Mapping[str, Any]) -> Settings:
    """The settings that `config` (a ConfigDict or plain mapping) describes. Raises SettingsError."""
    return _build(Settings, config, "config")


def defaults(cls: type = Settings) -> dict[str, Any]:
    """Every key that has a default, with it."""
    tree: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        if item.default is not dataclasses.MISSING:
            tree[item.name] = _section(item.default)
        elif item.default_factory is not dataclasses.MISSING:
            tree[item.name] = _section(item.default_factory())
    return tree


def _section(value: Any) -> Any:
    """Options as nested dictionaries; everything else as it is."""
    if not dataclasses.is_dataclass(value):
        return value
    return {item.name: _section(getattr(value, item.name)) for item in dataclasses.fields(value)}


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as nested dictionaries, lists and scalars, for JSON and for comparing runs."""
    return _jsonable(dataclasses.asdict(settings))


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "config") -> list[str]:
    """The keys in which the settings asked for differ from those of a work directory, with both values."""
    lines: list[str] = []
    for key in sorted(set(ours) | set(theirs)):
        path, a, b = f"{prefix}.{key}", ours.get(key), theirs.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, path)
        elif a != b:
            lines.append(f"{path}: {a!r} asked for, {b!r} in the directory")
    return lines


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_jsonable(item) for item in value]
    return value


def _build(cls: type[T], values: Mapping[str, Any], path: str) -> T:
    if not isinstance(values, Mapping) and not hasattr(values, "items"):
        raise SettingsError(f"{path} must be a section with keys, not {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}

    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {path}.{near[0]}?" if near else f"; known keys: {', '.join(sorted(fields))}"
            raise SettingsError(f"{path}.{key} is not a known key{hint}")
        arguments[key] = _convert(hints[key], value, f"{path}.{key}")

    for key, item in fields.items():
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if key not in arguments and required:
            raise SettingsError(f"{path}.{key} is missing: it has no default and must be given")

    try:
        return cls(**arguments)
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from error


def _convert(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type, hint)):
            return value
        return _build(typing.cast(type, hint), value, path)
    origin = typing.get_origin(hint)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise SettingsError(f"{path} must be one of {', '.join(map(repr, choices))}, not {value!r}")
        return value
    if origin is tuple:
        inner = typing.get_args(hint)
        if not isinstance(value, tuple | list):
            raise SettingsError(f"{path} must be a tuple, not {value!r}")
        if inner[-1] is Ellipsis:
            inner = inner[:1] * len(value)
        if len(inner) != len(value):
            raise SettingsError(f"{path} must have {len(inner)} parts, not {len(value)}")
        return tuple(
            _convert(part, item, f"{path}[{i}]") for i, (part, item) in enumerate(zip(inner, value, strict=True))
        )
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _convert(_member(hint, value, path), value, path)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise SettingsError(f"{path} must be of type {hint.__name__}, not {type(value).__name__} ({value!r})")
    return value


def _member(union: Any, value: Any, path: str) -> Any:
    """The member of a union that `value` is meant for: of several sections, the one whose keys it has."""
    members = [a for a in typing.get_args(union) if a is not type(None)]
    if len(members) == 1 or not hasattr(value, "keys"):
        return next((a for a in members if isinstance(a, type) and isinstance(value, a)), members[0])
    keys = {member: {item.name for item in dataclasses.fields(member)} for member in members}
    for member, names in keys.items():
        if set(value.keys()) == names:
            return member
    wanted = " or ".join(f"{{{', '.join(sorted(names))}}}" for names in keys.values())
    raise SettingsError(f"{path} must have the keys {wanted}, not {{{', '.join(sorted(value.keys()))}}}")
