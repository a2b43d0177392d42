"""Runs of which a server answers for one role, or for both: what is trained is what is here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from metaagentx import evaluate, solve, workbench
from metaagentx.sections import SettingsError
from metaagentx.settings import Settings
from metaagentx.train import train
from metaagentx.workbench import open_workbench
from tests.servers import Server, say, send
from tests.test_train import lines, small

KEY, VARIABLE = "k3y-5ecret/+=", "METAAGENTX_TEST_KEY"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv(VARIABLE, KEY)
    server = Server()
    server.answer = lambda handler, posted: say(handler, "a=solve()")
    yield server
    server.close()


def served(server: Server, *roles: str, **more) -> Settings:
    given: dict = {"cold_start__steps": 0, "stages__mode": "none", "train__steps": 1, "evaluate__baselines": False}
    for role in roles:
        given |= {f"policies__servers__{role}__url": server.url, f"policies__servers__{role}__model": "m"}
        given |= {f"policies__servers__{role}__key_variable": VARIABLE, f"policies__servers__{role}__retries": 0}
    return small(**(given | more))


@pytest.mark.parametrize(
    "layout", ["split", *(pytest.param(x, marks=pytest.mark.slow) for x in ("shared", "adapters"))]
)
def test_an_executor_trains_on_the_designs_of_a_server(server: Server, tmp_path: Path, layout: str) -> None:
    settings = served(
        server, "designer", stages__mode="executor_only", policies__layout=layout, sampling__designer__temperature=0.7,
        policies__lora__rank=2, tree__w_format=1.0, tree__executions=4, evaluate__final=False,
    )  # fmt: skip
    train(settings, tmp_path)
    (step,) = (line for line in lines(tmp_path) if line["phase"] == "executor")
    assert step["rollout/valid"] == 1.0
    assert step["rollout/failed_calls"] == 0
    assert step["train/executor/tokens"] > 0
    assert not [name for name in step if name.startswith("train/designer")]
    asked = [posted for posted in server.posted if len(posted["messages"]) > 1]
    assert {posted["temperature"] for posted in asked} == {0.7, 1.0}  # of training, and of evaluation
    assert all(KEY not in path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    with open_workbench(settings) as bench:
        weights = evaluate.newest(bench, tmp_path)
    assert set(weights.full) == {{"shared": "shared", "split": "executor", "adapters": "base"}[layout]}
    assert set(weights.adapters) == ({"executor"} if layout == "adapters" else set())


def test_where_servers_answer_for_both_roles_no_weights_are_made(server: Server, tmp_path: Path, monkeypatch) -> None:
    settings = served(server, "designer", "executor", evaluate__baselines=True)
    monkeypatch.setattr(workbench.Workbench, "first_params", lambda self: pytest.fail("weights were made"))
    monkeypatch.setattr(workbench.Engine, "__init__", lambda *_: pytest.fail("an engine was made"))
    results = train(settings, tmp_path)
    assert results["accuracy"] == 0.0
    assert {row["arm"] for row in results["table"]} >= {"trained/trained"}
    with open_workbench(settings) as bench:
        found, _ = evaluate.compare(bench, tmp_path, evaluate.newest(bench, tmp_path))
    assert found["table"] == results["table"]
    assert "a=solve()" in solve.solve(settings, tmp_path, "What is 3 + 4?")


def test_a_server_that_does_not_answer_is_found_before_anything_is_trained(server: Server, tmp_path: Path) -> None:
    server.answer = lambda handler, posted: send(handler, b'{"error": {"message": "no such model"}}', 404)
    message = r"config\.policies\.servers\.designer: the server answered with status 404: no such model"
    with pytest.raises(SettingsError, match=message):
        train(served(server, "designer"), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_a_prompt_for_which_a_server_has_no_room_is_named(server: Server) -> None:
    settings = served(server, "designer", policies__servers__designer__context=9)
    with (
        open_workbench(settings) as bench,
        pytest.raises(SettingsError, match=r"is room for 8: raise .*context \(now 9"),
    ):
        bench.expect("test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages__mode": "joint"}, r"policies.servers.designer: the designer trains \(stages.mode 'joint'\)"),
        ({"stages__mode": "stagewise"}, "policies.servers.designer: the designer trains"),
        ({"stages__mode": "designer_only"}, "policies.servers.designer: the designer trains"),
        ({"stages__mode": "executor_only", "stages__freeze": "soft"}, "policies.servers.designer: the designer trains"),
        ({"stages__mode": "none", "sampling__designer__top_k": 5}, "sampling.designer must not have top_k"),
        ({"stages__mode": "none", "sampling__designer__only": ("a",)}, "sampling.designer must not have .*only"),
        ({"policies__servers__designer__modle": "m"}, "config.policies.servers.designer.modle is not a known key"),
        ({"policies__servers__designer__retries": -1}, "config.policies.servers.designer: .*retries from 0 to 10"),
    ],
)
def test_a_role_that_trains_has_no_server(server: Server, changes: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        served(server, "designer", **changes)


def test_a_cold_start_of_nobody_is_refused(server: Server) -> None:
    with pytest.raises(SettingsError, match=r"cold_start\.steps must be 0 where servers answer for every role"):
        served(server, "designer", "executor", cold_start__steps=3)


@pytest.mark.parametrize("per_host", [False, True])
def test_processes_with_questions_of_their_own_ask_servers_themselves(server: Server, monkeypatch, per_host) -> None:
    """In lockstep one asks for all. Where each runs a scheduler of its own, it would wait for who never comes."""
    monkeypatch.setattr(workbench.jax, "process_count", lambda: 2)
    settings = served(server, "designer", generation__per_host=per_host)
    remote = workbench._servers(settings, None)["designer"]
    assert remote.share is (workbench.alone if per_host else workbench.told)
