"""A run's settings: every key of a config, typed, checked and read.

A config file returns an `ml_collections.ConfigDict` whose tree mirrors the dataclasses here; `read` turns it into
`Settings`. Since each section is the very options object that its room takes, a key that nothing reads cannot exist,
and an unknown key, a missing key, a wrong type or a value out of range is an error that names the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from metaagentx import sections
from metaagentx.learn.options import CreditOptions, LossOptions, PackOptions, RoleOptions, StageOptions
from metaagentx.learn.schedule import check, phases
from metaagentx.options import (
    ColdStartOptions,
    DataOptions,
    EvaluateOptions,
    GenerationOptions,
    MeshOptions,
    PolicyOptions,
    PretrainedOptions,
    TrainOptions,
)
from metaagentx.policy.config import ModelConfig
from metaagentx.rollout.options import EngineOptions, SamplingOptions, ServerOptions, TreeOptions
from metaagentx.tasks.open import TaskOptions
from metaagentx.teams.options import TeamOptions
from metaagentx.workflow.ir import Limits

ROLES = ("designer", "executor")  # of a run in which designs are written and run


def _each(options: type) -> Any:
    """A section that has `options` for each role."""
    return field(default_factory=partial(_of_roles, options, ROLES))


def _of_roles(options: type, roles: Sequence[str]) -> dict[str, Any]:
    return {role: options() for role in roles}


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
    sampling: Mapping[str, SamplingOptions] = _each(SamplingOptions)
    tree: TreeOptions = TreeOptions()  # of a run without a team
    team: TeamOptions | None = None  # who works together; None: designs are written and run
    credit: CreditOptions = CreditOptions()
    loss: LossOptions = LossOptions()
    roles: Mapping[str, RoleOptions] = _each(RoleOptions)
    stages: StageOptions = StageOptions()
    pack: PackOptions = PackOptions()
    cold_start: ColdStartOptions = ColdStartOptions()
    train: TrainOptions = TrainOptions()
    evaluate: EvaluateOptions = EvaluateOptions()

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2^32), not {self.seed}")
        self._check_roles()
        self._check_weights()
        self._check_servers()
        self._check_sampling()
        self._check_lengths()

    @property
    def role_names(self) -> tuple[str, ...]:
        """The roles of this run, in the order of everything that is done for one after the other."""
        return ROLES if self.team is None else self.team.roles

    @property
    def learners(self) -> tuple[str, ...]:
        """Those of them that can train: a judge of its own cannot."""
        return ROLES if self.team is None else self.team.learners

    @property
    def truncated(self) -> bool:
        """Whether any role has a top-k or top-p."""
        return any(sampling.truncated for sampling in self.sampling.values())

    @property
    def reshaped(self) -> bool:
        """Whether any role draws, at temperature 1, from anything but the plain distribution."""
        return self.truncated or any(sampling.biased for sampling in self.sampling.values())

    @property
    def crosses(self) -> bool:
        """Whether the final table has roles of the cold start work with trained ones."""
        others = not self.tree.fixed_design if self.team is None else bool(self.team.subs)
        return self.evaluate.baselines and others

    def _check_roles(self) -> None:
        known = ", ".join(self.role_names)
        for section in ("sampling", "roles", "policies.servers"):
            given = self.policies.servers if section == "policies.servers" else getattr(self, section)
            for role in given:
                if role not in self.role_names:
                    raise ValueError(f"{section}.{role} is of no role of this run, which has {known}")
            for role in self.role_names:
                if role not in given and section != "policies.servers":
                    raise ValueError(f"{section}.{role} is missing: each of {known} has its own")
        check(self.stages, self.learners)
        self._check_team()

    def _check_team(self) -> None:
        if self.evaluate.vote_tokens and (self.team is None or self.team.subs):
            raise ValueError("evaluate.vote_tokens is of a team without sub-agents: their majority is a baseline")
        if self.team is None:
            return
        if self.credit.grouping != "m_grpo":
            raise ValueError(f"credit.grouping must be 'm_grpo' for a team, not {self.credit.grouping!r}")
        if self.loss.aggregation == "execution_mean":
            raise ValueError(
                "loss.aggregation must not be 'execution_mean' for a team: each trajectory is an execution of its own, "
                "and what it counts in its alignment would be lost; 'sequence_mean' counts it"
            )
        if self.generation.per_host:
            raise ValueError("generation.per_host is of designs: all processes sample the rollouts of a team as one")
        if self.evaluate.reference_designs:
            raise ValueError("evaluate.reference_designs are of a run with designs, not of one with a team")
        verifies = self.team.local == "verifier" and self.team.sub_reward.local > 0
        if self.team.subs and verifies and self.task.kind in ("tiny", "gym"):
            raise ValueError(
                f"team.local must not be 'verifier' with task.kind {self.task.kind!r}, which knows no sub-tasks: give "
                f"'judge', or team.sub_reward.local 0 (not {self.team.sub_reward.local})"
            )

    def _check_weights(self) -> None:
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

    def _check_servers(self) -> None:
        served = self.policies.served
        for role in served:
            if any(phase.trains.get(role) for phase in phases(self.stages, self.learners)):
                raise ValueError(
                    f"policies.servers.{role}: the {role} trains (stages.mode {self.stages.mode!r}), and a server's "
                    "replies have no log-probabilities to train on: freeze it, or take its url away"
                )
            if self.sampling[role].top_k or self.sampling[role].biased:
                raise ValueError(
                    f"sampling.{role} must not have top_k, bias, only or valid where a server answers: it knows "
                    "temperature, top_p and stop"
                )
        if len(served) == len(self.role_names) and self.cold_start.steps:
            raise ValueError("cold_start.steps must be 0 where servers answer for every role: there are no weights")

    def _check_sampling(self) -> None:
        for role, sampling in self.sampling.items():
            if self.stages.mode != "none" and sampling.temperature != 1 and role not in self.policies.served:
                raise ValueError(
                    f"sampling.{role}.temperature must be 1 while training (it biases the policy ratio), not "
                    f"{sampling.temperature}; evaluate.temperature is free"
                )
            if sampling.valid == "language" and (self.task.kind != "tiny" or self.team is not None):
                raise ValueError(
                    f"sampling.{role}.valid may be 'language' where the task knows every token of a reply, which "
                    f"task.kind 'tiny' does of designs, not {self.task.kind!r}; sampling.{role}.only lists tokens"
                )

    def _check_lengths(self) -> None:
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
    return sections.build(Settings, config, "config")


def defaults(team: TeamOptions | None = None) -> dict[str, Any]:
    """Every key that has a default, with it: of a run with this team, or with designs. Each role has its sections."""
    tree, roles = sections.defaults(Settings), ROLES if team is None else team.roles
    if team is not None:
        tree["team"], tree["credit"]["grouping"] = sections.keys(team), "m_grpo"
    tree["sampling"] = sections.keys(_of_roles(SamplingOptions, roles))
    tree["roles"] = sections.keys(_of_roles(RoleOptions, roles))
    tree["policies"]["servers"] = sections.keys(_of_roles(ServerOptions, roles))
    return tree
