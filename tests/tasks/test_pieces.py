from metaagentx.tasks.answers import BoxedDelivery
from metaagentx.tasks.gym import SPLITS
from metaagentx.tasks.palette import TINY_PALETTE
from metaagentx.tasks.pieces import tiny_pieces
from metaagentx.tasks.teacher import TOOL_CALL
from metaagentx.workflow.interpreter import run
from metaagentx.workflow.ir import Limits
from metaagentx.workflow.protocol import Reply, ToolCall, ToolResult
from metaagentx.workflow.replay import drive
from metaagentx.workflow.short import parse_short


def encode(text, pieces):
    """Longest match first; None where no piece fits."""
    longest_first, tokens, at = sorted(pieces, key=len, reverse=True), [], 0
    while at < len(text):
        piece = next((piece for piece in longest_first if text.startswith(piece, at)), None)
        tokens.append(piece)
        at += len(piece or " ")
    return tokens


def test_every_question_and_demonstration_is_written_in_pieces(task):
    texts = {task.question(split, i, seed=-1).prompt for split in SPLITS for i in range(task.size(split))}
    texts |= {message.content for item in task.demonstrations(0, 0, 2000) for message in item.messages}
    for text in texts:
        tokens = encode(text, tiny_pieces())
        assert None not in tokens, text
        assert "".join(tokens) == text


def test_what_the_interpreter_adds_is_written_in_pieces_too(task):
    question = task.question("test", 0, seed=-1).prompt
    design = parse_short("a=solve();b=solve();c=tool()", palette=TINY_PALETTE, limits=Limits(), tools={"calculator"})
    replies = {0: "\\boxed{12}", 1: ""}
    shown = []

    def answer(path, request):
        if isinstance(request, ToolCall):
            return ToolResult("", ok=False)
        shown.extend(message.content for message in request.messages)
        return Reply(replies.get(request.conversation, "2 * 3".join(TOOL_CALL)))

    drive(run(design.workflow, question, BoxedDelivery(instruction=""), max_calls=9), answer)
    assert len(shown) == 2 + 2 + 2 + 1 + 2  # c: the question, an error, an error and the last request
    for text in shown:
        assert None not in encode(text, tiny_pieces()), text


def test_pieces_are_distinct_and_few():
    assert len(set(tiny_pieces())) == len(tiny_pieces())
    assert 64 <= len(tiny_pieces()) <= 110


def test_prompts_and_designs_are_short(task):
    pieces = tiny_pieces()
    for index in range(task.size("test")):
        assert len(encode(task.question("test", index, seed=-1).prompt, pieces)) <= 12
    for item in task.demonstrations(0, 0, 500):
        assert sum(len(encode(message.content, pieces)) for message in item.messages) <= 64
