"""Every config key is typed, checked and read; a wrong one is named."""

from __future__ import annotations

import dataclasses
import importlib
import re
import typing
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import base, qwen3_8b, tiny
from metaagentx import sections, settings
from metaagentx.options import CurriculumOptions
from metaagentx.policy.config import Experts, Llama3Scaling, ModelConfig, YarnScaling
from metaagentx.sections import SettingsError, differences, plain
from metaagentx.settings import Settings, read
from metaagentx.teams.options import SubAgentOptions, TeamOptions
from tests.changed import changed

ROOT = Path(__file__).parent.parent


def test_configs_are_valid_in_every_variant():
    modes = {variant: read(tiny.get_config(variant)).stages.mode for variant in tiny.VARIANTS}
    assert modes == {
        "stagewise": "stagewise",
        "joint": "joint",
        "designer_only": "designer_only",
        "executor_only": "executor_only",
        "static": "executor_only",
    }
    truncated = {variant: read(qwen3_8b.get_config(variant)).truncated for variant in qwen3_8b.VARIANTS}
    assert truncated == {"plain": False, "truncated": True}
    assert read(tiny.get_config("static")).tree.fixed_design


CONFIGS = sorted({path.stem for path in (ROOT / "configs").glob("*.py")} - {"__init__", "base", "scaling"})


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_read_in_every_variant_and_has_the_tools_of_its_agents(name):
    module = importlib.import_module(f"configs.{name}")
    for variant in getattr(module, "VARIANTS", ("",)):
        found = read(module.get_config(*([variant] if variant else [])))
        assert read(plain(found)) == found
        for role in found.role_names:
            assert found.sampling[role].max_tokens <= found.engine.capacity
        tools = set() if found.team is None else {tool for sub in found.team.subs.values() for tool in sub.tools}
        assert tools <= set(found.task.tools.names)


@pytest.mark.parametrize("name", ["tiny", "tiny_team", "smollm2_gym", "qwen3_8b"])
def test_the_rate_of_a_cold_start_falls_over_its_steps_whatever_flags_make_of_them(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    config.cold_start.steps = 100
    assert read(config).cold_start.optimizer.decay_steps == 80
    config.cold_start.steps = 0
    assert read(config).cold_start.steps == 0
    config.cold_start.steps = 15
    with pytest.raises(SettingsError, match=r"cold_start\.steps must be more than .*warmup_steps \(20\), not 15"):
        read(config)
    config.cold_start.optimizer.warmup_steps, config.cold_start.optimizer.decay_steps = 5, -1
    with pytest.raises(SettingsError, match=r"optimizer\.decay_steps must be 0 or above, not -1"):
        read(config)


def test_the_papers_team_is_credited_as_the_paper_says():
    found = read(importlib.import_module("configs.qwen3_30b_a3b_mgrpo").get_config())
    team = found.team
    assert (found.role_names, found.learners, found.stages.mode) == (("main", "sub", "judge"), ("main", "sub"), "joint")
    assert (team.rollouts, team.align.quantile, team.align.target, found.credit.grouping) == (8, 0.99, 0, "m_grpo")
    assert (found.loss.clip_low, found.loss.clip_high) == (0.2, 0.28)
    assert {found.roles[role].optimizer.learning_rate for role in found.learners} == {1e-6}
    assert {found.roles[role].kl for role in found.learners} == {0.0}
    assert set(found.policies.served) == {"judge"}


def test_an_unknown_variant_is_an_error_that_lists_the_variants():
    with pytest.raises(ValueError, match="no variant 'both'; it has stagewise, joint"):
        tiny.get_config("both")


def test_settings_survive_json():
    found = read(tiny.get_config())
    assert read(plain(found)) == found
    assert differences(plain(found), plain(found)) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine.slot": 3}, r"config.engine.slot is not a known key; did you mean config.engine.slots\?"),
        ({"typo": 3}, "config.typo is not a known key; known keys: cold_start, credit"),
        ({"engine.slots": "many"}, "config.engine.slots must be of type int, not str"),
        ({"engine.slots": True}, "config.engine.slots must be of type int, not bool"),
        ({"engine.slots": 0}, "engine.slots must be at least 1, not 0"),
        ({"stages.mode": "both"}, "config: stages.mode must be one of 'stagewise', 'joint'"),
        ({"roles.designer.optimizer.b1": 1.0}, r"optimizer.b1 must be in \[0, 1\), not 1.0"),
        ({"engine.prompt_buckets": 16}, "config.engine.prompt_buckets must be a tuple, not 16"),
        ({"engine.capacity": 4096}, r"engine.capacity \(4096\) must not exceed model.max_length"),
        ({"pack.row_length": 32}, r"pack.row_length \(32\) must be at least engine.capacity"),
        ({"seed": -1}, r"seed must be in \[0, 2\^32\), not -1"),
        ({"sampling.main": {}}, "sampling.main is of no role of this run, which has designer, executor"),
        ({"roles": {"designer": {}}}, "roles.executor is missing: each of designer, executor has its own"),
        ({"policies.servers.judge": {}}, "policies.servers.judge is of no role of this run"),
        ({"roles.designer": 3}, "config.roles.designer must be a section with keys, not 3"),
        ({"stages.first": "main"}, "stages.first must be one of 'designer', 'executor', not 'main'"),
        ({"sampling.executor.temperature": 0.7}, "sampling.executor.temperature must be 1 while training"),
        ({"sampling.designer.temperature": float("nan")}, "sampling.temperature must be 0 .*and finite"),
        ({"sampling.designer.top_k": -1}, r"config.sampling.designer: sampling.top_k must be 0 \(off\) or above"),
        ({"sampling.designer.top_p": 0.0}, r"config.sampling.designer: sampling.top_p must be above 0 and at most 1"),
        ({"sampling.executor.stop": ("",)}, "config.sampling.executor: sampling.stop must not hold an empty string"),
        ({"sampling.executor.stop": ("\ufffd",)}, "config.sampling.executor: sampling.stop must not hold U.FFFD"),
        ({"sampling.executor.bias": (("1", 1.0), ("1", 2.0))}, "sampling.bias must name each token once"),
        ({"sampling.executor.bias": (("1", float("inf")),)}, "sampling.bias must be of finite numbers"),
        ({"sampling.executor.bias": ("1",)}, r"config.sampling.executor.bias\[0\] must be a tuple, not '1'"),
        ({"sampling.executor.valid": "all"}, "config.sampling.executor.valid must be one of 'any', 'language'"),
        (
            {"sampling.executor.valid": "language", "task.kind": "gym"},
            "sampling.executor.valid may be 'language' where the task knows every token of a reply",
        ),
    ],
)
def test_a_wrong_key_or_value_is_named(change, message):
    with pytest.raises(SettingsError, match=message):
        changed(read(tiny.get_config()), change)


def test_a_model_constant_that_is_not_given_is_named():
    with pytest.raises(SettingsError, match=r"one of config.model .* and config.pretrained.path .* must be given"):
        read(base.get_config())
    config = plain(read(tiny.get_config()))
    del config["model"]["rope_theta"]
    with pytest.raises(SettingsError, match=r"config.model.rope_theta is missing"):
        read(config)


def test_no_model_constant_has_a_default():
    for section in (ModelConfig, Experts, Llama3Scaling, YarnScaling):
        fields = dataclasses.fields(section)
        assert all(f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING for f in fields)


def is_section(hint: object) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _keys(cls: type, prefix: str = "") -> list[str]:
    hints, found = typing.get_type_hints(cls), []
    for field in dataclasses.fields(cls):
        sections = [part for part in (hints[field.name], *typing.get_args(hints[field.name])) if is_section(part)]
        if not sections:
            found.append(prefix + field.name)
        for section in sections:
            found += _keys(section, f"{prefix}{field.name}.")
    return found


def test_every_key_is_read_by_some_code():
    defined = {
        ROOT / "metaagentx" / name
        for name in (
            "settings.py",
            *(f"{room}options.py" for room in ("", "learn/", "rollout/", "teams/", "tools/")),
            "policy/config.py",
        )
    }
    code = "\n".join(path.read_text() for path in (ROOT / "metaagentx").rglob("*.py") if path not in defined)
    for key in _keys(Settings):
        name = key.rpartition(".")[2]
        assert re.search(rf"\.{name}\b|\"{name}\"", code), f"config.{key} is read by no code"


SOLO = TeamOptions(system_prompt="Answer.")
PAIR = TeamOptions(subs={"writer": SubAgentOptions(role="words"), "solver": SubAgentOptions(role="numbers")})


@pytest.mark.parametrize(
    ("team", "roles"),
    [
        (None, ("designer", "executor")),
        (SOLO, ("main",)),
        (PAIR, ("main", "numbers", "words")),
        (dataclasses.replace(PAIR, local="judge"), ("main", "numbers", "words", "judge")),
        (dataclasses.replace(PAIR, local="judge", judge_role="main"), ("main", "numbers", "words")),
    ],
)
def test_a_run_has_the_roles_of_its_team_each_with_sections_of_its_own(team, roles):
    config = base.get_config(team)
    config.pretrained.path, config.task.kind = "somewhere", "files"
    found = read(config)
    assert found.team == team
    assert read(plain(found)) == found
    assert found.role_names == roles
    assert {*found.sampling} == {*found.roles} == {*found.policies.servers} == set(roles)
    assert found.learners == tuple(role for role in roles if role != "judge")
    config.roles[roles[0]].kl = 0.5
    assert read(config).roles[roles[0]].kl == 0.5


def test_a_section_of_a_role_that_the_team_does_not_have_is_refused():
    config = base.get_config(SOLO)
    config.pretrained.path = "somewhere"
    config.team = ConfigDict(sections.keys(PAIR))
    with pytest.raises(SettingsError, match=r"sampling.numbers is missing: each of main, numbers, words has its own"):
        read(config)
    config.team = None
    with pytest.raises(SettingsError, match=r"sampling.main is of no role of this run, which has designer, executor"):
        read(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"credit.grouping": "per_agent"}, "credit.grouping must be 'm_grpo' for a team, not 'per_agent'"),
        ({"generation.per_host": True}, "generation.per_host is of designs"),
        ({"evaluate.reference_designs": True}, "evaluate.reference_designs are of a run with designs"),
        ({"loss.aggregation": "execution_mean"}, "loss.aggregation must not be 'execution_mean' for a team"),
        ({"evaluate.vote_tokens": 9}, "evaluate.vote_tokens is of a team without sub-agents"),
        ({"sampling.main.valid": "language"}, "sampling.main.valid may be 'language' where the task knows"),
        ({"stages.mode": "judge_only"}, "stages.mode must be one of .*'main_only', 'sub_only', not 'judge_only'"),
        ({"policies.servers.sub": {"url": "http://a/v1", "model": "m"}}, "policies.servers.sub: the sub trains"),
    ],
)
def test_what_a_team_cannot_be_asked_for_is_named(change, message):
    team = TeamOptions(subs={"solver": SubAgentOptions()}, local="judge")
    config = base.get_config(team)
    config.pretrained.path = "somewhere"
    config.stages.mode = "joint"
    with pytest.raises(SettingsError, match=message):
        changed(read(config), change)


@pytest.mark.parametrize("kind", ["tiny", "gym"])
def test_a_task_that_knows_no_sub_tasks_does_not_mark_reports_of_them(kind):
    config = base.get_config(PAIR)
    config.pretrained.path, config.task.kind = "somewhere", kind
    with pytest.raises(SettingsError, match=f"team.local must not be 'verifier' with task.kind '{kind}'"):
        read(config)
    config.team.sub_reward.local = 0.0
    assert read(config).team.local == "verifier"


@pytest.mark.parametrize("changes", [{"steps": 3}, {"kinds": ("one",)}])
def test_half_a_curriculum_is_refused(changes):
    with pytest.raises(ValueError, match=r"train.curriculum.steps .* and train.curriculum.kinds .* go together"):
        CurriculumOptions(**changes)


def test_differences_name_keys_with_both_values():
    ours = plain(read(tiny.get_config()))
    theirs = plain(read(tiny.get_config("joint")))
    assert differences(ours, theirs) == ["config.stages.mode: 'stagewise' asked for, 'joint' in the directory"]


def test_base_holds_every_key():
    assert set(base.get_config().keys()) == {field.name for field in dataclasses.fields(Settings)}
    assert importlib.import_module("configs.tiny_study").sweep()
    assert settings.defaults()["train"]["steps"] == Settings.__dataclass_fields__["train"].default.steps
