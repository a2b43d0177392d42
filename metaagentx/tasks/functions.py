"""Small function-writing problems in the manner of HumanEval (arXiv 2107.03374), made by chaining one-line pieces.

A problem is a signature and a docstring with two examples; hidden are the cases that a program is tested on and a
reference solution. It is a function of its pieces alone, so its examples can not differ between two splits.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaagentx.tools.spelling import spell

FUNCTIONS = "functions"  # the name of this data set
EXAMPLES = 2  # shown
CASES = 8  # hidden
PROMPT = "Complete this Python function.\n\n"


@dataclass(frozen=True, slots=True)
class Piece:
    """One step: in words, in Python, and as the function that says what is right. `k` is drawn from `choices`."""

    name: str
    takes: str
    gives: str
    says: str
    code: str  # an expression over the variable of the type that it takes
    function: Callable[[Any, Any], Any]
    choices: Sequence[int | str] = (0,)


NAMES: Mapping[str, str] = {"list[int]": "numbers", "list[str]": "words", "str": "text", "int": "number"}
_VOWELS = "aeiou"
_LETTERS = "aeilnorst"


def _numbers(name: str, says: str, code: str, function: Callable[[Any, Any], Any], choices: Any = (0,)) -> Piece:
    return Piece(name, "list[int]", "list[int]", says, code, function, choices)


def _text(name: str, says: str, code: str, function: Callable[[Any, Any], Any], choices: Any = (0,)) -> Piece:
    return Piece(name, "str", "str", says, code, function, choices)


PIECES: tuple[Piece, ...] = (
    # Lists of numbers
    _numbers("above", "keep the numbers greater than {k}", "[n for n in numbers if n > {k}]",
             lambda x, k: [n for n in x if n > k], range(1, 13)),
    _numbers("below", "keep the numbers less than {k}", "[n for n in numbers if n < {k}]",
             lambda x, k: [n for n in x if n < k], range(3, 15)),
    _numbers("even", "keep the even numbers", "[n for n in numbers if n % 2 == 0]",
             lambda x, k: [n for n in x if n % 2 == 0]),
    _numbers("odd", "keep the odd numbers", "[n for n in numbers if n % 2 == 1]",
             lambda x, k: [n for n in x if n % 2 == 1]),
    _numbers("multiples", "keep the multiples of {k}", "[n for n in numbers if n % {k} == 0]",
             lambda x, k: [n for n in x if n % k == 0], range(3, 6)),
    _numbers("first", "keep the first {k} numbers", "numbers[:{k}]", lambda x, k: x[:k], range(2, 6)),
    _numbers("skip", "drop the first {k} numbers", "numbers[{k}:]", lambda x, k: x[k:], range(2, 5)),
    _numbers("last", "keep the last {k} numbers", "numbers[-{k}:]", lambda x, k: x[-k:], range(2, 6)),
    _numbers("without", "remove every {k}", "[n for n in numbers if n != {k}]",
             lambda x, k: [n for n in x if n != k], range(10)),
    _numbers("distinct", "keep only the first of equal numbers", "list(dict.fromkeys(numbers))",
             lambda x, k: list(dict.fromkeys(x))),
    _numbers("add", "add {k} to each number", "[n + {k} for n in numbers]", lambda x, k: [n + k for n in x],
             range(1, 21)),
    _numbers("subtract", "subtract {k} from each number", "[n - {k} for n in numbers]", lambda x, k: [n - k for n in x],
             range(1, 21)),
    _numbers("times", "multiply each number by {k}", "[n * {k} for n in numbers]", lambda x, k: [n * k for n in x],
             range(2, 13)),
    _numbers("square", "square each number", "[n * n for n in numbers]", lambda x, k: [n * n for n in x]),
    _numbers("negate", "negate each number", "[-n for n in numbers]", lambda x, k: [-n for n in x]),
    _numbers("remainder", "replace each number by its remainder modulo {k}", "[n % {k} for n in numbers]",
             lambda x, k: [n % k for n in x], range(3, 10)),
    _numbers("sort", "sort the numbers from smallest to largest", "sorted(numbers)", lambda x, k: sorted(x)),
    _numbers("descend", "sort the numbers from largest to smallest", "sorted(numbers, reverse=True)",
             lambda x, k: sorted(x, reverse=True)),
    _numbers("reverse", "reverse the order of the numbers", "numbers[::-1]", lambda x, k: x[::-1]),
    Piece("total", "list[int]", "int", "take the sum of the numbers", "sum(numbers)", lambda x, k: sum(x)),
    Piece("largest", "list[int]", "int", "take the largest number, or 0 if there is none", "max(numbers, default=0)",
          lambda x, k: max(x, default=0)),
    Piece("smallest", "list[int]", "int", "take the smallest number, or 0 if there is none", "min(numbers, default=0)",
          lambda x, k: min(x, default=0)),
    Piece("count", "list[int]", "int", "count the numbers", "len(numbers)", lambda x, k: len(x)),
    # Numbers
    Piece("plus", "int", "int", "add {k}", "number + {k}", lambda x, k: x + k, range(1, 31)),
    Piece("product", "int", "int", "multiply by {k}", "number * {k}", lambda x, k: x * k, range(2, 21)),
    Piece("modulo", "int", "int", "take the remainder modulo {k}", "number % {k}", lambda x, k: x % k, range(3, 12)),
    Piece("digits", "int", "int", "take the sum of the decimal digits", "sum(int(d) for d in str(abs(number)))",
          lambda x, k: sum(int(d) for d in str(abs(x)))),
    Piece("is_multiple", "int", "bool", "tell whether the number is a multiple of {k}", "number % {k} == 0",
          lambda x, k: x % k == 0, range(2, 6)),
    Piece("exceeds", "int", "bool", "tell whether the number is greater than {k}", "number > {k}",
          lambda x, k: x > k, range(3, 12)),
    # Text
    _text("backward", "reverse the text", "text[::-1]", lambda x, k: x[::-1]),
    _text("upper", "turn the text into upper case", "text.upper()", lambda x, k: x.upper()),
    _text("no_vowels", "remove the vowels", "''.join(c for c in text if c not in 'aeiou')",
          lambda x, k: "".join(c for c in x if c not in _VOWELS)),
    _text("no_spaces", "remove the spaces", "text.replace(' ', '')", lambda x, k: x.replace(" ", "")),
    _text("start", "keep the first {k} characters", "text[:{k}]", lambda x, k: x[:k], range(2, 10)),
    _text("end", "keep the last {k} characters", "text[-{k}:]", lambda x, k: x[-k:], range(2, 10)),
    _text("repeat", "repeat the text {k} times", "text * {k}", lambda x, k: x * k, range(2, 6)),
    _text("drop", "remove every '{k}'", "text.replace('{k}', '')", lambda x, k: x.replace(k, ""), _LETTERS),
    _text("star", "replace every '{k}' by '*'", "text.replace('{k}', '*')", lambda x, k: x.replace(k, "*"), _LETTERS),
    _text("every", "keep every second character, starting with the first", "text[::2]", lambda x, k: x[::2]),
    Piece("length", "str", "int", "take the length of the text", "len(text)", lambda x, k: len(x)),
    Piece("occurrences", "str", "int", "count how often '{k}' occurs", "text.count('{k}')",
          lambda x, k: x.count(k), _LETTERS),
    Piece("words", "str", "list[str]", "split the text into words at white space", "text.split()",
          lambda x, k: x.split()),
    Piece("palindrome", "str", "bool", "tell whether the text reads the same backward", "text == text[::-1]",
          lambda x, k: x == x[::-1]),
    # Words
    Piece("longer", "list[str]", "list[str]", "keep the words of more than {k} letters",
          "[w for w in words if len(w) > {k}]", lambda x, k: [w for w in x if len(w) > k], range(2, 6)),
    Piece("starting", "list[str]", "list[str]", "keep the words that start with '{k}'",
          "[w for w in words if w.startswith('{k}')]", lambda x, k: [w for w in x if w.startswith(k)], _LETTERS),
    Piece("ordered", "list[str]", "list[str]", "sort the words alphabetically", "sorted(words)",
          lambda x, k: sorted(x)),
    Piece("lengths", "list[str]", "list[int]", "replace each word by its length", "[len(w) for w in words]",
          lambda x, k: [len(w) for w in x]),
    Piece("join", "list[str]", "str", "join the words with '{k}'", "'{k}'.join(words)", lambda x, k: k.join(x), "-+_/"),
)  # fmt: skip

_WORDS = ("ant", "sea", "rain", "tree", "stone", "lion", "apple", "table", "orange", "silver", "train", "night", "noon",
          "level", "sister", "planet", "on", "is", "to", "ara", "eye")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """A chain of pieces, each with its `k`."""

    steps: tuple[tuple[Piece, int | str], ...]

    @property
    def name(self) -> str:
        return "_".join(piece.name for piece, _ in self.steps)

    @property
    def sentences(self) -> list[str]:
        """What to do, step by step."""
        return [piece.says.replace("{k}", str(k)) for piece, k in self.steps]

    def signature(self) -> str:
        takes, gives = self.steps[0][0].takes, self.steps[-1][0].gives
        return f"def {self.name}({NAMES[takes]}: {takes}) -> {gives}:"

    def solution(self) -> str:
        """The reference program: a line per step."""
        lines = [self.signature()]
        for number, (piece, k) in enumerate(self.steps):
            last = number == len(self.steps) - 1
            target = "return" if last else f"{NAMES[piece.gives]} ="
            lines.append(f"    {target} {piece.code.replace('{k}', str(k))}")
        return "\n".join(lines)

    def value(self, argument: Any) -> Any:
        """What a right program returns."""
        for piece, k in self.steps:
            argument = piece.function(argument, k)
        return argument

    def cases(self) -> list[tuple[Any, Any]]:
        """(argument, result), the shown examples first: a function of the problem alone."""
        draw = random.Random(self.solution())
        takes = self.steps[0][0].takes
        arguments: list[Any] = []
        while len(arguments) < EXAMPLES + CASES:
            argument = _argument(takes, len(arguments), draw)
            if argument not in arguments:
                arguments.append(argument)
        return [(argument, self.value(argument)) for argument in arguments]


def _argument(takes: str, number: int, draw: random.Random) -> Any:
    """Argument `number` of a problem: the first hidden one is small, where programs go wrong."""
    edge = number == EXAMPLES
    if takes == "list[int]":
        return [] if edge else [draw.randrange(-5 if number % 3 == 2 else 0, 21) for _ in range(draw.randrange(3, 8))]
    if takes == "int":
        return 0 if edge else draw.randrange(10, 1000)
    words = [draw.choice(_WORDS) for _ in range(0 if edge else draw.randrange(1, 5))]
    return words if takes == "list[str]" else " ".join(words)


class Functions:
    """The data set: item i is a function of (seed, i), in the form of reasoning-gym's items."""

    def __init__(self, seed: int, min_steps: int = 1, max_steps: int = 2) -> None:
        assert 1 <= min_steps <= max_steps <= 5, "1 <= min_steps <= max_steps <= 5 is needed"
        self._seed, self._steps = seed, range(min_steps, max_steps + 1)

    def __getitem__(self, index: int) -> dict[str, Any]:
        draw = random.Random(f"{self._seed}/{index}")
        while True:
            problem = _draw_problem(draw, draw.choice(self._steps))
            cases = problem.cases()
            results = [repr(result) for _, result in cases]
            fewest = 2 if problem.steps[-1][0].gives == "bool" else 5
            if len(set(results)) >= fewest:  # else a constant comes too close
                return _item(problem, cases)


def _draw_problem(draw: random.Random, length: int) -> Problem:
    steps: list[tuple[Piece, int | str]] = []
    while len(steps) < length:
        fitting = [
            piece
            for piece in PIECES
            if not steps or (piece.takes == steps[-1][0].gives and all(piece is not used for used, _ in steps))
        ]
        if len(steps) < length - 1:  # nothing follows a truth value
            fitting = [piece for piece in fitting if piece.gives != "bool"]
        piece = draw.choice(fitting)
        steps.append((piece, draw.choice(piece.choices)))
    return Problem(tuple(steps))


def _item(problem: Problem, cases: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    task = ", then ".join(problem.sentences)
    lines = [problem.signature(), f'    """{task[0].upper()}{task[1:]}. Return the result.', ""]
    for argument, result in cases[:EXAMPLES]:
        lines += [f"    >>> {problem.name}({argument!r})", f"    {result!r}"]
    lines.append('    """')
    metadata = {
        "source_dataset": FUNCTIONS,
        "entry_point": problem.name,
        "tests": [{"arguments": [spell(argument)], "result": spell(result)} for argument, result in cases[EXAMPLES:]],
        "sentences": problem.sentences,
    }
    return {"question": PROMPT + "\n".join(lines), "answer": problem.solution(), "metadata": metadata}
