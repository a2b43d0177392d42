"""What every story of a run needs, made once from its settings: mesh, task, tokenizer, tools, engines."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from metaagentx.learn.state import TrainState, create
from metaagentx.learn.update import Compute
from metaagentx.mesh import make_mesh
from metaagentx.policy import params as weights
from metaagentx.policy import tokenizer
from metaagentx.policy.chat import Chat
from metaagentx.primary import PrimaryTask, PrimaryTools
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.language import Language
from metaagentx.rollout.options import SamplingOptions, TreeOptions
from metaagentx.rollout.sample import Rollout, sample
from metaagentx.rollout.scheduler import Tools
from metaagentx.settings import Settings, SettingsError
from metaagentx.tasks.gym_task import tiny_task
from metaagentx.tasks.palette import TINY_OPERATIONS, TINY_PALETTE
from metaagentx.tasks.pieces import tiny_pieces
from metaagentx.tasks.task import Question, Task
from metaagentx.tools.calculator import make_calculator
from metaagentx.tools.tool import Toolbox
from metaagentx.workflow.prompts import Wording


@dataclass(frozen=True, slots=True)
class Workbench:
    """The parts of one run. Nothing here changes while it runs."""

    settings: Settings
    mesh: Mesh | None  # None on a single device
    task: Task
    chat: Chat
    toolbox: Tools
    language: Language

    @property
    def compute(self) -> Compute:
        """How the trainer cuts up its passes."""
        pack = self.settings.pack
        return Compute(self.settings.model, pack.micro_rows, pack.chunk, pack.remat, pack.attention)

    def engine(self) -> Engine:
        """A new engine: its slots and cache, no weights yet."""
        return Engine(self.settings.model, self.settings.engine, (self.chat.end,))

    def sample(
        self,
        questions: Sequence[Question],
        engines: Mapping[str, Engine],
        *,
        step: int,
        seed: int | None = None,
        tree: TreeOptions | None = None,
        sampling: Mapping[str, SamplingOptions] | None = None,
        designs: Sequence[str] = (),
    ) -> Rollout:
        """`rollout.sample` with the parts and settings of this run; what is given here stands in for a setting."""
        settings = self.settings
        return sample(
            self.task,
            questions,
            engines,
            self.chat,
            self.toolbox,
            self.language,
            tree or settings.tree,
            sampling or settings.sampling.by_role(),
            seed=settings.seed if seed is None else seed,
            step=step,
            designs=designs,
        )

    def fresh_params(self) -> weights.Params:
        """Randomly initialised weights, a function of the seed."""
        return weights.initialise(self.settings.model, jax.random.key(self.settings.seed), self.mesh)

    def fresh_state(self, params: weights.Params) -> TrainState:
        """A training state of its own around a copy of `params`."""
        roles, moments = self.settings.roles.by_role(), self.settings.stages.moments
        return create(jax.tree.map(jnp.copy, params), roles, moments)


@contextlib.contextmanager
def open_workbench(settings: Settings) -> Iterator[Workbench]:
    """Prepare the questions and the mesh, and put the mesh in force.

    Raises SettingsError where the settings do not fit this machine or each other.
    """
    _keep_compilations()
    # float32 means float32: GPUs and TPUs would multiply in fewer bits, and the sampler's log-probabilities drift.
    jax.config.update("jax_default_matmul_precision", "float32" if settings.model.dtype == "float32" else "default")
    mesh = _mesh(settings)
    pieces = tokenizer.build(tiny_pieces(), characters="", max_length=settings.model.max_length)
    if len(pieces) != settings.model.vocab_size:
        raise SettingsError(
            f"config.model.vocab_size must be the tokenizer's {len(pieces)}, not {settings.model.vocab_size}"
        )
    data = Path(settings.data.directory).expanduser()
    task = tiny_task(settings.task, data, settings.teacher)
    toolbox = Toolbox([make_calculator(TINY_OPERATIONS)])
    language = Language(TINY_PALETTE, toolbox.names(), settings.limits, Wording(tool_error="Error"), {})
    bench = Workbench(settings, mesh, task, Chat(pieces), toolbox, language)
    if jax.process_count() > 1:
        bench = dataclasses.replace(bench, task=PrimaryTask(task), toolbox=PrimaryTools(toolbox))
    with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
        yield bench


def _mesh(settings: Settings) -> Mesh | None:
    options, devices = settings.mesh, jax.device_count()
    others = options.fsdp * options.tensor
    if options.data == 0 and devices % others:
        raise SettingsError(f"config.mesh.fsdp * config.mesh.tensor = {others} does not divide the {devices} devices")
    data = options.data or devices // others
    if data * others == 1 == devices:
        return None
    try:
        return make_mesh(data, options.fsdp, options.tensor)
    except ValueError as error:
        raise SettingsError(f"config.mesh: {error}") from error


def _keep_compilations() -> None:
    """Compiled programs are kept on disk, so that the next run starts warm (JAX_COMPILATION_CACHE_DIR says where)."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path("~/.cache/metaagentx/jax").expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
