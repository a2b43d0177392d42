from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaagentx.policy.chat import Chat
from metaagentx.policy.tokenizer import build
from metaagentx.rollout.options import SamplingOptions
from metaagentx.rollout.sampled import Sampled
from metaagentx.rollout.scheduler import run
from metaagentx.workflow.protocol import Call, Fork, Graft, Message, Outcome, ToolCall, ToolCalls
from tests.rollout.scripted import END, Adder, Letters, Scripted, user

SAMPLING = {"designer": SamplingOptions(), "executor": SamplingOptions()}


def drive(process, engine, **engines):
    engines = engines or {"designer": engine, "executor": engine}
    return run(process, engines, Letters(), Adder(), SAMPLING, seed=3, step=5)


def ask(text, agent="a", role="executor", **more):
    reply = yield Call(role, agent, user(text), **more)
    return reply.text


def nested(widths):
    """A fork of forks, asking as it goes; `widths` gives the number of leaves of each branch."""

    def branch(i, leaves):
        first = yield from ask(f"{i}")
        rest = yield Fork(tuple(ask(f"{i}.{j}", "leaf") for j in range(leaves)), "execution")
        return first, rest

    return (yield Fork(tuple(branch(i, n) for i, n in enumerate(widths)), "design"))


def test_branches_of_one_fork_reach_the_engine_together():
    engine = Scripted(lambda prompt: prompt.upper())
    drive(nested([2, 3]), engine)
    assert engine.steps == 2


def test_a_fork_returns_in_the_order_of_its_branches():
    results, _, _ = drive(nested([2, 0]), Scripted(lambda p: p[1:-1] + "!", slots=1, newest_first=True))
    assert results == (("0!", ("0.0!", "0.1!")), ("1!", ()))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(1, 9), st.booleans())
def test_ids_and_trajectories_do_not_depend_on_the_order_of_replies(widths, slots, newest_first):
    plain = Scripted(lambda p: p)
    results, rows, _ = drive(nested(widths), plain)
    other = Scripted(lambda p: p, slots, newest_first)
    other_results, other_rows, _ = drive(nested(widths), other)
    assert results == other_results
    assert sorted(plain.ids) == sorted(other.ids)
    assert len(set(plain.ids)) == len(plain.ids)
    for a, b in zip(rows, other_rows, strict=True):
        assert (a.design, a.execution, a.agent, a.turn) == (b.design, b.execution, b.agent, b.turn)
        np.testing.assert_array_equal(a.tokens, b.tokens)


def test_ids_hold_seed_step_and_the_named_axes():
    engine = Scripted(lambda p: p)
    drive(nested([1]), engine)
    assert [ids[:5] for ids in engine.ids] == [(3, 5, -1, 0, -1), (3, 5, -1, 0, 0)]


def test_each_turn_continues_its_own_tokens_and_only_replies_carry_loss():
    def talk():
        first = yield Call("executor", "a", (Message("system", "s"), Message("user", "1 2")))
        (output,) = yield ToolCalls((ToolCall("add", {"numbers": [1, 2]}, "a"),))
        last = yield Call("executor", "a", (Message("tool", output.text),), turn=1)
        return first, last

    engine = Scripted(lambda p: "ok~" if p.endswith("2>") else "done")
    (first, last), rows, spent = drive(talk(), engine)
    assert (first.outcome, first.text, last.outcome, last.text) == (Outcome.CUT, "ok", Outcome.OK, "done")
    text = "ssu1 2>ok" + chr(END) + "t3>done" + chr(END)
    (row,) = rows
    assert "".join(map(chr, row.tokens)) == text
    assert "".join(c for c, m in zip(text, row.loss_mask, strict=True) if m) == "ok" + "done" + chr(END)
    np.testing.assert_array_equal(row.logprobs[row.loss_mask], [0, -1, 0, -1, -2, -3, -4])
    assert not row.logprobs[~row.loss_mask].any()
    np.testing.assert_array_equal(engine.prompts[1][: len("ssu1 2>ok")], row.tokens[: len("ssu1 2>ok")])
    assert (spent.calls, spent.tool_calls, spent.tokens, row.version, row.generated) == (2, 1, 7, 7, 7)


def test_a_sampler_is_shown_the_whole_dialogue_and_told_when_a_tool_works_for_it():
    def talk():
        yield Call("executor", "a", user("1 2"))
        yield ToolCalls((ToolCall("add", {"numbers": [1, 2]}, "a"),))
        yield Call("executor", "a", (Message("tool", "3"),), turn=1)
        yield Call("executor", "b", user("other"), conversation=1)

    engine = Scripted(lambda p: "done")
    drive(talk(), engine)
    first, second, third = engine.asked
    assert first.conversation == second.conversation != third.conversation
    assert engine.held == [first.conversation]
    told = (*user("1 2"), Message("assistant", "done"), Message("tool", "3"))
    assert (first.messages, second.messages, third.messages) == (told[:1], told, user("other"))


def test_a_dialogue_waits_for_the_branches_of_a_fork_that_is_amid_it_and_of_no_other():
    def talk(amid):
        yield Call("executor", "a", user("1"))
        yield Fork((ask("2"), ask("3")), "member", amid)
        yield Call("executor", "a", user("4"), turn=1)

    for amid in (False, True):
        engine = Scripted(lambda p: "done")
        drive(talk(amid), engine)
        assert engine.held == [engine.asked[0].conversation] * amid


def test_a_dialogue_is_released_when_its_task_ends_whether_or_not_it_was_refused():
    engine, seen = Scripted(lambda p: None if "3" in p else p), []

    def talk(more):
        yield Call("executor", "a", user("1"))
        yield ToolCalls((ToolCall("add", {"numbers": [1]}, "a"),))
        reply = yield Call("executor", "a", user(more), turn=1)
        seen.append([*engine.released])
        return reply.outcome

    def root():
        return (yield Fork((talk("2"), talk("3"))))

    outcomes, _, _ = drive(root(), engine)
    assert outcomes == (Outcome.OK, Outcome.TOO_LONG)
    assert seen[0] == []
    assert sorted(engine.released) == sorted(engine.held) == [0, 1]


def test_a_real_tokenizers_turns_are_exact_prefixes_of_each_other():
    chat = Chat(build(["calculator(", "hello "], "0123456789+)abc ", 64))

    class Engine(Scripted):
        def step(self):
            ticket, _, _ = self.queue.popleft()
            tokens = [[*chat.encode("hello a"), chat.end], chat.encode("calculator(1"), [chat.end]][len(self.ids) - 1]
            outcome = [Outcome.OK, Outcome.CUT, Outcome.EMPTY][len(self.ids) - 1]
            return [(ticket, Sampled(np.array(tokens, np.int32), np.zeros(len(tokens), np.float32), outcome))]

    def talk():
        replies = []
        for turn, text in enumerate("abc"):
            replies.append((yield Call("executor", "a", user(f"{turn}{text}"), turn=turn)))
        return [reply.text for reply in replies]

    engine = Engine(lambda p: p)
    texts, (row,), _ = run(talk(), {"executor": engine}, chat, Adder(), SAMPLING, seed=0, step=0)
    assert texts == ["hello a", "calculator(1", ""]
    shown = chat.tokenizer.convert_ids_to_tokens(row.tokens.tolist())
    assert "".join(shown) == (
        "<|user|>0a<|assistant|>hello a<|end|><|user|>1b<|assistant|>calculator(1<|end|><|user|>2c<|assistant|><|end|>"
    )
    assert "".join(np.array(shown)[row.loss_mask]) == "hello a<|end|>" + "calculator(1" + "<|end|>"
    for prompt in engine.prompts:
        np.testing.assert_array_equal(prompt, row.tokens[: len(prompt)])


def test_turn_counts_an_agents_conversations_and_parallel_ones_count_once():
    def flow():
        yield from ask("q", "solver", conversation=0)
        yield Fork(tuple(ask(f"m{i}", "solver") for i in range(2)))
        yield from ask("r", "solver", conversation=1)
        yield from ask("s", "judge", conversation=2)

    def root():
        yield Fork((flow(), flow()), "execution")

    _, rows, _ = drive(root(), Scripted(lambda p: p))
    for execution in (0, 1):
        turns = sorted((row.agent, row.turn) for row in rows if row.execution == execution)
        assert turns == [("judge", 0), ("solver", 0), ("solver", 1), ("solver", 1), ("solver", 2)]


def test_a_conversation_without_a_sample_leaves_no_trajectory():
    def flow():
        return (yield Call("executor", "a", user("x")))

    reply, rows, spent = drive(flow(), Scripted(lambda p: None))
    assert (reply.outcome, reply.text, reply.tokens) == (Outcome.TOO_LONG, "", 0)
    assert rows == []
    assert spent.refused == 1


def test_a_prompt_that_no_longer_fits_leaves_the_turns_before_it():
    def flow():
        yield Call("executor", "a", user("x"))
        return (yield Call("executor", "a", user("y"), turn=1))

    reply, (row,), _ = drive(flow(), Scripted(lambda p: None if "y" in p else "fine"))
    assert reply.outcome == Outcome.TOO_LONG
    assert "".join(map(chr, row.tokens)) == "ux>fine" + chr(END)


def test_roles_go_to_their_own_engines():
    def flow():
        yield from ask("d", role="designer")
        yield from ask("e", conversation=1)

    designer, executor = Scripted(lambda p: p), Scripted(lambda p: p)
    _, rows, _ = drive(flow(), None, designer=designer, executor=executor)
    assert (len(designer.ids), len(executor.ids)) == (1, 1)
    assert [row.role for row in rows] == ["designer", "executor"]


def test_a_calls_own_bound_is_the_smaller_one():
    def flow():
        return (yield Call("executor", "a", user("x"), max_tokens=2))

    reply, _, _ = drive(flow(), Scripted(lambda p: "long~"))
    assert reply.text == "lo"


def test_an_axis_used_twice_is_refused():
    def flow():
        yield Fork((ask("a"),))
        yield Fork((ask("b"),))

    with pytest.raises(ValueError, match="axis 'member' is used twice"):
        drive(flow(), Scripted(lambda p: p))


def test_a_foreign_request_is_refused():
    def flow():
        yield "please"

    with pytest.raises(TypeError, match="Call, ToolCalls, Fork or Graft"):
        drive(flow(), Scripted(lambda p: p))


def test_the_engine_is_told_which_role_calls():
    def flow():
        yield from ask("d", role="designer")
        yield from ask("e", role="executor")

    engine = Scripted(lambda p: p)
    drive(flow(), engine)
    assert engine.roles == ["designer", "executor"]


def test_a_graft_samples_what_the_branch_samples_that_stands_there():
    def rounds():
        first = yield from ask("one", role="designer")
        inner = yield Fork((ask("two"), ask("three")), "member")
        return first, inner

    plain = Scripted(lambda p: p)
    whole, rows, _ = drive(nested_at(rounds), plain)

    def grafting():
        found = []
        for _ in range(2):  # one after the other, and again: nothing of the first is left
            found.append((yield Graft(rounds(), (("question", 0), ("design", 1)), 5)))
        return found

    other = Scripted(lambda p: p)
    found, outside, spent = drive(grafting(), other)
    assert outside == []
    assert spent.calls == 6
    branch = [row for row in rows if row.design == 1]
    for value, own in found:
        assert value == whole[0][1]
        assert [row.tokens.tolist() for row in own] == [row.tokens.tolist() for row in branch]
        assert [(row.question, row.design, row.agent) for row in own] == [(0, 1, "a")] * 3
    assert set(other.ids) < set(plain.ids)


def nested_at(rounds):
    def question():
        return (yield Fork((rounds(), rounds()), "design"))

    return (yield Fork((question(),), "question"))


def test_grafts_of_different_steps_run_side_by_side_each_with_its_own_ids():
    def grafting(step):
        return (yield Graft(ask("x"), (("question", 2),), step))

    engine = Scripted(lambda p: p)
    drive(side_by_side([grafting(3), grafting(4)]), engine)
    assert engine.steps == 1
    assert sorted(ids[:3] for ids in engine.ids) == [(3, 3, 2), (3, 4, 2)]


def side_by_side(branches):
    return (yield Fork(tuple(branches), "member"))
