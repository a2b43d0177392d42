"""Metrics survive kills and rewinds, and never hide a number that is not one."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaagentx.metrics import JsonLines, MetricWriter, Progress, duration


def _bare(lines: list[dict]) -> list[dict]:
    return [{k: v for k, v in line.items() if k != "time"} for line in lines]


def test_a_line_holds_step_phase_time_and_every_metric(tmp_path):
    writer = MetricWriter(tmp_path, tensorboard=False)
    writer.write(3, {"eval/accuracy": np.float32(0.25), "n": 7}, phase="joint")
    (line,) = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert _bare([line]) == [{"step": 3, "phase": "joint", "eval/accuracy": 0.25, "n": 7.0}]
    assert line["time"] > 0


def test_a_killed_and_resumed_run_has_the_history_of_an_uninterrupted_one(tmp_path):
    def steps(writer, first, last):
        for step in range(first, last):
            writer.write(step, {"train/reward": step / 8}, phase="executor")

    whole = MetricWriter(tmp_path / "whole", tensorboard=False)
    whole.write(700, {"train/loss": 1.5}, phase="cold_start")
    steps(whole, 1, 11)
    killed = MetricWriter(tmp_path / "killed", tensorboard=False)
    killed.write(700, {"train/loss": 1.5}, phase="cold_start")
    steps(killed, 1, 8)
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "pha')
    resumed = MetricWriter(tmp_path / "killed", tensorboard=False)
    resumed.rewind(5)
    steps(resumed, 6, 11)
    assert _bare(resumed.history()) == _bare(whole.history())


def test_a_resumed_cold_start_forgets_its_later_lines(tmp_path):
    writer = MetricWriter(tmp_path, tensorboard=False)
    for step in (100, 200, 300):
        writer.write(step, {"train/loss": 1.0}, phase="cold_start")
    writer.rewind(200, keep=())
    assert [line["step"] for line in writer.history()] == [100, 200]


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(0, 200))
def test_a_file_cut_anywhere_keeps_exactly_its_whole_lines(cut, tmp_path_factory):
    lines = JsonLines(tmp_path_factory.mktemp("cut") / "x.jsonl")
    for i in range(8):
        lines.append({"i": i, "text": "é"})
    data = lines.path.read_bytes()[:cut]
    lines.path.write_bytes(data)
    lines.repair()
    lines.append({"i": -1})
    assert [record["i"] for record in lines.read()] == [*range(data.count(b"\n")), -1]


def test_a_restored_history_is_exactly_that_of_the_checkpoint(tmp_path):
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.write(1, {"x": 0.1}, phase="joint")
        history = writer.history()
        writer.write(2, {"x": 0.2}, phase="joint")
        writer.restore(history)
        assert writer.history() == history


def test_a_broken_line_inside_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\nnonsense\n{"a": 2}\n')
    with pytest.raises(ValueError, match=r"x\.jsonl, line 2"):
        JsonLines(path).read()


def test_a_metric_that_is_not_finite_is_named_with_its_step(tmp_path):
    with pytest.raises(FloatingPointError, match=r"'train/loss' is nan at step 12"):
        MetricWriter(tmp_path, tensorboard=False).write(12, {"train/loss": float("nan")}, phase="joint")
    lenient = MetricWriter(tmp_path, tensorboard=False, require_finite=False)
    lenient.write(12, {"train/loss": float("inf")}, phase="joint")
    assert lenient.history()[-1]["train/loss"] is None


def test_no_process_goes_on_with_a_metric_that_is_not_finite(tmp_path):
    """The others would wait for the first one at their next common computation."""
    with pytest.raises(FloatingPointError, match=r"'train/loss' is inf at step 3"):
        MetricWriter(tmp_path, active=False).write(3, {"train/loss": float("inf")}, phase="joint")


def test_a_metric_may_not_overwrite_the_step(tmp_path):
    with pytest.raises(ValueError, match="'step'"):
        MetricWriter(tmp_path, tensorboard=False).write(1, {"step": 2.0}, phase="joint")


def test_other_processes_write_nothing(tmp_path):
    writer = MetricWriter(tmp_path / "run", active=False)
    writer.write(1, {"x": 1.0}, phase="joint")
    writer.rewind(0)
    writer.close()
    assert not (tmp_path / "run").exists()


def test_tensorboard_shows_what_the_lines_hold_after_a_rewind(tmp_path):
    writer = MetricWriter(tmp_path)
    for step in range(1, 5):
        writer.write(step, {"train/reward": 1000.0 + step}, phase="executor")
    writer.close()
    before = {file.read_bytes() for file in (tmp_path / "tensorboard").iterdir()}
    writer = MetricWriter(tmp_path)
    writer.rewind(2)
    writer.close()
    (after,) = [file.read_bytes() for file in (tmp_path / "tensorboard").iterdir()]
    packed = [np.float32(1000.0 + step).tobytes() for step in range(1, 5)]
    assert [value in next(iter(before)) for value in packed] == [True, True, True, True]
    assert [value in after for value in packed] == [True, True, False, False]


def test_progress_without_a_terminal_prints_a_line_for_each_evaluation_and_phase():
    stream = io.StringIO()
    with Progress(100, stream=stream, every=1e9) as progress:
        for step in range(1, 101):
            accuracy = 0.5 if step == 40 else None
            progress.update(
                step, phase="cold_start" if step < 20 else "executor", accuracy=accuracy, tokens_per_second=1234
            )
    lines = stream.getvalue().splitlines()
    assert [line.split(" · ")[0] for line in lines] == [
        "cold start 1/100",
        "executor 20/100",
        "executor 40/100",
        "executor 100/100",
    ]
    assert "held-out accuracy 50.0%" in lines[2]
    assert "1,234 tokens/s" in lines[2]
    assert "left" in lines[2]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_a_bar_with_the_same_facts():
    stream = _Terminal()
    with Progress(10, start=2, stream=stream) as progress:
        for step in range(3, 11):
            progress.update(step, phase="designer", accuracy=0.25)
    for part in ("designer", "10/10", "held-out accuracy 25.0%", "took"):
        assert part in stream.getvalue()


def test_progress_of_other_processes_is_silent():
    stream = io.StringIO()
    with Progress(3, stream=stream, active=False) as progress:
        progress.update(3, phase="joint", accuracy=0.5)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "4 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text
