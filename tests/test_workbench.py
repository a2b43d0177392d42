"""What would stop a run later stops it at its start, with one message that names the key or the file."""

from __future__ import annotations

import dataclasses
import json
import sys

import jax
import pytest

from metaagentx import sft, workbench
from metaagentx.metrics import MetricWriter
from metaagentx.options import PretrainedOptions
from metaagentx.policy import params, tokenizer
from metaagentx.policy.save import save
from metaagentx.rollout.options import SamplingOptions
from metaagentx.sections import SettingsError
from metaagentx.settings import ROLES, Settings
from metaagentx.tasks.files import FileOptions
from metaagentx.tasks.pieces import REPLIES, tiny_pieces
from metaagentx.workbench import open_workbench
from metaagentx.workflow.protocol import Outcome
from tests import test_team_train as team_train
from tests.test_train import small


@pytest.fixture
def published(tmp_path):
    """The tiny model as a Hugging Face directory."""
    model = small().model
    spoken = tokenizer.build(tiny_pieces(), "", model.max_length)
    save(tmp_path / "published", params.initialise(model, jax.random.key(0)), model, spoken)
    return tmp_path / "published"


def starting(path, **sections) -> Settings:
    """The small run from the checkpoint at `path`."""
    pretrained = PretrainedOptions(path=str(path), dtype="float32")
    return dataclasses.replace(small(), model=None, pretrained=pretrained, **sections)


def drawing(**sampling: SamplingOptions) -> Settings:
    """Settings in which roles draw like this."""
    return dataclasses.replace(small(), sampling=dict.fromkeys(ROLES, SamplingOptions()) | sampling)


def refused(settings: Settings, match: str, monkeypatch) -> None:
    """Opening fails, and before any question is prepared."""
    monkeypatch.setattr(workbench, "open_task", lambda *_: pytest.fail("questions were prepared first"))
    with pytest.raises(SettingsError, match=match), open_workbench(settings):
        pass


def test_a_published_checkpoint_is_where_a_run_may_start(published):
    with open_workbench(starting(published)) as bench:
        bench.expect("train", "validation", "test")
        assert bench.fresh_weights().full["shared"]["embed"].shape == (86, 32)


def test_a_token_that_the_tokenizer_does_not_know_is_found_at_start(monkeypatch):
    settings = drawing(executor=SamplingOptions(bias=(("nonsense?", 1.0),)))
    refused(settings, "config.sampling.executor.bias: 'nonsense.' is no single token", monkeypatch)


def test_engines_draw_only_what_the_language_of_a_role_has():
    """Fresh weights write anything; under the mask a designer writes nothing but pieces of designs."""
    designer = SamplingOptions(max_tokens=12, valid="language", top_k=20)
    with open_workbench(drawing(designer=designer, executor=SamplingOptions(max_tokens=3))) as bench:
        engines = bench.engines(bench.fresh_weights(), version=0)
        rollout = bench.sample([bench.task.question("train", 0)], engines, step=0)
        pieces = {*REPLIES["designer"], tokenizer.END}
        for row in rollout.trajectories:
            written = bench.chat.tokenizer.convert_ids_to_tokens(row.tokens[row.loss_mask].tolist())
            assert row.role == "executor" or pieces.issuperset(written)
            assert row.kept is not None
        assert 0 < rollout.metrics["rollout/designer/kept_mass"] < 0.6


def test_replies_end_with_a_stop_string():
    with open_workbench(drawing(executor=SamplingOptions(max_tokens=14, only=("1", "2"), stop=("112",)))) as bench:
        engines = bench.engines(bench.fresh_weights(), version=0)
        given = dataclasses.replace(bench.system, given=("a=solve()x5",))
        rollout = bench.sample([bench.task.question("train", 0)], engines, step=0, system=given)
        ended = set()
        for row in rollout.trajectories:
            text = bench.chat.decode(row.tokens[row.loss_mask].tolist())
            ended.add(row.outcome)
            assert ("112" in text) == text.endswith("112") == (row.outcome == Outcome.STOPPED)
        assert Outcome.STOPPED in ended


def test_a_checkpoint_that_was_cut_is_found_before_questions_are_prepared(published, monkeypatch):
    whole = (published / "model.safetensors").read_bytes()
    (published / "model.safetensors").write_bytes(whole[:1000])
    refused(starting(published), "model.safetensors .1000 bytes. is no complete safetensors file", monkeypatch)


def test_weights_of_another_size_are_found_before_questions_are_prepared(published, monkeypatch):
    config = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    refused(starting(published), r"embed_tokens.weight is \[86, 32\], not \[86, 64\]", monkeypatch)


def test_an_extra_that_is_not_installed_is_named(published, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    (published / "model.gguf").write_bytes(b"GGUF")
    refused(starting(published / "model.gguf"), r"pip install 'metaagentx\[gguf\]'", monkeypatch)


def test_adapters_of_nothing_are_found_before_questions_are_prepared(monkeypatch):
    settings = small(policies__layout="adapters", policies__lora__targets="query")
    refused(settings, r"config.policies.lora.targets 'query' matches nothing; .* q\|k\|v", monkeypatch)


def test_a_mesh_that_does_not_fit_is_found_before_questions_are_prepared(monkeypatch):
    refused(small(mesh__tensor=1 + jax.device_count()), "does not fit", monkeypatch)


def test_a_split_without_questions_is_named(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"question": "3 + 4?", "answer": "7", "domain": "mathematics"}\n')
    task = dataclasses.replace(small().task, kind="files", files=FileOptions(test=str(tmp_path / "test.jsonl")))
    with open_workbench(dataclasses.replace(small(), task=task)) as bench:
        with pytest.raises(SettingsError, match=r"no train questions: config\.task\.files\.train"):
            bench.expect("train")
        with pytest.raises(SettingsError, match=r"nothing to imitate: .* give task\.files\.demonstrations"):
            cold_start(bench, tmp_path)


def test_demonstrations_for_roles_that_a_team_does_not_have_are_refused_by_name(tmp_path):
    def of_team(**task):
        team, vocabulary = (
            team_train.small(
                train__curriculum__steps=0,
                train__curriculum__kinds=(),
                team__sub_reward__local=0.0,  # a task without sub-tasks cannot mark any
            ),
            small().model.vocab_size,
        )
        model = dataclasses.replace(team.model, vocab_size=vocabulary)
        return dataclasses.replace(team, model=model, task=dataclasses.replace(team.task, **task))

    with open_workbench(of_team(kind="tiny")) as bench, pytest.raises(SettingsError) as error:
        cold_start(bench, tmp_path)
    assert "its demonstrations are of designer, executor, this run has main, sub" in str(error.value)

    said = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    talks = tmp_path / "talks.jsonl"
    talks.write_text(json.dumps({"conversations": said, "role": "designer"}) + "\n")
    files = FileOptions(train=str(tmp_path / "train.jsonl"), demonstrations=str(talks))
    (tmp_path / "train.jsonl").write_text('{"question": "3 + 4?", "answer": "7", "domain": "mathematics"}\n')
    with pytest.raises(SettingsError, match=r"talks.jsonl:1: role must be one of this run's \(main, sub\), not 'desi"):
        open_workbench(of_team(kind="files", files=files)).__enter__()


def test_a_question_that_no_designer_could_read_is_named():
    message = r"prompt of test question .* tokens, there is room for 8: raise config"
    with open_workbench(small(engine__prompt_buckets=(8,))) as bench, pytest.raises(SettingsError, match=message):
        bench.expect("test")


def test_a_demonstration_longer_than_a_row_is_refused_before_weights_are_made(tmp_path, monkeypatch):
    settings = small(engine__capacity=16, engine__prompt_buckets=(8,), pack__row_length=16)
    message = r"demonstration .* tokens, more than config.pack.row_length \(16\)"
    monkeypatch.setattr(workbench.Workbench, "fresh_weights", lambda self: pytest.fail("weights were made first"))
    with open_workbench(settings) as bench, pytest.raises(SettingsError, match=message):
        cold_start(bench, tmp_path)


def cold_start(bench, workdir) -> None:
    with MetricWriter(workdir, active=False) as writer:
        sft.cold_start(bench, workdir, writer, stop=None)


def test_a_tool_that_a_team_is_not_given_is_named():
    settings = team_train.small("single")
    settings = dataclasses.replace(settings, team=dataclasses.replace(settings.team, tools=("search",)))
    message = r"team.tools: there is no tool 'search'; task.tools gives calculator"
    with pytest.raises(SettingsError, match=message), open_workbench(settings):
        pass


def test_a_cold_start_without_a_lesson_for_any_role_is_refused(tmp_path):
    tiny = small().task
    settings = team_train.small("single", train__curriculum={})
    settings = dataclasses.replace(settings, task=tiny, model=small().model, engine=small().engine)
    message = "demonstrations are of designer, executor, this run has main"
    with open_workbench(settings) as bench, pytest.raises(SettingsError, match=message):
        cold_start(bench, tmp_path)
