"""How an answer is handed in and read back: `\\boxed{...}`, `<answer>` or `<solution>`, in linear time on any text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from metaagentx.workflow.context import after_thinking

MATHEMATICS_INSTRUCTION = (
    "Write the key steps of your solution between <delivery> and </delivery>, and your final answer in \\boxed{}."
)
QA_INSTRUCTION = (
    "Write the key facts that you rely on between <delivery> and </delivery>, "
    "and your final answer between <answer> and </answer>."
)
CODE_INSTRUCTION = (
    "Write the key idea of your solution between <delivery> and </delivery>, "
    "and your complete program between <solution> and </solution>."
)
# For small models, whose later agents are shown the answers alone.
BRIEF_MATHEMATICS_INSTRUCTION = "Write short steps, then the final answer in \\boxed{}."
BRIEF_QA_INSTRUCTION = "Write the final answer between <answer> and </answer>."
BRIEF_CODE_INSTRUCTION = "Write the complete function between <solution> and </solution>."

_BRACE = re.compile(r"\\boxed\s*\{|\\[{}]|[{}]")  # escaped braces are matched to be passed over
_NUMBER = re.compile(r"([+-]?)(?=\.?[0-9])([0-9]{0,64})(?:\.([0-9]{0,64})|/([0-9]{1,64}))?")
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?")
_LATEX_FRACTION = re.compile(r"([+-]?)\\[dt]?frac\{([0-9]{1,64})\}\{([0-9]{1,64})\}")
_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[ \t]*$", re.MULTILINE)
_MARKUP = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\{([^{}]*)\}")


def last_boxed(text: str) -> str | None:
    """The content of the last `\\boxed{...}` with balanced braces (the inner one where they nest); None if blank."""
    best = (-1, -1)
    opened: list[int] = []  # where the content of each open brace starts; -1: not a box
    for brace in _BRACE.finditer(text):
        token = brace.group()
        if token.startswith("\\boxed"):
            opened.append(brace.end())
        elif token == "{":
            opened.append(-1)
        elif token == "}" and opened:
            start = opened.pop()
            if start > best[0]:
                best = (start, brace.start())
    return text[best[0] : best[1]].strip() or None if best[0] >= 0 else None


def last_tagged(text: str, tag: str, *, stripped: bool = True) -> str | None:
    """The content of the last closed `<tag>...</tag>`, or None if there is none or it is blank."""
    end = text.rfind(f"</{tag}>")
    start = text.rfind(f"<{tag}>", 0, max(end, 0))
    if end < 0 or start < 0:
        return None
    content = text[start + len(tag) + 2 : end]
    return (content.strip() if stripped else content) if content.strip() else None


def _print_number(value: Fraction) -> str:
    """A terminating decimal where the value has one ("0.5"), else a reduced fraction ("1/3")."""
    rest, places = value.denominator, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest //= prime
            power += 1
        places = max(places, power)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def normalise(answer: str) -> str:
    """One spelling for equal answers: "+07", "7.0" and "14/2" are "7", "1/2" is "0.5"; words lose case and spare space.

    Numbers are recognised up to 64 digits before and after the point; longer ones stay text.
    """
    text = " ".join(answer.split()).casefold().lstrip("$ ").rstrip("$ .")
    text = _MARKUP.sub(r"\1", text).strip()
    text = _LATEX_FRACTION.sub(r"\1\2/\3", text) if len(text) < 256 else text
    plain = text.replace(",", "") if _THOUSANDS.fullmatch(text) else text
    number = _NUMBER.fullmatch(plain.replace("- ", "-"))
    if number is None:
        return text
    sign, whole, decimals, denominator = number.groups()
    if denominator is not None and int(denominator) == 0:
        return text
    value = Fraction(int(whole + (decimals or "")), 10 ** len(decimals or "") * int(denominator or "1"))
    return _print_number(-value if sign == "-" else value)


@dataclass(frozen=True, slots=True)
class BoxedDelivery:
    """Answers in `\\boxed{...}` (a `task.Delivery`)."""

    instruction: str  # "" for a policy that was taught the format; MATHEMATICS_INSTRUCTION for one that was not
    limit: int = 2000  # characters of a message without answer that later agents are shown

    def __post_init__(self) -> None:
        if self.limit < 16:
            raise ValueError(f"delivery.limit must be at least 16 characters, not {self.limit}")

    def extract(self, text: str) -> str | None:
        """The content of the message's last `\\boxed{...}`."""
        return last_boxed(after_thinking(text))

    def normalise(self, answer: str) -> str:
        """See `normalise`."""
        return normalise(answer)

    def shorten(self, text: str) -> str:
        """The last delivery block, else the answer, else the text's first and last characters."""
        return _shorten(text, self.extract(text), self.limit)


@dataclass(frozen=True, slots=True)
class TaggedDelivery:
    """Answers between `<answer>` and `</answer>` (a `task.Delivery`), for questions that ask for words."""

    instruction: str
    limit: int = 2000

    def __post_init__(self) -> None:
        if self.limit < 16:
            raise ValueError(f"delivery.limit must be at least 16 characters, not {self.limit}")

    def extract(self, text: str) -> str | None:
        """The content of the message's last `<answer>...</answer>`."""
        return last_tagged(after_thinking(text), "answer")

    def normalise(self, answer: str) -> str:
        """See `normalise`."""
        return normalise(answer)

    def shorten(self, text: str) -> str:
        """The last delivery block, else the answer, else the text's first and last characters."""
        return _shorten(text, self.extract(text), self.limit)


@dataclass(frozen=True, slots=True)
class SolutionDelivery:
    """Programs between `<solution>` and `</solution>`, else in the last fenced Python block (a `task.Delivery`)."""

    instruction: str
    limit: int = 4000

    def __post_init__(self) -> None:
        if self.limit < 16:
            raise ValueError(f"delivery.limit must be at least 16 characters, not {self.limit}")

    def extract(self, text: str) -> str | None:
        """The program of the message's last `<solution>`, without a fence around it; else the last fenced one."""
        visible = after_thinking(text)
        tagged = last_tagged(visible, "solution", stripped=False)
        program = last_fenced(visible) if tagged is None else last_fenced(tagged) or tagged
        return None if program is None else program.strip("\r\n")

    def normalise(self, answer: str) -> str:
        """White space at the ends of lines and blank lines around the program do not count."""
        return "\n".join(line.rstrip() for line in answer.splitlines()).strip("\n")

    def shorten(self, text: str) -> str:
        """The last delivery block, else the program, else the text's first and last characters."""
        return _shorten(text, self.extract(text), self.limit)


def last_fenced(text: str) -> str | None:
    """The content of the last closed fence that is marked Python, or not marked; None if it is blank or missing."""
    found, opened = None, None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
            continue
        body = text[opened.end() + 1 : fence.start()]
        if opened[1].lower() in ("", "python", "py", "python3") and body.strip():
            found = body
        opened = None
    return found


def _shorten(text: str, answer: str | None, limit: int) -> str:
    visible = after_thinking(text).strip()
    delivered = last_tagged(visible, "delivery") or answer or visible
    if len(delivered) <= limit:
        return delivered
    half = (limit - 5) // 2
    return f"{delivered[:half]} ... {delivered[-half:]}"
