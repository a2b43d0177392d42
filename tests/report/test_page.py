"""The page is whole, loads nothing, runs nothing that a model wrote, and shows the numbers that it was given."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser

import pytest
import workdir

from metaagentx.metrics import JsonLines
from metaagentx.report import charts, gain, page, plot
from metaagentx.report.__main__ import main

VOID = {"meta", "br", "img", "input", "link", "hr"}


class Reader(HTMLParser):
    """Collects tags, attributes and text; fails on a tag that closes what is not open."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    return page.write(workdir.make(tmp_path_factory.mktemp("run") / "tiny")).read_text(encoding="utf-8")


def test_every_tag_is_closed_where_it_should_be(source):
    assert Reader(source).open == []


def test_nothing_a_model_wrote_becomes_markup(source):
    reader = Reader(source)
    assert not reader.tags & {"script", "img", "iframe", "object", "link", "a", "form"}
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert "<script>alert('owned')</script>" in reader.text  # shown as text


def test_nothing_is_loaded_from_anywhere(source):
    reader = Reader(source)
    assert not [
        pair for pair in reader.attributes if pair[0] in ("src", "href", "srcset", "action", "data", "xlink:href")
    ]
    style = " ".join(re.findall(r"<style>(.*?)</style>", source, re.S))
    assert "url(" not in style
    assert "@import" not in style
    assert page.POLICY in dict(reader.attributes)["content"] or page.POLICY in [v for _, v in reader.attributes]


def test_the_numbers_shown_are_those_of_the_results(source):
    text = Reader(source).text
    for row in workdir.RESULTS["table"]:
        by_kind = " ".join(f"{100 * v:.1f} %" for v in row["by_kind"].values())
        shown = (
            f"{row['name']} {100 * row['accuracy']:.1f} % {100 * row['low']:.1f} – {100 * row['high']:.1f}"
            f" {row['tokens_per_question']:.1f} {row['calls_per_question']:.2f} {by_kind}"
        )
        assert shown in text
    for score in workdir.RESULTS["crossplay"].values():
        assert f"{100 * score:.1f} %" in text
    assert "+38.2 points : +25.8 points by the designer, +12.4 points by the executor (67 % and 33 %)" in text
    assert "a=solve()x5 35 % 64 % right" in text


def test_both_roles_phases_and_kinds_have_their_curves(source):
    text = Reader(source).text
    for word in (
        "Held-out accuracy",
        "cold start",
        "executor",
        "designer",
        "Entropy",
        "chain+vote",
        "all kinds",
        *workdir.KINDS,
    ):
        assert word in text
    assert 'class="phase follow"' in source
    assert 'class="phase lead"' in source


def test_a_run_that_is_still_going_has_a_page(tmp_path):
    folder = workdir.make(tmp_path / "run", finished=False, steps=3)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "ph')  # the writer is in the middle of a line
    reader = Reader(page.write(folder).read_text())
    assert "not over" in reader.text
    assert reader.open == []


@pytest.mark.parametrize("keep", ["metrics.jsonl", "episodes.jsonl", "results.json"])
def test_any_one_file_is_enough(tmp_path, keep):
    folder = workdir.make(tmp_path / "run")
    for name in ("metrics.jsonl", "episodes.jsonl", "results.json"):
        if name != keep:
            (folder / name).unlink()
    assert Reader(page.write(folder).read_text()).open == []


def test_a_long_run_keeps_its_last_point_and_a_light_page():
    thinned = charts.thin(range(12_345))
    assert len(thinned) <= charts.MOST
    assert thinned[-1] == 12_344
    assert list(charts.thin(range(charts.MOST))) == list(range(charts.MOST))


def test_a_running_mean_does_not_mix_the_cold_start_with_the_rest():
    points = [(("cold_start", 700), 100.0), (("executor", 1), 1.0), (("executor", 2), 3.0)]
    assert [value for _, value in charts.running_mean(points)] == [100.0, 1.0, 2.0]


def test_mixes_are_shares_whatever_the_rounding():
    figure = plot.shares(("a", "b"), [(("joint", s), (0.2, 0.2)) for s in range(3)], title="t", colors=(0, 1))
    heights = [float(y) for pair in re.findall(r"[\d.]+,([\d.]+)", figure) for y in (pair,)]
    assert min(heights) == pytest.approx(plot.TOP)


def test_a_run_of_one_evaluation_has_a_page(tmp_path):
    JsonLines(tmp_path / "metrics.jsonl").append({"step": 0, "phase": "cold_start", "time": 1.0, "eval/accuracy": 0.0})
    assert Reader(page.write(tmp_path).read_text()).open == []


def test_hostile_results_are_escaped(tmp_path):
    results = copy.deepcopy(workdir.RESULTS)
    results["table"][0]["name"] = results["device"] = workdir.HOSTILE
    results["table"][0]["by_kind"] = {workdir.HOSTILE: 0.5}
    results["ways_by_kind"] = {workdir.HOSTILE: [{"way": workdir.HOSTILE, "share": 1.0, "accuracy": 0.5}]}
    results["config"] = {workdir.HOSTILE: workdir.HOSTILE}
    (tmp_path / "results.json").write_text(json.dumps(results))
    line = {"step": 1, "phase": workdir.HOSTILE, "time": 1.0, workdir.HOSTILE: 1.0, "eval/accuracy": 0.5}
    JsonLines(tmp_path / "metrics.jsonl").append(line)
    reader = Reader(page.write(tmp_path).read_text())
    assert not reader.tags & {"script", "img"}
    assert reader.open == []


def test_an_empty_or_missing_directory_is_a_clear_error(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="nothing to report"):
        page.write(tmp_path)
    assert main([str(tmp_path / "absent")]) == 1
    assert "is not a directory" in capsys.readouterr().err


def test_the_command_writes_the_page_and_prints_its_path(tmp_path, capsys):
    folder = workdir.make(tmp_path / "run", steps=2)
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")


def test_a_curve_is_not_drawn_through_steps_at_which_nothing_was_measured():
    points = [(("executor", step), 1.0) for step in (1, 2, 3, 21, 22, 23)]
    cold = [(("cold_start", step), 2.0) for step in (10, 20)]
    steps = [[point[1] for point, _ in part] for part in plot.stretches([*cold, *points])]
    assert steps == [[10, 20], [1, 2, 3], [21, 22, 23]]


def test_a_metric_of_one_role_stands_before_the_phases_of_both():
    figures = "".join(f for f in charts.small_multiples(workdir.metrics()) if "train/designer/entropy" in f)
    assert figures.count('class="phase follow"') == figures.count('class="phase lead"') == 3


def test_phases_are_shaded_in_order_without_holes():
    points = [("cold_start", 700), *(("executor" if s <= 5 else "designer", s) for s in range(1, 11))]
    spans = plot.Timeline([("cold_start", 10), *points], 560).phases()
    assert [name for name, _, _ in spans] == ["cold_start", "executor", "designer"]
    assert spans[1][2] == spans[2][1]
    assert spans[0][2] < spans[1][1]


def test_gains_of_the_roles_add_up_and_blame_nobody_for_nothing():
    split = gain.split({"cold/cold": 0.2, "trained/cold": 0.5, "cold/trained": 0.2, "trained/trained": 0.5})
    assert (split.first, split.second) == pytest.approx((0.3, 0.0))
    split = gain.split(workdir.RESULTS["crossplay"])
    assert split.first + split.second == pytest.approx(split.total)
    with pytest.raises(ValueError, match="cold/trained"):
        gain.split({"cold/cold": 0.2, "trained/cold": 0.5, "trained/trained": 0.5})


def test_members_who_are_asked_the_same_are_asked_once_and_reply_each(tmp_path):
    folder = workdir.make(tmp_path / "tiny")
    lines = JsonLines(folder / "episodes.jsonl")
    record = copy.deepcopy(lines.read()[0])
    run = next(run for design in record["designs"] for run in design["executions"] if run["turns"])
    asked = {"messages": [{"role": "user", "content": "SAME"}], "tool_calls": [], "tool_results": [], "outcome": "ok"}
    asked |= {"tokens": 1, "left_out": 1234}
    run["turns"] = [asked | {"agent": name, "reply": f"reply of {name}"} for name in ("a", "a#2", "a#3")]
    lines.replace([record])
    shown = Reader(page.render(page.load(folder))).text
    assert shown.count("SAME") == 1
    assert shown.count("there was no room for") == shown.count("1,234 characters") == 1
    assert "user to a , a#2 , a#3 SAME" in shown
    assert all(f"reply of {name}" in shown for name in ("a", "a#2", "a#3"))


@pytest.mark.parametrize(("value", "ticks"), [(0.0, "0 0.5 1"), (2e-7, "1e-7 2e-7 3e-7")])
def test_a_flat_curve_has_an_axis_whose_labels_are_short(value, ticks):
    series = plot.Series("flat", tuple((("executor", step), value) for step in range(3)), 0)
    found = re.findall(r'class="ytick"[^>]*>([^<]*)<', plot.lines([series], title="flat"))
    assert set(ticks.split()) <= set(found)
    assert all(len(each) <= 7 for each in found)


def test_the_page_forbids_scripts_altogether(source):
    assert "script" not in page.POLICY
