import json

import pytest

from metaagentx.tasks.files import BadRow, FileOptions
from metaagentx.tasks.open import open_task
from metaagentx.tasks.options import TaskOptions
from metaagentx.tasks.sharegpt import read_demonstrations
from metaagentx.workflow.ir import Limits

DESIGNS = ("designer", "executor")


def said(*pairs):
    return [{"from": speaker, "value": value} for speaker, value in pairs]


TALK = said(("system", "S"), ("human", "Q"), ("gpt", "call"), ("tool", "7"), ("gpt", "7"))


def write(path, *rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_conversations_become_demonstrations(tmp_path):
    rows = {"conversations": TALK}, {"conversations": said(("human", "Q"), ("gpt", "a=solve()")), "role": "designer"}
    first, second = read_demonstrations(write(tmp_path / "a.jsonl", *rows), DESIGNS)
    assert first.role == "executor"
    assert [message.role for message in first.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert first.messages[3].content == "7"
    assert second.role == "designer"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"conversation": TALK}, "unknown key 'conversation'"),
        ({"conversations": []}, "conversations must be a list"),
        (
            {"conversations": TALK, "role": "judge"},
            r"role must be one of this run's \(designer, executor\), not 'judge'",
        ),
        ({"conversations": TALK, "role": ["executor"]}, r"role must be one of this run's"),
        ({"conversations": TALK, "kind": 3}, "kind must be a text"),
        ({"conversations": [*TALK, "x"]}, r"conversations\[5\] must be"),
        ({"conversations": said(("user", "Q"))}, r"conversations\[0\]\.from must be one of system, human, gpt, tool"),
        ({"conversations": said(("human", 3))}, r"conversations\[0\]\.value must be a text"),
        ({"conversations": TALK[:-1]}, "the last message must be from 'gpt'"),
        ({"conversations": [*TALK, TALK[0], *TALK[1:]]}, "a system message comes first"),
        ({"conversations": said(("system", "S"), ("gpt", "A"))}, r"conversations\[1\] from 'gpt' must follow"),
    ],
)
def test_a_bad_conversation_is_an_error_with_file_and_line(tmp_path, row, message):
    path = write(tmp_path / "talks.jsonl", {"conversations": TALK}, row)
    with pytest.raises(BadRow, match=rf"talks\.jsonl:2: {message}"):
        read_demonstrations(path, DESIGNS)


def test_a_team_s_demonstrations_are_for_its_roles_and_say_for_which(tmp_path):
    rows = [{"conversations": TALK, "role": role} for role in ("main", "critic")]
    found = read_demonstrations(write(tmp_path / "team.jsonl", *rows), ("main", "critic"))
    assert [each.role for each in found] == ["main", "critic"]
    for row, complaint in (({}, "and is missing"), ({"role": "executor"}, "not 'executor'")):
        path = write(tmp_path / "bad.jsonl", {"conversations": TALK, "role": "main"}, {"conversations": TALK, **row})
        with pytest.raises(
            BadRow, match=rf"bad\.jsonl:2: role must be one of this run's \(main, critic\), {complaint}"
        ):
            read_demonstrations(path, ("main", "critic"))


def test_each_pass_over_a_file_shows_every_demonstration_once(tmp_path):
    talks = [{"conversations": said(("human", f"Q{n}"), ("gpt", "A"))} for n in range(7)]
    files = FileOptions(
        train=write(tmp_path / "q.jsonl", {"question": "q", "answer": "a", "domain": "qa"}),
        demonstrations=write(tmp_path / "d.jsonl", *talks),
    )
    task = open_task(TaskOptions(kind="files", files=files), tmp_path, Limits())
    passes = [[each.messages[0].content for each in task.demonstrations(0, start, 7)] for start in (0, 7)]
    assert sorted(passes[0]) == sorted(passes[1]) == [f"Q{n}" for n in range(7)]
    assert passes[0] != passes[1]
