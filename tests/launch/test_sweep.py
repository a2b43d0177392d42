from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launch import local, sweep, table

PROGRAM = """
import json, pathlib, sys
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
work = pathlib.Path(flags["workdir"])
cold = pathlib.Path(flags["config.init"], "results.json") if "config.init" in flags else None
start = json.loads(cold.read_text())["accuracy"] if cold else 0.0
result = start + float(flags.get("config.gain", 0)) + 0.01 * int(flags["config.seed"])
(work / "results.json").write_text(json.dumps({"accuracy": result, "crossplay": {"a": 1.0}, "arm": "text"}))
"""
CONFIG = """
from launch.sweep import fixed, product, sweep as axis

def sweep():
    cold = [{"name": f"cold-{seed}", "group": "cold", "config.seed": seed} for seed in range(3)]
    trained = [
        {"config.seed": seed, "config.gain": gain, "config.init": "{workdir}/" + start, "depends_on": start}
        for seed, start in enumerate(["cold-0", "cold-1", "cold-2"])
        for gain in (0.1, 0.2)
    ]
    return [row | {"module": "program"} for row in trained + cold]
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "config.py").write_text(CONFIG)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return str(tmp_path / "config.py")


def test_a_sweep_runs_in_order_resumes_and_tabulates(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "runs"
    argv = [f"--config={config}", f"--workdir={work}", "--parallel=2"]
    assert sweep.main(argv) == 0
    first = capsys.readouterr().out
    assert first.count("started") == 9

    summary = json.loads((work / "summary.json").read_text())
    assert summary["cold"]["accuracy"]["mean"] == pytest.approx(0.01)
    row = summary["gain=0.1"]["accuracy"]
    assert row["values"] == pytest.approx([0.1, 0.12, 0.14])
    assert row["high"] - row["mean"] == pytest.approx(4.302653 * 0.02 / math.sqrt(3))
    assert "0.12 ± 0.05" in first

    lost = work / "cold-1" / "DONE"
    lost.unlink()
    assert sweep.main(argv) == 0
    second = capsys.readouterr().out
    assert [line.split()[1] for line in second.splitlines() if line.startswith("started")] == ["cold-1"]


def test_print_shows_the_commands_and_runs_nothing(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "runs"
    assert sweep.main([f"--config={config}", f"--workdir={work}", "--print"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert f"--config.init={work}/cold-0" in lines[0]
    assert not work.exists()


def test_shards_are_disjoint_complete_and_keep_dependent_jobs_together(config: str, tmp_path: Path) -> None:
    made = sweep.jobs(config, tmp_path, sweep.load(config))
    parts = [sweep.shard(made, index, 2) for index in range(2)]
    assert sorted(job.name for part in parts for job in part) == sorted(job.name for job in made)
    assert all(parts)
    for part in parts:
        names = {job.name for job in part}
        assert all(names.issuperset(job.depends_on) for job in part)


def test_product_and_zip_are_what_they_say() -> None:
    rows = sweep.product(
        sweep.sweep("a", [1, 2]), sweep.zipit(sweep.sweep("b", [3, 4]), sweep.fixed("c", 5)), **{"config.d": [6]}
    )
    assert rows == [{"a": a, "b": b, "c": 5, "config.d": 6} for a in (1, 2) for b in (3, 4)]
    with pytest.raises(ValueError, match="a flag is set twice: a"):
        sweep.product(sweep.sweep("a", [1]), sweep.sweep("a", [2]))
    with pytest.raises(ValueError, match="2 is not 3"):
        sweep.zipit(sweep.sweep("a", [1, 2]), sweep.sweep("b", [1, 2, 3]))


@given(
    st.dictionaries(st.sampled_from(["config.a", "config.b", "module"]), st.integers(0, 3), min_size=1), st.randoms()
)
@settings(max_examples=30, deadline=None)
def test_a_job_is_called_after_its_flags_alone(row: dict[str, int], random: object) -> None:
    items = list(row.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert sweep.job_name(dict(items)) == sweep.job_name(row | {"depends_on": "x", "group": "y"})
    assert sweep.job_name(row | {"config.a": 9}) != sweep.job_name(row | {"config.a": 8})


def test_a_done_job_whose_flags_changed_under_its_name_is_refused(tmp_path: Path) -> None:
    def made(seed: int, root: Path) -> local.Job:
        return sweep.jobs("configs/x.py", root, [{"name": "a", "config.seed": seed}])[0]

    old, moved, new = made(0, tmp_path), made(0, Path("elsewhere")), made(1, tmp_path)
    old.directory.mkdir()
    (old.directory / "DONE").write_text(old.seal)
    assert old.done
    assert moved.seal == old.seal
    with pytest.raises(ValueError, match="another command"):
        _ = new.done


@pytest.mark.parametrize("text", ["2/2", "1", "-1/2", "a/b"])
def test_a_wrong_shard_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        sweep.main(["--config=x.py", "--workdir=y", f"--shard={text}"])
    assert "must be i/n" in capsys.readouterr().err


def test_a_config_without_a_sweep_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, empty = tmp_path / "plain.py", tmp_path / "empty.py"
    plain.write_text("x = 1\n")
    empty.write_text("def sweep():\n    return []\n")
    cases = [
        (plain, "defines no sweep()"),
        (empty, "returns no jobs"),
        (tmp_path / "none.py", "must be a Python file"),
    ]
    for path, message in cases:
        with pytest.raises(SystemExit):
            sweep.main([f"--config={path}", f"--workdir={tmp_path}"])
        assert message in capsys.readouterr().err


def test_one_value_has_no_interval_and_missing_results_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"accuracy": 0.5, "ok": true, "curve": [1, 2], "config": {"x": 1}, "seed": 0}')
    summary = table.summarize(
        [{"config.x": 1, "config.seed": 0}, {"config.x": 2, "config.seed": 0}],
        [tmp_path / "a.json", tmp_path / "b.json"],
    )
    assert summary == {"x=1": {"accuracy": {"values": [0.5], "mean": 0.5, "low": None, "high": None}}}
    assert table.render(summary).splitlines()[-1].split("|")[1:4] == [" x=1 ", " 1 ", " 0.5      "]


def test_jobs_are_grouped_by_what_differs_between_them_except_seeds() -> None:
    rows = sweep.product(**{"config.a": [1, 2], "config.b": [(3, 4)], "config.seed": [0, 1]})
    assert table.groups(rows) == ["a=1", "a=1", "a=2", "a=2"]
    assert table.groups(rows[:2]) == ["all", "all"]
    assert table.groups([{"group": "x"}, {"config.a": 1, "config.init": "{workdir}/y", "depends_on": "y"}]) == [
        "x",
        "a=1",
    ]
