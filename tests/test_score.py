"""What tables say of the samples of held-out questions."""

from __future__ import annotations

from metaagentx.report.tables import final
from metaagentx.score import Sample, Score
from metaagentx.tasks.compound import KINDS, CompoundOptions, compounds


def test_kinds_stand_in_the_tasks_own_order():
    """One part before two before three, though "one, three, two" is how names sort."""
    questions, kinds = compounds(CompoundOptions(pool=64, train=2, validation=2, test=2))["test"], KINDS[:3]
    grades = {kind: number / 4 for number, kind in enumerate(kinds)}
    samples = [[Sample(grades[question.kind], 3, 1, "alone")] for question in questions]
    score = Score.of([question.kind for question in questions], samples)
    assert list(score.row("it")["by_kind"].items()) == list(grades.items())
    assert list(score.ways_by_kind()) == list(kinds)
    assert [name for name in score.metrics() if "accuracy/" in name] == [f"eval/accuracy/{kind}" for kind in kinds]
    shown = final([score.row("it") | {"arm": "it"}])
    assert sorted(kinds, key=lambda kind: shown.index(f">{kind}<")) == list(kinds)
