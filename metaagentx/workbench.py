"""What every story of a run needs, made once from its settings: mesh, task, tokenizer, tools, engines."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh

from metaagentx import policies
from metaagentx.designs import Designs
from metaagentx.devices import keep_compilations, meshes
from metaagentx.learn.update import Compute
from metaagentx.memory import Plan, compiling, final_table, measured, plans
from metaagentx.policies import States, Weights
from metaagentx.policy import kernels, params
from metaagentx.policy.chat import Chat
from metaagentx.policy.config import LoraOptions, ModelConfig
from metaagentx.policy.load import load
from metaagentx.policy.params import Params
from metaagentx.primary import PrimaryTask, told
from metaagentx.rollout import sampled
from metaagentx.rollout.at_work import Tools, alone
from metaagentx.rollout.bias import Biases, biases
from metaagentx.rollout.compilation import compile_all
from metaagentx.rollout.conversation import as_mappings
from metaagentx.rollout.division import WHOLE
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.language import Language
from metaagentx.rollout.remote import Remote
from metaagentx.sections import SettingsError
from metaagentx.settings import Settings
from metaagentx.speaker import speaker
from metaagentx.system import Engines, Parts, System
from metaagentx.tasks.curriculum import Curriculum
from metaagentx.tasks.open import open_task, surroundings
from metaagentx.tasks.pieces import REPLIES
from metaagentx.tasks.task import Question, Task
from metaagentx.teamwork import Teamwork
from metaagentx.tools.sandbox import SandboxUnavailable
from metaagentx.transfer import Stay, Transfer, Way
from metaagentx.wire import by_process

S = TypeVar("S")


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
    roles: tuple[str, ...]  # those whose weights are in this program
    servers: Mapping[str, Remote]  # of the roles that have one
    way: Way  # of weights to where replies are sampled
    curriculum: Curriculum  # the order of train questions

    @property
    def compute(self) -> Compute:
        """How the trainer cuts up its passes."""
        pack = self.settings.pack
        attention = kernels.for_packed(pack.attention, self.model, pack.width, stems=pack.prompt_length > 0)
        return Compute(self.model, pack.micro_rows, pack.chunk, pack.remat, attention, self.lora, pack.unroll)

    @property
    def lora(self) -> LoraOptions | None:
        """The shape of adapters; None where full weights train."""
        options = self.settings.policies
        return options.lora if options.layout == "adapters" else None

    def engines(self, weights: Weights, version: int) -> dict[str, Engine | Remote]:
        """Each role's server, or a new engine with these weights: one for all where they share them or their base."""
        found: dict[str, Engine | Remote] = dict(self.servers)
        engine: Engine | None = None
        with self.sampling():
            for role in self.roles:
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
            settings.truncated,
            chat.decode,
            chat.tokenizer.all_special_ids,
        )

    def load(self, engines: Engines, weights: Weights, version: int) -> None:
        """Give the engines these weights, which `way` has brought."""
        with self.sampling():
            policies.load(engines, weights, version)

    def memory(self) -> list[Plan]:
        """What devices will hold: those that train, and those that sample if they are others.

        Raises:
          SettingsError: it is more than they have.
        """
        return [plan.check() for plan in plans(*self._held)]

    def table_memory(self) -> Plan:
        """What devices will hold in the final table. Raises as `memory` does."""
        return final_table(*self._held).check()

    @property
    def _held(self) -> tuple[Settings, ModelConfig, tuple[str, ...], Mesh | None, Mesh | None]:
        target = self.way.target if isinstance(self.way, Transfer) else None
        return self.settings, self.model, self.roles, self.mesh, target

    def prepare(self, engines: Engines, states: States, base: Params | None) -> dict[str, float]:
        """Compile every program of the engines and of every update. Returns metrics: `memory/...`.

        Raises:
          SettingsError: the programs and what devices hold are more than they have.
        """
        planned = self.memory()
        with self.sampling(), compiling("sampling", "slots"):
            sampling = [program for engine in distinct(engines) for program in engine.warmup()]
        with compiling("update"):
            updates = compile_all(policies.programs(states, base, self.settings, self.compute))
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

    @property
    def system(self) -> System[Any]:
        """What this run samples."""
        settings = self.settings
        parts = Parts(
            self.task,
            self.chat,
            self.toolbox,
            self.language,
            share=told if _in_lockstep(settings) else alone,
            division=by_process() if settings.generation.per_host else WHOLE,
        )
        if settings.team is None:
            return Designs(parts, settings.tree, settings.sampling, settings.credit)
        return Teamwork(parts, settings.team, settings.sampling, settings.credit)

    def sample(
        self,
        questions: Sequence[Question],
        engines: Engines,
        *,
        step: int,
        seed: int | None = None,
        system: System[S] | None = None,
    ) -> S:
        """Have questions answered by this run's system or by another one, from this run's seed or another."""
        chosen: System[S] = system or self.system
        with self.sampling():
            return chosen.sample(questions, engines, seed=self.settings.seed if seed is None else seed, step=step)

    def questions(self, cursor: int) -> list[Question]:
        """Those of the training step before which `cursor` were asked."""
        return [self.curriculum.question(cursor + i) for i in range(self.settings.train.questions)]

    def expect(self, *splits: str) -> None:
        """That there are questions in these splits, that the first prompt fits for all of them, and servers answer.

        Raises:
          SettingsError: naming the split, the question with the longest text, or the server.
        """
        try:
            for server in self.servers.values():
                server.check()
        except ValueError as error:
            raise SettingsError(f"config.{error}") from error
        for split in splits:
            size = self.task.size(split)
            if not size:
                raise SettingsError(f"there are no {split} questions: config.task.files.{split} must name some")
            questions = [self.task.question(split, index, seed=-1) for index in range(size)]
            longest = max(questions, key=lambda question: len(question.prompt))
            asked = self.system.opening(longest)
            if asked is None:
                continue
            role, messages = asked
            length, (room, advice) = len(self.chat.begin(as_mappings(messages))), self._room(role)
            if length > room:
                raise SettingsError(
                    f"the {role}'s prompt of {split} question {longest.id} has {length} tokens, there is room for "
                    f"{room}: raise {advice}, or shorten the question"
                )

    def _room(self, role: str) -> tuple[int, str]:
        """The longest prompt that a role may be shown, and what has to be raised for a longer one."""
        if role in self.servers:
            context = self.servers[role].context
            return context - 1, f"config.policies.servers.{role}.context (now {context}, prompt and reply)"
        engine = self.settings.engine
        return min(engine.prompt_buckets[-1], engine.capacity - 1), (
            f"config.engine.prompt_buckets (now up to {engine.prompt_buckets[-1]}) and config.engine.capacity "
            f"({engine.capacity}, prompt and reply)"
        )

    def first_params(self) -> Params:
        """Full weights before any training: the checkpoint's, or random ones that are a function of the seed."""
        settings = self.settings
        if settings.pretrained.path:
            return load(settings.pretrained.path, self.model, self.mesh)
        return params.initialise(self.model, jax.random.key(settings.seed), self.mesh)

    def fresh_weights(self) -> Weights:
        """`first_params` in the layout of the run's policies; none where servers answer for every role."""
        return self.around(self.first_params()) if self.roles else Weights({}, {})

    @property
    def shapes(self) -> Weights:
        """Shapes and layouts of `fresh_weights`."""
        return policies.shapes(self.settings, self.roles, self.model, self.mesh)

    def around(self, params: Params) -> Weights:
        """`params` in the layout of the run's policies."""
        key = jax.random.fold_in(jax.random.key(self.settings.seed), 1)  # of adapters
        return policies.around(params, self.settings, self.roles, self.model, key, self.mesh)


@contextlib.contextmanager
def open_workbench(settings: Settings, roles: Sequence[str] = ()) -> Iterator[Workbench]:
    """Prepare the questions and the mesh, and put the mesh in force.

    `roles`: those that this program answers for, where others answer for the rest; none: all that have no server.

    Raises SettingsError where the settings do not fit this machine, the checkpoint or each other: what is quick to
    check comes first, and no weights are read.
    """
    keep_compilations()
    mesh, target = meshes(settings)
    try:
        model, chat = speaker(settings)
        added = _biases(settings, model, chat)
        servers = _servers(settings, chat)
        data_dir = Path(settings.data.directory).expanduser()
        around = surroundings(settings.task, data_dir)
        if settings.team is not None:
            settings.team.check(around.toolbox.names())
        task = open_task(settings.task, data_dir, settings.limits, around, settings.role_names)
        curriculum = settings.train.curriculum
        first = curriculum.steps * settings.train.questions
        order = Curriculum(task, first=first, kinds=curriculum.kinds, seed=settings.seed)
    except (ValueError, OSError, ModuleNotFoundError, SandboxUnavailable) as error:
        raise error if isinstance(error, SettingsError) else SettingsError(str(error)) from error
    # float32 means float32: GPUs and TPUs would multiply in fewer bits, and the sampler's log-probabilities drift.
    jax.config.update("jax_default_matmul_precision", "float32" if model.dtype == "float32" else "default")
    here = tuple(role for role in settings.role_names if role in roles or not (roles or role in servers))
    names = around.toolbox.names()
    language = Language(around.palette, names, settings.limits, around.wording, around.tool_texts)
    spoken = task, chat, around.toolbox, language
    bench = Workbench(settings, model, mesh, *spoken, added, here, servers, Stay(), order)
    if mesh is not None and target is not None:
        bench = dataclasses.replace(bench, way=Transfer(model, bench.lora, mesh, target))
    if _in_lockstep(settings):
        bench = dataclasses.replace(bench, task=PrimaryTask(task))
    with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
        yield bench


def _biases(settings: Settings, model: ModelConfig, chat: Chat) -> Biases | None:
    try:
        return biases(settings.sampling, REPLIES, chat.tokenizer, model.vocab_size, chat.end)
    except ValueError as error:
        raise SettingsError(f"config.{error}") from error


def _servers(settings: Settings, chat: Chat) -> dict[str, Remote]:
    """Who answers for the roles that have a server; nobody is asked yet."""
    capacity, share = settings.engine.capacity, told if _in_lockstep(settings) else alone
    served = settings.policies.served
    return {role: Remote(role, options, chat, capacity, share) for role, options in served.items()}


def _in_lockstep(settings: Settings) -> bool:
    """Whether several processes run one scheduler side by side: process 0 alone runs tools, grades and asks servers."""
    return jax.process_count() > 1 and not settings.generation.per_host


def distinct(engines: Engines) -> list[Engine]:
    """Every engine of this program once, however many roles it serves."""
    return [engine for engine in sampled.distinct(engines) if isinstance(engine, Engine)]
