"""One self-contained `report.html` of a work directory; also of a run that is still going, from what there is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from metaagentx import atomic
from metaagentx.metrics import COLD_START, JsonLines
from metaagentx.report import charts, episode_page, tables
from metaagentx.report.look import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline';"


@dataclass(frozen=True, slots=True)
class Run:
    """What a work directory holds. `results` is empty until the run is over, `config` where none was written."""

    name: str
    metrics: Sequence[Mapping[str, Any]]
    episodes: Sequence[Mapping[str, Any]]
    results: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        return bool(self.results)


def load(workdir: str | Path) -> Run:
    """Read `metrics.jsonl`, `episodes.jsonl` and `results.json`. A directory without any is a FileNotFoundError."""
    folder = Path(workdir)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a directory; give the work directory of a run")
    results = _object(folder / "results.json")
    run = Run(
        folder.resolve().name,
        JsonLines(folder / "metrics.jsonl").read(),
        JsonLines(folder / "episodes.jsonl").read(),
        results,
        results.get("config") or _object(folder / "config.json"),
    )
    if not (run.metrics or run.episodes or run.results):
        raise FileNotFoundError(
            f"{folder} holds nothing to report: no metrics.jsonl, episodes.jsonl or results.json; has the run begun?"
        )
    return run


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no file."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); delete it, and run the same command again") from None


def write(workdir: str | Path) -> Path:
    """Write `report.html` into the work directory, atomically, and return its path."""
    path = Path(workdir) / "report.html"
    atomic.write(path, render(load(workdir)))
    return path


def render(run: Run) -> str:
    """The whole page."""
    sections = [_header(run), *_results(run), *_curves(run), *_episodes(run), *_appendix(run)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(run.name)} · metaagentx</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _header(run: Run) -> str:
    results = run.results
    facts = {"seed": results.get("seed", run.config.get("seed")), "device": results.get("device")}
    if results.get("train_tokens"):
        facts["tokens generated in training"] = f"{results['train_tokens']:,}"
    facts |= {name: version for name, version in results.get("versions", {}).items() if version != "not installed"}
    chips = "".join(f"<li>{escape(str(k))} <b>{escape(str(v))}</b></li>" for k, v in facts.items() if v is not None)
    warm = [record["step"] for record in run.metrics if record["phase"] != COLD_START]
    state = "" if run.finished else " The run is not over: this page shows what there is so far."
    length = f" {max(warm):,} step{'s' * (max(warm) != 1)} of reinforcement learning." if warm else ""
    return (
        f"<h1>{escape(run.name)}</h1>"
        f'<p class="soft">{_what(run)}{length}{state}</p>'
        f'<ul class="chips">{chips}</ul>{_headline(run)}'
    )


def _what(run: Run) -> str:
    """What this run trains, in a sentence."""
    team = run.config.get("team")
    if team is None:
        return (
            "One language model learns to design multi-agent systems and to be their agents: a designer writes a"
            " workflow for each question, executors run it."
        )
    if not team["subs"]:
        return "A language model learns to answer questions as an agent on its own."
    subs = ", ".join(f"<b>{escape(name)}</b>" for name in sorted(team["subs"]))
    return (
        f"Language models learn to work as a team: a main agent answers each question with the help of sub-agents"
        f" ({subs}), which see their sub-task and nothing else, and report back."
    )


def _headline(run: Run) -> str:
    """The two or three numbers that a reader wants first."""
    stats: list[tuple[str, str]] = []
    scores = run.results.get("crossplay")
    if scores:
        stats.append((tables.percent(scores["cold/cold"]), "after the cold start"))
        stats.append((tables.percent(scores["trained/trained"]), "trained"))
        stats.append((tables.points(scores["trained/trained"] - scores["cold/cold"]), "gained by training"))
    else:
        points = charts.curve(run.metrics, "eval/accuracy")
        if points:
            (phase, step), value = points[-1]
            stats.append((tables.percent(value), f"held-out accuracy, {phase.replace('_', ' ')} step {step:,}"))
    cells = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in stats)
    return f'<div class="stats">{cells}</div>' if cells else ""


def _results(run: Run) -> list[str]:
    parts = []
    results = run.results
    if results.get("table"):
        questions = sorted({row["questions"] for row in results["table"] if "questions" in row})
        count = f"{' or '.join(f'{n:,}' for n in questions)} test questions, never trained on. " if questions else ""
        note = f"{count}Intervals are over questions, for this one training run. The best accuracy is in bold."
        parts.append(f'<h2>Result</h2><p class="note">{note}</p>{tables.final(results["table"])}')
    if results.get("crossplay"):
        note = "Each cold-started or trained, in all four pairs, on the same questions."
        shown = tables.crossplay(results["crossplay"], results["players"])
        parts.append(f'<h2>Whose gain it is</h2><p class="note">{note}</p>{shown}')
    if results.get("ways_by_kind"):
        title, note = "Designs", "that get a design"
        if run.config.get("team"):
            title, note = "Delegation", "for which the main agent asked these sub-agents so often"
        note = f"Share of the test questions of a kind {note}, and how often its answer is right."
        shown = tables.ways_by_kind(results["ways_by_kind"])
        parts.append(f'<h2>{title} by kind of question</h2><p class="note">{note}</p>{shown}')
    return parts


def _curves(run: Run) -> list[str]:
    parts = []
    panels = charts.panels(run.metrics)
    if panels:
        cold = any(record["phase"] == COLD_START for record in run.metrics)
        note = f"Against training steps{'; the cold start counts its own' if cold else ''}. Shading: which role trains."
        phases = charts.phase_key(run.metrics)
        parts.append(
            f'<h2>Learning curves</h2><div class="note">{note}{phases}</div><div class="grid">{"".join(panels)}</div>'
        )
    mixes = charts.mixes(run.metrics)
    if mixes:
        note = "Share of the sampled designs, by kind of question; lines part the phases."
        parts.append(
            f'<h2>Mix of designs over time</h2><div class="note">{note}{charts.mix_key()}</div>'
            f'<div class="grid three">{"".join(mixes)}</div>'
        )
    return parts


def _episodes(run: Run) -> list[str]:
    if not run.episodes:
        return []
    chosen = episode_page.choose(run.episodes)
    shown = "".join(episode_page.episode(record, opened=i == 0) for i, record in enumerate(chosen))
    what = "the designs sampled for it, and every run of each. Open one to read what each agent was shown and replied."
    if run.config.get("team"):
        what = (
            "its rollouts, and in them whom the main agent asked what. Open a sub-task to read how it was done."
            " Training makes likelier what has an advantage above 0, and less likely what has one below."
        )
    note = f"{len(chosen)} of {len(run.episodes):,} recorded, newest first: a question, {what}"
    return [f'<h2>Episodes to read</h2><p class="note">{note}</p>{shown}']


def _appendix(run: Run) -> list[str]:
    parts = []
    if run.metrics:
        small = "".join(charts.small_multiples(run.metrics))
        parts.append(
            "<h2>Everything else</h2><details><summary>All metrics</summary>"
            f'<div class="body"><div class="grid three">{small}</div></div></details>'
        )
    if run.config:
        config = escape(json.dumps(run.config, indent=2, ensure_ascii=False, default=str))
        parts.append(f'<details><summary>Configuration</summary><div class="body"><pre>{config}</pre></div></details>')
    return parts
