"""What every story of a run needs, made once from its settings: mesh, task, tokenizer, tools, engines."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
from jax.sharding import Mesh

from metaagentx import policies
from metaagentx.learn.schedule import ROLES
from metaagentx.learn.update import Compute
from metaagentx.memory import Plan, measured, plans
from metaagentx.mesh import make_mesh
from metaagentx.policies import States, Weights
from metaagentx.policy import kernels, params, tokenizer
from metaagentx.policy.adapters import target_names
from metaagentx.policy.chat import Chat
from metaagentx.policy.config import LoraOptions, ModelConfig
from metaagentx.policy.hub import resolve
from metaagentx.policy.load import check, load, open_tensors
from metaagentx.policy.params import Params
from metaagentx.policy.pretrained_config import read_config
from metaagentx.policy.pretrained_tokenizer import check_vocabulary, read_tokenizer
from metaagentx.primary import PrimaryTask, told
from metaagentx.rollout.at_work import Tools, alone
from metaagentx.rollout.bias import Biases, biases
from metaagentx.rollout.compilation import compile_all
from metaagentx.rollout.conversation import as_mappings
from metaagentx.rollout.division import WHOLE
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.language import Language
from metaagentx.rollout.options import SamplingOptions, TreeOptions
from metaagentx.rollout.remote import Remote
from metaagentx.rollout.sample import Rollout, sample
from metaagentx.settings import Settings, SettingsError
from metaagentx.tasks.open import open_task, surroundings
from metaagentx.tasks.pieces import REPLIES, tiny_pieces
from metaagentx.tasks.task import Question, Task
from metaagentx.tools.sandbox import SandboxUnavailable
from metaagentx.transfer import Stay, Transfer, Way, own_part, regroup
from metaagentx.wire import by_process


@dataclass(frozen=True, slots=True)
class Workbench:
    """The parts of one run. Nothing here changes while it runs."""

    settings: Settings
    model: ModelConfig
    mesh: Mesh | None  # None on a single device
    task: Task
    chat: Chat
    toolbox: Tools
    language: Language
    biases: Biases | None  # of the roles that have any
    servers: Mapping[str, Remote]  # of the roles that have one
    way: Way  # of weights to where replies are sampled

    @property
    def compute(self) -> Compute:
        """How the trainer cuts up its passes."""
        pack = self.settings.pack
        attention = kernels.for_packed(pack.attention, self.model, pack.row_length)
        return Compute(self.model, pack.micro_rows, pack.chunk, pack.remat, attention, self.lora, pack.unroll)

    @property
    def lora(self) -> LoraOptions | None:
        """The shape of adapters; None where full weights train."""
        options = self.settings.policies
        return options.lora if options.layout == "adapters" else None

    def engines(self, weights: Weights, version: int) -> dict[str, Engine | Remote]:
        """Each role's server, or a new engine with these weights: one for both where they share them or their base."""
        found: dict[str, Engine | Remote] = dict(self.servers)
        engine: Engine | None = None
        with self.sampling():
            for role in ROLES:
                if role not in found:
                    if engine is None or self.settings.policies.layout == "split":
                        engine = self._engine()
                    found[role] = engine
        self.load(found, self.way.bring(weights), version)
        return found

    def _engine(self) -> Engine:
        settings, chat = self.settings, self.chat
        return Engine(
            self.model,
            settings.engine,
            (chat.end,),
            self.lora,
            self.biases,
            settings.sampling.truncated,
            chat.decode,
            chat.tokenizer.all_special_ids,
        )

    def load(self, engines: Mapping[str, Engine | Remote], weights: Weights, version: int) -> None:
        """Give the engines these weights, which `way` has brought."""
        with self.sampling():
            policies.load(engines, weights, version)

    def memory(self) -> list[Plan]:
        """What devices will hold: those that train, and those that sample if they are others.

        Raises:
          SettingsError: it is more than they have.
        """
        target = self.way.target if isinstance(self.way, Transfer) else None
        return [plan.check() for plan in plans(self.settings, self.model, self.mesh, target)]

    def prepare(self, engines: Mapping[str, Engine | Remote], states: States, base: Params | None) -> dict[str, float]:
        """Compile every program of the engines, and the largest of every update. Returns metrics: `memory/...`.

        Raises:
          SettingsError: the programs and what devices hold are more than they have.
        """
        planned = self.memory()
        with self.sampling():
            sampling = [program for engine in distinct(engines) for program in engine.warmup()]
        updates = compile_all(policies.largest_steps(states, base, self.settings, self.compute))
        if len(planned) == 1:
            found = [measured(planned[0], update=updates, sampling=sampling)]
        else:
            found = [measured(planned[0], update=updates), measured(planned[1], sampling=sampling)]
        for plan in found:
            logging.info("%s", plan.check())
        return {name: value for plan in found for name, value in plan.metrics().items()}

    def sampling(self) -> contextlib.AbstractContextManager[object]:
        """The mesh of the devices that sample in force, if they are set apart."""
        return jax.set_mesh(self.way.target) if isinstance(self.way, Transfer) else contextlib.nullcontext()

    def sample(
        self,
        questions: Sequence[Question],
        engines: Mapping[str, Engine | Remote],
        *,
        step: int,
        seed: int | None = None,
        tree: TreeOptions | None = None,
        sampling: Mapping[str, SamplingOptions] | None = None,
        designs: Sequence[str] = (),
    ) -> Rollout:
        """`rollout.sample` with the parts and settings of this run; what is given here stands in for a setting."""
        settings = self.settings
        with self.sampling():
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
                share=told if _in_lockstep(settings) else alone,
                division=by_process() if settings.generation.per_host else WHOLE,
            )

    def expect(self, *splits: str) -> None:
        """That there are questions in these splits, that a designer's prompt fits for all of them, and servers answer.

        Raises:
          SettingsError: naming the split, the question with the longest text, or the server.
        """
        try:
            for server in self.servers.values():
                server.check()
        except ValueError as error:
            raise SettingsError(f"config.{error}") from error
        engine = self.settings.engine
        room = min(engine.prompt_buckets[-1], engine.capacity - 1)
        advice = (
            f"config.engine.prompt_buckets (now up to {engine.prompt_buckets[-1]}) and config.engine.capacity "
            f"({engine.capacity}, prompt and reply)"
        )
        if "designer" in self.servers:
            room = self.servers["designer"].context - 1
            advice = f"config.policies.servers.designer.context (now {room + 1}, prompt and reply)"
        for split in splits:
            size = self.task.size(split)
            if not size:
                raise SettingsError(f"there are no {split} questions: config.task.files.{split} must name some")
            if self.settings.tree.fixed_design:
                continue
            questions = [self.task.question(split, index, seed=-1) for index in range(size)]
            longest = max(questions, key=lambda question: len(question.prompt))
            length = len(self.chat.begin(as_mappings(self.task.designer_messages(longest))))
            if length > room:
                raise SettingsError(
                    f"the designer's prompt of {split} question {longest.id} has {length} tokens, there is room for "
                    f"{room}: raise {advice}, or shorten the question"
                )

    def first_params(self) -> Params:
        """Full weights before any training: the checkpoint's, or random ones that are a function of the seed."""
        settings = self.settings
        if settings.pretrained.path:
            return load(settings.pretrained.path, self.model, self.mesh)
        return params.initialise(self.model, jax.random.key(settings.seed), self.mesh)

    def fresh_weights(self) -> Weights:
        """`first_params` in the layout of the run's policies; none where servers answer for both roles."""
        return Weights({}, {}) if len(self.servers) == len(ROLES) else self.around(self.first_params())

    def around(self, params: Params) -> Weights:
        """`params` in the layout of the run's policies."""
        key = jax.random.fold_in(jax.random.key(self.settings.seed), 1)  # of adapters
        return policies.around(params, self.settings.policies, self.model, key, self.mesh)


def distinct(engines: Mapping[str, Engine | Remote]) -> list[Engine]:
    """Every engine of this program once, however many roles it serves."""
    return list({id(engine): engine for engine in engines.values() if isinstance(engine, Engine)}.values())


@contextlib.contextmanager
def open_workbench(settings: Settings) -> Iterator[Workbench]:
    """Prepare the questions and the mesh, and put the mesh in force.

    Raises SettingsError where the settings do not fit this machine, the checkpoint or each other: what is quick to
    check comes first, and no weights are read.
    """
    _keep_compilations()
    mesh, target = _meshes(settings)
    try:
        model, chat = _speaker(settings)
        added = _biases(settings, model, chat)
        servers = _servers(settings, chat)
        data_dir = Path(settings.data.directory).expanduser()
        around = surroundings(settings.task, data_dir)
        task = open_task(settings.task, data_dir, settings.limits, around)
    except (ValueError, OSError, ModuleNotFoundError, SandboxUnavailable) as error:
        raise error if isinstance(error, SettingsError) else SettingsError(str(error)) from error
    # float32 means float32: GPUs and TPUs would multiply in fewer bits, and the sampler's log-probabilities drift.
    jax.config.update("jax_default_matmul_precision", "float32" if model.dtype == "float32" else "default")
    names = around.toolbox.names()
    language = Language(around.palette, names, settings.limits, around.wording, around.tool_texts)
    bench = Workbench(settings, model, mesh, task, chat, around.toolbox, language, added, servers, Stay())
    if mesh is not None and target is not None:
        bench = dataclasses.replace(bench, way=Transfer(model, bench.lora, mesh, target))
    if _in_lockstep(settings):
        bench = dataclasses.replace(bench, task=PrimaryTask(task))
    with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
        yield bench


def _speaker(settings: Settings) -> tuple[ModelConfig, Chat]:
    """The model's constants and its tokenizer. A checkpoint's files are checked, and no weights read."""
    if settings.model is not None:
        model, spoken = settings.model, tokenizer.build(tiny_pieces(), "", settings.model.max_length)
        if len(spoken) != model.vocab_size:
            raise SettingsError(
                f"config.model.vocab_size must be the tokenizer's {len(spoken)}, not {model.vocab_size}"
            )
        _check_targets(settings, model)
        return model, Chat(spoken)
    path = resolve(settings.pretrained.path)
    model = _within_context(settings, read_config(path, settings.pretrained.dtype))
    _check_targets(settings, model)
    published = read_tokenizer(path)
    check_vocabulary(published, model)
    check(open_tensors(path), model, path)
    return model, Chat(published, thinking=settings.pretrained.thinking)


def _biases(settings: Settings, model: ModelConfig, chat: Chat) -> Biases | None:
    try:
        return biases(settings.sampling.by_role(), REPLIES, chat.tokenizer, model.vocab_size, chat.end)
    except ValueError as error:
        raise SettingsError(f"config.{error}") from error


def _servers(settings: Settings, chat: Chat) -> dict[str, Remote]:
    """Who answers for the roles that have a server; nobody is asked yet."""
    capacity, share = settings.engine.capacity, told if _in_lockstep(settings) else alone
    servers = settings.policies.servers.by_role()
    return {role: Remote(role, options, chat, capacity, share) for role, options in servers.items()}


def _check_targets(settings: Settings, model: ModelConfig) -> None:
    if settings.policies.layout == "adapters":
        try:
            target_names(model, settings.policies.lora)
        except ValueError as error:
            raise SettingsError(f"config.policies.{error}") from error


def _within_context(settings: Settings, model: ModelConfig) -> ModelConfig:
    """A checkpoint's constants, with the run's own bound on lengths."""
    wanted = settings.pretrained.max_length or model.max_length
    for key, length in (("pretrained.max_length", wanted), ("engine.capacity", settings.engine.capacity)):
        if length > model.max_length:
            raise SettingsError(f"config.{key} ({length}) exceeds the checkpoint's context ({model.max_length})")
    if settings.engine.capacity > wanted:
        raise SettingsError(
            f"config.engine.capacity ({settings.engine.capacity}) exceeds config.pretrained.max_length ({wanted})"
        )
    return dataclasses.replace(model, max_length=wanted)


def _meshes(settings: Settings) -> tuple[Mesh | None, Mesh | None]:
    """The mesh that trains, None for a single device; and the one that samples, None for the same."""
    devices, options = jax.devices(), settings.generation
    rest = len(devices) - options.devices
    if options.devices and jax.process_count() > 1:
        raise SettingsError(f"config.generation.devices ({options.devices}) sets devices of a single process apart")
    if rest < 1:
        raise SettingsError(f"config.generation.devices ({options.devices}) leaves none of {len(devices)} to train on")
    try:
        sizes = settings.mesh.sizes(rest)
        if not options.devices and rest == 1:
            return None, None
        mesh = make_mesh(*sizes, devices[:rest])
        if options.per_host:
            own = own_part(regroup(mesh, options.tensor), jax.process_index())
            return mesh, None if own == mesh else own
        if not options.devices:
            return mesh, None
        regroup(mesh, options.tensor)
        return mesh, make_mesh(options.devices // options.tensor, 1, options.tensor, devices[rest:])
    except ValueError as error:
        raise SettingsError(f"config.{error}; choose others with --config.mesh.fsdp=... and the like") from error


def _in_lockstep(settings: Settings) -> bool:
    """Whether several processes run one scheduler side by side: process 0 alone runs tools, grades and asks servers."""
    return jax.process_count() > 1 and not settings.generation.per_host


def _keep_compilations() -> None:
    """Compiled programs are kept on disk, so that the next run starts warm (JAX_COMPILATION_CACHE_DIR says where)."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path("~/.cache/metaagentx/jax").expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
