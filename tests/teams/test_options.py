from __future__ import annotations

import pytest

from metaagentx.teams.options import MainReward, SubAgentOptions, SubReward, TeamOptions

SUBS = {"b": SubAgentOptions(role="z"), "c": SubAgentOptions(role="a"), "d": SubAgentOptions(role="z")}


def test_roles_are_the_main_agents_and_then_each_sub_agents_once():
    assert TeamOptions(subs=SUBS).roles == ("main", "a", "z")
    assert TeamOptions().roles == ("main",)


def test_a_judge_has_a_role_where_reports_are_judged():
    assert TeamOptions(subs=SUBS, local="judge").roles == ("main", "a", "z", "judge")
    assert TeamOptions(subs=SUBS, local="judge", judge_role="z").roles == ("main", "a", "z")
    assert TeamOptions(local="judge").roles == ("main",), "nobody reports"


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: TeamOptions(rounds=0), r"team\.rounds"),
        (lambda: TeamOptions(prompt_tokens=-1), r"team\.prompt_tokens"),
        (lambda: TeamOptions(judge_role=""), r"team\.judge_role"),
        (lambda: TeamOptions(subs={"a b": SubAgentOptions()}), "'a b'"),
        (lambda: TeamOptions(subs={"main": SubAgentOptions()}), "'main'"),
        (lambda: TeamOptions(subs=SUBS, tools=("c",)), r"team\.subs\.c: 'c' is among team\.tools too"),
        (lambda: TeamOptions(subs=SUBS | {"e": SubAgentOptions(role="main")}), r"team\.subs\.e\.role .* not 'main'"),
        (lambda: TeamOptions(subs=SUBS | {"e": SubAgentOptions(role="")}), r"team\.subs\.e\.role .* not ''"),
        (lambda: TeamOptions(subs=SUBS | {"e": SubAgentOptions(max_turns=0)}), r"team\.subs\.e\.max_turns"),
        (lambda: TeamOptions(errands=1000), r"team\.errands must be at most 999, not 1000"),
        (lambda: MainReward(correct=-1), r"team\.main_reward\.correct"),
        (lambda: SubReward(local=-1), r"team\.sub_reward\.local"),
    ],
)
def test_bad_options_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()
