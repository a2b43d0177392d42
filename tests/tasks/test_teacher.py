import collections
import math
import random
import re
import time

import pytest

from metaagentx.tasks.answers import BoxedDelivery
from metaagentx.tasks.gym import score
from metaagentx.tasks.palette import TINY_OPERATIONS, TINY_PALETTE
from metaagentx.tasks.reference_designs import APPROPRIATE, FIXED_DESIGN, reference_designs
from metaagentx.tasks.teacher import TOOL_CALL, TeacherOptions, chain_steps, corrupt, demonstrate, expression_of
from metaagentx.tools.calculator import make_calculator
from metaagentx.tools.toolbox import Toolbox
from metaagentx.workflow.interpreter import run
from metaagentx.workflow.ir import Design, Limits
from metaagentx.workflow.protocol import Reply, ToolCall
from metaagentx.workflow.replay import drive
from metaagentx.workflow.short import parse_short

BOXED = BoxedDelivery(instruction="")
QUIET = TeacherOptions(noise_sum=0, noise_tool=0, noise_spell=0)
TOOLBOX = Toolbox([make_calculator(TINY_OPERATIONS)])


def perfect_answer(prompt, records):
    """Answers a whole question from its record, and a bare sum by arithmetic."""
    if prompt in records:
        return records[prompt].answer
    left, operator, right = prompt.split(" ")
    return str(int(left) + int(right) if operator == "+" else int(left) - int(right))


class PerfectAgents:
    """Answers the calls of a run, always right, and keeps what each conversation was opened with."""

    def __init__(self, records):
        self.records = records
        self.shown = set()

    def __call__(self, path, request):
        if isinstance(request, ToolCall):
            return TOOLBOX.run(request)
        if request.turn:
            return Reply(f"\\boxed{{{request.messages[-1].content}}}")
        system, user = request.messages
        self.shown.add((system.content, user.content))
        record = self.records.get(user.content)
        if system.content == "Use the calculator." and record and record.kind == "tool":
            operation, left, right = expression_of(user.content)
            return Reply((f"gcd({left}, {right})" if operation == "gcd" else f"{left} * {right}").join(TOOL_CALL))
        return Reply(f"\\boxed{{{perfect_answer(user.content, self.records)}}}")


def run_design(design, question, agents, delivery):
    parsed = parse_short(design, palette=TINY_PALETTE, limits=Limits(), tools=TOOLBOX.names())
    assert isinstance(parsed, Design), parsed
    assert parsed.remarks == ()
    return drive(run(parsed.workflow, question, delivery, max_calls=100), agents)


@pytest.fixture(scope="module")
def records(task):
    return task._splits["train"]


def test_every_reference_design_with_perfect_agents_reaches_the_right_answer(task, records):
    agents = PerfectAgents({record.question: record for record in records})
    for record in records[:200]:
        designs = reference_designs(record.question)
        assert FIXED_DESIGN in designs.values()
        assert APPROPRIATE[record.dataset] in designs
        for name, design in designs.items():
            result = run_design(design, record.question, agents, BOXED)
            assert score(record.entry, result.answer) == 1.0
            assert result.tool_calls == (("tool" in name) and record.kind == "tool") * (3 if "vote" in name else 1)


def test_a_lesson_opens_exactly_as_the_interpreter_opens_a_conversation(task, records):
    for record in records[:40]:
        agents = PerfectAgents({record.question: record})
        for design in reference_designs(record.question).values():
            run_design(design, record.question, agents, BOXED)
        lessons = [demonstrate([record], TeacherOptions(designer=0), 0, number) for number in range(30)]
        taught = {(lesson.messages[0].content, lesson.messages[1].content) for lesson in lessons}
        assert taught <= agents.shown
        assert len(taught) > 1 or record.kind == "spell"


def test_chains_have_one_agent_per_operation():
    question = "State the final answer to the following arithmetic problem: 4 - 1 + 7 ="
    designs = reference_designs(question)
    assert designs["chain"] == "a=solve(4 - 1);b=solve({a} + 7)"
    assert designs["chain_vote"] == "a=solve(4 - 1)x3;b=solve({a} + 7)x3"
    assert chain_steps(question) == [("4 - 1", "3"), ("3 + 7", "10")]


def test_a_demonstration_is_a_function_of_seed_and_number_alone(task):
    whole = task.demonstrations(3, 0, 40)
    assert [*task.demonstrations(3, 0, 15), *task.demonstrations(3, 15, 25)] == list(whole)
    assert whole != task.demonstrations(4, 0, 40)


def test_without_noise_every_executor_answer_is_right(task, records):
    by_question = {record.question: record for record in records}
    for number in range(600):
        demonstration = demonstrate(records, QUIET, 0, number)
        if demonstration.role == "designer":
            continue
        _, user, *_, last = demonstration.messages
        assert BOXED.extract(last.content) == perfect_answer(user.content, by_question)


def test_noise_is_as_frequent_as_it_says(task, records):
    by_question = {record.question: record for record in records}
    wrong, seen = collections.Counter(), collections.Counter()
    options = TeacherOptions(call=0, designer=0)
    for number in range(4000):
        demonstration = demonstrate(records, options, 0, number)
        _, user, last = demonstration.messages
        seen[demonstration.kind] += 1
        wrong[demonstration.kind] += BOXED.extract(last.content) != perfect_answer(user.content, by_question)
    for kind, rate in {"sum3": 0.2, "sum5": 0.2, "tool": 0.35, "spell": 0.3}.items():
        error = math.sqrt(rate * (1 - rate) / seen[kind])
        assert abs(wrong[kind] / seen[kind] - rate) < 4 * error


def test_tool_lessons_call_the_calculator_and_hand_in_its_result(records):
    products = [record for record in records if record.kind == "tool"]
    right = direct = 0
    for number in range(600):
        demonstration = demonstrate(products, TeacherOptions(call=1, designer=0), 0, number)
        system, user, *rest = demonstration.messages
        assert system.content == "Use the calculator."
        if len(rest) == 1:
            direct += 1
            continue
        call, output, last = rest
        (expression,) = re.findall(r'"expression": "([^"]*)"}}</tool_call>', call.content)
        value = eval(expression, {"gcd": math.gcd, "__builtins__": {}})
        assert output.role == "tool"
        assert output.content == str(value)
        assert last.content == f"\\boxed{{{value}}}"
        _, left, other = expression_of(user.content)
        right += sorted(map(int, re.findall(r"\d+", expression))) == sorted([left, other])
    assert 0.58 < right / 600 < 0.72
    assert 0.12 < direct / 600 < 0.24


def test_designs_are_drawn_almost_without_regard_to_the_question(task):
    designs = collections.Counter()
    for demonstration in task.demonstrations(0, 0, 6000):
        if demonstration.role == "designer" and demonstration.kind == "sum3":
            question, design = demonstration.messages[1].content, demonstration.messages[2].content
            (name,) = {name for name, text in reference_designs(question).items() if text == design}
            designs[name] += 1
    total = sum(designs.values())
    assert len(designs) == 7
    for name, count in designs.items():
        expected = 0.8 / 7 + 0.2 * (name == "chain")
        assert abs(count / total - expected) < 4 * math.sqrt(expected * (1 - expected) / total)


def test_demonstrations_are_on_train_questions_only(task):
    evaluation = {task.question(split, i, seed=-1).prompt for split in ("validation", "test") for i in range(40)}
    shown = {message.content for demonstration in task.demonstrations(0, 0, 500) for message in demonstration.messages}
    assert not evaluation & shown


def test_one_wrong_character_is_never_right(records):
    draw = random.Random(0)
    for record in records:
        wrong = corrupt(record.answer, draw)
        assert len(wrong) == len(record.answer)
        assert sum(a != b for a, b in zip(wrong, record.answer, strict=True)) == 1
        assert score(record.entry, wrong) == 0.0


def test_twenty_thousand_demonstrations_take_seconds(task):
    start = time.perf_counter()
    task.demonstrations(0, 0, 20_000)
    assert time.perf_counter() - start < 20


def test_bad_probabilities_name_their_field():
    with pytest.raises(ValueError, match=r"teacher\.noise_tool"):
        TeacherOptions(noise_tool=1.5)
