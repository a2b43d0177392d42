from metaagentx.tasks.gym import SPLITS
from metaagentx.tasks.pieces import tiny_pieces


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


def test_pieces_are_distinct_and_few():
    assert len(set(tiny_pieces())) == len(tiny_pieces())
    assert 64 <= len(tiny_pieces()) <= 110


def test_prompts_and_designs_are_short(task):
    pieces = tiny_pieces()
    for index in range(task.size("test")):
        assert len(encode(task.question("test", index, seed=-1).prompt, pieces)) <= 12
    for item in task.demonstrations(0, 0, 500):
        assert sum(len(encode(message.content, pieces)) for message in item.messages) <= 64
